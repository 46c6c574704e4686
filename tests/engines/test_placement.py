from __future__ import annotations

import types
from typing import Any

import onnxruntime
import pytest
from onnx import TensorProto, helper

from engines.placement import Placement, ask_for_placement, placement_of
from tests.engines.helpers import doubler
from tests.engines.onnx_fakes import CPU, CUDA, TENSORRT, assigned


def opened(*, asked: bool) -> Any:
    options = onnxruntime.SessionOptions()
    if asked:
        ask_for_placement(options)
    return onnxruntime.InferenceSession(doubler(), options, providers=[CPU])


def test_a_session_tells_where_each_node_is() -> None:
    session = opened(asked=True)
    found = placement_of(session, onnxruntime.__version__)
    if found is None:
        pytest.skip(f"ONNX Runtime {onnxruntime.__version__} does not tell where nodes are")
    assert found == Placement({CPU: {"Add": 2, "Cast": 1, "Unsqueeze": 1}})


def test_a_session_that_was_not_asked_tells_nothing() -> None:
    assert placement_of(opened(asked=False), onnxruntime.__version__) is None


def test_an_older_onnx_runtime_tells_nothing() -> None:
    assert placement_of(types.SimpleNamespace(), "1.31.1") is None


@pytest.mark.parametrize(("version", "tells"), [("1.26.0", False), ("1.27.0", True), ("2.0.1", True), ("main", False)])
def test_an_assignment_that_may_lack_nodes_is_not_believed(version: str, tells: bool) -> None:
    session = types.SimpleNamespace(get_provider_graph_assignment_info=lambda: [assigned(CPU, "Conv")])
    assert placement_of(session, version) == (Placement({CPU: {"Conv": 1}}) if tells else None)


def test_nodes_that_come_to_the_cpu_for_want_of_float16_are_told() -> None:
    """Those that ONNX Runtime 1.24 to 1.26 left out."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [4]) for name in ("x", "y")]
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Softplus", ["a"], ["y"])]
    graph = helper.make_graph(nodes, "half", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    ask_for_placement(options)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU])
    found = placement_of(session, onnxruntime.__version__)
    if found is None:
        pytest.skip(f"ONNX Runtime {onnxruntime.__version__} does not tell where nodes are")
    assert {"Relu", "Softplus"} <= set(found.on_cpu)


def test_counts_are_said_in_words() -> None:
    assert str(Placement({CUDA: {"Conv": 3}})) == "0 of 3 nodes on the CPU"
    mixed = Placement({CUDA: {"Conv": 3}, CPU: {"Shape": 2, "Resize": 1}})
    assert str(mixed) == "3 of 6 nodes on the CPU (Resize 1, Shape 2)"
    three = Placement({TENSORRT: {"Conv": 3}, CUDA: {"TopK": 1}, CPU: {}})
    assert str(three) == f"0 of 4 nodes on the CPU, 3 on {TENSORRT}, 1 on {CUDA}"
