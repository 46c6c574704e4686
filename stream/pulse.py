"""A live output's own clock: where the stages before it give nothing, withheld frames go on at the source's pace.

A native call that hangs cannot be cancelled, and those behind the output should see a flat picture rather than nothing.
What comes too late, because its time was filled already, is not written any more: time never goes back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Final

from stream.anonymizer import Anonymized
from stream.frame import Frame, flat_image
from stream.regions import Regions

#: Why these frames are withheld.
SILENT: Final = "no frame came in time from detection and anonymization"
#: Seconds without a frame after which the output goes on by itself, at least.
_SHORTEST_PATIENCE: Final = 1.0
#: So many of the gaps that were usual so far must have passed: slow engines are no silent ones.
_GAPS: Final = 4
#: Weight of the newest gap in the usual one.
_NEWEST: Final = 0.2
_USUAL_RATE: Final = Fraction(25)


class Pulse:
    """Fills silence with withheld frames. Used by the one thread that writes.

    Args:
        rate: frames per second of what it fills in, None for 25.
        clock: monotonic seconds.
    """

    def __init__(self, rate: Fraction | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._step = float(1 / (rate or _USUAL_RATE))
        self._clock = clock
        self._gap = self._step
        self._last: Frame | None = None
        self._written = 0.0
        self._filling = False

    @property
    def patience(self) -> float | None:
        """Seconds to wait for the next frame before one is filled in, None for as long as it takes."""
        if self._last is None:
            # Nothing was written yet: of which size, and for whom?
            return None
        wait = self._step if self._filling else max(_SHORTEST_PATIENCE, _GAPS * self._gap)
        return max(0.0, self._written + wait - self._clock())

    def takes(self, item: Anonymized) -> bool:
        """Whether a frame that has come can still be written; it is the last one then."""
        frame, now = item.frame, self._clock()
        if self._last is not None and frame.pts * frame.time_base <= self._last.pts * self._last.time_base:
            return False
        if self._last is not None and not self._filling:
            self._gap += _NEWEST * (now - self._written - self._gap)
        self._filling = False
        self._last, self._written = frame, now
        return True

    def fill(self) -> Anonymized:
        """A withheld frame for now.

        Raises:
            ValueError: nothing was written yet.
        """
        last, now = self._last, self._clock()
        if last is None:
            raise ValueError("there is no frame before this one that says how large it is")
        passed = max(1, round(Fraction(now - self._written) / last.time_base))
        frame = replace(
            last,
            image=flat_image(last.image.shape),
            pts=last.pts + passed,
            duration=round(Fraction(self._step) / last.time_base),
            arrived=None,
            damaged=SILENT,
        )
        self._filling, self._last, self._written = True, frame, now
        return Anonymized(frame, Regions.empty(), withheld=SILENT)
