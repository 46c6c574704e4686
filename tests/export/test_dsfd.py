from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engines.bundle import Bundle, open_bundle
from engines.errors import CheckpointError, UsageError
from engines.importers.reference import drawn_picture
from engines.runtime import open_runtime
from export.dsfd import export_dsfd, load_dsfd
from export.models.dsfd import MEAN, Dsfd, DsfdSpec
from stream.detectors.single_stage import SingleStageDetector
from stream.frame import Frame
from stream.regions import Kind


def _network() -> Dsfd:
    torch.manual_seed(3)
    return Dsfd(DsfdSpec((1, 1, 1, 1))).eval()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dsfd") / "dsfd.pth"
    torch.save(_network().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_dsfd(checkpoint, tmp_path_factory.mktemp("made") / "dsfd", input_size=(96, 128))


@pytest.mark.slow
def test_the_bundle_says_what_it_is(bundle: Bundle, checkpoint: Path) -> None:
    manifest = open_bundle(bundle.path).manifest
    assert (manifest.name, manifest.task, manifest.family, manifest.kinds) == ("dsfd", "detection", "dsfd", ("face",))
    assert manifest.normalisation.mean == MEAN
    assert manifest.provenance.artefact == checkpoint.name
    assert bundle.graph("detector").inputs[0].shape == ("N", 3, 96, 128)
    assert [tensor.name for tensor in bundle.graph("detector").outputs] == [
        "boxes",
        "scores",
        "classes",
        "count",
        "floor",
    ]
    outputs = {result.output for result in manifest.parity}
    assert outputs == {"scores of all priors", "boxes of all priors", "scores", "boxes"}
    assert [path.name for path in bundle.path.parent.iterdir()] == ["dsfd"]


@pytest.mark.slow
def test_the_detector_returns_the_networks_best_boxes(bundle: Bundle) -> None:
    pictures = np.concatenate([drawn_picture(96, 128, seed) for seed in (5, 6)])
    image = (pictures - np.array(MEAN, np.float32).reshape(1, 3, 1, 1)).astype(np.float32)
    with torch.no_grad():
        scores, boxes = _network()(torch.from_numpy(image))
    with open_runtime(bundle) as runtime:
        found = runtime.run({"image": image, "image_size": np.array([[96, 128]] * 2, np.int64)})
    for row in (0, 1):
        pixels = (boxes[row] * torch.tensor([128, 96, 128, 96])).numpy()
        centres = (pixels[:, :2] + pixels[:, 2:]) / 2
        inside = (centres < [128, 96]).all(axis=1) & (pixels[:, 2:] > 0).all(axis=1)
        best = int(np.where(inside, scores[row, :, 1].numpy(), 0).argmax())
        assert found["count"][row] > 0
        assert found["scores"][row, 0] == pytest.approx(float(scores[row, best, 1]), abs=1e-4)
        np.testing.assert_allclose(found["boxes"][row, 0], pixels[best], atol=0.1)


@pytest.mark.slow
def test_the_bundle_runs_as_a_detector_of_faces(bundle: Bundle) -> None:
    frame = Frame(np.ascontiguousarray(drawn_picture(120, 200, 7)[0].transpose(1, 2, 0).astype(np.uint8)))
    with open_runtime(bundle) as runtime:
        regions = SingleStageDetector(bundle, runtime, longest=1280, threshold=0.02).detect(frame)
    assert len(regions)
    assert set(regions.kinds) == {Kind.FACE}


def test_a_checkpoint_of_an_old_torch_without_counters_loads(checkpoint: Path, tmp_path: Path) -> None:
    state = torch.load(checkpoint, weights_only=True)
    plain = {f"module.{name}": value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    torch.save({"state_dict": plain}, tmp_path / "old.pth")
    loaded = load_dsfd(tmp_path / "old.pth").state_dict()
    assert torch.equal(loaded["layer1.0.weight"], state["layer1.0.weight"])
    assert set(loaded) == set(state)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"smooth1.weight": None}, "smooth1.weight"),
        ({"smooth1.bias": torch.zeros(3)}, r"smooth1.bias is \(3,\)"),
        ({"smooth1.bias": torch.full((256,), torch.nan)}, "smooth1.bias is not made of finite"),
        ({"smooth1.bias": torch.zeros(256, dtype=torch.int64)}, "smooth1.bias is not made of finite"),
        ({"layer1.4.0.conv3.weight": None}, "no DSFD"),
    ],
)
def test_what_is_no_complete_dsfd_is_refused(
    checkpoint: Path, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    state = torch.load(checkpoint, weights_only=True, mmap=True) | changes
    torch.save({name: value for name, value in state.items() if value is not None}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=says) as caught:
        export_dsfd(tmp_path / "other.pth", tmp_path / "out")
    assert str(tmp_path) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_options_that_cannot_be_meant_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="opset"):
        export_dsfd(checkpoint, tmp_path / "out", opset=11)
    with pytest.raises(UsageError, match="too small"):
        export_dsfd(checkpoint, tmp_path / "out", input_size=(8, 640))
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="not an empty folder"):
        export_dsfd(checkpoint, tmp_path / "file")
