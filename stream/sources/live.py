"""Live sources: cameras and network streams, opened again whenever they are lost.

A thread of its own connects, reads and decodes. What it gives is taken in time or dropped before anybody looks at it.
While nothing comes, frames without a picture go on at the source's pace: those behind see a slate rather than nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final

from engines.errors import SourceError, StandinError
from stream.address import Address
from stream.backoff import Backoff
from stream.config import WhenLost
from stream.frame import Frame
from stream.sources.arrivals import Arrivals
from stream.sources.base import StreamInfo
from stream.sources.connection import Connection, Peer
from stream.sources.decoder import Decoder, Lost, Picture
from stream.sources.describe import describe
from stream.sources.pictures import FrameMaker
from stream.timeline import TIME_BASE, Timeline

_log = logging.getLogger(__name__)

#: Why frames are withheld while the source is away; sinks and reports tell it from other reasons.
AWAY: Final = "the source is away"
#: Pictures that may wait, decoded but not yet converted: a second at usual rates.
_MOST_WAITING: Final = 30
#: Frames without a picture begin when so many of the source's own are overdue, but after so many seconds at least.
_OVERDUE: Final = 5
_SHORTEST_WAIT: Final = 0.5
#: Of frames without a picture, where the source's rate is unknown or cannot be true.
_USUAL_RATE: Final = Fraction(25)
_RATES: Final = (Fraction(1), Fraction(120))


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """How a live source is read.

    Attributes:
        peer: time-outs and certificates.
        attempts: connections in a row that may fail, None for any number.
        longest_wait: seconds between two of them at most.
        when_lost: what comes while the source is away: frames without a picture, which are shown flat (`slate`) or as
            the last one that was anonymized (`hold`), or the end of the stream.
        budget: seconds that a picture may wait to be looked at.
        strict: whether pictures count as damaged where the decoder could conceal the damage.
    """

    peer: Peer = field(default_factory=Peer)
    attempts: int | None = None
    longest_wait: float = 2.0
    when_lost: WhenLost = "slate"
    budget: float = 0.5
    strict: bool = True


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A picture, and the connection's stream that it belongs to."""

    item: Picture | Lost
    info: StreamInfo
    connection: int


class LiveSource:
    """Frames of a camera or a network stream on one timeline, over all its reconnects.

    Args:
        address: where it is.
        options: see there.
        clock: monotonic seconds.

    Raises:
        SourceError: it was given up before the first picture came.
    """

    def __init__(
        self,
        address: Address,
        options: LiveOptions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options or LiveOptions()
        self._clock = clock
        self._reader = _Reader(address, self._options, clock)
        self._address = address
        first = self._reader.first()
        self.info = _on_timeline(first)
        self._timeline = Timeline(self.info.rate)
        self._frames = FrameMaker(self.info, time_base=TIME_BASE, begin=0)

    @property
    def dropped(self) -> int:
        """Pictures that nobody looked at, since they were late."""
        return self._reader.arrivals.dropped

    @property
    def reconnects(self) -> int:
        """How often the source was lost and found again."""
        return max(0, self._reader.connections - 1)

    def __iter__(self) -> Iterator[Frame]:
        """Frames until the source is given up, or ends.

        Raises:
            SourceError: it was given up, or its pictures have another size than they had.
        """
        step = _step(self.info.rate)
        patience = max(_SHORTEST_WAIT, _OVERDUE * float(step))
        connection, waited = 0, 0.0
        while True:
            away = waited >= patience
            began = self._clock()
            try:
                taken = self._reader.arrivals.take(began, float(step) if away else patience)
            except EOFError:
                return
            if taken is None:
                waited += max(self._clock() - began, float(step))
                if self._options.when_lost == "end":
                    return
                yield self._frames.missing(AWAY, self._timeline.now(self._clock()), round(step / TIME_BASE))
                continue
            waited = 0.0
            arrived, picture = taken
            if picture.connection != connection:
                self._check_size(picture.info)
                self._timeline.restart()
                connection = picture.connection
            base = picture.info.time_base
            pts = self._timeline.place(picture.item.pts, base, arrived)
            yield self._frames.make(picture.item, pts, round(picture.item.duration * base / TIME_BASE))

    def problems(self) -> tuple[str, ...]:
        """None: what happens on the way is logged when it does, and a source that is given up raises."""
        return ()

    def side_exits(self) -> tuple[str, ...]:
        """Other streams, and data that frames carried."""
        return (*self.info.dropped, *self._frames.side_exits)

    def close(self) -> None:
        """Hang up. A call into the network ends by its time-out, which nobody waits for."""
        self._reader.stop()

    def _check_size(self, info: StreamInfo) -> None:
        mine = self.info
        if (info.width, info.height, info.orientation) != (mine.width, mine.height, mine.orientation):
            raise SourceError(
                f"{self._address} came back with pictures of {info.width}x{info.height} instead of "
                f"{mine.width}x{mine.height}, which the output cannot take; start again"
            )


class _Reader:
    """The thread that connects, reads and decodes, again and again."""

    def __init__(self, address: Address, options: LiveOptions, clock: Callable[[], float]) -> None:
        self._address = address
        self._options = options
        self._clock = clock
        self._backoff = Backoff(longest=options.longest_wait)
        self._stopped = threading.Event()
        self._known = threading.Event()
        self._info: StreamInfo | None = None
        self._error: BaseException | None = None
        self.connections = 0
        self.arrivals: Arrivals[_Arrived] = Arrivals(_MOST_WAITING, options.budget)
        threading.Thread(target=self._run, name="standin-read", daemon=True).start()

    def first(self) -> StreamInfo:
        """Of the first connection that gave a picture; waits for it."""
        # In steps, so that Ctrl-C is seen.
        while not self._known.wait(0.2):
            pass
        if self._info is None:
            raise self._error or SourceError(f"{self._address} ended before its first picture")
        return self._info

    def stop(self) -> None:
        self._stopped.set()
        self.arrivals.end()

    def _run(self) -> None:
        try:
            self._read()
            self.arrivals.end()
        except BaseException as error:  # noqa: BLE001  carried to the thread that takes
            self._error = error
            self.arrivals.end(error)
        finally:
            self._known.set()

    def _read(self) -> None:
        while not self._stopped.is_set():
            try:
                if self._connection():
                    return
                reason = f"{self._address} has ended"
            except StandinError as error:
                reason = str(error)
            if self._stopped.is_set():
                return
            if self._options.when_lost == "end" and self.connections:
                _log.warning("%s", reason)
                return
            self._wait(reason)

    def _wait(self, reason: str) -> None:
        first = not self._backoff.failures
        wait = self._backoff.failed()
        if self._options.attempts is not None and self._backoff.failures > self._options.attempts:
            raise SourceError(f"{reason} (given up after {self._backoff.failures} attempts)")
        # One line when a state changes, and not one for every attempt.
        _log.log(logging.WARNING if first else logging.DEBUG, "%s; trying again", reason)
        self._stopped.wait(wait)

    def _connection(self) -> bool:
        """Reads one connection to its end; whether that is the end of the stream, too."""
        connection = Connection(self._address, self._options.peer)
        try:
            number, info = self.connections + 1, None
            decoder = Decoder(connection.stream, strict=self._options.strict)
            for item in decoder.pictures(connection.packets()):
                if self._stopped.is_set():
                    return True
                if info is None:
                    if not isinstance(item, Picture):
                        continue
                    pts = item.pts or 0
                    info = describe(
                        str(self._address), connection.container, connection.stream, item.frame, pts, (None, None)
                    )
                    self._begun(number, info)
                self.arrivals.put(_Arrived(item, info, number), self._clock())
            return connection.ends and info is not None
        finally:
            connection.close()

    def _begun(self, number: int, info: StreamInfo) -> None:
        if self.connections or self._backoff.failures:
            _log.warning("%s is there (%dx%d)", self._address, info.width, info.height)
        self.connections = number
        self._backoff.succeeded()
        self._info = self._info or info
        self._known.set()


def _on_timeline(info: StreamInfo) -> StreamInfo:
    """What a sink has to know: frames come on our timeline, for as long as they come."""
    return replace(info, time_base=TIME_BASE, start_pts=0, frames=None, rate=1 / _step(info.rate))


def _step(rate: Fraction | None) -> Fraction:
    """Seconds from one frame to the next."""
    low, high = _RATES
    return 1 / (rate if rate is not None and low <= rate <= high else _USUAL_RATE)
