"""Networks for `standin evaluate`: two cut out of FastestDet, and one that sees the colours of clothes.

The networks that the papers use (Inception, LPIPS' VGG, networks for re-identification) cannot come with a project.
For features and for perceptual distance, the ShuffleNetV2 of FastestDet (https://github.com/dog-qiuqiu/FastestDet) is
cut out: it was trained on COCO's photographs, so that it sees something of what is shown. To tell people apart there is
a network without anything learnt: how colours differ from the picture's mean, in eight stripes from head to foot.
**Figures by them cannot be compared with any that were published.**
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Ends of the three stages of its backbone.
_STAGES: Final = ("input.136", "input.376", "input.504")
#: What FastestDet takes (0 to 1, blue first), and what the network of colours does.
_OPTIONS, _PLAIN = "mean=0,std=255,colour=bgr", "mean=0,std=1"
_EPSILON: Final = 1e-10
#: Of the network of colours: height and width of pictures, stripes, columns in which a person's middle is, and what is
#: added to levels, so that shades of black are one.
_SIZE, _STRIPES, _MIDDLE, _DARK = (128, 64), 8, (20, 44), 8.0
#: Red from green, green from blue, and half the brightness.
_OPPONENTS: Final = ((1, -1, 0), (0, 1, -1), (1 / 6, 1 / 6, 1 / 6))


def write_networks(fastestdet: Path, folder: Path) -> Mapping[str, str]:
    """Writes the three networks.

    Args:
        fastestdet: the published file.
        folder: for the networks.

    Returns:
        What `--features`, `--perceptual` and `--identity` take.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = {
        "features": (_pooled(onnx.load(fastestdet), _STAGES[-1]), _OPTIONS),
        "perceptual": (_unit(onnx.load(fastestdet), _STAGES), _OPTIONS),
        "identity": (_colours(), _PLAIN),
    }
    for name, (model, _) in made.items():
        onnx.save(model, folder / f"{name}.onnx")
    return {name: f"{folder / name}.onnx,{options}" for name, (_, options) in made.items()}


def _pooled(model: onnx.ModelProto, stage: str) -> onnx.ModelProto:
    """Means over the whole picture."""
    model.graph.node.append(helper.make_node("ReduceMean", [stage], ["vector"], axes=[2, 3], keepdims=0))
    return _ending(model, ["vector"], 2)


def _unit(model: onnx.ModelProto, stages: Sequence[str]) -> onnx.ModelProto:
    """Maps whose channels have length 1 at each pixel, as LPIPS wants them; without LPIPS' learnt weights."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([_EPSILON], np.float32), "epsilon"))
    for number, stage in enumerate(stages):
        length = f"length_{number}"
        model.graph.node.extend(
            [
                helper.make_node("ReduceSumSquare", [stage], [f"{length}.square"], axes=[1]),
                helper.make_node("Add", [f"{length}.square", "epsilon"], [f"{length}.more"]),
                helper.make_node("Sqrt", [f"{length}.more"], [length]),
                helper.make_node("Div", [stage, length], [f"map_{number}"]),
            ]
        )
    return _ending(model, [f"map_{number}" for number in range(len(stages))], 4)


def _ending(model: onnx.ModelProto, outputs: Sequence[str], dimensions: int) -> onnx.ModelProto:
    """The network with these outputs, and nothing in it that they do not need."""
    graph, needed, kept = model.graph, set(outputs), []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    shape = [f"side_{axis}" for axis in range(dimensions)]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs]
    new = helper.make_graph(kept[::-1], graph.name, list(graph.input), infos, weights)
    made = helper.make_model(new, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    onnx.checker.check_model(made)
    return made


def _colours() -> onnx.ModelProto:
    """Logarithms of colours, less their mean over the picture, averaged over stripes of its middle."""
    constants: dict[str, npt.NDArray[Any]] = {
        "dark": np.array([_DARK], np.float32),
        "opponents": np.array(_OPPONENTS, np.float32).reshape(3, 3, 1, 1),
        "from": np.array([_MIDDLE[0]], np.int64),
        "to": np.array([_MIDDLE[1]], np.int64),
        "axis": np.array([3], np.int64),
    }
    stripe = [_SIZE[0] // _STRIPES, _MIDDLE[1] - _MIDDLE[0]]
    nodes = [
        helper.make_node("Add", ["picture", "dark"], ["light"]),
        helper.make_node("Log", ["light"], ["logarithm"]),
        helper.make_node("ReduceMean", ["logarithm"], ["mean"], axes=[2, 3]),
        helper.make_node("Sub", ["logarithm", "mean"], ["relative"]),
        helper.make_node("Conv", ["relative", "opponents"], ["colours"]),
        helper.make_node("Slice", ["colours", "from", "to", "axis"], ["middle"]),
        helper.make_node("AveragePool", ["middle"], ["stripes"], kernel_shape=stripe, strides=stripe),
        helper.make_node("Flatten", ["stripes"], ["vector"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["N", 3, *_SIZE])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["N", 3 * _STRIPES])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model
