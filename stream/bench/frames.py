"""The ends of a measured pipeline, and what is written down on a frame's way between them.

Source, anonymizer and sink are those of a run; each notes when it began and ended with a frame.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from stream.anonymizer import Anonymized, Anonymizer, Arranged
from stream.follow import Look
from stream.frame import Frame
from stream.sinks.base import Sink
from stream.sources.base import StreamInfo
from stream.sources.describe import step
from stream.sources.video import VideoSource

#: Frames that are given out even where time is up.
_FEWEST: Final = 2


@dataclass(slots=True)
class Stopwatch:
    """What was noted in one run, by the frames' time stamps. Stages write at the same time, each what is its own.

    Attributes:
        begun: seconds (of `time.monotonic`) at which a frame's way began: where it was decoded, or was due.
        spans: when each stage began and ended with a frame.
        written: when it was written.
    """

    begun: dict[int, float] = field(default_factory=dict)
    spans: dict[str, dict[int, tuple[float, float]]] = field(default_factory=dict)
    written: dict[int, float] = field(default_factory=dict)

    def note(self, stage: str, frame: Frame, began: float) -> None:
        """A stage has ended with a frame, with which it began then."""
        self.spans.setdefault(stage, {})[frame.pts] = began, time.monotonic()

    def latencies(self) -> list[float]:
        """Seconds that each frame that was written took, in the order of writing."""
        return [end - self.begun[pts] for pts, end in self.written.items() if pts in self.begun]


class ClipSource:
    """A clip over and over, as one stream.

    Args:
        path: of a video file.
        watch: notes when each frame was decoded.
        frames: how many to give.
        seconds: after which no more are given, None for no limit.
        pace: frames per second, None for as fast as they are taken.

    Raises:
        SourceError: it is no video.
    """

    def __init__(
        self, path: Path, watch: Stopwatch, *, frames: int, seconds: float | None = None, pace: float | None = None
    ) -> None:
        self._path = path
        self._watch = watch
        self._frames = frames
        self._seconds = seconds
        self._pace = pace
        self.info: StreamInfo = clip_info(path)

    def __iter__(self) -> Iterator[Frame]:
        """The frames, with strictly increasing `pts`; paced ones not before they are due."""
        began = time.monotonic()
        for number, frame in enumerate(self._turns(began), start=1):
            yield frame
            del frame
            late = self._seconds is not None and time.monotonic() - began > self._seconds
            if number >= self._frames or (late and number >= _FEWEST):
                return

    def problems(self) -> tuple[str, ...]:
        """None that matter here."""
        return ()

    def side_exits(self) -> tuple[str, ...]:
        """None that matter here."""
        return ()

    def close(self) -> None:
        """Nothing is open between two turns."""

    def _turns(self, began: float) -> Iterator[Frame]:
        """The clip from its beginning to its end, again and again."""
        shift, usual, number = 0, step(self.info), 0
        while True:
            last = self.info.start_pts
            with closing(VideoSource(self._path)) as source:
                frames = iter(source)
                while True:
                    due = began if self._pace is None else began + number / self._pace
                    time.sleep(max(0.0, due - time.monotonic()))
                    start = time.monotonic()
                    frame = next(frames, None)
                    if frame is None:
                        break
                    number, last = number + 1, frame.pts
                    moved = replace(frame, pts=frame.pts + shift)
                    self._watch.note("decode", moved, start)
                    self._watch.begun[moved.pts] = start if self._pace is None else due
                    yield moved
                    del frame, moved
            shift += last - self.info.start_pts + usual


def clip_info(path: Path) -> StreamInfo:
    """What a clip is like.

    Raises:
        SourceError: it is no video.
    """
    with closing(VideoSource(path)) as source:
        return source.info


class TimedAnonymizer(Anonymizer):
    """Notes how long it looks at each frame, and how long it covers it.

    Args:
        *arguments: of an `Anonymizer`.
        **options: of an `Anonymizer`.

    Attributes:
        watch: of the run that goes on.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.watch = Stopwatch()

    def look(self, frame: Frame) -> Look:
        """Stage 1, see `Anonymizer.look`."""
        began, watch = time.monotonic(), self.watch
        looked = super().look(frame)
        watch.note("detect", frame, began)
        return looked

    def paint(self, arranged: Arranged) -> Anonymized:
        """Stage 4, see `Anonymizer.paint`."""
        began, watch = time.monotonic(), self.watch
        item = super().paint(arranged)
        watch.note("anonymize", item.frame, began)
        return item


class TimedSink:
    """Notes how long each frame takes to be written.

    Args:
        inner: what writes them, None to throw them away.
        watch: notes it.
    """

    def __init__(self, inner: Sink | None, watch: Stopwatch) -> None:
        self._inner = inner
        self._watch = watch

    def write(self, item: Anonymized) -> None:
        """Write the next frame, where there is somewhere to write it."""
        began = time.monotonic()
        if self._inner is not None:
            self._inner.write(item)
            self._watch.note("encode", item.frame, began)
        self._watch.written[item.frame.pts] = time.monotonic()

    def close(self) -> None:
        """Finish the output."""
        if self._inner is not None:
            self._inner.close()

    def abort(self) -> None:
        """Leave nothing behind."""
        if self._inner is not None:
            self._inner.abort()
