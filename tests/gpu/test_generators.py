"""Generators on a GPU: the published images in float32 with TF32 off, float16 near them, and nothing on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engines.runtime import Device
from engines.runtime_onnx import OnnxRuntime
from export.seeded import seeded_bundle
from stream.bench.engines import example_feeds
from tests.export.networks import IMAGE, TRUNCATED_IMAGE, assert_near, published
from tests.export.test_generators import GRAPHS, Exported, export_case, lattice
from tests.parity import STYLE_UNET, SURFACE_UNET, parity_cases

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(
    scope="module", params=parity_cases(STYLE_UNET) + parity_cases(SURFACE_UNET), ids=lambda case: case.name
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Every case, of full widths as well."""
    return export_case(request.param, tmp_path_factory.mktemp(request.param.name))


def test_the_image_in_float32_is_the_published_one(exported: Exported, device: Device) -> None:
    for wanted in (*published(exported.case, IMAGE), *published(exported.case, TRUNCATED_IMAGE)):
        feeds = exported.feeds("generator", wanted.truncation, device)
        assert_near(lattice(exported.image("generator", feeds, device), wanted), wanted.values)


def test_the_image_in_float16_is_within_two_hundredths(exported: Exported, device: Device) -> None:
    for wanted in (*published(exported.case, IMAGE), *published(exported.case, TRUNCATED_IMAGE)):
        feeds = exported.feeds("generator_fp16", wanted.truncation, device)
        assert_near(lattice(exported.image("generator_fp16", feeds, device), wanted), wanted.values, 2e-2)


@pytest.mark.parametrize("graph", GRAPHS)
def test_what_the_mask_hides_does_not_reach_the_output(exported: Exported, graph: str, device: Device) -> None:
    feeds = exported.feeds(graph)
    other = {"image": exported.inputs.repainted().image.numpy()}
    first = exported.image(graph, feeds, device)
    assert np.array_equal(exported.image(graph, feeds | other, device), first)
    # The control: what it shows does.
    assert not np.array_equal(
        exported.image(graph, feeds | {"image": feeds["image"] + 0.1 * feeds["mask"]}, device), first
    )


@pytest.mark.parametrize("name", ["dp2-person-cse", "dp2-person", "dp2-face", "sg-gan"])
def test_no_node_of_a_generator_of_the_published_size_is_on_the_cpu(name: str, gpu: Device, tmp_path: Path) -> None:
    bundle = seeded_bundle(name, tmp_path / name)
    for key in GRAPHS:
        graph = bundle.graph(key)
        with OnnxRuntime(bundle.file(graph.file), graph, device=gpu) as runtime:
            assert runtime.placement is not None
            assert runtime.placement.on_cpu == {}, f"{key}: {runtime.placement}"
            # A batch of the size of the benchmark.
            assert np.isfinite(runtime.run(example_feeds(graph, 8))["output"]).all()
