"""The few CUDA calls that TensorRT plans need, through NVIDIA's `cuda-bindings`.

Every call of that package returns its status first; here a status other than success is an error with the call's name.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import threading
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engines.errors import DeviceMissingError, OutOfMemoryError, RuntimeFailedError, StandinError

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines.runtime import Array

log = logging.getLogger(__name__)

_INSTALL: Final = 'pip install "standin[tensorrt]"'
#: Shortest way to the right place in a driver's list of errors: no device, and a driver that is too old or not there.
_NO_DRIVER: Final = ("cudaErrorInsufficientDriver", "cudaErrorNoDevice", "cudaErrorInitializationError")
_OUT_OF_MEMORY: Final = "cudaErrorMemoryAllocation"


@dataclass(frozen=True)
class Gpu:
    """What plans have to know of a GPU.

    Attributes:
        name: as the driver tells it.
        capability: compute capability, major and minor.
        free: bytes of memory that nobody uses.
        total: bytes of memory.
    """

    name: str
    capability: tuple[int, int]
    free: int
    total: int


def import_cudart() -> Any:
    """Imports `cuda.bindings.runtime`, which is an optional dependency.

    Raises:
        DeviceMissingError: It is not installed, or cannot be loaded.
    """
    try:
        return import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise DeviceMissingError(f"cuda-bindings cannot be imported ({error}); {_INSTALL}") from None


class Cuda:
    """The first visible GPU; `CUDA_VISIBLE_DEVICES` says which one that is.

    Args:
        runtime: the module `cuda.bindings.runtime`; imported if not given.

    Raises:
        DeviceMissingError: The package, the driver or a GPU is not there.
    """

    def __init__(self, runtime: Any = None) -> None:
        self._rt = import_cudart() if runtime is None else runtime
        try:
            (count,) = self._call("cudaGetDeviceCount")
        except OutOfMemoryError:
            raise
        except RuntimeFailedError as error:
            raise DeviceMissingError(
                f"no NVIDIA GPU can be used ({error}); check the driver, see: standin doctor"
            ) from error
        if count < 1:
            raise DeviceMissingError(
                "there is no NVIDIA GPU; check the driver and CUDA_VISIBLE_DEVICES, see: standin doctor"
            )

    def _call(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        status, *values = getattr(self._rt, name)(*arguments)
        if int(status) != 0:
            code = getattr(status, "name", str(status))
            text = f"{name} said {code}"
            if code == _OUT_OF_MEMORY:
                raise OutOfMemoryError(f"the GPU is out of memory ({text}); free some, or build with a smaller --batch")
            if code in _NO_DRIVER:
                raise DeviceMissingError(f"no NVIDIA GPU can be used ({text}); check the driver")
            raise RuntimeFailedError(f"a call of CUDA failed: {text}; see the driver's messages")
        return tuple(values)

    def gpu(self) -> Gpu:
        """Looks at the GPU.

        Raises:
            DeviceMissingError: It cannot be used.
            RuntimeFailedError: A call failed.
        """
        attributes = self._rt.cudaDeviceAttr
        (major,) = self._call("cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMajor, 0)
        (minor,) = self._call("cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMinor, 0)
        (properties,) = self._call("cudaGetDeviceProperties", 0)
        free, total = self._call("cudaMemGetInfo")
        name = properties.name.decode("utf-8", "replace") if isinstance(properties.name, bytes) else properties.name
        return Gpu(str(name).rstrip("\0"), (int(major), int(minor)), int(free), int(total))

    def allocate(self, size: int) -> DeviceMemory:
        """Memory on the GPU.

        Args:
            size: bytes.

        Raises:
            OutOfMemoryError: There is none left.
        """
        (pointer,) = self._call("cudaMalloc", size)
        return DeviceMemory(int(pointer), size, lambda: self._call("cudaFree", int(pointer)))

    def pinned(self, size: int) -> HostMemory:
        """Memory of the host that the GPU reads and writes at full speed.

        Args:
            size: bytes.

        Raises:
            OutOfMemoryError: There is none left.
        """
        (pointer,) = self._call("cudaMallocHost", size)
        return HostMemory(int(pointer), size, lambda: self._call("cudaFreeHost", int(pointer)))

    def stream(self) -> Stream:
        """A stream of its own, which waits for nobody."""
        (stream,) = self._call("cudaStreamCreateWithFlags", int(self._rt.cudaStreamNonBlocking))
        return Stream(self._call, self._rt, int(stream))


def _give_back_quietly(give_back: Callable[[], object]) -> None:
    """Logs that it does not work: where the GPU is lost nothing can be given back, and nobody could do anything."""
    try:
        give_back()
    except StandinError as error:
        log.info("something on the GPU could not be given back: %s", error)


class _WithoutCollector:
    """Keeps the garbage collector away while any thread records: memory that it gave back there would spoil that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._was_enabled = False

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._was_enabled:
                gc.enable()


_without_collector: Final = _WithoutCollector()


class _Freed:
    """Something that is given back once, by `free`; its owner calls it."""

    def __init__(self, give_back: Callable[[], object]) -> None:
        self._give_back: Callable[[], object] | None = give_back

    def free(self) -> None:
        """Gives it back, or logs that it could not be; may be called again."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            _give_back_quietly(give_back)


class _Memory(_Freed):
    """Bytes.

    Attributes:
        address: where.
        size: how many.
    """

    def __init__(self, address: int, size: int, give_back: Callable[[], object]) -> None:
        super().__init__(give_back)
        self.address = address
        self.size = size


class DeviceMemory(_Memory):
    """Bytes on the GPU; made by `Cuda.allocate`."""


class HostMemory(_Memory):
    """Pinned bytes of the host; made by `Cuda.pinned`."""

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """The first bytes as an array; not to be used once the memory was freed.

        Args:
            shape: of the array.
            dtype: of the array.
        """
        count = int(np.prod(shape, dtype=np.int64))
        raw = (ctypes.c_byte * (count * dtype.itemsize)).from_address(self.address)
        array: Array = np.ctypeslib.as_array(raw).view(dtype).reshape(shape)
        return array


class Graph(_Freed):
    """Captured work of a stream; made by `Stream.capture`."""

    def __init__(self, handle: Any, give_back: Callable[[], object]) -> None:
        super().__init__(give_back)
        self.handle = handle


class Stream:
    """One stream of the GPU: what is put into it happens in this order; made by `Cuda.stream`."""

    def __init__(self, call: Callable[..., tuple[Any, ...]], runtime: Any, handle: int) -> None:
        self._call = call
        self._rt = runtime
        self.handle = handle

    def upload(self, target: int, source: int, size: int) -> None:
        """Copies bytes to the GPU; the source must stay as it is until `wait`.

        Args:
            target: address on the GPU.
            source: address in the host's memory.
            size: bytes.

        Raises:
            RuntimeFailedError: The copy cannot be made.
        """
        self._copy(target, source, size, "cudaMemcpyHostToDevice")

    def download(self, target: int, source: int, size: int) -> None:
        """Copies bytes from the GPU, which are there after `wait`.

        Args:
            target: address in the host's memory.
            source: address on the GPU.
            size: bytes.

        Raises:
            RuntimeFailedError: The copy cannot be made.
        """
        self._copy(target, source, size, "cudaMemcpyDeviceToHost")

    def move(self, target: int, source: int, size: int) -> None:
        """Copies bytes within the GPU.

        Args:
            target: address on the GPU.
            source: address on the GPU.
            size: bytes.

        Raises:
            RuntimeFailedError: The copy cannot be made.
        """
        self._copy(target, source, size, "cudaMemcpyDeviceToDevice")

    def _copy(self, target: int, source: int, size: int, kind: str) -> None:
        self._call("cudaMemcpyAsync", target, source, size, getattr(self._rt.cudaMemcpyKind, kind), self.handle)

    def wait(self) -> None:
        """Returns when everything in the stream was done.

        Raises:
            RuntimeFailedError: Some of it failed.
        """
        self._call("cudaStreamSynchronize", self.handle)

    def capture(self, work: Callable[[], None]) -> Graph:
        """Records work that is put into this stream, without doing it.

        Args:
            work: puts it in.

        Raises:
            RuntimeFailedError: It holds something that cannot be recorded.
        """
        with _without_collector:
            self._call(
                "cudaStreamBeginCapture", self.handle, self._rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
            )
            try:
                work()
            except BaseException:
                # The stream stays in the state of capturing until this is called, which fails then.
                self._rt.cudaStreamEndCapture(self.handle)
                self._rt.cudaGetLastError()
                raise
            (graph,) = self._call("cudaStreamEndCapture", self.handle)
        try:
            (ready,) = self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)
        return Graph(ready, lambda: self._call("cudaGraphExecDestroy", ready))

    def launch(self, graph: Graph) -> None:
        """Does what was recorded.

        Args:
            graph: of this stream.

        Raises:
            RuntimeFailedError: It cannot be started.
        """
        self._call("cudaGraphLaunch", graph.handle, self.handle)

    def close(self) -> None:
        """Ends the stream, or logs that it could not be ended."""
        _give_back_quietly(lambda: self._call("cudaStreamDestroy", self.handle))
