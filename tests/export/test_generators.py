"""From a checkpoint to a bundle that computes what the published code does, on every runtime that needs no GPU.

Every small parity case is exported as `standin export` does it, both precisions, with a config of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engines.bundle import Bundle
from engines.errors import CheckpointError, UsageError
from engines.manifest import Generation
from engines.runtime import Device, open_runtime
from engines.runtime_onnx import OnnxRuntime
from export.configs import configs
from export.generators import export_generator
from export.seeded import published_spec, random_network
from stream.generators.open import open_generator
from stream.latents import Latents, truncate
from tests.export.bundles import crops_of, embeddings_of, refused_by_tensorrt, write_without_the_guard
from tests.export.helpers import config_of
from tests.export.networks import (
    IMAGE,
    TRUNCATED_IMAGE,
    Inputs,
    Published,
    assert_near,
    inputs_of,
    published,
    vertex_map,
)
from tests.export.shared import checkpoint, exported_once
from tests.parity import STYLE_UNET, SURFACE_UNET, ParityCase, parity_cases

Feeds = dict[str, NDArray[Any]]

#: Full widths take minutes: `models/` compares them with the published code in torch, `test_full_size.py` exports some.
CASES = [case for case in parity_cases(STYLE_UNET) + parity_cases(SURFACE_UNET) if not case.name.endswith("_full")]
GRAPHS = ("generator", "generator_fp16")
devices = pytest.mark.parametrize("device", ["cpu", "openvino"])
graphs = pytest.mark.parametrize("graph", GRAPHS)


@dataclass(frozen=True)
class Exported:
    """A parity case, its bundle, and what its graphs are fed."""

    case: ParityCase
    inputs: Inputs
    bundle: Bundle

    @property
    def generation(self) -> Generation:
        generation = self.bundle.manifest.generation
        assert generation is not None
        return generation

    def feeds(self, graph: str, truncation: float = 1.0, device: Device = "cpu") -> Feeds:
        """The case's inputs for a graph, with what the bundle's own mapping makes of its z."""
        inputs = self.inputs
        given: dict[str, Any] = {
            "image": inputs.image,
            "mask": inputs.mask,
            "embedding": inputs.embedding,
            "embedding_mask": inputs.body,
        }
        feeds = {name: tensor.numpy() for name, tensor in given.items() if tensor is not None}
        z = inputs.z.numpy()
        with open_runtime(self.bundle, "mapping", device=device) as mapping:
            if self.generation.architecture == "v-sam":
                amount = np.array([truncation], np.float32)
                made = [mapping.run({"z": z[i : i + 1], "truncation": amount}) for i in range(len(z))]
                feeds |= {name: np.stack([tables[name] for tables in made]) for name in made[0]}
                feeds["vertices"] = vertex_map(inputs, self.generation.vertices).numpy()
                feeds["slot"] = np.arange(len(z), dtype=np.int64)
            else:
                w = mapping.run({"z": z})["w"]
                feeds["w"] = truncate(w, self.bundle.array("w_avg"), truncation)
        declared = self.bundle.graph(graph).inputs
        return {tensor.name: feeds[tensor.name].astype(tensor.dtype) for tensor in declared}

    def image(self, graph: str, feeds: Feeds, device: Device) -> torch.Tensor:
        with open_runtime(self.bundle, graph, device=device) as runtime:
            return torch.from_numpy(runtime.run(feeds)["output"])


def export_case(case: ParityCase, folder: Path) -> Exported:
    bundle = export_generator(case.name, checkpoint(folder, case.name), folder / "bundle", config=config_of(case))
    return Exported(case, inputs_of(case), bundle)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    case: ParityCase = request.param
    return Exported(case, inputs_of(case), exported_once(tmp_path_factory, case.name))


def test_tensorrt_takes_every_graph(exported: Exported) -> None:
    assert refused_by_tensorrt(exported.bundle) == []


def lattice(image: torch.Tensor, wanted: Published) -> torch.Tensor:
    return image[..., :: wanted.step, :: wanted.step]


@devices
def test_the_image_of_the_float32_engine_is_the_published_one(exported: Exported, device: Device) -> None:
    for wanted in (*published(exported.case, IMAGE), *published(exported.case, TRUNCATED_IMAGE)):
        feeds = exported.feeds("generator", wanted.truncation, device)
        assert_near(lattice(exported.image("generator", feeds, device), wanted), wanted.values)


@devices
def test_the_image_of_the_float16_engine_is_within_a_hundredth(exported: Exported, device: Device) -> None:
    """Relative to the published image, both by the largest values and by root mean square."""
    for wanted in (*published(exported.case, IMAGE), *published(exported.case, TRUNCATED_IMAGE)):
        feeds = exported.feeds("generator_fp16", wanted.truncation, device)
        expected = wanted.values.double()
        difference = lattice(exported.image("generator_fp16", feeds, device), wanted).double() - expected
        assert difference.abs().max() <= 1e-2 * expected.abs().max()
        assert difference.square().mean().sqrt() <= 1e-2 * expected.square().mean().sqrt()
        # Float32 by another name would be as near as float32.
        assert difference.abs().max() > 1e-4


def test_what_was_measured_is_in_the_manifest(exported: Exported) -> None:
    parity = exported.bundle.manifest.parity
    assert {entry.graph for entry in parity} == {"mapping", *GRAPHS}
    for entry in parity:
        assert entry.measured is not None
        assert 0 < entry.measured <= entry.tolerance
        assert entry.measure == ("rms" if entry.graph == "generator_fp16" else "largest")
    layers = {activation.layer: activation.largest for activation in exported.generation.activations}
    assert {"from_rgb.convolution", "to_rgb.convolution"} <= set(layers)
    assert all(0 < largest < 30_000 for largest in layers.values())


@devices
@graphs
def test_what_the_mask_hides_does_not_reach_the_output(exported: Exported, graph: str, device: Device) -> None:
    feeds = exported.feeds(graph)
    other = {"image": exported.inputs.repainted().image.numpy()}
    assert not np.array_equal(other["image"], feeds["image"])
    first = exported.image(graph, feeds, device)
    assert torch.equal(exported.image(graph, feeds | other, device), first)
    shown = {"image": feeds["image"] + 0.1 * feeds["mask"]}
    assert not torch.equal(exported.image(graph, feeds | shown, device), first)


@graphs
def test_control_without_the_multiplication_it_does(exported: Exported, graph: str, tmp_path: Path) -> None:
    feeds = exported.feeds(graph)
    other = {"image": exported.inputs.repainted().image.numpy()}
    write_without_the_guard(exported.bundle, graph, tmp_path / "broken.onnx")
    with OnnxRuntime(tmp_path / "broken.onnx", exported.bundle.graph(graph), device="cpu") as runtime:
        assert not np.array_equal(runtime.run(feeds | other)["output"], runtime.run(feeds)["output"])


@devices
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_tracks_stand_in_does_not_depend_on_who_else_is_there(
    exported: Exported, precision: Any, device: Device
) -> None:
    alone = crops_of(exported.generation, tracks=(7,), looks=(7,))
    crowd = crops_of(exported.generation, tracks=(3, 7, 5), looks=(1, 7, 7))
    latents = Latents(seed=1, channels=exported.generation.z_channels)
    given = embeddings_of(exported.generation)
    generator = open_generator(exported.bundle, device=device, precision=precision, latents=latents, embeddings=given)
    try:
        outputs = []
        for crops in (alone, crowd, alone):
            generator.request(crops.track_ids)
            assert generator.wait(crops.track_ids, timeout=60).all()
            outputs.append(generator.generate(crops).output)
    finally:
        generator.close()
    first, among, again = outputs
    assert np.array_equal(among[1], first[0])
    assert np.array_equal(again, first)
    # The same crop with another z is another stand-in.
    assert not np.array_equal(among[2], first[0])


@pytest.mark.parametrize("case", ["dp2_face_small", pytest.param("sggan_small", marks=pytest.mark.thorough)])
def test_only_the_asked_for_precision_is_exported_and_progress_is_told(case: str, tmp_path: Path) -> None:
    told: list[str] = []
    path = checkpoint(tmp_path, case)
    options: dict[str, Any] = {"config": config_of(case), "progress": told.append}
    bundle = export_generator(case, path, tmp_path / "bundle", precision="fp16", **options)
    assert set(bundle.manifest.graphs) == {"mapping", "generator_fp16"}
    assert [line.split()[0] for line in told if not line.startswith("warning")] == [
        "reading", "computing", "exporting", "verifying", "exporting", "verifying", "writing",
    ]  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "config"), [("dp2-face", "dp2-face-128"), ("sg-gan", "sg-gan-d")])
def test_declared_configs_without_a_parity_case_are_exported_too(name: str, config: str, tmp_path: Path) -> None:
    declared = configs()[config]
    network = random_network(published_spec(declared, width=8, widest=16, vertices=200))
    torch.save({"EMA_generator": network.state_dict()}, tmp_path / "checkpoint.ckpt")
    bundle = export_generator(name, tmp_path / "checkpoint.ckpt", tmp_path / "b", config=config, precision="fp32")
    generation = bundle.manifest.generation
    assert generation is not None
    assert (generation.config, generation.image_size) == (config, declared.image_size)
    assert bundle.manifest.name == name


def test_a_config_for_another_export_is_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, "dp2_face_small")
    with pytest.raises(UsageError, match="dp2_face_small"):
        export_generator("dp2-face", path, tmp_path / "bundle", config=config_of("dp2_face_small"))


@pytest.mark.parametrize(
    ("prepare", "error", "text"),
    [
        (lambda folder: checkpoint(folder, "sggan_small"), CheckpointError, "not"),
        (lambda folder: folder / "missing.ckpt", CheckpointError, "missing.ckpt"),
    ],
)
def test_a_failure_leaves_nothing(
    prepare: Callable[[Path], Path], error: type[Exception], text: str, tmp_path: Path
) -> None:
    path = prepare(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=text):
        export_generator("dp2-person", path, tmp_path / "deep" / "bundle", config="dp2-person")
    assert sorted(tmp_path.iterdir()) == before


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, "dp2_face_small")
    with pytest.raises(UsageError, match="not an empty folder"):
        export_generator("dp2-face", path, tmp_path, config="dp2-face")
    assert list(tmp_path.iterdir()) == [path]
