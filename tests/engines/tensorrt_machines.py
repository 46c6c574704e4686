"""What tests of plans share: a machine with a fake TensorRT, a tiny bundle, and a plan of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.bundle import Bundle, write_bundle
from engines.cuda import Cuda
from engines.manifest import Graph, Tensor
from engines.plan_build import Built, PlanBuilder
from engines.plan_serialize import BuildOptions
from engines.plan_shapes import Range, dimension_ranges, input_shapes
from engines.plans import InputShapes
from engines.runtime_tensorrt import TensorrtRuntime
from tests.engines.helpers import doubler, tiny_draft
from tests.fake_cuda import FakeGpu, fake_cudart
from tests.fake_tensorrt import FakeTensorrt

#: Of the tiny bundle: up to eight rows, and up to nine columns.
RANGES = {"N": Range(1, 4, 8), "w": Range(1, 4, 9)}
VERSIONS = ("10.3.0", "10.16.1.11", "11.4.0.106")


@dataclass
class FakeMachine:
    """A GPU, a TensorRT, and the tiny bundle."""

    bundle: Bundle
    folder: Path
    gpu: FakeGpu
    tensorrt: FakeTensorrt
    cuda: Cuda

    @property
    def graph(self) -> Graph:
        return self.bundle.graph("detector")

    def shapes(self, **ranges: Range) -> tuple[InputShapes, ...]:
        given = RANGES | ranges
        return input_shapes(self.graph, dimension_ranges(self.bundle.manifest, self.graph, given=given))

    def builder(self) -> PlanBuilder:
        return PlanBuilder(self.tensorrt.module, self.cuda)

    def build(self, options: BuildOptions | None = None, **more: Any) -> Built:
        shapes = more.pop("shapes", self.shapes())
        return self.builder().build(
            self.bundle, "detector", shapes, options or BuildOptions("fp32"), self.folder, **more
        )

    def runtime(self, **more: Any) -> TensorrtRuntime:
        return TensorrtRuntime(self.build().plan, self.graph, tensorrt=self.tensorrt.module, cuda=self.cuda, **more)


def tiny_machine(folder: Path, version: str = VERSIONS[1], **gpu: Any) -> FakeMachine:
    """A machine with the tiny bundle (y = 2 x + n) and no plan."""
    folder.mkdir(exist_ok=True)
    draft = tiny_draft()
    y = Tensor(name="y", dtype="float32", shape=("N", 2, "w"), meaning="2 x + n")
    graph = draft.graphs["detector"].model_copy(update={"outputs": (y,)})
    draft = draft.model_copy(update={"graphs": {"detector": graph}})
    where = folder / "bundle"
    bundle = write_bundle(where, draft, {"detector.onnx": doubler()})
    card = FakeGpu(**gpu)
    return FakeMachine(bundle, where / "plans", card, FakeTensorrt(card, version), Cuda(fake_cudart(card)))
