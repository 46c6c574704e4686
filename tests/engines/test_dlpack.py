from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from engines.dlpack import CPU, CUDA, DeviceArray, take
from engines.errors import TensorError

X = np.arange(12, dtype=np.float32).reshape(3, 4)


class Owner:
    pass


def handed_over(owner: object, values: Any = X) -> DeviceArray:
    return DeviceArray(values.ctypes.data, values.shape, values.dtype, (CPU, 0), owner)


def test_another_library_sees_the_same_memory_as_long_as_it_needs_it() -> None:
    owner = Owner()
    alive = weakref.ref(owner)
    seen = np.from_dlpack(handed_over(owner))
    del owner
    gc.collect()
    assert alive() is not None
    assert seen.ctypes.data == X.ctypes.data
    np.testing.assert_array_equal(seen, X)
    del seen
    gc.collect()
    assert alive() is None


def test_what_nobody_took_is_let_go() -> None:
    owner = Owner()
    alive = weakref.ref(owner)
    capsule = handed_over(owner).__dlpack__()
    del owner
    gc.collect()
    assert alive() is not None
    del capsule
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("dtype", ["float16", "float32", "int32", "int64", "uint8", "bool"])
def test_arrays_of_every_type_are_taken_where_they_lie(dtype: str) -> None:
    values = np.zeros((2, 1, 3), dtype)
    taken = take(values, kinds=(CPU,))
    assert (taken.address, taken.shape, taken.dtype) == (values.ctypes.data, values.shape, values.dtype)
    assert taken.size == values.nbytes


def test_what_was_taken_is_given_back_once() -> None:
    values = np.zeros(3)
    owner = Owner()
    alive = weakref.ref(owner)
    taken = take(handed_over(owner, values), kinds=(CPU,))
    del owner
    gc.collect()
    assert alive() is not None
    del taken
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize(
    ("array", "kinds", "text"),
    [
        (X.T, (CPU,), "gaps"),
        (X, (CUDA,), "lies on the device"),
        (X.astype(np.complex64), (CPU,), "a type that numpy does not know"),
    ],
)
def test_what_cannot_be_taken_is_an_error_that_says_why(array: Any, kinds: tuple[int, ...], text: str) -> None:
    with pytest.raises(TensorError, match=text):
        take(array, kinds=kinds)


class Without:
    """An array of a library that hands nothing over."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU, 0

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        raise self._error


@pytest.mark.parametrize("error", [RuntimeError("not\nbuilt in"), BufferError("no"), AttributeError("__dlpack__")])
def test_a_library_that_hands_nothing_over_is_an_error_in_one_line(error: Exception) -> None:
    with pytest.raises(TensorError, match="is not handed over") as caught:
        take(Without(error), kinds=(CPU,))
    assert "\n" not in str(caught.value)


def test_it_is_never_copied() -> None:
    with pytest.raises(BufferError, match="without a copy"):
        handed_over(None).__dlpack__(copy=True)
