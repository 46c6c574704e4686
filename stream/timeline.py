"""Timeline: the time stamps of a live source, mapped to one that never goes back nor leaps.

Cameras restart their clocks, MPEG-TS counts in 33 bits and RTP in 32, and some pictures have no time stamp at all. What
comes out here begins at 0 and is strictly increasing; where the source's own clock cannot be followed, or there is
none, the time of arrival says how much later a picture is than the one before. Nor can it run away in small steps: but
for a slow drift, no picture lies much later than it came.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

#: Units of the timeline: as in MPEG-TS and RTP video, and a multiple of all usual frame rates.
TIME_BASE: Final = Fraction(1, 90_000)
#: Bits in which time stamps are counted in MPEG-TS and in RTP.
_WRAPS: Final = (33, 32)
#: Seconds by which a source's clock may run ahead of arrival before it counts as a leap: a burst after a short pause.
#: From picture to picture, and from the beginning on.
_LEAP: Final = Fraction(3)
#: Share of the usual step that lies between pictures without time stamps, even if they come at once.
_LEAST_STEP: Final = Fraction(1, 4)
#: By how much a source's clock may be wrong for good. A drift up to this adds up to no leap, however long it lasts.
_DRIFT: Final = 0.005


class Timeline:
    """Maps one live source's time stamps, over all its reconnects.

    Args:
        rate: frames per second, for pictures of which nothing else is known; None for 25.
    """

    def __init__(self, rate: Fraction | None = None) -> None:
        self._step = 1 / (rate or Fraction(25))
        self._out: Fraction | None = None
        self._last: Fraction | None = None
        self._arrived = 0.0
        #: Seconds by which the last picture lies later than its arrival, but for drift. Negative where it lies earlier.
        self._ahead = 0.0
        #: Seconds by which pictures without time stamps were moved apart, which is made up for when there is a gap.
        self._apart = Fraction(0)
        self.rebased = 0
        """How often the source's clock could not be followed."""

    def place(self, pts: int | None, time_base: Fraction, arrived: float, *, waits: bool = False) -> int:
        """Where the next picture lies, in units of `TIME_BASE`.

        Args:
            pts: its time stamp, None if it has none.
            time_base: seconds per unit of it.
            arrived: when it came, in seconds of a monotonic clock.
            waits: whether its source waits for us, so that it comes as early or late as we take it.
        """
        stamp = None if pts is None else pts * time_base
        passed = self._passed(arrived)
        if self._out is None:
            out = Fraction(0)
        else:
            most = passed + _LEAP - (0 if waits else max(Fraction(0), Fraction(self._ahead)))
            advance = None
            if stamp is not None and self._last is not None:
                advance = _advance(stamp - self._last, time_base, most)
                self.rebased += advance is None
            if advance is None:
                advance = min(max(passed, self._step) if stamp is not None else self._spread(passed), most)
            out = self._out + advance
        if stamp is not None:
            self._last = stamp
        units = self._put(out, passed)
        if waits:
            # Arrival says nothing of its clock.
            self._ahead = 0.0
        return units

    def now(self, arrived: float) -> int:
        """Where a picture lies that we make ourselves at this time, in units of `TIME_BASE`."""
        passed = self._passed(arrived)
        # What the source sends next is placed by its arrival.
        self._last = None
        return self._put(Fraction(0) if self._out is None else self._out + max(passed, TIME_BASE), passed)

    def restart(self) -> None:
        """The source was opened anew: its next time stamp has nothing to do with the last one."""
        self._last = None

    def _spread(self, passed: Fraction) -> Fraction:
        """Seconds to a picture without a stamp: those that passed, but that several which come at once lie apart."""
        advance = max(passed - self._apart, self._step * _LEAST_STEP)
        self._apart = max(Fraction(0), self._apart + advance - passed)
        return advance

    def _passed(self, arrived: float) -> Fraction:
        """Seconds since the last picture arrived."""
        before, self._arrived = self._arrived, arrived
        return max(Fraction(0), Fraction(arrived - before))

    def _put(self, out: Fraction, passed: Fraction) -> int:
        units = round(out / TIME_BASE)
        if self._out is None:
            self._out = out
            return units
        units = max(units, round(self._out / TIME_BASE) + 1)
        out = max(out, units * TIME_BASE)
        ahead = self._ahead + float(out - self._out - passed)
        drift = _DRIFT * float(passed)
        self._ahead = ahead - min(max(ahead, -drift), drift)
        self._out = out
        return units


def _advance(difference: Fraction, time_base: Fraction, most: Fraction) -> Fraction | None:
    """Seconds from the last picture to this one by the source's clock, None if it cannot be followed."""
    candidates = [difference, *(difference + 2**bits * time_base for bits in _WRAPS)]
    return next((seconds for seconds in candidates if 0 < seconds <= most), None)
