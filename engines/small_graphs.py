"""Small graphs of arithmetic round the networks, made here rather than exported: they run where the networks run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from engines.manifest import Graph, Tensor
from engines.runtime import Device, Runtime, tensorrt_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx

    from engines.nodes import Nodes

#: Read by ONNX Runtimes of the last three years.
_OPSET: Final = 18
_IR_VERSION: Final = 9


@dataclass(frozen=True, slots=True)
class SmallGraph:
    """A graph that no bundle holds.

    Attributes:
        declared: its inputs and outputs; its file is only a name.
        model: the ONNX model, serialised.
    """

    declared: Graph
    model: bytes


def small_graph(name: str, inputs: Sequence[Tensor], outputs: Mapping[str, Tensor], nodes: Nodes) -> SmallGraph:
    """Makes a graph of collected nodes.

    Args:
        name: for messages.
        inputs: as declared; the nodes read them by these names.
        outputs: as declared, each by the name of the node's tensor that it is.
        nodes: what computes them.
    """
    # A tenth of a second and some megabytes, which runs on the processor do without.
    from onnx import helper

    renamed = [helper.make_node("Identity", [made], [tensor.name]) for made, tensor in outputs.items()]
    graph = helper.make_graph(
        [*nodes.nodes, *renamed],
        name,
        [_value(tensor) for tensor in inputs],
        [_value(tensor) for tensor in outputs.values()],
        nodes.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    declared = Graph(file=name, inputs=tuple(inputs), outputs=tuple(outputs.values()))
    return SmallGraph(declared, model.SerializeToString())


def _value(tensor: Tensor) -> onnx.ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(
        tensor.name, helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype)), tensor.shape
    )


def open_small(make: Callable[[], SmallGraph], device: Device) -> Runtime | None:
    """Opens a graph beside the networks of a device.

    Args:
        make: makes the graph; not called where none is opened.
        device: of the networks.

    Returns:
        None where nothing is gained by it: on the processor there are better ways, and arrays of ONNX Runtime's are of
        no use to TensorRT's plans, which run without it.

    Raises:
        RuntimeUnavailableError: the device is not usable here.
    """
    if device in ("cpu", "openvino") or (device == "tensorrt" and tensorrt_policy() is not None):
        return None
    from engines.runtime_onnx import OnnxRuntime

    graph = make()
    # With TensorRT's provider, too: it would build an engine for every new shape.
    return OnnxRuntime(Path(graph.declared.file), graph.declared, device="cuda", model=graph.model)
