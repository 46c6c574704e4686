from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.bundle import Bundle
from engines.store import Store
from export.tensorrt_checks import Problem, check_onnx
from tests.detector_bundles import write_two_stage
from tests.generator_bundles import write_surface, write_unet


def model(
    nodes: Sequence[onnx.NodeProto],
    *,
    kind: int = TensorProto.FLOAT,
    opset: int = 18,
    shape: Sequence[int] = (1, 3, 8, 8),
    constants: dict[str, Any] | None = None,
    outputs: Sequence[str] = ("y",),
) -> onnx.ModelProto:
    """A graph from `x` to `y` with some nodes."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", kind, list(shape))],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def found(graph: onnx.ModelProto) -> list[str]:
    return [f"{problem.severity}: {problem.text}" for problem in check_onnx(graph)]


def resize(**attributes: Any) -> onnx.ModelProto:
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], name="/up", **attributes)
    return model([node], constants={"scales": np.array([1, 1, 2, 2], np.float32)})


def topk(count: int, **attributes: Any) -> onnx.ModelProto:
    node = helper.make_node("TopK", ["x", "k"], ["y", "i"], **attributes)
    return model([node], shape=(1, 9000), constants={"k": np.array([count])})


BOXES = {"s": np.zeros((1, 1, 4), np.float32), "most": np.array(4), "overlap": np.array(0.5, np.float32)}


def bounded_topk(most: int | None) -> onnx.ModelProto:
    """As many as there are, or a number that is fewer."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["size"]),
        helper.make_node("Min", ["size", "most"], ["least"] if most else ["unused"]),
        helper.make_node("Cast", ["least" if most else "size"], ["k"], to=TensorProto.INT64),
        helper.make_node("TopK", ["x", "k"], ["y", "i"]),
    ]
    return model(nodes, shape=(1, 9000), constants={"one": np.array([1]), "most": np.array([most or 1])})


def suppression(*inputs: str) -> onnx.ModelProto:
    node = helper.make_node("NonMaxSuppression", ["x", "s", *inputs], ["y"])
    return model([node], shape=(1, 4, 4), constants=BOXES)


ROIS = {"rois": np.zeros((2, 4), np.float32), "index": np.zeros(2, np.int64)}


def roi_align(opset: int = 18, **attributes: Any) -> onnx.ModelProto:
    return model(
        [helper.make_node("RoiAlign", ["x", "rois", "index"], ["y"], **attributes)], opset=opset, constants=ROIS
    )


def one(operator: str, *more: str, **rest: Any) -> onnx.ModelProto:
    attributes = {name: rest.pop(name) for name in list(rest) if name not in ("kind", "shape", "opset", "constants")}
    return model([helper.make_node(operator, ["x", *more], ["y"], **attributes)], **rest)


SUITS = [
    resize(mode="linear", coordinate_transformation_mode="half_pixel"),
    resize(mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    topk(3839),
    bounded_topk(3800),
    roi_align(mode="avg", sampling_ratio=0, coordinate_transformation_mode="half_pixel"),
    one("Relu"),
    one("MatMul", "w", constants={"w": np.zeros((8, 8), np.float32)}),
    one("Cast", kind=TensorProto.UINT8, to=TensorProto.FLOAT),
    one("Gather", "i", constants={"i": np.array([-1, 0])}),
]


@pytest.mark.parametrize("graph", SUITS, ids=lambda graph: graph.graph.node[0].op_type)
def test_what_tensorrt_takes_has_no_problem(graph: onnx.ModelProto) -> None:
    assert check_onnx(graph) == []


REFUSED = [
    (resize(mode="linear", antialias=1), "error: it is antialiased"),
    (resize(mode="cubic"), "error: its mode is 'cubic'"),
    (resize(mode="linear", coordinate_transformation_mode="tf_crop_and_resize"), "error: its coordinates"),
    (resize(mode="linear", keep_aspect_ratio_policy="not_larger"), "error: it keeps the aspect ratio"),
    (resize(mode="linear", exclude_outside=1), "error: it excludes"),
    (topk(3840), "error: K is 3840; TensorRT takes less than 3840"),
    (bounded_topk(4000), "error: K may be 4000; TensorRT takes less than 3840"),
    (bounded_topk(None), "warning: K is computed; it must stay below 3840"),
    (topk(10, sorted=0), "error: it is not sorted"),
    (suppression(), "error: it says no number of boxes"),
    (suppression("most", "overlap"), "note: how many boxes it gives depends"),
    (roi_align(coordinate_transformation_mode="half_pixel"), "error: it has no sampling_ratio"),
    (roi_align(15, sampling_ratio=2), "warning: before opset 16"),
    (one("Add", "x", kind=TensorProto.UINT8), "error: x is uint8, which TensorRT takes for inputs"),
    (one("Add", "x", kind=TensorProto.DOUBLE), "warning: x is float64"),
    (one("Add", "x", kind=TensorProto.UINT32), "error: x is TensorProto.UINT32"),
    (one("MatMul", "x", kind=TensorProto.INT64), "error: it computes on int64, TensorRT has it for floats only"),
    (one("CumSum", "a", kind=TensorProto.INT64, constants={"a": np.array(0)}), "warning: it computes on int64"),
    (one("Equal", "x", kind=TensorProto.BOOL), "warning: it computes on truth values"),
    (one("Unique"), "error: TensorRT does not know it"),
    (one("NonZero"), "note: what runs depends on data"),
    (one("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]), "error: it is dilated"),
    (one("Gather", "i", constants={"i": np.array([2**40])}), "error: its indices do not fit 32 bits"),
    (one("Relu", opset=8), "error: the opset is 8, TensorRT takes 9 to 25"),
    (one("Relu", opset=23), "warning: the opset is 23, TensorRT 10.0 is documented up to 20"),
    (one("ReduceSum", "axes"), "error: its input 1 .axes. has to be a constant"),
]


@pytest.mark.parametrize(("graph", "problem"), REFUSED, ids=[text for _, text in REFUSED])
def test_what_tensorrt_does_not_take_is_said(graph: onnx.ModelProto, problem: str) -> None:
    problem = problem.replace(".axes.", "(axes)")
    assert any(text.startswith(problem) for text in found(graph)), found(graph)


def test_a_problem_names_the_node() -> None:
    (problem,) = check_onnx(resize(mode="cubic"))
    assert problem == Problem("/up", "Resize", "error", problem.text)
    assert str(problem).startswith("error: Resize /up: its mode is 'cubic'")


def test_operators_of_others_are_errors() -> None:
    node = helper.make_node("Fancy", ["x"], ["y"], domain="com.example")
    graph = model([node])
    graph.opset_import.append(helper.make_opsetid("com.example", 1))
    assert found(graph) == ["error: it is an operator of 'com.example', which TensorRT does not know"]


def test_the_worst_comes_first() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["z"]),
        helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="cubic"),
    ]
    graph = model(nodes, constants={"scales": np.array([1, 1, 2, 2], np.float32)}, outputs=("y", "z"))
    assert [problem.severity for problem in check_onnx(graph)] == ["error", "note"]


def problems_of(bundle: Bundle) -> set[tuple[str, str, str]]:
    """Graph, operator and severity of everything but notes, in graphs that get plans."""
    return {
        (name, problem.operator, problem.severity)
        for name, graph in bundle.manifest.graphs.items()
        if name not in bundle.manifest.quantized
        for problem in check_onnx(onnx.load(bundle.file(graph.file)))
        if problem.severity != "note"
    }


def test_the_bundles_that_come_along_suit_tensorrt(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert problems_of(store.open("starter-detector")) == set()
    assert problems_of(store.open("starter-generator")) == set()


def test_tiny_bundles_of_every_family_suit_tensorrt(tmp_path: Path) -> None:
    assert problems_of(write_unet(tmp_path / "unet")) == set()
    assert problems_of(write_surface(tmp_path / "surface")) == set()
    assert problems_of(write_two_stage(tmp_path / "cse", "cse", [(0.1, 0.1, 0.5, 0.9)])) == set()
