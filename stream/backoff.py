"""Back-off: how long to wait before the next attempt."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from typing import Final

#: Seconds in which a reason that was told is not told again, and reasons that are told of one series of failures.
_QUIET: Final = 60.0
_MOST_REASONS: Final = 20
_COUNTED: Final = re.compile(r"(?<=[A-Za-z_])\d+")


class Backoff:
    """Waits that double from attempt to attempt up to a limit, each shortened by chance.

    Many machines that lose one server at the same moment must not come back at the same moment (full jitter in the
    upper half).

    Args:
        first: seconds before the second attempt.
        longest: seconds; no wait is longer.
        draw: source of chance, 0 to 1.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        first: float = 0.1,
        longest: float = 2.0,
        *,
        draw: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < first <= longest:
            raise ValueError(f"expected 0 < first <= longest, got {first} and {longest}")
        self._first = first
        self._longest = longest
        self._draw = draw or random.Random()  # noqa: S311  nobody gains from guessing it
        self._clock = clock
        self._failures = 0
        self._reason: str | None = None
        #: When reasons were told.
        self._told: dict[str, float] = {}

    @property
    def failures(self) -> int:
        """Attempts in a row that failed."""
        return self._failures

    def over(self, attempts: int | None) -> bool:
        """Whether more attempts in a row failed than may.

        Args:
            attempts: that may, None for any number.
        """
        return attempts is not None and self._failures > attempts

    def given_up(self, reason: str) -> str:
        """What a user is told where there is no further attempt.

        Args:
            reason: why the last one failed.
        """
        times = "once" if self._failures == 1 else f"{self._failures} times in a row"
        return f"{reason} (given up: failed {times})"

    def news(self, reason: str) -> bool:
        """Whether a failure is worth a line: the first one, or one for another reason than the last.

        Where reasons alternate, each is told once a minute.

        Args:
            reason: why the attempt failed, as it would be told.
        """
        # GStreamer counts the elements that it makes.
        reason = _COUNTED.sub("", reason)
        now, changed = self._clock(), reason != self._reason
        self._reason = reason
        if not changed or now - self._told.get(reason, -_QUIET) < _QUIET or len(self._told) >= _MOST_REASONS:
            return False
        self._told[reason] = now
        return True

    def failed(self) -> float:
        """Another attempt has failed: seconds to wait before the next."""
        wait = min(self._longest, self._first * 2.0 ** min(self._failures, 60))
        self._failures += 1
        return wait * self._draw.uniform(0.5, 1.0)

    def succeeded(self) -> None:
        """An attempt has succeeded: the next failure is a first one."""
        self._reason = None
        self._told.clear()
        self._failures = 0


class Patience:
    """For how long attempts may fail where nobody said how often.

    Args:
        seconds: from the first failure in a row on, infinite for ever.
        clock: monotonic seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._until: float | None = None

    def over(self) -> bool:
        """An attempt has failed: whether that has been going on for too long."""
        now = self._clock()
        if self._until is None:
            self._until = now + self._seconds
        return now > self._until

    def rewarded(self) -> None:
        """An attempt has succeeded."""
        self._until = None
