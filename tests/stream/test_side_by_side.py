from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from stream.frame import Frame
from stream.side_by_side import side_by_side
from tests.fakes import frames, noise, number


@pytest.mark.parametrize("workers", [1, 3])
def test_what_comes_back_is_in_order(workers: int) -> None:
    assert list(side_by_side(number, frames(noise(7)), workers)) == list(range(7))


def test_so_many_calls_are_under_way_and_no_more() -> None:
    together = threading.Barrier(3)
    taken = 0

    def given() -> Iterator[Frame]:
        nonlocal taken
        for frame in frames(noise(9)):
            taken += 1
            yield frame

    def meet(frame: Frame) -> int:
        together.wait(10)
        return number(frame)

    found = side_by_side(meet, given(), 3)
    assert next(found) == 0
    assert taken == 3
    assert list(found) == list(range(1, 9))


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_comes_when_its_turn_is(workers: int) -> None:
    def fail(frame: Frame) -> int:
        if number(frame) == 2:
            raise ValueError("the third")
        return number(frame)

    found = side_by_side(fail, frames(noise(5)), workers)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(found)
