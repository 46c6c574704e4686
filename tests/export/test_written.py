from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.detector_tensors import decided_tensors
from engines.errors import ExportError
from engines.manifest import Graph
from engines.manifest import Tensor as Declared
from engines.runtime_onnx import OnnxRuntime
from export.graphs import GraphPlan
from export.to_onnx import DEFAULT_OPSET
from export.written import write_and_compare, write_and_compare_pair

X = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
PICTURES = np.array([[0.0, 0.0], [0.9, 0.5]], np.float32)


class Doubler(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class Finder(nn.Module):
    """A box of each picture (N,2) whose first value, its score, is more than 0."""

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        scores = picture[:, :1]
        boxes = torch.cat([0 * picture, 10 + picture], dim=1)[:, None]
        return boxes, scores, (0 * scores).long(), (scores[:, 0] > 0).long(), 0 * scores[:, 0]


def doubler() -> GraphPlan:
    x, y = (Declared(name=name, dtype="float32", shape=("N", 3), meaning="numbers") for name in "xy")
    return GraphPlan("heads", "heads.onnx", Doubler(), (x,), (y,), {"x": X})


def finder(pictures: NDArray[np.float32]) -> tuple[GraphPlan, dict[str, NDArray[Any]]]:
    """The graph, and what it has to give."""
    given = Declared(name="picture", dtype="float32", shape=("N", 2), meaning="score and size")
    outputs = decided_tensors(1, boxes="pixels", scores="descending", classes="index into kinds", floor="always 0")
    plan = GraphPlan("detector", "detector.onnx", Finder(), (given,), outputs, {"picture": pictures})
    made = Finder()(torch.from_numpy(pictures))
    return plan, {tensor.name: values.numpy() for tensor, values in zip(outputs, made, strict=True)}


def test_a_graph_is_written_and_then_compared(tmp_path: Path) -> None:
    plan, said = doubler(), list[str]()
    (found,) = write_and_compare(plan, {"y": 2 * X}, tmp_path, DEFAULT_OPSET, said.append)
    assert (found.graph, found.output, found.largest_difference) == ("heads", "y", 0)
    assert said == ["exporting heads.onnx", "verifying heads.onnx"]
    graph = Graph(file=plan.file, inputs=plan.inputs, outputs=plan.outputs)
    with OnnxRuntime(tmp_path / "heads.onnx", graph, device="cpu") as runtime:
        np.testing.assert_array_equal(runtime.run({"x": X[:1] + 1})["y"], 2 * X[:1] + 2)


def test_a_graph_that_gives_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"heads\.onnx differs"):
        write_and_compare(doubler(), {"y": 2.1 * X}, tmp_path, DEFAULT_OPSET, list[str]().append)


def test_a_pair_is_compared_by_boxes_and_by_what_the_heads_give(tmp_path: Path) -> None:
    said = list[str]()
    parity = write_and_compare_pair(finder(PICTURES), (doubler(), {"y": 2 * X}), tmp_path, DEFAULT_OPSET, said.append)
    assert [(result.graph, result.output) for result in parity] == [
        ("detector", "boxes"),
        ("detector", "scores"),
        ("heads", "y"),
    ]
    assert said == [f"{doing} {name}.onnx" for name in ("detector", "heads") for doing in ("exporting", "verifying")]


def test_a_pair_says_that_no_box_was_compared(tmp_path: Path) -> None:
    said = list[str]()
    parity = write_and_compare_pair(
        finder(0 * PICTURES), (doubler(), {"y": 2 * X}), tmp_path, DEFAULT_OPSET, said.append
    )
    assert [result.output for result in parity] == ["y"]
    assert said[-1].startswith("warning: nothing was found")


@pytest.mark.parametrize("wrong", ["detector", "heads"])
def test_either_of_a_pair_may_be_refused(tmp_path: Path, wrong: str) -> None:
    (plan, expected), off = finder(PICTURES), 0.1
    if wrong == "detector":
        expected["scores"] = expected["scores"] + np.float32(off)
    heads = {"y": 2 * X + (off if wrong == "heads" else 0)}
    with pytest.raises(ExportError, match=rf"{wrong}\.onnx differs"):
        write_and_compare_pair((plan, expected), (doubler(), heads), tmp_path, DEFAULT_OPSET, list[str]().append)
