"""Back-off: how long to wait before the next attempt."""

from __future__ import annotations

import random


class Backoff:
    """Waits that double from attempt to attempt up to a limit, each shortened by chance.

    Many machines that lose one server at the same moment must not come back at the same moment (full jitter in the
    upper half).

    Args:
        first: seconds before the second attempt.
        longest: seconds; no wait is longer.
        draw: source of chance, 0 to 1.
    """

    def __init__(self, first: float = 0.1, longest: float = 2.0, *, draw: random.Random | None = None) -> None:
        if not 0 < first <= longest:
            raise ValueError(f"expected 0 < first <= longest, got {first} and {longest}")
        self._first = first
        self._longest = longest
        self._draw = draw or random.Random()  # noqa: S311  nobody gains from guessing it
        self._failures = 0

    @property
    def failures(self) -> int:
        """Attempts in a row that failed."""
        return self._failures

    def failed(self) -> float:
        """Another attempt has failed: seconds to wait before the next."""
        wait = min(self._longest, self._first * 2.0 ** min(self._failures, 60))
        self._failures += 1
        return wait * self._draw.uniform(0.5, 1.0)

    def succeeded(self) -> None:
        """An attempt has succeeded: the next failure is a first one."""
        self._failures = 0
