"""Arrivals: what a live source sent and nobody has looked at yet. The newest counts; what waits too long is dropped."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Arrivals(Generic[T]):
    """A queue that never makes its putter wait.

    Args:
        size: how many items may wait; one more, and the oldest is dropped.
        budget: seconds that an item may wait as long as a newer one is there.
    """

    def __init__(self, size: int, budget: float) -> None:
        self._items: deque[tuple[float, T]] = deque()
        self._size = size
        self._budget = budget
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._ended = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """How many items were dropped, since they came faster than they were taken."""
        return self._dropped

    @property
    def waiting(self) -> int:
        """How many items are neither taken nor dropped yet."""
        return len(self._items)

    def put(self, item: T, arrived: float) -> None:
        """Add what arrived at this time of a monotonic clock."""
        with self._changed:
            self._items.append((arrived, item))
            while len(self._items) > self._size:
                self._drop()
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing comes any more; with an error, taking raises it after the last item."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def take(self, now: float, timeout: float) -> tuple[float, T] | None:
        """The oldest item that is not late, with its time of arrival; None if none came within the time-out.

        Args:
            now: of the same clock.
            timeout: seconds to wait.

        Raises:
            EOFError: nothing comes any more.
            BaseException: what the putter failed with.
        """
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items) or self._ended, timeout=timeout)
            while len(self._items) > 1 and now - self._items[0][0] > self._budget:
                self._drop()
            if self._items:
                return self._items.popleft()
            if not self._ended:
                return None
            if self._error is not None:
                raise self._error
            raise EOFError

    def _drop(self) -> None:
        self._items.popleft()
        self._dropped += 1
