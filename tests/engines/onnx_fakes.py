"""ONNX Runtime on machines without a GPU: its own classes' signatures, and sessions that claim to run elsewhere.

The fakes are made from the installed onnxruntime (`create_autospec`) or compared with it, so that a method or an
argument that it does not have is an error here as well.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import onnxruntime

from engines import dlpack
from tests.fake_cuda import FakeGpu

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"

#: Gives a graph's outputs in order from its inputs, or raises.
Compute = Callable[[Mapping[str, Any]], Sequence[Any]]


def assigned(provider: str, *operators: str) -> Any:
    """Nodes that a provider got."""
    nodes = []
    for operator in operators:
        node = create_autospec(onnxruntime.OrtEpAssignedNode, instance=True)
        node.op_type = operator
        nodes.append(node)
    part = create_autospec(onnxruntime.OrtEpAssignedSubgraph, instance=True)
    part.ep_name = provider
    part.get_nodes.return_value = nodes
    return part


class OnFakeGpu:
    """What a session kept on a GPU whose memory is the host's: other libraries take it there."""

    def __init__(self, gpu: FakeGpu, values: Any) -> None:
        self._values = np.ascontiguousarray(values)
        self._address = gpu.take_in(self._values)
        self._ort = onnxruntime.OrtValue.ortvalue_from_numpy(self._values)
        self.shape, self.element_type = self._ort.shape, self._ort.element_type

    def numpy(self) -> Any:
        return self._values

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, 0

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        del stream
        there = dlpack.DeviceArray(self._address, self._values.shape, self._values.dtype, (dlpack.CUDA, 0), self)
        return there.__dlpack__()


class FakeBinding:
    """What one run is given, and where its outputs are to lie. Not autospecced: there is one for each run.

    Args:
        bound: takes the name and the device of each output.
    """

    def __init__(self, bound: list[tuple[str, str]]) -> None:
        self._bound = bound
        self.feeds: dict[str, Any] = {}
        self.there: list[str] = []
        self.outputs: list[Any] = []

    def bind_cpu_input(self, name: Any, arr_on_cpu: Any) -> None:
        self.feeds[name] = arr_on_cpu

    def bind_ortvalue_input(self, name: Any, ortvalue: Any) -> None:
        self.feeds[name] = ortvalue.numpy()

    def bind_output(
        self,
        name: Any,
        device_type: Any = "cpu",
        device_id: Any = 0,
        element_type: Any = None,
        shape: Any = None,
        buffer_ptr: Any = None,
    ) -> None:
        assert (device_id, element_type, shape, buffer_ptr) == (0, None, None, None)
        self._bound.append((name, device_type))
        self.there.append(device_type)

    def get_outputs(self) -> list[Any]:
        return self.outputs


def parameters(function: Any) -> list[tuple[str, Any]]:
    """Names and defaults."""
    return [(name, given.default) for name, given in inspect.signature(function).parameters.items()]


for method in ("bind_cpu_input", "bind_ortvalue_input", "bind_output", "get_outputs"):
    assert parameters(getattr(FakeBinding, method)) == parameters(getattr(onnxruntime.IOBinding, method)), method


class FakeOnnxRuntime:
    """A module `onnxruntime` with the providers of a GPU.

    Args:
        compute: what a session gives; None for what the graph gives on the CPU.
        most: rows for which there is memory, None for any number.
        active: a session's providers after it was made; None for those that were asked for.
        parts: the assignment of nodes, None for a build that keeps none.
        version: what it says it is.
        gpu: on which what is kept lies; without one, it lies on the host.
    """

    def __init__(
        self,
        compute: Compute | None = None,
        *,
        most: int | None = None,
        active: Sequence[str] | None = None,
        parts: Sequence[Any] | None = (),
        version: str = "1.31.1",
        gpu: FakeGpu | None = None,
    ) -> None:
        self._compute, self._most, self._active, self._parts = compute, most, active, parts
        self._version, self._gpu = version, gpu
        #: Arguments of each session, by name.
        self.made: list[dict[str, Any]] = []
        #: Rows of each run.
        self.rows: list[int] = []
        #: Devices to which outputs were bound, and arrays were copied.
        self.bound: list[tuple[str, str]] = []
        #: Names and shapes of what was computed into the host's memory.
        self.returned: list[tuple[str, tuple[int, ...]]] = []
        self.held: list[str] = []

    @property
    def module(self) -> Any:
        """What `import_onnxruntime` finds."""
        return types.SimpleNamespace(
            __version__=self._version,
            InferenceSession=create_autospec(onnxruntime.InferenceSession, side_effect=self._open),
            SessionOptions=onnxruntime.SessionOptions,
            OrtValue=types.SimpleNamespace(ortvalue_from_numpy=self._hold),
            get_available_providers=lambda: [TENSORRT, CUDA, CPU],
        )

    def _hold(self, array: Any, device_type: str = "cpu", device_id: int = 0) -> Any:
        self.held.append(device_type)
        if self._gpu is not None and device_type == "cuda":
            return OnFakeGpu(self._gpu, array)
        # There is no other device here.
        return onnxruntime.OrtValue.ortvalue_from_numpy(array, "cpu", device_id)

    def _open(self, path: str, options: Any, **settings: Any) -> Any:
        self.made.append(settings)
        real = onnxruntime.InferenceSession(path, providers=[CPU])
        session = create_autospec(onnxruntime.InferenceSession, instance=True, spec_set=True)
        names = [given if isinstance(given, str) else given[0] for given in settings["providers"]]
        session.get_providers.return_value = names if self._active is None else list(self._active)
        session.get_inputs.return_value = real.get_inputs()
        session.get_outputs.return_value = real.get_outputs()
        if self._parts is None:
            session.get_provider_graph_assignment_info.side_effect = RuntimeError("not kept")
        else:
            session.get_provider_graph_assignment_info.return_value = self._parts
        session.io_binding.side_effect = lambda: FakeBinding(self.bound)
        compute = self._compute or (lambda feeds: real.run(None, dict(feeds)))
        # What is no batch of rows, such as one frame, is one.
        batched = next((given.name for given in real.get_inputs() if given.shape[:1] == ["N"]), None)
        outputs = [given.name for given in real.get_outputs()]
        session.run_with_iobinding.side_effect = lambda binding: self._run(binding, compute, batched, outputs)
        return session

    def _run(self, binding: FakeBinding, compute: Compute, batched: str | None, outputs: Sequence[str]) -> None:
        rows = 1 if batched is None else len(binding.feeds[batched])
        self.rows.append(rows)
        if self._most is not None and rows > self._most:
            raise RuntimeError("[ONNXRuntimeError] : 6 : CUDA failure 2: out of memory")
        values = compute(binding.feeds)
        kept = []
        for name, value, device in zip(outputs, values, binding.there, strict=False):
            if device == "cpu":
                self.returned.append((name, np.shape(value)))
            if device == "cpu" or self._gpu is None:
                kept.append(onnxruntime.OrtValue.ortvalue_from_numpy(np.array(value)))
            else:
                kept.append(OnFakeGpu(self._gpu, value))
        binding.outputs = kept
