"""Pipeline: decode, detect, anonymize and encode at the same time, on bounded queues, and fail closed.

Each stage is a thread (the last one is the caller's), two of them with threads for several frames at once: they overlap
wherever the work releases the interpreter, which decoding, inference, image operations and encoding do. Raw frames
exist only in the first three; what reaches the sink is `Anonymized`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass, field
from typing import TypeVar, cast

from engines.errors import StreamStoppedError
from stream.anonymizer import Anonymized, Anonymizer
from stream.channel import Channel, EndOfChannelError, feed
from stream.deadline import HungError
from stream.follow import Followed, Look
from stream.frame import Frame
from stream.pulse import Pulse
from stream.regions import Kind, Origin
from stream.side_by_side import feed_side_by_side
from stream.sinks.base import Hurried, Sink
from stream.sources.base import Endable, Holding, Patient, Source

A = TypeVar("A")
R = TypeVar("R")

_log = logging.getLogger(__name__)

STAGES = ("decode", "detect", "anonymize", "encode")
#: Frames of this many bytes may wait in each queue, but at least one and at most eight frames.
_QUEUE_BYTES = 48 * 2**20
_LONGEST_QUEUE = 8
#: What stages get to end when the last one has: a call into a codec or a network cannot be cut short.
_SECONDS_TO_END = 5.0
#: What a live run's stages get for the frames that are under way, once it was asked to end; a file's get a deadline.
#: Together with what follows less than two seconds: whoever supervises a run may kill it then.
_SECONDS_FOR_STAGES = 0.8
#: What a sink gets that waits for somebody, from the same moment on.
_SECONDS_FOR_SINK = 1.2
#: What stages get to end beyond their time; sinks are closed meanwhile.
_SECONDS_FOR_STUCK = 0.5
#: Seconds between two looks at whether the run was asked to end: a signal handler must not wake anybody by a lock.
_LOOK = 0.1
#: So many reasons are counted apart; messages may hold numbers that differ in every frame.
_MOST_REASONS = 20

Observer = Callable[[Anonymized], None]


@dataclass(slots=True)
class Summary:
    """What a run did.

    Attributes:
        frames: written, withheld ones included.
        regions: detected, by kind, over all frames.
        held: regions that were held.
        looked_ahead: regions that were carried back.
        manual: regions given by hand.
        ignored: regions that stay as they are because the user wants it so; in none of the other numbers.
        generated: regions that were replaced by stand-ins; the others were covered classically.
        withheld: frames that were replaced by flat ones.
        reasons: why, with counts.
        tracks: how many were begun.
        seconds: wall time of the run without start-up.
        busy: seconds that each stage worked (not waited, neither for other stages nor for the source's next picture).
        superseded: frames that came when withheld ones had taken their time already.
        stopped: why the run ended before its input did, None if it did not.
        interrupted: whether it was asked to end, and did before its input.
        holds: whether frames without a picture, while the source was away, show the last one that was anonymized.
    """

    frames: int = 0
    regions: dict[str, int] = field(default_factory=dict)
    held: int = 0
    looked_ahead: int = 0
    manual: int = 0
    ignored: int = 0
    generated: int = 0
    withheld: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    tracks: int = 0
    seconds: float = 0.0
    busy: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    superseded: int = 0
    stopped: str | None = None
    interrupted: bool = False
    holds: bool = False

    @property
    def rate(self) -> float:
        """Frames per second."""
        return self.frames / self.seconds if self.seconds else 0.0

    def add(self, item: Anonymized) -> None:
        """Count one written frame."""
        self.frames += 1
        detected = item.regions.kinds[item.regions.origins == Origin.DETECTED]
        for kind in Kind:
            if count := int((detected == kind).sum()):
                self.regions[kind.label] = self.regions.get(kind.label, 0) + count
        self.held += item.regions.count(Origin.HELD)
        self.looked_ahead += item.regions.count(Origin.LOOKED_AHEAD)
        self.manual += item.regions.count(Origin.MANUAL)
        self.ignored += item.ignored
        self.generated += item.generated
        if item.withheld is not None:
            self.withheld += 1
            known = item.withheld in self.reasons or len(self.reasons) < _MOST_REASONS
            reason = item.withheld if known else "other reasons"
            self.reasons[reason] = self.reasons.get(reason, 0) + 1


class Pipeline:
    """One source, one anonymizer, one sink.

    Args:
        source: of raw frames.
        anonymizer: covers them; it is reset first.
        sink: takes anonymized frames. Closed at the end, aborted on an error and where there is no frame.
        observers: each sees every anonymized frame after it was written.
        mark: changes the anonymized picture before it is written (`--show-regions`), never the raw one.
        waiting: frames that may wait between two stages; fewer are less delay.
        pulse: what fills silence, for live outputs; None where those behind can wait.
    """

    def __init__(
        self,
        source: Source,
        anonymizer: Anonymizer,
        sink: Sink,
        *,
        observers: Sequence[Observer] = (),
        mark: Callable[[Anonymized], Anonymized] | None = None,
        waiting: int = _LONGEST_QUEUE,
        pulse: Pulse | None = None,
    ) -> None:
        self._source = source
        self._anonymizer = anonymizer
        self._sink = sink
        self._observers = tuple(observers)
        self._mark = mark
        self._pulse = pulse
        self._stopping = False
        #: When stages must have given the frames that are under way.
        self._latest = math.inf
        self._exhausted = False
        #: Whether they did not.
        self._cut = False
        #: Whether the source was still being read when the run had ended; it must not be closed then.
        self.reading = False
        self._summary = Summary()
        self._clocks = {stage: _Clock(self._summary.busy, stage) for stage in STAGES}
        self._frames: Channel[Frame] = Channel(waiting, weigh=lambda frame: frame.image.nbytes, capacity=_QUEUE_BYTES)
        self._looks: Channel[Look] = Channel(waiting, weigh=lambda look: look.frame.image.nbytes, capacity=_QUEUE_BYTES)
        self._done: Channel[Anonymized] = Channel(waiting, weigh=lambda item: item.image.nbytes, capacity=_QUEUE_BYTES)

    def stop(self) -> None:
        """Read no further frame, finish what is under way and end. May be called from a signal handler.

        Live, what is not finished within a second is left behind; a file's frames get the deadline for that.
        """
        if self._pulse is None:
            seconds = max(_SECONDS_FOR_STAGES, self._anonymizer.settings.deadline)
        else:
            seconds = _SECONDS_FOR_STAGES
        self._latest = min(self._latest, time.monotonic() + seconds)
        self._stopping = True
        if isinstance(self._sink, Hurried):
            self._sink.hurry(_SECONDS_FOR_SINK)
        self._end_source()
        # The next stage need not wait for a source that may never give another frame.
        self._frames.end()

    @property
    def waiting(self) -> dict[str, int]:
        """Frames that wait, by the stage that they wait for. Any thread may ask."""
        channels: tuple[Sized, ...] = (self._frames, self._looks, self._done)
        return dict(zip(STAGES[1:], map(len, channels), strict=True))

    @property
    def busy(self) -> dict[str, float]:
        """Seconds that each stage has worked so far. Any thread may ask."""
        return dict(self._summary.busy)

    @property
    def superseded(self) -> int:
        """Frames so far that came when withheld ones had taken their time. Any thread may ask."""
        return self._summary.superseded

    def run(self) -> Summary:
        """Run to the end of the source.

        Returns:
            What was done. If `on_failure` is `stop` and a frame failed, or a stage has stopped answering, the output
            ends before that frame and `Summary.stopped` says why.

        Raises:
            StandinError: the source or the sink failed; nothing is left under the output's final name.
        """
        self._anonymizer.reset()
        self._summary.holds = isinstance(self._source, Holding) and self._source.holds
        tracks_before = self._anonymizer.tracks_begun
        began = time.perf_counter()
        workers = [
            threading.Thread(target=stage, name=f"standin-{name}", daemon=True)
            for name, stage in (("decode", self._decode), ("detect", self._detect), ("cover", self._cover))
        ]
        for worker in workers:
            worker.start()
        try:
            try:
                self._encode()
            except (StreamStoppedError, HungError) as error:
                # What is there is whole and anonymized, so it is kept.
                self._summary.stopped = str(error)
            self._abandon()
            self._finish()
        except BaseException:
            self._sink.abort()
            raise
        finally:
            self._abandon()
            self._end_source()
            self._join(workers)
            self.reading = workers[0].is_alive()
        self._summary.interrupted = self._stopping and (self._cut or not self._exhausted)
        self._summary.seconds = time.perf_counter() - began
        self._summary.tracks = self._anonymizer.tracks_begun - tracks_before
        return self._summary

    def _abandon(self) -> None:
        """Let no stage wait for the next one any more."""
        for channel in (self._frames, self._looks, self._done):
            channel.abandon()

    def _end_source(self) -> None:
        """Let it not wait for anybody any more."""
        if isinstance(self._source, Endable):
            self._source.end()

    def _join(self, workers: Sequence[threading.Thread]) -> None:
        """Let the stages end; one that hangs is left behind."""
        now = time.monotonic()
        usual = _SECONDS_FOR_STUCK if self._stopping else _SECONDS_TO_END
        patience = min(now + usual, self._latest + _SECONDS_FOR_STUCK)
        for worker in workers:
            worker.join(timeout=max(0.0, patience - time.monotonic()))

    def _decode(self) -> None:
        def frames() -> Iterator[Frame]:
            for frame in self._timed():
                if self._stopping:
                    return
                yield frame
                del frame
            # One that was told to end has not come to its own.
            self._exhausted = not (self._stopping and isinstance(self._source, Endable))

        feed(frames(), self._frames)

    def _detect(self) -> None:
        look = self._on_clock("detect", self._anonymizer.look)
        feed_side_by_side(look, self._frames, self._looks, self._anonymizer.parallel)

    def _cover(self) -> None:
        arrange = self._on_clock("anonymize", self._anonymizer.arrange)
        paint = self._on_clock("anonymize", self._anonymizer.paint)
        feed_side_by_side(paint, map(arrange, self._followed()), self._done, self._anonymizer.painting)

    def _followed(self) -> Iterator[Followed]:
        follow = self._on_clock("anonymize", self._anonymizer.follow)
        try:
            for look in self._looks:
                complete = follow(look)
                del look
                while complete:
                    yield complete.pop(0)
        except HungError:
            # Detection is dead, but the frames that wait here were looked at.
            yield from self._anonymizer.finish()
            raise
        yield from self._anonymizer.finish()

    def _covered(self) -> Iterator[Anonymized]:
        """Frames as they come, and, live, withheld ones where none does."""
        pulse = self._pulse
        while True:
            try:
                item = self._take(None if pulse is None or self._stopping else pulse.patience)
            except EndOfChannelError:
                return
            if pulse is None:
                yield cast("Anonymized", item)
            elif item is None:
                if not self._stopping:
                    yield pulse.fill()
            elif pulse.takes(item):
                yield item
            else:
                self._summary.superseded += 1
            del item

    def _take(self, patience: float | None) -> Anonymized | None:
        """The next frame; None if none came within so many seconds.

        Raises:
            EndOfChannelError: none comes any more, or not in the time that is left.
        """
        until = math.inf if patience is None else time.monotonic() + patience
        while True:
            now = time.monotonic()
            if now >= self._latest:
                self._cut = True
                _log.warning("asked to end, the run did not wait any longer for frames that were under way")
                raise EndOfChannelError
            item = self._done.take(min(_LOOK, max(0.0, until - now)))
            if item is not None or time.monotonic() >= until:
                return item

    def _encode(self) -> None:
        for item in self._covered():
            with self._clock("encode"):
                marked = item if self._mark is None else self._mark(item)
                self._sink.write(marked)
            self._summary.add(item)
            for observer in self._observers:
                observer(marked)
            del item, marked

    def _finish(self) -> None:
        with self._clock("encode"):
            if self._summary.frames:
                self._sink.close()
            else:
                # A video without a frame is none, and must not replace an older output.
                self._sink.abort()

    def _clock(self, stage: str) -> _Clock:
        return self._clocks[stage]

    def _on_clock(self, stage: str, function: Callable[[A], R]) -> Callable[[A], R]:
        def timed(item: A) -> R:
            with self._clock(stage):
                return function(item)

        return timed

    def _timed(self) -> Iterator[Frame]:
        """The source's frames. What it waits for them is no work, and what it works by itself meanwhile is."""
        frames, clock, waited = iter(self._source), self._clock("decode"), self._waited()
        while True:
            with clock:
                try:
                    frame = next(frames)
                except StopIteration:
                    return
                finally:
                    before, waited = waited, self._waited()
                    clock.rested(waited - before)
            yield frame
            del frame

    def _waited(self) -> float:
        return self._source.waited if isinstance(self._source, Patient) else 0.0


class _Clock:
    """Adds the time in which a stage works, on one frame or on several, to its total."""

    def __init__(self, totals: dict[str, float], stage: str) -> None:
        self._totals = totals
        self._stage = stage
        self._lock = threading.Lock()
        self._working = 0
        self._began = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._working:
                self._began = time.perf_counter()
            self._working += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._working -= 1
            if not self._working:
                # Clocks differ a little, and totals never fall.
                self._totals[self._stage] += max(0.0, time.perf_counter() - self._began)

    def rested(self, seconds: float) -> None:
        """So much of the time since work began was none."""
        with self._lock:
            self._began += seconds
