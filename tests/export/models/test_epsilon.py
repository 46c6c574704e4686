"""Small constants in exported graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engines.manifest import Graph
from engines.manifest import Tensor as Declared
from engines.runtime_onnx import OnnxRuntime
from export.graphs import GraphPlan
from export.models.epsilon import plus
from export.to_onnx import write_onnx


class Deviation(nn.Module):
    """Divides by the deviation, with what keeps that from being 0 added one way or the other."""

    def __init__(self, epsilon: float, *, guarded: bool) -> None:
        super().__init__()
        self.epsilon, self.guarded = epsilon, guarded

    def forward(self, x: Tensor) -> Tensor:
        mean = x.square().mean(dim=1, keepdim=True)
        return x * (plus(mean, self.epsilon) if self.guarded else mean + self.epsilon).rsqrt()


def exported(module: nn.Module, path: Path, given: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> bool:
    """Whether the graph gives what the module does."""
    declared = [Declared(name=name, dtype="float32", shape=("N", 4), meaning="a test") for name in ("x", "y")]
    plan = GraphPlan("g", "g.onnx", module, (declared[0],), (declared[1],), {"x": np.ones((2, 4), np.float32)})
    write_onnx(plan, path)
    with OnnxRuntime(path, Graph(file="g.onnx", inputs=plan.inputs, outputs=plan.outputs), device="cpu") as runtime:
        found = runtime.run({"x": given})["y"]
    return bool(np.allclose(found, module(torch.from_numpy(given)).numpy(), rtol=1e-5))


@pytest.mark.parametrize("epsilon", [1e-5, 1e-8, 1e-10])
@pytest.mark.parametrize("size", [0.0, 1e-5, 1.0])
def test_the_exported_graph_adds_it_too(epsilon: float, size: float, tmp_path: Path) -> None:
    given = np.full((2, 4), size, np.float32)
    assert exported(Deviation(epsilon, guarded=True), tmp_path / "g.onnx", given)


def test_control_a_plain_sum_is_left_out(tmp_path: Path) -> None:
    assert not exported(Deviation(1e-8, guarded=False), tmp_path / "g.onnx", np.zeros((2, 4), np.float32))
