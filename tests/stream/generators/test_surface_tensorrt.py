"""SG-GAN's tables where TensorRT runs the generator: what travels with a run depends on what plans for shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.bundle import Bundle
from engines.cuda import Cuda
from engines.plan_build import PlanBuilder
from engines.plan_serialize import BuildOptions
from engines.plan_shapes import Range, dimension_ranges, input_shapes
from engines.runtime import Runtime
from engines.runtime_tensorrt import TensorrtRuntime
from stream.generators.surface import SurfaceGenerator
from stream.latents import Latents, Truncation
from stream.regions import Kind
from tests.fake_cuda import FakeGpu, fake_cudart
from tests.fake_tensorrt import FakeTensorrt
from tests.generator_bundles import HEIGHT, TABLES, VERTICES, WIDTH, Watched, crops, inputs_of, write_surface

BYTES = 4 * (VERTICES + 2) * sum(TABLES)
SOON = 20.0


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_surface(tmp_path / "b")


def make(bundle: Bundle, unet: Runtime) -> SurfaceGenerator:
    """A generator with four slots."""
    return SurfaceGenerator(
        Watched(bundle, "mapping"),
        unet,
        kind=Kind.PERSON,
        size=(HEIGHT, WIDTH),
        inputs=inputs_of(bundle),
        truncation=Truncation(0.7),
        latents=Latents(0),
        budget=4 * BYTES,
    )


def built(generator: SurfaceGenerator, *track_ids: int) -> SurfaceGenerator:
    generator.request(track_ids)
    generator.wait(track_ids, SOON)
    return generator


class OnTensorRt(Watched):
    """Says that it runs there."""

    def __init__(self, bundle: Bundle, provider: str) -> None:
        super().__init__(bundle, "generator")
        self._said = provider

    @property
    def device(self) -> Any:
        return "tensorrt"

    @property
    def provider(self) -> str:
        return self._said


@pytest.mark.parametrize(
    ("provider", "slots"),
    [
        # It makes a plan for each shape.
        ("TensorrtExecutionProvider", [4, 4, 4]),
        # A plan for all of them was made before; what nobody needs does not travel.
        ("TensorRT 10.16.1.11", [1, 2, 1]),
    ],
)
def test_tensorrt_sees_tables_of_one_shape_only_where_it_plans_for_shapes(
    bundle: Bundle, provider: str, slots: list[int]
) -> None:
    unet = OnTensorRt(bundle, provider)
    generator = make(bundle, unet)
    one = built(generator, 1).generate(crops(1)).output
    built(generator, 1, 2).generate(crops(1, 2))
    built(generator, 1, 2).generate(crops(2))
    assert [len(feeds["table_0"]) for feeds in unet.fed] == slots
    generator.close()
    elsewhere = make(bundle, Watched(bundle, "generator"))
    assert np.array_equal(built(elsewhere, 1).generate(crops(1)).output, one)
    elsewhere.close()


def test_a_plan_for_fewer_slots_has_room_for_fewer_tracks_and_gets_tables_once(bundle: Bundle, tmp_path: Path) -> None:
    gpu = FakeGpu()
    tensorrt, cuda = FakeTensorrt(gpu), Cuda(fake_cudart(gpu))
    graph = bundle.graph("generator")
    shapes = input_shapes(graph, dimension_ranges(bundle.manifest, graph, given={"S": Range(1, 2, 2)}))
    builder = PlanBuilder(tensorrt.module, cuda)
    plan = builder.build(bundle, "generator", shapes, BuildOptions("fp32"), tmp_path / "plans").plan
    runtime = TensorrtRuntime(plan, graph, tensorrt=tensorrt.module, cuda=cuda)
    assert set(runtime.largest.items()) == {("table_0", 2), ("table_1", 2)}
    generator = make(bundle, runtime)
    assert generator.capacity == 2
    here = make(bundle, Watched(bundle, "generator"))
    crop = crops(1, 2)
    output = built(generator, 1, 2, 3).generate(crop).output
    np.testing.assert_allclose(output, built(here, 1, 2).generate(crop).output, atol=1e-5)
    # Nobody has to wait for the third, who is covered classically.
    assert generator.generate(crops(1, 3)).done.tolist() == [True, False]
    uploaded = gpu.copies["cudaMemcpyHostToDevice"]
    generator.generate(crop)
    # The picture, the mask, the vertices, the embedding and the slots; not the tables.
    assert gpu.copies["cudaMemcpyHostToDevice"] - uploaded == len(graph.inputs) - 2
    generator.close()
    here.close()
