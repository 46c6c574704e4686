from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable

import pytest

from stream.channel import Channel, ChannelClosedError
from tests.fakes import finishes_within


def in_background(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_items_come_out_in_order_and_then_it_ends() -> None:
    channel = Channel[int](2)

    def fill() -> None:
        for number in range(50):
            channel.put(number)
        channel.end()

    in_background(fill)
    assert finishes_within(5, lambda: list(channel)) == list(range(50))


def test_an_ended_channel_without_items_is_empty() -> None:
    channel = Channel[int](1)
    channel.end()
    assert finishes_within(5, lambda: list(channel)) == []


def test_putting_waits_while_it_is_full() -> None:
    channel = Channel[int](2)
    channel.put(1)
    channel.put(2)
    thread = in_background(lambda: channel.put(3))
    thread.join(0.1)
    assert thread.is_alive()
    assert next(iter(channel)) == 1
    thread.join(5)
    assert not thread.is_alive()


def test_heavy_items_take_the_room_of_several() -> None:
    channel = Channel[int](8, weigh=float, capacity=10)
    channel.put(6)
    channel.put(4)
    thread = in_background(lambda: channel.put(1))
    thread.join(0.1)
    assert thread.is_alive()
    assert next(iter(channel)) == 6
    thread.join(5)
    assert not thread.is_alive()


def test_an_item_over_the_capacity_may_wait_alone() -> None:
    channel = Channel[int](8, weigh=float, capacity=10)
    finishes_within(5, lambda: channel.put(1000))
    thread = in_background(lambda: channel.put(1))
    thread.join(0.1)
    assert thread.is_alive()
    assert next(iter(channel)) == 1000
    thread.join(5)
    assert not thread.is_alive()


def test_what_waits_is_taken_before_the_error() -> None:
    channel = Channel[int](4)
    channel.put(1)
    channel.fail(RuntimeError("broken"))
    items = iter(channel)
    assert next(items) == 1
    with pytest.raises(RuntimeError, match="broken"):
        finishes_within(5, lambda: next(items))


@pytest.mark.parametrize("close", [Channel.end, Channel.abandon], ids=["ended", "abandoned"])
def test_putting_into_a_closed_channel_raises_even_while_it_waits(close: Callable[[Channel[int]], None]) -> None:
    channel = Channel[int](1)
    channel.put(1)
    errors: list[Exception] = []

    def put() -> None:
        try:
            channel.put(2)
        except ChannelClosedError as error:
            errors.append(error)

    thread = in_background(put)
    time.sleep(0.05)
    close(channel)
    thread.join(5)
    assert len(errors) == 1
    with pytest.raises(ChannelClosedError):
        channel.put(3)


def test_an_abandoned_channel_lets_its_taker_and_its_items_go() -> None:
    class Item:
        pass

    channel = Channel[Item](2)
    item = Item()
    alive = weakref.ref(item)
    channel.put(item)
    channel.abandon()
    del item
    gc.collect()
    assert alive() is None
    assert finishes_within(5, lambda: list(channel)) == []


def test_an_item_is_not_kept_alive_while_the_next_one_is_awaited() -> None:
    class Item:
        pass

    channel = Channel[Item](2)
    item = Item()
    alive = weakref.ref(item)
    channel.put(item)
    del item

    def take() -> None:
        for taken in channel:
            del taken

    thread = in_background(take)
    time.sleep(0.1)
    gc.collect()
    assert alive() is None
    channel.end()
    thread.join(5)


def test_taking_gives_nothing_where_nothing_comes_in_time() -> None:
    channel = Channel[int](2)
    assert finishes_within(5, lambda: channel.take(0.05)) is None
    channel.put(4)
    assert len(channel) == 1
    assert channel.take(0.05) == 4
    channel.end()
    with pytest.raises(EOFError):
        channel.take(0.05)


@pytest.mark.parametrize("error", [EOFError("the putter's own"), TimeoutError("the putter's own")])
def test_an_error_that_looks_like_the_end_is_none(error: Exception) -> None:
    channel = Channel[int](2)
    channel.fail(error)
    with pytest.raises(type(error), match="own"):
        list(channel)
