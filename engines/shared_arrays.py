"""Arrays in memory that two processes share, one way each: one side puts arrays in, the other looks at them.

The memory has no name (`memfd_create`): it is passed as a descriptor over a socket and is gone when both sides are,
even if they were killed. It can neither shrink nor be written by the receiver, who trusts no number that comes with it.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import stat
from typing import TYPE_CHECKING, Annotated, Final, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.errors import RuntimeFailedError
from engines.manifest import DType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engines.runtime import Array

#: Bytes; rows of arrays begin where vector instructions like them to.
_ALIGNMENT: Final = 64
#: Memory grows in steps, so that slightly larger arrays need no new one.
_STEP: Final = 2**20
#: Not in `fcntl` before Python 3.13: whoever gets the descriptor cannot map it writable.
_F_SEAL_FUTURE_WRITE: Final = 0x10
#: What makes a mapping safe to read: nobody can cut it off under the reader.
_F_SEAL_SHRINK: Final = fcntl.F_SEAL_SHRINK
_SEALS: Final = _F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL


class ArraySpec(BaseModel):
    """Where an array lies in shared memory.

    Attributes:
        name: of the tensor.
        dtype: of its elements.
        shape: at most eight dimensions.
        offset: of its first byte.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(min_length=1, max_length=200)
    dtype: DType
    shape: tuple[Annotated[int, Field(ge=0)], ...] = Field(max_length=8)
    offset: int = Field(ge=0)

    @property
    def size(self) -> int:
        """Bytes, as Python counts them: no product of sides overflows."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class Outbox:
    """Memory that this process writes and another reads. Not for several threads at once.

    Args:
        limit: bytes that all arrays of one message may take.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._memory: mmap.mmap | None = None

    @property
    def size(self) -> int:
        """Bytes that are reserved now."""
        return 0 if self._memory is None else len(self._memory)

    def put(self, arrays: Mapping[str, Array]) -> tuple[tuple[ArraySpec, ...], int | None]:
        """Copies arrays into the memory; those of the last call are overwritten.

        Args:
            arrays: Name -> array.

        Returns:
            Where they lie, and the descriptor of new memory if that so far was too small: the receiver needs it with
            this message, and the caller closes it.

        Raises:
            RuntimeFailedError: They are larger than the limit.
            OSError: There is no memory.
        """
        specs = _place(arrays)
        needed = specs[-1].offset + specs[-1].size if specs else 0
        if needed > self._limit:
            raise RuntimeFailedError(
                f"arrays take {needed / 2**20:.0f} MiB, an engine process shares at most {self._limit / 2**20:.0f} MiB "
                "with a client; give less at once, or start it with a larger --memory"
            )
        descriptor = self._grow(needed) if needed > self.size else None
        for spec in specs:
            if spec.size and self._memory is not None:
                _view(self._memory, spec)[...] = arrays[spec.name]
        return tuple(specs), descriptor

    def _grow(self, needed: int) -> int:
        size = min(self._limit, -(-needed // _STEP) * _STEP)
        descriptor = os.memfd_create("standin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size)
            memory = mmap.mmap(descriptor, size)
            # Raw pixels lie in it.
            memory.madvise(mmap.MADV_DONTDUMP)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(descriptor)
            raise
        self._memory = memory
        return descriptor

    def close(self) -> None:
        """Gives the memory back; may be called again."""
        self._memory = None


class Inbox:
    """Memory that another process writes and this one reads. Not for several threads at once.

    Args:
        limit: bytes that it may have.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._memory: mmap.mmap | None = None

    def adopt(self, descriptor: int) -> None:
        """Takes memory that the other side made, in place of that so far. The descriptor stays the caller's.

        Raises:
            RuntimeFailedError: It is no shared memory, could be cut off, or is larger than the limit.
        """
        try:
            about = os.fstat(descriptor)
            sealed = stat.S_ISREG(about.st_mode) and fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _F_SEAL_SHRINK
            if not sealed or not 0 < about.st_size <= self._limit:
                raise RuntimeFailedError(
                    f"shared memory of {about.st_size} bytes{'' if sealed else ' that could be cut off'} was offered, "
                    f"expected a sealed one of at most {self._limit} bytes"
                )
            memory = mmap.mmap(descriptor, about.st_size, prot=mmap.PROT_READ)
        except (OSError, ValueError) as error:
            raise RuntimeFailedError(f"what was offered as shared memory is none ({error})") from None
        memory.madvise(mmap.MADV_DONTDUMP)
        self._memory = memory

    def views(self, specs: Sequence[ArraySpec]) -> dict[str, Array]:
        """Looks at arrays where they lie: the other side may change their values at any time, but nothing else.

        Raises:
            RuntimeFailedError: They do not lie in the memory, or two have one name.
        """
        size = 0 if self._memory is None else len(self._memory)
        for spec in specs:
            if spec.offset % _ALIGNMENT or spec.offset + spec.size > size:
                raise RuntimeFailedError(
                    f"array {spec.name!r} {spec.dtype} {spec.shape} at byte {spec.offset} does not lie in the "
                    f"{size} bytes that are shared"
                )
        if len({spec.name for spec in specs}) < len(specs):
            raise RuntimeFailedError("two arrays of one message have the same name")
        try:
            return {
                spec.name: _view(self._memory, spec)
                if spec.size and self._memory is not None
                else np.empty(spec.shape, np.dtype(spec.dtype))
                for spec in specs
            }
        except ValueError as error:  # an array of nothing may still have a side that is larger than numpy takes
            raise RuntimeFailedError(f"an array has a shape that cannot be ({error})") from None

    def close(self) -> None:
        """Lets go of the memory, which stays until the last array in it is gone too; may be called again."""
        self._memory = None


def _place(arrays: Mapping[str, Array]) -> tuple[ArraySpec, ...]:
    """One behind the other."""
    specs, offset = [], 0
    for name, array in arrays.items():
        try:
            fields = {"name": name, "dtype": array.dtype.name, "shape": array.shape, "offset": offset}
            specs.append(ArraySpec.model_validate(fields))
        except ValidationError:
            raise RuntimeFailedError(
                f"array {name!r} is {array.dtype} {array.shape}; expected one of {', '.join(get_args(DType))} "
                "with at most eight dimensions"
            ) from None
        offset += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    return tuple(specs)


def _view(memory: mmap.mmap, spec: ArraySpec) -> Array:
    flat = np.frombuffer(memory, np.dtype(spec.dtype), math.prod(spec.shape), spec.offset)
    return flat.reshape(spec.shape)
