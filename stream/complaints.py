"""Complaints: what goes wrong with every frame is said now and then, not with every frame."""

from __future__ import annotations

import threading
import time

#: Seconds without another line: at first, and at most.
_FIRST_QUIET = 1.0
_LONGEST_QUIET = 60.0


class Complaints:
    """Decides when to say again what goes on. Several threads may ask.

    What goes on for the same reason is said after a second, two, four and so on, and once a minute in the end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._reason: str | None = None
        self._last, self._wait = float("-inf"), _FIRST_QUIET

    def due(self, reason: str) -> int:
        """How many times something was wrong since it was last said, this time included; 0 means be quiet."""
        with self._lock:
            return self._due(reason, time.monotonic())

    def _due(self, reason: str, now: float) -> int:
        self._count += 1
        if now - self._last >= _LONGEST_QUIET or (reason != self._reason and now - self._last >= _FIRST_QUIET):
            self._wait = _FIRST_QUIET
        elif now - self._last < self._wait:
            return 0
        else:
            self._wait = min(2 * self._wait, _LONGEST_QUIET)
        self._reason, self._last = reason, now
        count, self._count = self._count, 0
        return count
