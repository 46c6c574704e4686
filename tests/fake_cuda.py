"""A GPU in the host's memory, behind the functions of `cuda.bindings.runtime` that the table lists, and no others."""

from __future__ import annotations

import ctypes
import enum
import inspect
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from tests.tensorrt_table import closest, table


@dataclass
class FakeGpu:
    """The GPU: what it is, what lies in its memory, and what was asked of it.

    Attributes:
        capability: compute capability.
        name: of the GPU.
        memory: bytes that can be allocated, pinned memory not counted.
        count: of GPUs that the driver sees.
        status: that every call of the driver ends with, None for what it deserves.
        refuses_capture: whether a recording of work ends with an error.
    """

    capability: tuple[int, int] = (9, 0)
    name: str = "NVIDIA H200"
    memory: int = 2**30
    count: int = 1
    status: str | None = None
    refuses_capture: bool = False
    allocated: dict[int, Any] = field(default_factory=dict)
    pinned: dict[int, Any] = field(default_factory=dict)
    #: Work recorded so far, while something is recorded.
    recording: list[Callable[[], None]] | None = None
    #: Recorded graphs that were launched, and functions that were called.
    launches: int = 0
    calls: list[str] = field(default_factory=list)
    #: How many copies there were, by their direction.
    copies: dict[str, int] = field(default_factory=dict)
    #: Direction and bytes of each copy that was done, also as a part of recorded work.
    moved: list[tuple[str, int]] = field(default_factory=list)
    streams: set[int] = field(default_factory=set)

    @property
    def used(self) -> int:
        """Bytes that are allocated now."""
        return sum(len(block) for block in self.allocated.values())

    def take_in(self, values: Any) -> int:
        """An array of the host as one of another library on the GPU, for as long as somebody refers to it."""
        address = int(values.ctypes.data)
        self.allocated[address] = bytes(values.nbytes)
        weakref.finalize(values, self.allocated.pop, address, None)
        return address

    def has(self, address: int, size: int) -> bool:
        """Whether bytes lie in one block of the GPU's memory."""
        return any(start <= address and address + size <= start + len(block) for start, block in self.allocated.items())

    def do(self, work: Callable[[], None]) -> None:
        """Does work, or records it."""
        if self.recording is None:
            work()
        else:
            self.recording.append(work)


class _Calls:
    """What each function does; names and arguments come from the table."""

    def __init__(self, gpu: FakeGpu, errors: Any) -> None:
        self.gpu = gpu
        self.errors = errors
        self.graphs: dict[int, list[Callable[[], None]]] = {}

    def cudaGetDeviceCount(self) -> int:  # noqa: N802
        return self.gpu.count

    def cudaDeviceGetAttribute(self, attr: Any, device: int) -> int:  # noqa: N802
        return self.gpu.capability[0 if attr.name.endswith("Major") else 1]

    def cudaGetDeviceProperties(self, device: int) -> Any:  # noqa: N802
        return SimpleNamespace(name=self.gpu.name.encode())

    def cudaMemGetInfo(self) -> tuple[int, int]:  # noqa: N802
        return self.gpu.memory - self.gpu.used, self.gpu.memory

    def cudaMalloc(self, size: int) -> Any:  # noqa: N802
        if self.gpu.used + size > self.gpu.memory:
            return self.errors.cudaErrorMemoryAllocation
        return _keep(self.gpu.allocated, size)

    def cudaFree(self, devPtr: int) -> Any:  # noqa: N802, N803
        return None if self.gpu.allocated.pop(devPtr, None) is not None else self.errors.cudaErrorInvalidValue

    def cudaMallocHost(self, size: int) -> int:  # noqa: N802
        return _keep(self.gpu.pinned, size)

    def cudaFreeHost(self, ptr: int) -> Any:  # noqa: N802
        return None if self.gpu.pinned.pop(ptr, None) is not None else self.errors.cudaErrorInvalidValue

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: Any, stream: int) -> Any:  # noqa: N802
        on_gpu = {"HostToDevice": [dst], "DeviceToHost": [src], "DeviceToDevice": [dst, src]}
        places = on_gpu[kind.name.removeprefix("cudaMemcpy")]
        if stream not in self.gpu.streams or not all(self.gpu.has(place, count) for place in places):
            return self.errors.cudaErrorInvalidValue

        self.gpu.copies[kind.name] = self.gpu.copies.get(kind.name, 0) + 1

        def copy() -> None:
            ctypes.memmove(dst, src, count)
            self.gpu.moved.append((kind.name.removeprefix("cudaMemcpy"), count))

        self.gpu.do(copy)
        return None

    def cudaStreamCreateWithFlags(self, flags: int) -> int:  # noqa: N802
        self.gpu.streams.add(0x5EED0 + len(self.gpu.streams))
        return max(self.gpu.streams)

    def cudaStreamSynchronize(self, stream: int) -> Any:  # noqa: N802
        if self.gpu.recording is not None:
            return self.errors.cudaErrorStreamCaptureUnsupported
        return None if stream in self.gpu.streams else self.errors.cudaErrorInvalidValue

    def cudaStreamDestroy(self, stream: int) -> None:  # noqa: N802
        self.gpu.streams.remove(stream)

    def cudaStreamBeginCapture(self, stream: int, mode: Any) -> None:  # noqa: N802
        assert self.gpu.recording is None
        self.gpu.recording = []

    def cudaStreamEndCapture(self, stream: int) -> Any:  # noqa: N802
        work, self.gpu.recording = self.gpu.recording, None
        assert work is not None
        if self.gpu.refuses_capture:
            return self.errors.cudaErrorStreamCaptureInvalidated
        self.graphs[len(self.graphs) + 1] = work
        return len(self.graphs)

    def cudaGraphInstantiate(self, graph: int, flags: int) -> Any:  # noqa: N802
        return SimpleNamespace(work=self.graphs[graph])

    def cudaGraphLaunch(self, graphExec: Any, stream: int) -> None:  # noqa: N802, N803
        self.gpu.launches += 1
        for work in graphExec.work:
            work()

    def cudaGraphDestroy(self, graph: int) -> None:  # noqa: N802
        assert graph in self.graphs

    def cudaGraphExecDestroy(self, graphExec: Any) -> None:  # noqa: N802, N803
        graphExec.work = []

    def cudaGetLastError(self) -> None:  # noqa: N802
        pass


def _keep(where: dict[int, Any], size: int) -> int:
    # Memory that was not written holds something, on a GPU too: not-a-number shows where it is used.
    block = (ctypes.c_ubyte * size)(*(b"\xff" * min(size, 64)))
    where[ctypes.addressof(block)] = block
    return ctypes.addressof(block)


def fake_cudart(gpu: FakeGpu, version: str = "13.5.0") -> Any:
    """A module `cuda.bindings.runtime` for that GPU; what the table does not list is not in it."""
    known = closest(table()["cuda.bindings.runtime"], version)
    module = SimpleNamespace(**known["constants"])
    for name, members in known["enums"].items():
        setattr(module, name, enum.IntEnum(name, members))
    calls = _Calls(gpu, module.cudaError_t)
    for name, arguments in known["functions"].items():
        setattr(module, name, _checked(name, arguments, calls, module.cudaError_t))
    return module


def _checked(name: str, arguments: list[str], calls: _Calls, errors: Any) -> Callable[..., tuple[Any, ...]]:
    signature = inspect.Signature(
        [inspect.Parameter(argument, inspect.Parameter.POSITIONAL_OR_KEYWORD) for argument in arguments]
    )
    returns = "-> None" not in str(inspect.signature(getattr(_Calls, name)))

    def call(*given: Any, **named: Any) -> tuple[Any, ...]:
        bound = signature.bind(*given, **named)
        calls.gpu.calls.append(name)
        status = calls.gpu.status
        value = getattr(calls, name)(*bound.args) if status is None else errors[status]
        if isinstance(value, errors):
            return (value, None) if returns else (value,)
        if value is None:
            return (errors.cudaSuccess,)
        return (errors.cudaSuccess, *value) if isinstance(value, tuple) else (errors.cudaSuccess, value)

    return call
