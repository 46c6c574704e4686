"""Small graphs of arithmetic round the networks, made here rather than exported: they run where the networks run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from engines.dlpack import take
from engines.errors import RuntimeUnavailableError, StandinError
from engines.manifest import Graph, Tensor
from engines.runtime import Device, Runtime, tensorrt_policy
from engines.runtime_onnx import OnnxRuntime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engines.dlpack import SupportsDlpack
    from engines.nodes import Nodes

log = logging.getLogger(__name__)

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

    def open(self, device: Device) -> OnnxRuntime:
        """Opens it in ONNX Runtime.

        Raises:
            RuntimeUnavailableError: the device is not usable here.
        """
        return OnnxRuntime(Path(self.declared.file), self.declared, device=device, model=self.model)


def small_graph(name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], nodes: Nodes) -> SmallGraph:
    """Makes a graph of collected nodes.

    Args:
        name: for messages.
        inputs: as declared; the nodes read them by these names.
        outputs: as declared; nodes make tensors of these names.
        nodes: what computes them.
    """
    # A tenth of a second and some megabytes, which runs on the processor do without.
    from onnx import helper

    from engines.nodes import value_info

    begin, end = ([value_info(tensor) for tensor in tensors] for tensors in (inputs, outputs))
    graph = helper.make_graph(nodes.nodes, name, begin, end, nodes.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    declared = Graph(file=name, inputs=tuple(inputs), outputs=tuple(outputs))
    return SmallGraph(declared, model.SerializeToString())


def open_small(make: Callable[[], SmallGraph], device: Device) -> Runtime | None:
    """Opens a graph beside the networks of a device.

    Args:
        make: makes the graph; not called where none is opened.
        device: of the networks.

    Returns:
        None where there are better ways (on the processor), or no ONNX Runtime with CUDA beside TensorRT's plans that
        hands over what it keeps of its runs.

    Raises:
        RuntimeUnavailableError: the device is not usable here.
    """
    if device in ("cpu", "openvino"):
        return None
    if device == "tensorrt" and tensorrt_policy() is not None:
        return _if_it_is_there(make())
    # With TensorRT's provider, too: it would build an engine for every new shape.
    return make().open("cuda")


def _if_it_is_there(graph: SmallGraph) -> Runtime | None:
    """Plans need no ONNX Runtime with CUDA, and Jetsons have none, or one that keeps what it has."""
    try:
        runtime = graph.open("cuda")
    except RuntimeUnavailableError as error:
        log.info("%s is computed on the processor: %s", graph.declared.file, error)
        return None
    try:
        # Not every build hands over what it keeps: answers would come to the host and go back, as large as they are.
        take(cast("SupportsDlpack", runtime.hold(np.zeros(1, np.float32))))
    except StandinError as error:
        runtime.close()
        log.info("%s is computed on the processor, since plans would not get it: %s", graph.declared.file, error)
        return None
    return runtime
