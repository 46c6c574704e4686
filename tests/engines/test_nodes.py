from __future__ import annotations

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from engines.nodes import Nodes


def test_collected_nodes_make_boxes_of_centres_and_sides() -> None:
    g = Nodes()
    values = g.columns(g.part("x", 1, 5, 2), 2)
    boxes = g.box_around(*values)
    last = g.one("Add", boxes, g.real(g.size("x", 1)))
    graph = helper.make_graph(
        g.nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "A", 6])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["N", "A", 4])],
        g.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.array([[[9, 10, 20, 4, 6, 9], [9, 0, 0, 1, 1, 9]]], np.float32)
    (found,) = session.run(None, {"x": x})
    np.testing.assert_array_equal(found, [[[10, 19, 14, 25], [1.5, 1.5, 2.5, 2.5]]])


def test_names_never_repeat() -> None:
    g = Nodes("part")
    names = [g.integer(1), g.integers(1), g.number(1), g.numbers(1), *g.many("Split", ["x"], 2)]
    assert len(set(names)) == len(names)
    assert all(name.startswith("part.") for name in names)
