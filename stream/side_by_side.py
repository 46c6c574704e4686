"""Frames worked on side by side, and given on in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from stream.channel import Channel, ChannelClosedError, feed
from stream.frame import Frame

A = TypeVar("A")
T = TypeVar("T")


def side_by_side(function: Callable[[Frame], T], frames: Iterable[Frame], workers: int) -> Iterator[T]:
    """`map`, in order, with so many calls under way at a time; no frame is held longer than its call.

    What is done is given on when there is a further frame, or no more of them; where that may take long, use
    `feed_side_by_side`.

    Args:
        function: of one frame; what it raises comes when its turn is.
        frames: taken one by one as calls end.
        workers: one at least; with one, calls are made by the caller.
    """
    if workers == 1:
        yield from map(function, frames)
        return
    under_way: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="standin-look") as pool:
        for frame in frames:
            under_way.append(pool.submit(function, frame))
            del frame
            while len(under_way) >= workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def feed_side_by_side(function: Callable[[A], T], items: Iterable[A], channel: Channel[T], workers: int) -> None:
    """`feed(map(function, items), channel)`, with so many calls under way at a time.

    What is done goes into the channel as soon as all before it are there, whether or not there is a further item. If
    `items` fail, what is under way still comes before the failure.

    Args:
        function: of one item.
        items: taken one by one by the caller's thread, as calls end.
        channel: is ended, or fails, as `feed` does it; there is nothing more in it after a failure.
        workers: one at least; with one, calls are made by the caller.
    """
    if workers == 1:
        feed(map(function, items), channel)
        return
    turns, failure = _Turns(channel, workers), None
    with ThreadPoolExecutor(workers, thread_name_prefix="standin-side") as pool:
        try:
            waiting = iter(items)
            while turns.wait():
                turns.add(pool.submit(function, next(waiting)))
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001  carried to whoever takes, as `feed` does
            failure = error
    # All calls have ended, and are in the channel.
    if failure is not None:
        turns.fail(failure)
    turns.end()


class _Turns(Generic[T]):
    """Puts what calls return into a channel, in the order of the calls. The thread that ends a call does it."""

    def __init__(self, channel: Channel[T], most: int) -> None:
        self._channel = channel
        self._free = threading.Semaphore(most)
        self._lock = threading.Lock()
        self._calls: deque[Future[T]] = deque()
        self._over = False

    def wait(self) -> bool:
        """Whether there is a turn for another call, once there is."""
        self._free.acquire()
        return not self._over

    def add(self, call: Future[T]) -> None:
        """The next call."""
        with self._lock:
            self._calls.append(call)
        call.add_done_callback(self._give)

    def fail(self, error: BaseException) -> None:
        """What comes next is a failure."""
        if not self._over:
            self._over = True
            self._channel.fail(error)

    def end(self) -> None:
        """Nothing comes any more."""
        if not self._over:
            self._channel.end()

    def _give(self, _: Future[T]) -> None:
        with self._lock:
            while self._calls and self._calls[0].done():
                self._put(self._calls.popleft())
                self._free.release()

    def _put(self, call: Future[T]) -> None:
        if self._over:
            return
        if (error := call.exception()) is not None:
            self.fail(error)
            return
        try:
            self._channel.put(call.result())
        except ChannelClosedError:
            self._over = True
