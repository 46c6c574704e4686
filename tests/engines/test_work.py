"""Graphs that are small enough to be counted by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.work import Work, count_work, observe_shapes, unknown_tensors

FLOAT, HALF, INT = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[Any]],
    weights: Mapping[str, Any] | None = None,
    *,
    kind: int = FLOAT,
    output: str = "y",
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(output, kind, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def zeros(*shape: int, dtype: type = np.float32) -> Any:
    return np.zeros(shape, dtype)


def node(operator: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, list(inputs), ["y"], **attributes)


@pytest.mark.parametrize(
    ("made", "inputs", "operations"),
    [
        # 3x3 on 2 of 4 channels, 5 filters, 6x6 from 8x8: 5*36 places of 4*9 products; and a bias for each.
        (
            model([node("Conv", "x", "w", "b")], {"x": ["N", 4, 8, 8]}, {"w": zeros(5, 4, 3, 3), "b": zeros(5)}),
            {"x": (1, 4, 8, 8)},
            2 * 5 * 36 * 36 + 5 * 36,
        ),
        # Two groups: each filter sees half of the channels.
        (
            model([node("Conv", "x", "w", group=2)], {"x": ["N", 4, 8, 8]}, {"w": zeros(6, 2, 3, 3)}),
            {"x": (2, 4, 8, 8)},
            2 * 2 * (6 * 36 * 2 * 9),
        ),
        # Stride 2 back up: each of 4*16 places gives 3 filters of 2x2.
        (
            model([node("ConvTranspose", "x", "w", strides=[2, 2])], {"x": [1, 4, 4, 4]}, {"w": zeros(4, 3, 2, 2)}),
            {"x": (1, 4, 4, 4)},
            2 * (4 * 16 * 3 * 4),
        ),
        (model([node("MatMul", "a", "b")], {"a": [2, 3, 4], "b": [4, 5]}), {"a": (2, 3, 4), "b": (4, 5)}, 2 * 30 * 4),
        (
            model([node("Gemm", "a", "b", "c", transA=1)], {"a": [4, 3]}, {"b": zeros(4, 5), "c": zeros(5)}),
            {"a": (4, 3)},
            2 * 15 * 4 + 15,
        ),
        (model([node("Relu", "x")], {"x": [2, 3]}), {"x": (2, 3)}, 6),
        (model([node("ReduceMean", "x", keepdims=0)], {"x": [2, 3]}), {"x": (2, 3)}, 6),
        (
            model([node("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2])], {"x": [1, 1, 4, 4]}),
            {"x": (1, 1, 4, 4)},
            16,
        ),
        (
            model(
                [node("Resize", "x", "", "", "sizes", mode="linear")],
                {"x": [1, 1, 2, 2]},
                {"sizes": np.array([1, 1, 4, 4])},
            ),
            {"x": (1, 1, 2, 2)},
            8 * 16,
        ),
        (
            model(
                [node("Resize", "x", "", "", "sizes", mode="nearest")],
                {"x": [1, 1, 2, 2]},
                {"sizes": np.array([1, 1, 4, 4])},
            ),
            {"x": (1, 1, 2, 2)},
            0,
        ),
        (model([node("Transpose", "x")], {"x": [2, 3]}), {"x": (2, 3)}, 0),
    ],
)  # fmt: skip
def test_operations_are_those_counted_by_hand(
    made: onnx.ModelProto, inputs: Mapping[str, tuple[int, ...]], operations: int
) -> None:
    found = count_work(made, inputs)
    assert found.unknown == {}
    assert found.operations == operations


def chain(kind: int = FLOAT, dtype: type = np.float32) -> onnx.ModelProto:
    """y = relu(conv(x)) * s, twice."""
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Mul", ["b", "s"], ["c"]),
        helper.make_node("Conv", ["c", "w1"], ["y"], pads=[1, 1, 1, 1]),
    ]
    weights = {"w0": zeros(8, 4, 3, 3, dtype=dtype), "w1": zeros(2, 8, 3, 3, dtype=dtype)}
    return model(nodes, {"x": ["N", 4, 16, 16], "s": ["N", 8, 1, 1]}, weights, kind=kind)


SIZES = {"x": (1, 4, 16, 16), "s": (1, 8, 1, 1)}


def test_bytes_of_fused_operators_are_counted_once() -> None:
    x, s, w0, between, w1, y = 4 * 256, 8, 8 * 36, 8 * 256, 2 * 72, 2 * 256
    found = count_work(chain(), SIZES)
    assert found.least == 4 * (x + s + w0 + w1 + y)
    # The first convolution writes what the second reads; only the scales come from elsewhere.
    assert found.moved == 4 * (x + w0 + between + s + between + w1 + y)


def test_halves_move_half_as_much_for_the_same_operations() -> None:
    whole, half = count_work(chain(), SIZES), count_work(chain(HALF, np.float16), SIZES)
    assert half.operations == whole.operations
    assert (2 * half.least, 2 * half.moved) == (whole.least, whole.moved)


def test_a_batch_has_its_multiple_of_operations_but_its_weights_once() -> None:
    one, four = count_work(chain(), SIZES), count_work(chain(), {"x": (4, 4, 16, 16), "s": (4, 8, 1, 1)})
    weights = 4 * (8 * 36 + 2 * 72)
    assert four.operations == 4 * one.operations
    assert four.least - weights == 4 * (one.least - weights)


def test_products_are_told_apart() -> None:
    found = count_work(chain(), SIZES)
    assert found.products == 2 * (8 * 256 * 36 + 2 * 256 * 72)
    assert found.operations - found.products == 2 * 8 * 256


def test_rows_of_a_table_are_read_and_not_the_table() -> None:
    made = model([node("Gather", "table", "rows")], {"table": [1000, 2]}, {"rows": np.array([3, 1, 4])})
    found = count_work(made, {"table": (1000, 2)})
    assert found.least == 4 * 6 + 3 * 8 + 4 * 6
    assert found.moved == 3 * 8 + 4 * 6 + 4 * 6
    assert found.operations == 0


def picky() -> onnx.ModelProto:
    """As many rows as there are values above 0, times a matrix."""
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["above"]),
        helper.make_node("NonZero", ["above"], ["places"]),
        helper.make_node("Squeeze", ["places", "first"], ["rows"]),
        helper.make_node("Gather", ["table", "rows"], ["chosen"]),
        helper.make_node("MatMul", ["chosen", "w"], ["y"]),
    ]
    weights = {"zero": np.float32(0), "first": np.array([0]), "table": zeros(9, 4), "w": zeros(4, 5)}
    return model(nodes, {"x": ["N"]}, weights)


def test_what_depends_on_values_is_listed_and_counts_when_it_was_observed() -> None:
    sizes = {"x": (9,)}
    blind = count_work(picky(), sizes)
    assert blind.unknown["MatMul"] == 1
    assert blind.products == 0
    names = unknown_tensors(picky(), sizes)
    observed = observe_shapes(picky(), {"x": np.array([1, -1, 1, 1, -1, -1, -1, -1, -1], np.float32)}, names)
    assert observed["y"] == (3, 5)
    found = count_work(picky(), sizes, observed)
    assert found.unknown == {}
    assert found.products == 2 * 15 * 4


def test_nothing_has_to_be_observed_where_all_is_known() -> None:
    assert unknown_tensors(chain(), SIZES) == ()
    assert observe_shapes(chain(), {}, ()) == {}


def test_inputs_that_are_missing_or_of_other_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="input s has 4 dimensions"):
        count_work(chain(), {"x": (1, 4, 16, 16)})
    with pytest.raises(ValueError, match="input x has 4 dimensions"):
        count_work(chain(), SIZES | {"x": (4, 16, 16)})


def test_the_graph_is_left_as_it_was() -> None:
    made = chain()
    before = made.SerializeToString()
    assert isinstance(count_work(made, SIZES), Work)
    assert made.SerializeToString() == before


def test_shapes_that_were_written_down_for_another_size_do_not_count() -> None:
    made = onnx.shape_inference.infer_shapes(chain())
    for value in made.graph.value_info:
        for side in value.type.tensor_type.shape.dim:
            side.dim_value = 1
    assert count_work(made, SIZES) == count_work(chain(), SIZES)
