"""What a stream has done so far and does now, in numbers, measured where frames are written."""

from __future__ import annotations

import bisect
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from stream.anonymizer import Anonymized
from stream.regions import Kind

#: Upper bounds of the classes in which latencies are counted, in seconds.
LATENCY_BOUNDS: Final = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)
#: Frames that "now" means for percentiles: 20 s at 25 frames per second.
_RECENT: Final = 500
#: Seconds that "now" means for the frame rate.
_RATE_OVER: Final = 5.0

Outcome = Literal["anonymized", "withheld", "dropped"]


class Latencies(BaseModel):
    """End-to-end latencies: from the arrival of a frame's packet, as far as it is known, until its frame was encoded.

    Attributes:
        counts: frames in each class, the last one being those above all bounds.
        total: seconds of all frames together.
        recent: 50th, 95th and 99th percentile of the last frames in seconds, None before the first.
    """

    model_config = ConfigDict(frozen=True)

    counts: tuple[int, ...] = (0,) * (len(LATENCY_BOUNDS) + 1)
    total: float = 0.0
    recent: tuple[float, float, float] | None = None


class SinkState(BaseModel):
    """An output at one moment; what it does not know of itself is None. A file knows nothing, since it is never away.

    Attributes:
        name: where it goes to, without secrets.
        there: whether it takes the stream.
        away: seconds since it was seen not to, None while it does.
        dropped: frames that it did not get.
        waiting: frames that wait for it.
        reconnects: how often it was lost and found again.
        error: why it is away.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    there: bool | None = None
    away: float | None = None
    dropped: int | None = None
    waiting: int | None = None
    reconnects: int | None = None
    error: str | None = None

    @property
    def trouble(self) -> str | None:
        """That it is away, and why; None where it is not, or where nobody knows."""
        if self.there is not False:
            return None
        return f"{self.name} is away: {self.error}" if self.error else f"{self.name} is away"


class SourceState(BaseModel):
    """A live source at one moment. A file's is not known, since it is never away.

    Attributes:
        there: whether it gives pictures.
        away: seconds since it was seen not to, None while it does.
        error: why it is away, without secrets.
    """

    model_config = ConfigDict(frozen=True)

    there: bool
    away: float | None = None
    error: str | None = None

    @property
    def trouble(self) -> str | None:
        """That it is away, and why; None where it is not."""
        if self.there:
            return None
        return f"the source is away: {self.error}" if self.error else "the source is away"


class Snapshot(BaseModel):
    """A stream at one moment. It holds numbers and short texts alone, and goes through JSON unchanged.

    Attributes:
        seconds: since the stream began.
        frames: by outcome. `anonymized` and `withheld` ones were written, `dropped` ones came too late to be looked at.
        regions: in the last frame that was written, by kind.
        rate: frames per second written during the last seconds.
        latency: of live sources; empty for files.
        stage_seconds: that each stage worked.
        waiting: frames in each queue; `source` is what a live one sent and nobody has looked at.
        reconnects: of `source` and `sink`.
        last_error: why the last withheld frame was withheld, None if none was.
        sinks: each output, in their order.
        source: where the frames come from, None where that is never away.
    """

    model_config = ConfigDict(frozen=True)

    seconds: float = 0.0
    frames: dict[Outcome, int] = Field(default_factory=dict)
    regions: dict[str, int] = Field(default_factory=dict)
    rate: float = 0.0
    latency: Latencies = Field(default_factory=Latencies)
    stage_seconds: dict[str, float] = Field(default_factory=dict)
    waiting: dict[str, int] = Field(default_factory=dict)
    reconnects: dict[str, int] = Field(default_factory=dict)
    last_error: str | None = None
    sinks: tuple[SinkState, ...] = ()
    source: SourceState | None = None


class Meter:
    """Counts what a pipeline writes: one of its observers. Any thread may ask for a snapshot.

    Args:
        clock: monotonic seconds, the clock of `Frame.arrived`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began = clock()
        self._frames: dict[Outcome, int] = {"anonymized": 0, "withheld": 0}
        self._regions: dict[str, int] = {}
        self._times: deque[float] = deque()
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._counts = [0] * (len(LATENCY_BOUNDS) + 1)
        self._total = 0.0
        self._last_error: str | None = None

    def __call__(self, item: Anonymized) -> None:
        """One more frame was written."""
        now = self._clock()
        with self._lock:
            self._times.append(now)
            self._forget(now)
            if item.withheld is None:
                self._frames["anonymized"] += 1
            else:
                self._frames["withheld"] += 1
                self._last_error = item.withheld
            self._regions = {kind.label: n for kind in Kind if (n := int((item.regions.kinds == kind).sum()))}
            if item.frame.arrived is not None:
                self._add(max(0.0, now - item.frame.arrived))

    def snapshot(self) -> Snapshot:
        """What was counted so far; what only the pipeline and its ends know is left for the caller to fill in."""
        now = self._clock()
        with self._lock:
            self._forget(now)
            return Snapshot(
                seconds=now - self._began,
                frames=dict(self._frames),
                regions=dict(self._regions),
                rate=len(self._times) / min(_RATE_OVER, max(now - self._began, 1e-3)),
                latency=Latencies(
                    counts=tuple(self._counts), total=self._total, recent=percentiles(self._recent, (50, 95, 99))
                ),
                last_error=self._last_error,
            )

    def _add(self, latency: float) -> None:
        self._recent.append(latency)
        self._counts[bisect.bisect_left(LATENCY_BOUNDS, latency)] += 1
        self._total += latency

    def _forget(self, now: float) -> None:
        while self._times and now - self._times[0] > _RATE_OVER:
            self._times.popleft()


def percentiles(
    values: Sequence[float] | deque[float], shares: tuple[int, int, int]
) -> tuple[float, float, float] | None:
    """The values below which so many per cent lie (nearest rank), None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    low, middle, high = (ordered[max(0, math.ceil(share / 100 * len(ordered)) - 1)] for share in shares)
    return low, middle, high
