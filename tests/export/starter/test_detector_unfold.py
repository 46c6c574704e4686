from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engines.bundle import Bundle, open_bundle
from engines.errors import CheckpointError
from export.starter.detector import Inverted, PersonNetwork, fold
from export.starter.detector_data import PackedScenes
from export.starter.detector_training import DetectorOptions, DetectorTask, load_detector, train_detector
from export.starter.detector_unfold import check_surface, read_folded, unfold
from export.starter.training import Budget
from tests.export.starter.tiny_people import SIZE, SPEC, make_scenes, packed, template
from tests.export.starter.trained import ANCHORS, bundle_once, trained_once

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = DetectorOptions(spec=SPEC, size=SIZE, batch=2, anchors=ANCHORS, mixed=False)


def trained_network() -> PersonNetwork:
    """As training leaves it: statistics and scales that are all different."""
    torch.manual_seed(0)
    network = PersonNetwork(SPEC).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, std=0.3)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.3, 3)
    return network


def pictures(count: int = 24) -> list[Tensor]:
    random = torch.Generator().manual_seed(1)
    return [torch.randn(1, 3, *SIZE, generator=random) for _ in range(count)]


def looks(network: PersonNetwork, image: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([found.flatten(1) for found in network(image)], dim=1)


def test_it_says_what_the_folded_network_says_and_learns_with_the_statistics_of_its_pictures() -> None:
    first, seen = trained_network(), pictures()
    expected = looks(first, seen[0])
    folded = fold(copy.deepcopy(first)).state_dict()
    network = PersonNetwork(SPEC)
    unfold(network, folded, seen)
    assert torch.allclose(looks(network, seen[0]), expected, atol=1e-4)
    whole = torch.cat(seen)
    evaluated = looks(network, whole)
    network.train()
    # In training its own statistics are used: of the very pictures, they are the same.
    assert (looks(network, whole) - evaluated).abs().mean() < 0.01 * evaluated.abs().mean()
    norm = network.stem.norm
    assert isinstance(norm, nn.BatchNorm2d)
    given = network.stem.conv(whole)
    assert torch.allclose(norm.weight, (given.var(dim=(0, 2, 3), unbiased=False) + norm.eps).sqrt(), rtol=1e-3)


def test_weights_of_another_network_are_refused() -> None:
    folded = fold(trained_network()).state_dict()
    with pytest.raises(CheckpointError, match="differs"):
        unfold(PersonNetwork(replace(SPEC, fine=8)), folded, pictures(1))
    with pytest.raises(CheckpointError, match="differs"):
        unfold(PersonNetwork(replace(SPEC, blocks=(0, 1, 0, 0))), folded, pictures(1))
    other_kernel = {name: values[:, :, :1, :1] if values.ndim == 4 else values for name, values in folded.items()}
    with pytest.raises(CheckpointError, match="differs"):
        unfold(PersonNetwork(SPEC), other_kernel, pictures(1))


def test_a_wider_network_begins_as_the_one_whose_weights_it_is_given() -> None:
    first, seen = trained_network(), pictures()
    folded = fold(copy.deepcopy(first)).state_dict()
    network = PersonNetwork(replace(SPEC, widths=(10, 16, 24, 24, 40), pyramid=24, fine=20, expansion=3))
    unfold(network, folded, seen)
    assert torch.allclose(looks(network, seen[0]), looks(first, seen[0]), atol=1e-4)
    # What was learnt does not listen to the new channels yet, and learns to.
    read = network.get_parameter("stage8.0.conv.weight")
    assert not read[:16, 12:].any()
    assert read[16:, 12:].any()
    coarse, fine = network.train()(seen[0])
    torch.autograd.backward(coarse.pow(2).mean() + fine.pow(2).mean())
    assert read.grad is not None
    assert read.grad[:16, 12:].abs().max() > 0


def test_a_deeper_network_begins_as_the_one_whose_weights_it_is_given() -> None:
    first, seen = trained_network(), pictures()
    folded = fold(copy.deepcopy(first)).state_dict()
    network = PersonNetwork(replace(SPEC, blocks=(1, 2, 1, 1), head_blocks=(2, 2)))
    unfold(network, folded, seen)
    image = seen[0]
    assert torch.allclose(looks(network, image), looks(first, image), atol=1e-4)
    # Its further blocks learn: each one's last scale is what first gets a gradient.
    coarse, fine = network.train()(image)
    torch.autograd.backward(coarse.pow(2).mean() + fine.pow(2).mean())
    for name in ("stage4.1.second", "stage8.2.second", "coarse_blocks.1.narrow", "fine_blocks.1.second"):
        gradient = network.get_parameter(f"{name}.norm.weight").grad
        assert gradient is not None
        assert gradient.abs().max() > 0


def test_a_block_without_a_short_cut_cannot_begin_without_weights() -> None:
    with pytest.raises(ValueError, match="short cut"):
        Inverted(4, 8, 2).rest()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> PackedScenes:
    return packed(tmp_path_factory.mktemp("scenes"), make_scenes(6))


@pytest.fixture(scope="module")
def checkpoint(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_once(tmp_path_factory)


@pytest.fixture(scope="module")
def bundle(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    pytest.importorskip("onnxruntime", reason="exports are verified with it")
    return bundle_once(tmp_path_factory)


def test_a_training_may_begin_with_a_bundle(
    scenes: PackedScenes, checkpoint: Path, bundle: Bundle, tmp_path: Path
) -> None:
    again = train_detector(scenes, template(), tmp_path, Budget(steps=0), OPTIONS, weights=bundle.path, seed=5)
    first, second = load_detector(checkpoint), load_detector(again)
    image = pictures(1)[0]
    assert torch.allclose(looks(second.network, image), looks(first.network, image), atol=1e-3)
    np.testing.assert_array_equal(first.embeddings, second.embeddings)


def test_a_network_is_compiled_after_its_weights_are_taken_over(
    scenes: PackedScenes, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hooks that measure statistics make a compiled network compile again at each layer, until torch gives it up."""
    compiled: list[nn.Module] = []

    def note(module: nn.Module) -> None:
        compiled.append(module)

    monkeypatch.setattr(nn.Module, "compile", note)
    task = DetectorTask(scenes, template(), replace(OPTIONS, compiled=True), 0)
    task.begin_with_bundle(bundle)
    assert compiled == []
    task.begin(0)
    assert compiled == [task.network]


def test_a_bundle_of_another_surface_or_another_kind_is_refused(
    scenes: PackedScenes, bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="another surface"):
        train_detector(scenes, template(), tmp_path, Budget(steps=0), replace(OPTIONS, anchors=7), weights=bundle.path)
    with pytest.raises(CheckpointError, match="another surface"):
        check_surface(bundle, np.ones((3, 16), np.float32))


def test_the_bundle_that_comes_with_the_project_can_be_begun_with() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    shipped = open_bundle(Path(__file__).parents[3] / "engines" / "starter" / "starter-detector")
    network = PersonNetwork(DetectorOptions().spec)
    unfold(network, read_folded(shipped), [torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))])
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        _, fine = network(image)
    graph = onnxruntime.InferenceSession(shipped.file("detector.onnx"), providers=["CPUExecutionProvider"])
    (pixels,) = graph.run(["pixels"], {"image": image.numpy(), "image_size": np.array([[64, 96]], np.int64)})
    np.testing.assert_allclose(fine.numpy(), pixels, atol=1e-2)
