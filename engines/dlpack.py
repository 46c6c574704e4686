"""Arrays that stay on a device, handed over without a copy by the DLPack protocol."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from engines.errors import TensorError

#: Kinds of memory, as DLPack numbers them.
CPU: Final = 1
CUDA: Final = 2
_NAME: Final = b"dltensor"
_USED: Final = b"used_dltensor"
_KINDS: Final = {"i": 0, "u": 1, "f": 2, "b": 6}
_LETTERS: Final = {code: letter for letter, code in _KINDS.items()}


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("index", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))

_api = ctypes.pythonapi
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(("PyCapsule_New", _api))
# By address: a capsule that is being deleted must not be referred to again.
_is_named = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_content = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_SetName", _api))
_keep = ctypes.PYFUNCTYPE(None, ctypes.py_object)(("Py_IncRef", _api))
_let_go = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(("Py_DecRef", _api))


@runtime_checkable
class SupportsDlpack(Protocol):
    """An array of any library that can hand over its memory."""

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        """A capsule with the array."""

    def __dlpack_device__(self) -> tuple[int, int]:
        """Kind and number of the device that it lies on."""


class _Holder:
    """What must stay until whoever took the array has called its deleter."""

    def __init__(self, owner: object, sides: Any, managed: _Managed) -> None:
        self.owner = owner
        self.sides = sides
        self.managed = managed


def _deleted(managed: Any) -> None:
    _let_go(managed.contents.context)


def _deleted_unused(capsule: int) -> None:
    if _is_named(capsule, _NAME):
        _let_go(ctypes.cast(_content(capsule, _NAME), ctypes.POINTER(_Managed)).contents.context)


_delete = _Deleter(_deleted)
_delete_unused = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_deleted_unused)


@dataclass(frozen=True)
class DeviceArray:
    """An array in memory that somebody else owns; any library that knows DLPack takes it without a copy.

    Attributes:
        address: of its first element.
        shape: of the array, whose elements lie in C order without gaps.
        dtype: of its elements.
        device: kind and number, as DLPack has them.
        owner: keeps the memory as long as it is referred to.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: tuple[int, int]
    owner: object

    @property
    def size(self) -> int:
        """Bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        if copy or dl_device not in (None, self.device):
            raise BufferError("it is handed over where it lies, without a copy")
        sides = (ctypes.c_int64 * len(self.shape))(*self.shape)
        kind = _DataType(_KINDS[self.dtype.kind], self.dtype.itemsize * 8, 1)
        tensor = _Tensor(self.address, _Device(*self.device), len(self.shape), kind, sides, None, 0)
        managed = _Managed(tensor, None, _delete)
        holder = _Holder(self.owner, sides, managed)
        managed.context = id(holder)
        _keep(holder)
        return _new(ctypes.addressof(managed), _NAME, ctypes.cast(_delete_unused, ctypes.c_void_p))


class _Taken:
    """Memory that was taken from a capsule; given back at the end of its life."""

    def __init__(self, pointer: int) -> None:
        self._pointer = pointer

    def __del__(self) -> None:
        pointer = ctypes.cast(self._pointer, ctypes.POINTER(_Managed))
        if pointer.contents.deleter:
            pointer.contents.deleter(pointer)


def take(array: SupportsDlpack, *, stream: int | None = None, kinds: tuple[int, ...] = (CUDA,)) -> DeviceArray:
    """Takes an array of another library where it lies.

    Args:
        array: that library's.
        stream: handle of the CUDA stream that will read it; the library waits for its own work in that stream.
        kinds: of memory that will do.

    Raises:
        TensorError: It lies elsewhere, has gaps, or elements of a type that is not known, or the library does not hand
            it over.
    """
    try:
        kind, number = array.__dlpack_device__()
        device = (int(kind), int(number))
        if device[0] not in kinds or device[1] != 0:
            raise TensorError(f"an array lies on the device {device}; expected the first one of the kinds {kinds}")
        capsule = array.__dlpack__(stream=stream)
    except (AttributeError, BufferError, RuntimeError, TypeError) as error:
        raise TensorError(f"an array is not handed over: {' '.join(str(error).split())}") from error
    address = id(capsule)
    if not _is_named(address, _NAME):
        raise TensorError("an array was handed over as something that DLPack does not know; convert it")
    pointer = int(_content(address, _NAME))
    _rename(address, _USED)
    taken = _Taken(pointer)
    tensor = ctypes.cast(pointer, ctypes.POINTER(_Managed)).contents.tensor
    shape = tuple(int(tensor.shape[axis]) for axis in range(tensor.ndim))
    letter = _LETTERS.get(tensor.dtype.code)
    if letter is None or tensor.dtype.lanes != 1:
        raise TensorError("an array has elements of a type that numpy does not know; convert it")
    dtype = np.dtype(bool) if letter == "b" else np.dtype(f"{letter}{tensor.dtype.bits // 8}")
    if tensor.strides and not _without_gaps(shape, [int(tensor.strides[axis]) for axis in range(tensor.ndim)]):
        raise TensorError("an array has gaps between its elements; make it contiguous")
    return DeviceArray(int(tensor.data or 0) + int(tensor.byte_offset), shape, dtype, device, taken)


def _without_gaps(shape: tuple[int, ...], strides: list[int]) -> bool:
    expected = 1
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        if side > 1 and stride != expected:
            return False
        expected *= side
    return True
