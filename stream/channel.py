"""Channel: a bounded queue between two stages that either of them can close."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class ChannelClosedError(Exception):
    """The channel was ended or its taker has given up: nothing that is put would ever be taken."""


class EndOfChannelError(EOFError):
    """Nothing comes any more. Another EOFError is what the putter failed with."""


class Channel(Generic[T]):
    """A bounded queue whose end of stream and failure are not items.

    Args:
        size: how many items may wait.
        weigh: the weight of an item, where they differ.
        capacity: what the waiting items may weigh together; a single one may always wait, however heavy.
    """

    def __init__(
        self, size: int, *, weigh: Callable[[T], float] = lambda _: 0.0, capacity: float = float("inf")
    ) -> None:
        self._items: deque[T] = deque()
        self._size = size
        self._weigh = weigh
        self._capacity = capacity
        self._weight = 0.0
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None
        self._abandoned = False

    def put(self, item: T) -> None:
        """Wait for room and add an item.

        Raises:
            ChannelClosedError: the taker has given up, or the channel was ended.
        """
        weight = self._weigh(item)
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(weight) or self._abandoned or self._ended)
            if self._abandoned or self._ended:
                raise ChannelClosedError
            self._items.append(item)
            self._weight += weight
            self._changed.notify_all()

    def end(self) -> None:
        """No item comes any more; what waits is still taken. Any thread may call it, and a signal handler in any.

        (The lock of a condition can be taken again by the thread that holds it.)
        """
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """The putter has failed: what waits is still taken, then the taker gets the error."""
        with self._changed:
            self._error = error
            self._ended = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """The taker has given up: what waits is dropped, and putting raises from now on."""
        with self._changed:
            self._abandoned = True
            self._items.clear()
            self._weight = 0.0
            self._changed.notify_all()

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._items)

    def take(self, timeout: float | None = None) -> T | None:
        """The next item, once there is one; None if none came within the time-out.

        Args:
            timeout: seconds to wait, None for as long as it takes.

        Raises:
            EndOfChannelError: nothing comes any more.
            BaseException: what the putter failed with.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._items) or self._ended or self._abandoned, timeout):
                return None
            if not self._items:
                raise self._error or EndOfChannelError
            item = self._items.popleft()
            self._weight -= self._weigh(item)
            self._changed.notify_all()
            return item

    def __iter__(self) -> Iterator[T]:
        """Items until the end of the stream; raises the putter's error after the last item."""
        while True:
            try:
                item = self.take()
            except EndOfChannelError:
                return
            if item is not None:
                yield item
            del item

    def _has_room(self, weight: float) -> bool:
        return not self._items or (len(self._items) < self._size and self._weight + weight <= self._capacity)


def feed(items: Iterable[T], channel: Channel[T]) -> None:
    """Put all items into a channel, and end it, fail it or give up as the case may be.

    Stages before the putter's need not be told: the last stage abandons all channels when the end or the error arrives.
    """
    try:
        for item in items:
            channel.put(item)
    except ChannelClosedError:
        return
    except BaseException as error:  # noqa: BLE001  carried to the last stage, which raises it in the caller's thread
        channel.fail(error)
    else:
        channel.end()
