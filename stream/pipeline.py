"""Pipeline: decode, detect, anonymize and encode at the same time, on bounded queues, and fail closed.

Each stage is a thread (the last one is the caller's), so that they overlap wherever the work releases the
interpreter, which decoding, inference, image operations and encoding do. Raw frames exist only in the first
three; what reaches the sink is `Anonymized`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from engines.errors import StreamStoppedError
from stream.anonymizer import Anonymized, Anonymizer
from stream.channel import Channel, ChannelClosedError
from stream.deadline import HungError
from stream.follow import Look
from stream.frame import Frame
from stream.regions import Kind, Origin
from stream.sinks.base import Sink
from stream.sources.base import Source

T = TypeVar("T")

STAGES = ("decode", "detect", "anonymize", "encode")
#: Frames of about this many bytes may wait in each queue, but at least one and at most eight frames.
_QUEUE_BYTES = 48 * 2**20
_LONGEST_QUEUE = 8

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
        withheld: frames that were replaced by flat ones.
        reasons: why, with counts.
        tracks: how many were begun.
        seconds: wall time of the run without start-up.
        busy: seconds that each stage worked (not waited).
        stopped: why the run ended before its input did, None if it did not.
        interrupted: whether it was asked to end.
    """

    frames: int = 0
    regions: dict[str, int] = field(default_factory=dict)
    held: int = 0
    looked_ahead: int = 0
    manual: int = 0
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
        if item.withheld is not None:
            self.withheld += 1
            self.reasons[item.withheld] = self.reasons.get(item.withheld, 0) + 1


class Pipeline:
    """One source, one anonymizer, one sink.

    Args:
        source: of raw frames.
        anonymizer: covers them; it is reset first.
        sink: takes anonymized frames. Closed at the end, aborted on an error.
        observers: each sees every anonymized frame after it was written.
        mark: changes the anonymized picture before it is written (`--show-regions`), never the raw one.
    """

    def __init__(
        self,
        source: Source,
        anonymizer: Anonymizer,
        sink: Sink,
        *,
        observers: Sequence[Observer] = (),
        mark: Callable[[Anonymized], Anonymized] | None = None,
    ) -> None:
        self._source = source
        self._anonymizer = anonymizer
        self._sink = sink
        self._observers = tuple(observers)
        self._mark = mark
        self._stop = threading.Event()
        self._summary = Summary()
        size = max(1, min(_LONGEST_QUEUE, _QUEUE_BYTES // (source.info.width * source.info.height * 3 or 1)))
        self._frames: Channel[Frame] = Channel(size)
        self._looks: Channel[Look] = Channel(size)
        self._done: Channel[Anonymized] = Channel(size)

    def stop(self) -> None:
        """Read no further frame, finish what is under way and end. May be called from a signal handler."""
        self._summary.interrupted = True
        self._stop.set()

    def run(self) -> Summary:
        """Run to the end of the source.

        Returns:
            What was done. If `on_failure` is `stop` and a frame failed, the output ends before it, `Summary.stopped`
            says why.

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
            self._encode()
        except (StreamStoppedError, HungError) as error:
            # What is there is whole and anonymized, so it is kept.
            self._summary.stopped = str(error)
            self._sink.close()
        except BaseException:
            self._sink.abort()
            raise
        finally:
            for channel in (self._frames, self._looks, self._done):
                channel.abandon()
            for worker in workers:
                worker.join(timeout=5)
        self._summary.seconds = time.perf_counter() - began
        self._summary.tracks = self._anonymizer.tracks_begun - tracks_before
        return self._summary

    def _decode(self) -> None:
        def frames() -> Iterator[Frame]:
            for frame in self._timed("decode", iter(self._source)):
                if self._stop.is_set():
                    return
                yield frame

        _feed(frames(), self._frames)

    def _detect(self) -> None:
        def looks() -> Iterator[Look]:
            for frame in self._frames:
                with self._clock("detect"):
                    look = self._anonymizer.look(frame)
                yield look

        _feed(looks(), self._looks, upstream=self._frames)

    def _cover(self) -> None:
        def covered() -> Iterator[Anonymized]:
            for look in self._looks:
                with self._clock("anonymize"):
                    items = [self._anonymizer.cover(f) for f in self._anonymizer.follow(look)]
                yield from items
            for followed in self._anonymizer.finish():
                yield self._anonymizer.cover(followed)

        _feed(covered(), self._done, upstream=self._looks)

    def _encode(self) -> None:
        for item in self._done:
            with self._clock("encode"):
                marked = item if self._mark is None else self._mark(item)
                self._sink.write(marked)
            self._summary.add(item)
            for observer in self._observers:
                observer(marked)
        with self._clock("encode"):
            self._sink.close()

    def _clock(self, stage: str) -> _Clock:
        return _Clock(self._summary.busy, stage)

    def _timed(self, stage: str, items: Iterator[T]) -> Iterator[T]:
        while True:
            with self._clock(stage):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item


class _Clock:
    """Adds the time inside a `with` block to a stage's total. Each stage has one thread, so nothing is locked."""

    def __init__(self, totals: dict[str, float], stage: str) -> None:
        self._totals = totals
        self._stage = stage

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._totals[self._stage] += time.perf_counter() - self._began


def _feed(items: Iterable[T], channel: Channel[T], *, upstream: Channel[Frame] | Channel[Look] | None = None) -> None:
    """Put all items into a channel, and end it, fail it or give up as the case may be."""
    try:
        for item in items:
            channel.put(item)
    except ChannelClosedError:
        pass
    except BaseException as error:  # noqa: BLE001  carried to the last stage, which raises it in the caller's thread
        channel.fail(error)
    else:
        channel.end()
        return
    if upstream is not None:
        upstream.abandon()
