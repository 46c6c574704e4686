"""What is done when the engines cannot keep up with a live source: fewer frames, simpler covering, never raw ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Literal

#: `drop`: pictures that come too late are dropped as they come. `lower-rate`: only every n-th is looked at, so that
#: what goes out is even. `classical`: stand-ins are left out until the engines keep up again.
WhenSlow = Literal["drop", "lower-rate", "classical"]

#: Seconds over which load is measured.
_WINDOW: Final = 2.0
#: Share of the time in which frames are worked on, from which on the engines do not keep up.
_FULL: Final = 0.97
#: Load that a higher frame rate, or stand-ins, may be expected to make for it to be tried.
_COMFORTABLE: Final = 0.8
_MOST_SKIPPED: Final = 30
#: Seconds of simpler covering before stand-ins are tried again; twice as many after each try that failed.
_FIRST_REST: Final = 5.0
_LONGEST_REST: Final = 80.0


class Pace:
    """Watches how a live source's pictures are taken, and says what to leave out. Used by the thread that takes them.

    Args:
        when_slow: see there.
        clock: monotonic seconds.
    """

    def __init__(self, when_slow: WhenSlow = "drop", clock: Callable[[], float] = time.monotonic) -> None:
        self._when_slow = when_slow
        self._clock = clock
        self._began = clock()
        self._waited = 0.0
        self._late = 0
        self._step = 1
        self._number = 0
        self._rest = _FIRST_REST
        self._rested_from: float | None = None
        self._tried_at: float | None = None
        self.idle = 0.0
        """Seconds in which the taker had nothing to do, so far."""
        self.skipped = 0
        """Pictures that were left out for an even lower rate."""

    @property
    def simple(self) -> bool:
        """Whether stand-ins are to be left out. Any thread may ask."""
        return self._rested_from is not None

    @property
    def every(self) -> int:
        """Of how many pictures one is looked at."""
        return self._step

    def waited(self, seconds: float) -> None:
        """The taker had nothing to do for so long."""
        self._waited += seconds
        self.idle += seconds

    def wants(self, late: int) -> bool:
        """Whether the next picture is to be looked at.

        Args:
            late: pictures dropped so far because they came too late.
        """
        now = self._clock()
        if now - self._began >= _WINDOW:
            self._adapt(now, 1 - self._waited / (now - self._began), late > self._late)
            self._began, self._waited, self._late = now, 0.0, late
        self._number += 1
        if self._number % self._step:
            self.skipped += 1
            return False
        return True

    def _adapt(self, now: float, load: float, dropped: bool) -> None:
        slow = dropped or load > _FULL
        if self._when_slow == "lower-rate":
            if slow:
                self._step = min(_MOST_SKIPPED, self._step + 1)
            elif self._step > 1 and load * self._step / (self._step - 1) < _COMFORTABLE:
                self._step -= 1
        elif self._when_slow == "classical":
            self._cover(now, slow)

    def _cover(self, now: float, slow: bool) -> None:
        if self._rested_from is None:
            if slow:
                failed = self._tried_at is not None and now - self._tried_at < self._rest
                self._rest = min(_LONGEST_REST, 2 * self._rest) if failed else _FIRST_REST
                self._rested_from = now
        elif not slow and now - self._rested_from >= self._rest:
            self._rested_from, self._tried_at = None, now
