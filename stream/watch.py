"""What can be asked of a run while it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar, runtime_checkable

from stream.address import redacted
from stream.metrics import Meter, SinkState, Snapshot, SourceState
from stream.pipeline import Pipeline
from stream.sinks.base import Sink
from stream.sources.base import Source

T = TypeVar("T")

#: The source's place among the ends of a run; sinks count from zero.
_SOURCE: Final = -1


@runtime_checkable
class Connected(Protocol):
    """A source or sink that can be lost and found again, and drops what it cannot keep."""

    @property
    def dropped(self) -> int:
        """Frames that did not go on."""
        ...

    @property
    def reconnects(self) -> int:
        """How often it was lost and found again."""
        ...


@dataclass(frozen=True, slots=True)
class Watch:
    """A run's ends, and what is measured between them. Any thread may ask.

    Attributes:
        source: of raw frames; nothing but its counts is asked for.
        sinks: each of them.
        pipeline: between them.
        meter: counts what is written: an observer of the pipeline.
        names: of the sinks, as they may be shown; they are numbered where none are given.
        clock: monotonic seconds.
    """

    source: Source
    sinks: Sequence[Sink]
    pipeline: Pipeline
    meter: Meter = field(default_factory=Meter)
    names: Sequence[str] = ()
    clock: Callable[[], float] = time.monotonic
    #: When sinks were first seen to be away, by their place; the source has a place before them.
    _away: dict[int, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def snapshot(self) -> Snapshot:
        """The run at this moment."""
        counted = self.meter.snapshot()
        late = self.source.dropped if isinstance(self.source, Connected) else 0
        return counted.model_copy(
            update={
                "frames": counted.frames | {"dropped": late + self.pipeline.superseded},
                "stage_seconds": self.pipeline.busy,
                "waiting": self._waiting(),
                "reconnects": {"source": _reconnects([self.source]), "sink": _reconnects(self.sinks)},
                "source": self._source_state(),
                "sinks": tuple(self._state(place, sink) for place, sink in enumerate(self.sinks)),
            }
        )

    @property
    def hangs(self) -> bool:
        """Whether the source is held by a call that no time-out ends."""
        return _known(self.source, "hangs", bool) or False

    def _waiting(self) -> dict[str, int]:
        """Frames in each queue: those of a live source, and between the stages."""
        came = _known(self.source, "waiting", int)
        return ({} if came is None else {"source": came}) | self.pipeline.waiting

    def _source_state(self) -> SourceState | None:
        there, error = _known(self.source, "there", bool), _known(self.source, "last_error", str)
        if there is None:
            return None
        error = redacted(error) if error is not None and not there else None
        return SourceState(there=there, away=self._away_for(_SOURCE, there), error=error)

    def _away_for(self, place: int, there: bool | None) -> float | None:
        """Seconds since an end was first seen to be away, None where it is not known to be."""
        if there is not False:
            self._away.pop(place, None)
            return None
        now = self.clock()
        return now - self._away.setdefault(place, now)

    def _state(self, place: int, sink: Sink) -> SinkState:
        there, error = _known(sink, "there", bool), _known(sink, "last_error", str)
        return SinkState(
            name=redacted(self.names[place]) if place < len(self.names) else f"output {place + 1}",
            there=there,
            away=self._away_for(place, there),
            dropped=_known(sink, "dropped", int),
            waiting=_known(sink, "waiting", int),
            reconnects=_known(sink, "reconnects", int),
            error=redacted(error) if error is not None and there is False else None,
        )


def _known(end: object, name: str, kind: type[T]) -> T | None:
    """What a source or sink says of itself; their kinds differ in what they can say."""
    value = getattr(end, name, None)
    return value if isinstance(value, kind) else None


def _reconnects(ends: Sequence[object]) -> int:
    return sum(end.reconnects for end in ends if isinstance(end, Connected))
