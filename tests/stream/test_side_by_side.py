from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

import pytest

from stream.channel import Channel
from stream.frame import Frame
from stream.side_by_side import feed_side_by_side, side_by_side
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


def feeding(
    function: Callable[[int], int], items: Iterable[int], workers: int, room: int = 100
) -> tuple[Channel[int], threading.Thread]:
    channel: Channel[int] = Channel(room)
    thread = threading.Thread(target=feed_side_by_side, args=(function, items, channel, workers), daemon=True)
    thread.start()
    return channel, thread


@pytest.mark.parametrize("workers", [1, 3])
def test_a_channel_is_fed_in_order_however_long_calls_take(workers: int) -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.02 if item % 3 == 0 else 0)
        return item * item

    channel, thread = feeding(slow_first, range(20), workers)
    assert list(channel) == [item * item for item in range(20)]
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("workers", [1, 3])
def test_what_is_done_does_not_wait_for_a_further_item(workers: int) -> None:
    later = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        later.wait(10)
        yield 2

    channel, _ = feeding(abs, items(), workers)
    assert channel.take(5) == 1
    later.set()
    assert list(channel) == [2]


def test_no_more_are_taken_than_may_be_under_way() -> None:
    together, taken = threading.Barrier(3), 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(9):
            taken += 1
            yield item

    def meet(item: int) -> int:
        together.wait(10)
        return item

    channel, thread = feeding(meet, items(), 3, room=1)
    deadline = time.monotonic() + 10
    while not len(channel) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    # One waits in the channel, and as many as have a turn behind it: nobody takes any.
    assert taken <= 1 + 3
    assert list(channel) == list(range(9))
    thread.join(10)
    assert taken == 9


@pytest.mark.parametrize("workers", [1, 3])
def test_a_call_s_error_is_all_that_comes_after_what_was_before_it(workers: int) -> None:
    def fail(item: int) -> int:
        if item == 2:
            time.sleep(0.05)
            raise ValueError("the third")
        return item

    channel, thread = feeding(fail, iter(range(100)), workers)
    assert [channel.take(), channel.take()] == [0, 1]
    for _ in range(2):
        with pytest.raises(ValueError, match="the third"):
            channel.take()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("workers", [1, 3])
def test_where_items_fail_those_under_way_come_first(workers: int) -> None:
    def items() -> Iterator[int]:
        yield from range(4)
        raise OSError("no more of them")

    def slow(item: int) -> int:
        time.sleep(0.03)
        return item

    channel, _ = feeding(slow, items(), workers)
    assert [channel.take() for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(OSError, match="no more of them"):
        channel.take()


@pytest.mark.parametrize("workers", [1, 3])
def test_who_takes_may_give_up(workers: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    channel, thread = feeding(abs, items(), workers, room=2)
    assert channel.take() == 1
    channel.abandon()
    thread.join(10)
    assert not thread.is_alive()
    assert taken < 20
