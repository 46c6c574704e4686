"""Pipeline: decode, detect, anonymize and encode at the same time, on bounded queues, and fail closed.

Each stage is a thread (the last one is the caller's), so that they overlap wherever the work releases the
interpreter, which decoding, inference, image operations and encoding do. Raw frames exist only in the first
three; what reaches the sink is `Anonymized`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from engines.errors import StreamStoppedError
from stream.anonymizer import Anonymized, Anonymizer
from stream.channel import Channel, ChannelClosedError
from stream.deadline import HungError
from stream.follow import Followed, Look
from stream.frame import Frame
from stream.regions import Kind, Origin
from stream.sinks.base import Sink
from stream.sources.base import Source

T = TypeVar("T")

STAGES = ("decode", "detect", "anonymize", "encode")
#: Frames of this many bytes may wait in each queue, but at least one and at most eight frames.
_QUEUE_BYTES = 48 * 2**20
_LONGEST_QUEUE = 8
#: What stages get to end when the last one has: a call into a codec or a network cannot be cut short.
_SECONDS_TO_END = 5.0
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
        busy: seconds that each stage worked (not waited).
        stopped: why the run ended before its input did, None if it did not.
        interrupted: whether it was asked to end, and did before its input.
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
    stopped: str | None = None
    interrupted: bool = False

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
            reason = item.withheld
            if reason not in self.reasons and len(self.reasons) >= _MOST_REASONS:
                reason = "other reasons"
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
    ) -> None:
        self._source = source
        self._anonymizer = anonymizer
        self._sink = sink
        self._observers = tuple(observers)
        self._mark = mark
        self._stop = threading.Event()
        self._exhausted = False
        #: Whether the source was still being read when the run had ended; it must not be closed then.
        self.reading = False
        self._summary = Summary()
        self._clocks = {stage: _Clock(self._summary.busy, stage) for stage in STAGES}
        self._frames: Channel[Frame] = Channel(waiting, weigh=_frame_bytes, capacity=_QUEUE_BYTES)
        self._looks: Channel[Look] = Channel(waiting, weigh=_look_bytes, capacity=_QUEUE_BYTES)
        self._done: Channel[Anonymized] = Channel(waiting, weigh=_done_bytes, capacity=_QUEUE_BYTES)

    def stop(self) -> None:
        """Read no further frame, finish what is under way and end. May be called from a signal handler."""
        self._stop.set()
        # The next stage need not wait for a source that may never give another frame.
        self._frames.end()

    def run(self) -> Summary:
        """Run to the end of the source.

        Returns:
            What was done. If `on_failure` is `stop` and a frame failed, or a stage has stopped answering, the output
            ends before that frame and `Summary.stopped` says why.

        Raises:
            StandinError: the source or the sink failed; nothing is left under the output's final name.
        """
        self._anonymizer.reset()
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
            self._finish()
        except BaseException:
            self._sink.abort()
            raise
        finally:
            for channel in (self._frames, self._looks, self._done):
                channel.abandon()
            patience = time.monotonic() + _SECONDS_TO_END
            for worker in workers:
                worker.join(timeout=max(0.0, patience - time.monotonic()))
            self.reading = workers[0].is_alive()
        self._summary.interrupted = self._stop.is_set() and not self._exhausted
        self._summary.seconds = time.perf_counter() - began
        self._summary.tracks = self._anonymizer.tracks_begun - tracks_before
        return self._summary

    def _decode(self) -> None:
        def frames() -> Iterator[Frame]:
            for frame in self._timed("decode", iter(self._source)):
                if self._stop.is_set():
                    return
                yield frame
                del frame
            self._exhausted = True

        _feed(frames(), self._frames)

    def _detect(self) -> None:
        def look(frame: Frame) -> Look:
            with self._clock("detect"):
                return self._anonymizer.look(frame)

        _feed(_side_by_side(look, self._frames, self._anonymizer.parallel), self._looks)

    def _cover(self) -> None:
        def covered() -> Iterator[Anonymized]:
            for followed in self._followed():
                with self._clock("anonymize"):
                    item = self._anonymizer.cover(followed)
                yield item
                del followed, item

        _feed(covered(), self._done)

    def _followed(self) -> Iterator[Followed]:
        try:
            for look in self._looks:
                with self._clock("anonymize"):
                    complete = self._anonymizer.follow(look)
                del look
                while complete:
                    yield complete.pop(0)
        except HungError:
            # Detection is dead, but the frames that wait here were looked at.
            yield from self._anonymizer.finish()
            raise
        yield from self._anonymizer.finish()

    def _encode(self) -> None:
        for item in self._done:
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

    def _timed(self, stage: str, items: Iterator[T]) -> Iterator[T]:
        while True:
            with self._clock(stage):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item
            del item


def _frame_bytes(frame: Frame) -> int:
    return frame.image.nbytes


def _look_bytes(look: Look) -> int:
    return look.frame.image.nbytes


def _done_bytes(item: Anonymized) -> int:
    return item.image.nbytes


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
                self._totals[self._stage] += time.perf_counter() - self._began


def _side_by_side(function: Callable[[Frame], Look], frames: Iterable[Frame], workers: int) -> Iterator[Look]:
    """`map`, in order, with so many calls under way at a time."""
    if workers == 1:
        yield from map(function, frames)
        return
    under_way: deque[Future[Look]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="standin-look") as pool:
        for frame in frames:
            under_way.append(pool.submit(function, frame))
            del frame
            while len(under_way) >= workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _feed(items: Iterable[T], channel: Channel[T]) -> None:
    """Put all items into a channel, and end it, fail it or give up as the case may be.

    Stages before this one need not be told: the last stage abandons all channels when the end or the error arrives.
    """
    try:
        for item in items:
            channel.put(item)
    except ChannelClosedError:
        return
    except BaseException as error:  # noqa: BLE001  carried to the last stage, which raises it in the caller's thread
        channel.fail(error)
    else:
        channel.end()
