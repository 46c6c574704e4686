from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.errors import RuntimeFailedError
from engines.shared_arrays import ArraySpec, Inbox, Outbox

MEBIBYTE = 2**20


def handed_over(outbox: Outbox, inbox: Inbox, arrays: dict[str, Any]) -> dict[str, Any]:
    specs, descriptor = outbox.put(arrays)
    if descriptor is not None:
        inbox.adopt(descriptor)
        os.close(descriptor)
    return inbox.views(specs)


def spec(shape: tuple[int, ...], offset: int = 0, name: str = "x") -> ArraySpec:
    return ArraySpec(name=name, dtype="float32", shape=shape, offset=offset)


def filled(size: int = MEBIBYTE) -> Inbox:
    outbox, inbox = Outbox(size), Inbox(size)
    handed_over(outbox, inbox, {"x": np.ones(4, np.float32)})
    return inbox


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_arrays_of_every_type_arrive_as_they_were() -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "wide": rng.standard_normal((2, 3, 5)).astype(np.float32),
        "half": rng.standard_normal((1, 7)).astype(np.float16),
        "bytes": rng.integers(0, 256, (3,), np.uint8),
        "long": rng.integers(-9, 9, (2, 2)),
        "short": rng.integers(-9, 9, (5,), np.int32),
        "flags": np.array([True, False, True]),
        "none": np.zeros((0, 4), np.float32),
        "strided": rng.standard_normal((4, 6)).astype(np.float32)[:, ::2].T,
    }
    got = handed_over(Outbox(MEBIBYTE), Inbox(MEBIBYTE), arrays)
    assert list(got) == list(arrays)
    for name, array in arrays.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)


def test_memory_is_used_again_and_grows_only_when_it_must() -> None:
    outbox, inbox = Outbox(8 * MEBIBYTE), Inbox(8 * MEBIBYTE)
    small = {"x": np.zeros(1000, np.uint8)}
    _, first = outbox.put(small)
    assert first is not None
    assert outbox.put(small)[1] is None
    assert outbox.size == MEBIBYTE
    os.close(first)
    large = handed_over(outbox, inbox, {"x": np.ones(3 * MEBIBYTE, np.uint8)})
    assert outbox.size == 3 * MEBIBYTE
    assert large["x"].all()
    assert outbox.put(small)[1] is None


def test_what_is_larger_than_the_limit_is_an_error_that_says_so() -> None:
    outbox = Outbox(MEBIBYTE)
    with pytest.raises(RuntimeFailedError, match=r"take 2 MiB.*at most 1 MiB"):
        outbox.put({"x": np.zeros(2 * MEBIBYTE, np.uint8)})
    assert outbox.size == 0


def test_a_type_that_no_graph_has_is_an_error() -> None:
    with pytest.raises(RuntimeFailedError, match="complex64"):
        Outbox(MEBIBYTE).put({"x": np.zeros(2, np.complex64)})


@pytest.mark.parametrize(
    "wrong",
    [
        spec((2**18 + 1,)),
        spec((2**18,), offset=64),
        spec((1,), offset=2**40),
        spec((1,), offset=4),
        spec((2**31, 2**31, 2**31, 2**31)),
        spec((2**62, 2**62, 4)),
        spec((0, 2**62, 2**62)),
    ],
)
def test_numbers_that_point_elsewhere_are_refused(wrong: ArraySpec) -> None:
    with pytest.raises(RuntimeFailedError):
        filled().views([wrong])


def test_two_arrays_of_one_name_are_refused() -> None:
    with pytest.raises(RuntimeFailedError, match="same name"):
        filled().views([spec((1,)), spec((2,))])


def test_arrays_are_refused_before_there_is_memory() -> None:
    with pytest.raises(RuntimeFailedError, match="0 bytes"):
        Inbox(MEBIBYTE).views([spec((1,))])


def test_only_sealed_memory_of_a_bounded_size_is_adopted(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb+") as file:
        file.truncate(64)
        with pytest.raises(RuntimeFailedError):
            Inbox(MEBIBYTE).adopt(file.fileno())
    loose = os.memfd_create("loose", os.MFD_ALLOW_SEALING)
    os.ftruncate(loose, 64)
    with pytest.raises(RuntimeFailedError, match="could be cut off"):
        Inbox(MEBIBYTE).adopt(loose)
    os.close(loose)
    reading, writing = os.pipe()
    with pytest.raises(RuntimeFailedError):
        Inbox(MEBIBYTE).adopt(reading)
    os.close(reading)
    os.close(writing)
    _, large = Outbox(4 * MEBIBYTE).put({"x": np.zeros(2 * MEBIBYTE, np.uint8)})
    assert large is not None
    with pytest.raises(RuntimeFailedError, match="at most 1048576"):
        Inbox(MEBIBYTE).adopt(large)
    os.close(large)


def test_the_receiver_cannot_write_and_nobody_can_cut_it_off() -> None:
    outbox = Outbox(MEBIBYTE)
    specs, descriptor = outbox.put({"x": np.ones(4, np.float32)})
    assert descriptor is not None
    inbox = Inbox(MEBIBYTE)
    inbox.adopt(descriptor)
    view = inbox.views(specs)["x"]
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 2
    for change in (lambda: os.ftruncate(descriptor, 0), lambda: os.pwrite(descriptor, b"x", 0)):
        with pytest.raises(PermissionError):
            change()
    os.close(descriptor)


def test_memory_goes_with_its_last_array() -> None:
    before = descriptors()
    outbox, inbox = Outbox(MEBIBYTE), Inbox(MEBIBYTE)
    views = handed_over(outbox, inbox, {"x": np.ones(4, np.float32)})
    assert descriptors() > before
    outbox.close()
    inbox.close()
    np.testing.assert_array_equal(views["x"], 1)
    del views
    assert descriptors() == before
