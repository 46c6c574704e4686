"""Nodes: collects the nodes and constants that are attached to a network."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from engines.manifest import Tensor


def value_info(tensor: Tensor) -> onnx.ValueInfoProto:
    """A declared tensor as a graph declares its inputs and outputs."""
    code = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return helper.make_tensor_value_info(tensor.name, code, list(tensor.shape))


class Nodes:
    """Collects nodes and constants; every method returns the name of the tensor that it made.

    What it has methods for means the same from opset 17 on, since a user's file keeps its opset.
    """

    def __init__(self, prefix: str = "decode") -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self._prefix = prefix
        self._number = count()

    def integers(self, *values: int) -> str:
        """An int64 constant (len(values),)."""
        return self.constant(values)

    def integer(self, value: int) -> str:
        """An int64 constant ()."""
        return self.constant(value)

    def number(self, value: float) -> str:
        """A float32 constant ()."""
        return self.constant(value, np.float32)

    def numbers(self, *values: float) -> str:
        """A float32 constant (len(values),)."""
        return self.constant(values, np.float32)

    def constant(self, value: Any, dtype: type[np.generic] = np.int64) -> str:
        """A constant of the value's own shape."""
        name = f"{self._prefix}.constant_{next(self._number)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def many(self, operator: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        """A node with several outputs."""
        names = [f"{self._prefix}.{operator}_{next(self._number)}" for _ in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, names[0], **attributes))
        return names

    def one(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output."""
        return self.many(operator, inputs, 1, **attributes)[0]

    def named(self, name: str, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output of a given name."""
        self.nodes.append(helper.make_node(operator, list(inputs), [name], f"{self._prefix}.{name}", **attributes))
        return name

    def real(self, tensor: str) -> str:
        """The tensor as float32."""
        return self.one("Cast", tensor, to=TensorProto.FLOAT)

    def levels(self, picture: str, rows: str, columns: str) -> str:
        """A picture (H,W,3) resized by two products with weights (h,H) and (W,w), as whole levels 0 to 255: (3,h,w)."""
        channels = self.one("Transpose", self.real(picture), perm=[2, 0, 1])
        resized = self.one("MatMul", self.one("MatMul", rows, channels), columns)
        return self.one("Clip", self.one("Round", resized), self.number(0), self.number(255))

    def size(self, tensor: str, axis: int) -> str:
        """The length of one axis, int64 ()."""
        return self.one("Gather", self.one("Shape", tensor), self.integer(axis), axis=0)

    def steps(self, length: str) -> str:
        """0, 1, ... up to a length (), int64."""
        return self.one("Range", self.integer(0), length, self.integer(1))

    def part(self, tensor: str, start: int, stop: int, axis: int) -> str:
        """A slice along one axis."""
        return self.one("Slice", tensor, self.integers(start), self.integers(stop), self.integers(axis))

    def columns(self, tensor: str, axis: int) -> list[str]:
        """The four values of a box, each without that axis."""
        return [self.one("Gather", tensor, self.integer(index), axis=axis) for index in range(4)]

    def box(self, *sides: str) -> str:
        """x0, y0, x1, y1, each (N,A), as boxes (N,A,4)."""
        wide = [self.one("Unsqueeze", side, self.integers(2)) for side in sides]
        return self.one("Concat", *wide, axis=2)

    def box_around(self, x: str, y: str, width: str, height: str) -> str:
        """Centres and sides, each (N,A), as boxes (N,A,4) `xyxy`."""
        half = self.number(0.5)
        half_width, half_height = self.one("Mul", width, half), self.one("Mul", height, half)
        return self.box(
            self.one("Sub", x, half_width),
            self.one("Sub", y, half_height),
            self.one("Add", x, half_width),
            self.one("Add", y, half_height),
        )
