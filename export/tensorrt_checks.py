"""Whether TensorRT's parser takes an ONNX graph, and means the same by it: known before minutes are spent on a build.

The rules are those that NVIDIA documents for the parser of TensorRT 10 (`docs/operators.md` of onnx-tensorrt), and what
its source does where it differs from ONNX. Later versions take more, so that what only they take is a warning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from onnx import AttributeProto, TensorProto, helper, numpy_helper, shape_inference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import onnx
    from numpy.typing import NDArray

#: `error`: it cannot be built, or computes something else. `warning`: it may not be. `note`: it costs speed.
Severity = Literal["error", "warning", "note"]

#: Opsets that TensorRT 10 is documented for; 11 knows later ones.
_OPSETS: Final = (9, 20)
_LAST_OPSET: Final = 25
_TOPK: Final = 3840
_UNSUPPORTED: Final = frozenset({
    "AffineGrid", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "BlackmanWindow",
    "CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence", "ConvInteger", "DFT", "Det", "DynamicQuantizeLinear",
    "HammingWindow", "HannWindow", "ImageDecoder", "MatMulInteger", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix",
    "Multinomial", "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement", "OptionalHasElement", "QLinearConv",
    "QLinearMatMul", "RegexFullMatch", "STFT", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
    "SequenceInsert", "SequenceLength", "SequenceMap", "SoftmaxCrossEntropyLoss", "SplitToSequence", "StringConcat",
    "StringNormalizer", "StringSplit", "TfIdfVectorizer", "Unique",
})  # fmt: skip
#: On integers these are no layers of TensorRT.
_FLOATS_ONLY: Final = frozenset({
    "MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "AveragePool", "MaxPool", "GlobalAveragePool",
    "InstanceNormalization", "LayerNormalization", "BatchNormalization", "Softmax", "Resize", "GridSample",
    "RoiAlign", "NonMaxSuppression",
})  # fmt: skip
#: The table names floats alone, later versions take integers.
_FLOATS_AT_FIRST: Final = frozenset({"CumSum"})
#: The table does not name truth values for these.
_NOT_ON_BOOL: Final = frozenset(
    {"Equal", "Max", "Min", "Pad", "ReduceMax", "ReduceMin", "ScatterElements", "ScatterND"}
)
#: Operator -> its inputs that have to be constants.
_CONSTANT_INPUTS: Final[Mapping[str, tuple[int, ...]]] = {
    "CumSum": (1,), "Pad": (3,), "Slice": (3,), "Squeeze": (1,), "Unsqueeze": (1,), "OneHot": (1,), "ReduceL1": (1,),
    "ReduceL2": (1,), "ReduceLogSum": (1,), "ReduceLogSumExp": (1,), "ReduceMax": (1,), "ReduceMean": (1,),
    "ReduceMin": (1,), "ReduceProd": (1,), "ReduceSum": (1,), "ReduceSumSquare": (1,),
}  # fmt: skip
_RESIZE_WAYS: Final = frozenset(
    {"half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"}
)
_FLOATS: Final = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
_KNOWN: Final = _FLOATS | {TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL}
#: These give the numbers that they get.
_PASSING: Final = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_INT32: Final = np.iinfo(np.int32)


@dataclass(frozen=True)
class Problem:
    """Something about a graph that TensorRT does not take, or takes in another sense.

    Attributes:
        node: name of the node, or of the tensor or graph.
        operator: of the node, empty where it is none.
        severity: how bad it is.
        text: what is wrong, and what would do.
    """

    node: str
    operator: str
    severity: Severity
    text: str

    def __str__(self) -> str:
        where = f"{self.operator} {self.node}" if self.operator else self.node
        return f"{self.severity}: {where}: {self.text}"


class _Graph:
    """What the rules look up: constants and types."""

    def __init__(self, model: onnx.ModelProto) -> None:
        inferred = shape_inference.infer_shapes(model)
        graph = inferred.graph
        self.opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
        self.constants: dict[str, NDArray[Any]] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer
        }
        for node in graph.node:
            if node.op_type == "Constant":
                value = next((a.t for a in node.attribute if a.type == AttributeProto.TENSOR), None)
                if value is not None:
                    self.constants[node.output[0]] = numpy_helper.to_array(value)
        self.types: dict[str, int] = {
            value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)
        } | {tensor.name: tensor.data_type for tensor in graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output}
        self.inputs = {value.name for value in graph.input}
        self.outputs = {value.name for value in graph.output}

    def bound(self, name: str) -> int | None:
        """A number that a computed one never passes, as far as it can be seen: the smaller of it and a constant."""
        node = self._makers.get(name)
        while node is not None and node.op_type in _PASSING:
            node = self._makers.get(node.input[0])
        if node is None or node.op_type != "Min":
            return None
        limits = [int(self.constants[given].max()) for given in node.input if given in self.constants]
        return min(limits, default=None)


def check_onnx(model: onnx.ModelProto) -> list[Problem]:
    """Compares a graph with what TensorRT's parser takes.

    Args:
        model: with its weights.

    Returns:
        What is wrong, the worst first; empty for a graph that suits.
    """
    graph = _Graph(model)
    problems = [*_of_model(model, graph.opset), *_of_weights(graph)]
    for index, node in enumerate(model.graph.node):
        name = node.name or (node.output[0] if node.output else f"node {index}")
        problems += (Problem(name, node.op_type, severity, text) for severity, text in _of_node(node, graph))
    order = ("error", "warning", "note")
    return sorted(problems, key=lambda problem: order.index(problem.severity))


def _of_model(model: onnx.ModelProto, opset: int) -> Iterator[Problem]:
    first, last = _OPSETS
    if not first <= opset <= _LAST_OPSET:
        text = f"the opset is {opset}, TensorRT takes {first} to {_LAST_OPSET}; export it with --opset 18"
        yield Problem("the graph", "", "error", text)
    elif opset > last:
        text = f"the opset is {opset}, TensorRT 10.0 is documented up to {last}; export it with --opset 18"
        yield Problem("the graph", "", "warning", text)
    for function in model.functions:
        yield Problem(function.name, "", "error", "it is a function of the model's own; inline it")


def _of_weights(graph: _Graph) -> Iterator[Problem]:
    for name, kind in graph.types.items():
        if name in graph.constants and kind == TensorProto.DOUBLE:
            yield Problem(name, "", "warning", "it is float64, which TensorRT cuts down to float32; store float32")


def _of_node(node: onnx.NodeProto, graph: _Graph) -> Iterator[tuple[Severity, str]]:
    operator = node.op_type
    if node.domain not in ("", "ai.onnx"):
        yield "error", f"it is an operator of {node.domain!r}, which TensorRT does not know"
        return
    if operator in _UNSUPPORTED:
        yield "error", "TensorRT does not know it"
        return
    yield from _of_types(node, graph)
    for position in _CONSTANT_INPUTS.get(operator, ()):
        if position < len(node.input) and node.input[position] and node.input[position] not in graph.constants:
            yield "error", f"its input {position} ({node.input[position]}) has to be a constant"
    rule = _RULES.get(operator)
    if rule is not None:
        yield from rule(node, graph)


def _of_types(node: onnx.NodeProto, graph: _Graph) -> Iterator[tuple[Severity, str]]:
    first = graph.types.get(node.input[0] if node.input else "", 0)
    name = helper.tensor_dtype_to_string(first).removeprefix("TensorProto.").lower() if first else ""
    if first and first not in _FLOATS and node.op_type in _FLOATS_ONLY:
        yield "error", f"it computes on {name}, TensorRT has it for floats only"
    if first and first not in _FLOATS and node.op_type in _FLOATS_AT_FIRST:
        yield "warning", f"it computes on {name}, which TensorRT 10.0 has for floats only"
    if first == TensorProto.BOOL and node.op_type in _NOT_ON_BOOL:
        yield "warning", "it computes on truth values, which TensorRT 10.0 is not documented for"
    for tensor in (*node.input, *node.output):
        kind = graph.types.get(tensor, 0)
        if kind == TensorProto.DOUBLE and tensor not in graph.constants:
            yield "warning", f"{tensor} is float64, which TensorRT cuts down to float32"
        elif kind == TensorProto.UINT8 and not (node.op_type == "Cast" and tensor in graph.inputs | graph.outputs):
            yield "error", f"{tensor} is uint8, which TensorRT takes for inputs and outputs only; cast it at once"
        elif kind and kind not in _KNOWN | {TensorProto.DOUBLE, TensorProto.UINT8}:
            yield "error", f"{tensor} is {helper.tensor_dtype_to_string(kind)}, which TensorRT does not know"


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def _resize(node: onnx.NodeProto, graph: _Graph) -> Iterator[tuple[Severity, str]]:
    given = _attributes(node)
    if given.get("antialias"):
        yield "error", "it is antialiased; compute it as two matrix products"
    if (mode := given.get("mode", "nearest")) not in ("nearest", "linear"):
        yield "error", f"its mode is {mode!r}; TensorRT has nearest and linear, or compute it as two matrix products"
    way = given.get("coordinate_transformation_mode", "half_pixel")
    if way not in _RESIZE_WAYS:
        yield "error", f"its coordinates are {way!r}; TensorRT has {', '.join(sorted(_RESIZE_WAYS))}"
    if given.get("exclude_outside"):
        yield "error", "it excludes what is outside, which TensorRT does not do"
    if given.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        yield "error", "it keeps the aspect ratio, which TensorRT does not do; give the size"
    if "axes" in given and graph.opset >= 18:
        yield "warning", "it is given for some axes, which TensorRT 10.0 is not documented for; give all of them"


def _topk(node: onnx.NodeProto, graph: _Graph) -> Iterator[tuple[Severity, str]]:
    if _attributes(node).get("sorted", 1) != 1:
        yield "error", "it is not sorted; TensorRT has it sorted only"
    count = graph.constants.get(node.input[1])
    if count is None and (most := graph.bound(node.input[1])) is None:
        yield "warning", f"K is computed; it must stay below {_TOPK} for every picture"
    elif count is None and most is not None and most >= _TOPK:
        yield "error", f"K may be {most}; TensorRT takes less than {_TOPK}"
    elif count is None:
        return
    elif int(count.max()) >= _TOPK:
        yield "error", f"K is {int(count.max())}; TensorRT takes less than {_TOPK}"


def _suppression(node: onnx.NodeProto, graph: _Graph) -> Iterator[tuple[Severity, str]]:
    if len(node.input) < 3 or not node.input[2]:
        yield "error", "it says no number of boxes, which is none; give max_output_boxes_per_class"
    for position, name in enumerate(node.input[2:5], 2):
        if name and name not in graph.constants:
            yield "warning", f"its input {position} ({name}) is computed, expected a constant"
    yield "note", "how many boxes it gives depends on the picture, so that runs cannot be recorded as a CUDA graph"


def _roi_align(node: onnx.NodeProto, graph: _Graph) -> Iterator[tuple[Severity, str]]:
    given = _attributes(node)
    # ONNX means 0, as many samples as a bin is large; the parser of TensorRT 10 takes 1 for what is not there.
    if "sampling_ratio" not in given:
        yield "error", "it has no sampling_ratio: ONNX means 0, TensorRT takes 1; write it down"
    if graph.opset >= 16 and "coordinate_transformation_mode" not in given:
        yield "note", "it has no coordinate_transformation_mode: half_pixel is meant by both"
    if graph.opset < 16:
        yield "warning", "before opset 16 its coordinates are taken as output_half_pixel"
    if given.get("mode", "avg") not in ("avg", "max"):
        yield "error", f"its mode is {given['mode']!r}; TensorRT has avg and max"


def _pool(node: onnx.NodeProto, graph: _Graph) -> Iterator[tuple[Severity, str]]:  # noqa: ARG001
    if any(step != 1 for step in _attributes(node).get("dilations", ())):
        yield "error", "it is dilated, which TensorRT does not do"
    if len(node.output) > 1 and node.output[1]:
        yield "error", "it gives indices, which TensorRT does not do"


def _scatter(node: onnx.NodeProto, graph: _Graph) -> Iterator[tuple[Severity, str]]:  # noqa: ARG001
    if (reduction := _attributes(node).get("reduction", "none")) != "none":
        yield "error", f"it reduces by {reduction!r}, which TensorRT does not do"


def _normalisation(node: onnx.NodeProto, graph: _Graph) -> Iterator[tuple[Severity, str]]:  # noqa: ARG001
    if any(name for name in node.output[1:]):
        yield "error", "it gives mean or deviation; TensorRT has the first output only"


def _branch(node: onnx.NodeProto, graph: _Graph) -> Iterator[tuple[Severity, str]]:  # noqa: ARG001
    yield "note", "what runs depends on data, so that runs cannot be recorded as a CUDA graph"


def _index(node: onnx.NodeProto, graph: _Graph) -> Iterator[tuple[Severity, str]]:
    places = graph.constants.get(node.input[1])
    if places is not None and places.size and (places.min() < _INT32.min or places.max() > _INT32.max):
        yield "error", "its indices do not fit 32 bits, to which TensorRT cuts them"


_RULES: Final[Mapping[str, Callable[[Any, _Graph], Iterator[tuple[Severity, str]]]]] = {
    "Resize": _resize, "Upsample": _resize, "TopK": _topk, "NonMaxSuppression": _suppression, "RoiAlign": _roi_align,
    "AveragePool": _pool, "MaxPool": _pool, "LpPool": _pool, "ScatterND": _scatter, "ScatterElements": _scatter,
    "LayerNormalization": _normalisation, "NonZero": _branch, "If": _branch, "Loop": _branch, "Scan": _branch,
    "Gather": _index, "GatherElements": _index, "GatherND": _index,
}  # fmt: skip
