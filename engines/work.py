"""The work that a graph holds for inputs of given shapes: operations, and bytes on their way to and from memory.

**Operations** are additions and multiplications, each counted as one, and whatever else takes a number to another one.

- Conv, ConvTranspose, MatMul, Gemm: two for each product that is added up, as published and without the tricks
  (Winograd, FFT) by which libraries need fewer; one for each output with a bias.
- Pooling and reductions: one for each value that goes in. Resize: eight for each output between four neighbours, none
  for the nearest one. RoiAlign: eight for each sample. Normalisations: five for each value, batch normalisation two.
- Elementwise operators: one for each output. What moves or selects values counts none.

**Bytes** are counted twice. `least` is what nothing can do without: inputs, weights and outputs, once each. `moved` is
for a runtime that fuses elementwise operators and changes of shape into the operator before them and nothing else: all
other operators read their inputs and write their outputs once, an elementwise one only reads what comes from elsewhere.

Shapes come from ONNX's own inference. Where they depend on values (as many boxes as there are) they have to be observed
(`observe_shapes`); else the operator is in `unknown`, and counts nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import onnx
from onnx import TensorProto, helper

from engines.runtime_onnx import import_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from engines.runtime import Array

Shape = tuple[int, ...]

_PRODUCTS: Final = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
#: Operations for each value that goes in.
_PER_INPUT: Final[Mapping[str, int]] = {
    "GlobalAveragePool": 1,
    "BatchNormalization": 2,
    "InstanceNormalization": 5,
    "LayerNormalization": 5,
    "Softmax": 5,
    **{f"Reduce{name}": 1 for name in ("Max", "Mean", "Min", "Prod", "Sum")},
    **{f"Reduce{name}": 2 for name in ("L1", "L2", "SumSquare")},
}
#: One operation for each output.
_ELEMENTWISE: Final = frozenset(
    (
        "Abs", "Add", "And", "Ceil", "Clip", "Cos", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater",
        "GreaterOrEqual", "HardSigmoid", "HardSwish", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min",
        "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin",
        "Softplus", "Sqrt", "Sub", "Sum", "Tanh", "Where", "Xor",
    )
)  # fmt: skip
#: No operation, and fused as elementwise operators are.
_VIEWS: Final = frozenset(
    (
        "Cast", "Constant", "ConstantOfShape", "Dropout", "Flatten", "Identity", "Reshape", "Shape", "Size", "Squeeze",
        "Unsqueeze",
    )
)  # fmt: skip
#: They read no more of their first input than they give.
_CHOOSERS: Final = frozenset({"Gather", "GatherElements", "GatherND", "Slice"})
_PER_SAMPLE: Final = 8
#: Values of a weight that may hold a shape.
_SMALL: Final = 64


@dataclass(frozen=True, slots=True)
class Work:
    """What a graph does in one run.

    Attributes:
        operations: on numbers.
        products: of these, in convolutions and matrix products.
        least: bytes of inputs, weights and outputs.
        moved: bytes with elementwise operators fused.
        unknown: operator -> how many of them had shapes that are not known.
    """

    operations: int
    products: int
    least: int
    moved: int
    unknown: Mapping[str, int] = field(default_factory=dict)


def count_work(
    model: onnx.ModelProto, inputs: Mapping[str, Shape], observed: Mapping[str, Shape] | None = None
) -> Work:
    """Counts the work of one run.

    Args:
        model: with or without its weights' values.
        inputs: the shape of each input.
        observed: shapes of further tensors, from `observe_shapes`.

    Raises:
        ValueError: an input is missing, or of another number of dimensions than the graph's.
    """
    tensors = _Tensors(model, inputs, observed or {})
    operations = products = moved = 0
    unknown: Counter[str] = Counter()
    for node in tensors.nodes:
        if not tensors.knows(node):
            unknown[node.op_type] += 1
            continue
        count = _operations(node, tensors)
        operations += count
        products += count if node.op_type in _PRODUCTS else 0
        moved += _moved(node, tensors)
    least = sum(tensors.bytes_read(name) for name in (*tensors.inputs, *tensors.weights))
    least += sum(tensors.bytes_of(name) for name in tensors.outputs if name in tensors.shapes)
    return Work(operations, products, least, max(moved, least), dict(unknown))


def unknown_tensors(model: onnx.ModelProto, inputs: Mapping[str, Shape]) -> tuple[str, ...]:
    """Tensors whose shapes depend on values, so that only a run shows them."""
    tensors = _Tensors(model, inputs, {})
    return tuple(name for node in tensors.nodes for name in node.output if name and name not in tensors.shapes)


def observe_shapes(model: onnx.ModelProto, feeds: Mapping[str, Array], names: Iterable[str]) -> dict[str, Shape]:
    """The shapes that tensors have in a run on the CPU.

    Args:
        model: with its weights' values.
        feeds: an array for each input.
        names: of the tensors.
    """
    wanted = tuple(names)
    if not wanted:
        return {}
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    del asked.graph.output[:]
    for name in wanted:
        shape = f"{name}/observed"
        asked.graph.node.append(helper.make_node("Shape", [name], [shape]))
        asked.graph.output.append(helper.make_tensor_value_info(shape, TensorProto.INT64, [None]))
    ort = import_onnxruntime()
    session = ort.InferenceSession(asked.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(None, dict(feeds))
    return {name: tuple(int(side) for side in value) for name, value in zip(wanted, values, strict=True)}


class _Tensors:
    """What is known of a graph's tensors."""

    def __init__(self, model: onnx.ModelProto, inputs: Mapping[str, Shape], observed: Mapping[str, Shape]) -> None:
        graph = _inferred(model, inputs).graph
        self.nodes: Sequence[onnx.NodeProto] = graph.node
        self.weights = {tensor.name for tensor in graph.initializer}
        self.inputs = tuple(inputs)
        self.outputs = tuple(value.name for value in graph.output)
        self.shapes: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self._sizes: dict[str, int] = {tensor.name: _size(tensor.data_type) for tensor in graph.initializer}
        for value in (*graph.input, *graph.value_info, *graph.output):
            kind = value.type.tensor_type
            self._sizes[value.name] = _size(kind.elem_type)
            sides = kind.shape.dim
            if kind.HasField("shape") and all(side.HasField("dim_value") for side in sides):
                self.shapes.setdefault(value.name, tuple(side.dim_value for side in sides))
        self.shapes |= {name: shape for name, shape in observed.items() if name not in self.shapes}

    def knows(self, node: onnx.NodeProto) -> bool:
        """Whether all shapes of a node are known."""
        return all(name in self.shapes for name in (*node.input, *node.output) if name)

    def count(self, name: str) -> int:
        """Values in a tensor."""
        return math.prod(self.shapes[name])

    def bytes_of(self, name: str) -> int:
        """Of a tensor; 4 for a value of which not even the type is known."""
        return self.count(name) * self._sizes.get(name, 4)

    def bytes_read(self, name: str) -> int:
        """As `bytes_of`, or less if only parts are chosen from a tensor, such as rows of a table."""
        readers = [node for node in self.nodes if name in node.input]
        chosen = [node.output[0] for node in readers if node.op_type in _CHOOSERS and node.input[0] == name]
        if len(chosen) < len(readers) or not all(output in self.shapes for output in chosen):
            return self.bytes_of(name)
        return min(self.bytes_of(name), sum(self.bytes_of(output) for output in chosen))


def _inferred(model: onnx.ModelProto, inputs: Mapping[str, Shape]) -> onnx.ModelProto:
    """A copy with the shapes that follow from those of the inputs."""
    fixed = _without_weights(model)
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    weights = {tensor.name for tensor in fixed.graph.initializer}
    for value in fixed.graph.input:
        if value.name in weights:
            continue
        dims = value.type.tensor_type.shape.dim
        if value.name not in inputs or len(inputs[value.name]) != len(dims):
            given = inputs.get(value.name, "nothing")
            raise ValueError(f"input {value.name} has {len(dims)} dimensions, the shape given is {given}")
        for dim, side in zip(dims, inputs[value.name], strict=True):
            dim.dim_value = side
    return onnx.shape_inference.infer_shapes(fixed, data_prop=True)


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without large weights' values, and without the shapes that were written down for any input."""
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph = model.graph
    light.graph.name = graph.name
    light.graph.node.extend(graph.node)
    light.graph.input.extend(graph.input)
    light.graph.output.extend(graph.output)
    for tensor in graph.initializer:
        # Small ones hold shapes.
        if math.prod(tensor.dims) <= _SMALL:
            light.graph.initializer.append(tensor)
        else:
            light.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    return light


def _size(element_type: int) -> int:
    return int(helper.tensor_dtype_to_np_dtype(element_type).itemsize) if element_type else 4


def _operations(node: onnx.NodeProto, tensors: _Tensors) -> int:
    kind = node.op_type
    if kind in _PRODUCTS:
        return _product_operations(node, tensors)
    if kind in _PER_INPUT:
        return _PER_INPUT[kind] * tensors.count(node.input[0])
    outputs: int = tensors.count(node.output[0]) if node.output and node.output[0] else 0
    if kind in _ELEMENTWISE:
        return outputs
    if kind in ("MaxPool", "AveragePool"):
        kernel: list[int] = _attribute(node, "kernel_shape", [1])
        return outputs * math.prod(kernel)
    if kind == "Resize":
        return 0 if _attribute(node, "mode", b"nearest") == b"nearest" else _PER_SAMPLE * outputs
    if kind == "GridSample":
        return _PER_SAMPLE * outputs
    if kind == "RoiAlign":
        # 0 is as many as the box has pixels: at least one.
        samples: int = max(1, _attribute(node, "sampling_ratio", 0)) ** 2
        return _PER_SAMPLE * outputs * samples
    return 0


def _product_operations(node: onnx.NodeProto, tensors: _Tensors) -> int:
    taken, weight = (tensors.shapes[name] for name in node.input[:2])
    given = tensors.count(node.output[0])
    bias = given if len(node.input) > 2 and node.input[2] else 0
    if node.op_type == "Conv":
        return 2 * given * math.prod(weight[1:]) + bias
    if node.op_type == "ConvTranspose":
        # Each place of the input gives one filter.
        return 2 * math.prod(taken) * math.prod(weight[1:]) + bias
    inner = taken[-2] if node.op_type == "Gemm" and _attribute(node, "transA", 0) else taken[-1]
    return 2 * given * inner + bias


def _moved(node: onnx.NodeProto, tensors: _Tensors) -> int:
    if node.op_type in _VIEWS:
        return 0
    read = [name for name in node.input if name]
    if node.op_type in _ELEMENTWISE:
        # The largest comes from the operator before.
        largest = max(read, key=tensors.bytes_of, default=None)
        return sum(tensors.bytes_of(name) for name in read) - (tensors.bytes_of(largest) if largest else 0)
    if node.op_type in _CHOOSERS:
        read = [name for name in node.input[1:] if name] + [node.output[0]]
    return sum(tensors.bytes_of(name) for name in (*read, *node.output) if name)


def _attribute(node: onnx.NodeProto, name: str, otherwise: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return otherwise
