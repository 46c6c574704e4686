"""Memory of a TensorRT engine's inputs and outputs, on the GPU and pinned on the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engines.dlpack import CUDA, DeviceArray

if TYPE_CHECKING:
    from engines.cuda import Cuda, DeviceMemory, HostMemory, Stream
    from engines.runtime import Array

Shape = tuple[int, ...]
#: Bytes up to which an array goes through pinned memory; larger ones, such as tables of many tracks, go directly.
_MOST_PINNED: Final = 64 * 2**20


@dataclass(frozen=True)
class GpuArray(DeviceArray):
    """An array on the GPU that a plan holds or kept; see `engines.resident.Resident`.

    Attributes:
        cuda: the GPU.
    """

    cuda: Cuda

    def numpy(self) -> Array:
        """A copy on the host."""
        values = np.empty(self.shape, self.dtype)
        stream = self.cuda.stream()
        try:
            stream.download(values.ctypes.data, self.address, values.nbytes)
            stream.wait()
        finally:
            stream.close()
        return values


class Buffer:
    """An input or output.

    Args:
        cuda: the GPU.
        dtype: of its elements.
        most: its largest shape.

    Raises:
        OutOfMemoryError: There is no memory left.
    """

    def __init__(self, cuda: Cuda, dtype: np.dtype[Any], most: Shape) -> None:
        self.dtype = dtype
        size = max(1, int(np.prod(most, dtype=np.int64)) * dtype.itemsize)
        self._device: DeviceMemory = cuda.allocate(size)
        try:
            self._host: HostMemory | None = cuda.pinned(size) if size <= _MOST_PINNED else None
        except BaseException:
            self._device.free()
            raise

    @property
    def address(self) -> int:
        """On the GPU."""
        return self._device.address

    @property
    def size(self) -> int:
        """Bytes."""
        return self._device.size

    def send(self, stream: Stream, array: Array | DeviceArray) -> object:
        """Puts the way into the buffer into a stream; what is returned must stay until the stream was waited for.

        Args:
            stream: that the buffer is used in.
            array: not larger than the buffer.
        """
        if isinstance(array, DeviceArray):
            stream.move(self.address, array.address, array.size)
            return array
        values = np.ascontiguousarray(array)
        if self._host is not None:
            staged = self._host.array(values.shape, values.dtype)
            staged[...] = values
            values = staged
        stream.upload(self.address, values.ctypes.data, values.nbytes)
        return values

    def fetch(self, stream: Stream, shape: Shape) -> Array:
        """Puts the way to the host into a stream; the array holds the values once the stream was waited for.

        Args:
            stream: that the buffer is used in.
            shape: of the array.
        """
        values = np.empty(shape, self.dtype) if self._host is None else self._host.array(shape, self.dtype)
        stream.download(values.ctypes.data, self.address, values.nbytes)
        return values

    def own(self, values: Array) -> Array:
        """What `fetch` gave, as an array that stays as it is when the next one is fetched."""
        return values if self._host is None else values.copy()

    def free(self) -> None:
        """Gives the memory back; may be called again."""
        self._device.free()
        if self._host is not None:
            self._host.free()


def uploaded(cuda: Cuda, stream: Stream, values: Array) -> GpuArray:
    """An array of the host as one on the GPU, whose memory is given back once nobody refers to it.

    Inputs that are held come in sizes that grow: memory that waited to be used again would never be.

    Args:
        cuda: the GPU.
        stream: that the array is used in.
        values: of the host.

    Raises:
        OutOfMemoryError: There is no memory left.
    """
    whole = np.ascontiguousarray(values)
    memory = cuda.allocate(max(1, whole.nbytes))
    held = GpuArray(memory.address, whole.shape, whole.dtype, (CUDA, 0), _Owned(memory), cuda)
    stream.upload(memory.address, whole.ctypes.data, whole.nbytes)
    stream.wait()
    return held


class Lending:
    """Memory on the GPU for answers that stay there; used again once nobody refers to an answer.

    Args:
        cuda: the GPU.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._idle: dict[int, list[DeviceMemory]] = {}
        self._closed = False

    def copy(self, stream: Stream, buffer: Buffer, shape: Shape) -> GpuArray:
        """Puts a copy of a buffer into a stream.

        Args:
            stream: that the buffer is used in.
            buffer: to copy.
            shape: of what it holds.

        Raises:
            OutOfMemoryError: There is no memory left.
        """
        idle = self._idle.setdefault(buffer.size, [])
        memory = idle.pop() if idle else self._cuda.allocate(buffer.size)
        found = GpuArray(memory.address, shape, buffer.dtype, (CUDA, 0), _Loan(self, memory), self._cuda)
        stream.move(memory.address, buffer.address, found.size)
        return found

    def take_back(self, memory: DeviceMemory) -> None:
        """Takes memory that nobody refers to any more; from any thread, at any time."""
        if self._closed:
            memory.free()
        else:
            self._idle[memory.size].append(memory)

    def close(self) -> None:
        """Frees what is idle now, and everything else when it comes back."""
        self._closed = True
        for idle in self._idle.values():
            while idle:
                idle.pop().free()


class _Loan:
    def __init__(self, lending: Lending, memory: DeviceMemory) -> None:
        self._lending, self._memory = lending, memory

    def __del__(self) -> None:
        self._lending.take_back(self._memory)


class _Owned:
    def __init__(self, memory: DeviceMemory) -> None:
        self._memory = memory

    def __del__(self) -> None:
        self._memory.free()
