from __future__ import annotations

from typing import Any

import numpy as np

from engines.resident import HostArray, on_host, outline


class There:
    shape, dtype = (2, 10**6), np.dtype(np.float16)

    def numpy(self) -> Any:
        return np.ones((2, 3), np.float16)


def test_an_outline_has_shape_and_dtype_and_takes_no_memory() -> None:
    found = outline(There())
    assert (found.shape, found.dtype) == (There.shape, There.dtype)
    assert found.strides == (0, 0)


def test_what_is_on_the_host_is_its_own_outline() -> None:
    values = np.arange(6)
    assert outline(values) is values
    assert outline(HostArray(values)) is values
    # What is no array is told by whoever compares.
    assert outline([1, 2]) == [1, 2]  # type: ignore[arg-type]


def test_everything_comes_to_the_host_and_only_what_lies_elsewhere_is_copied() -> None:
    values = np.arange(6)
    found = on_host({"a": values, "b": HostArray(values), "c": There()})
    assert found["a"] is values
    assert found["b"] is values
    assert found["c"].shape == (2, 3)
