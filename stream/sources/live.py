"""Live sources: cameras and network streams, opened again whenever they are lost.

A thread of its own connects, reads and decodes. What it gives is taken in time or dropped before anybody looks at it.
While nothing comes, frames without a picture go on at the source's pace: those behind see a slate rather than nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from engines.errors import RuntimeUnavailableError, SourceError, StandinError, UsageError
from stream.address import Address, Place
from stream.backoff import Backoff
from stream.config import Backend, DecoderDevice, WhenLost
from stream.frame import AWAY as AWAY
from stream.frame import Frame
from stream.pace import Pace, WhenSlow
from stream.sources.arrivals import Arrivals
from stream.sources.base import StreamInfo
from stream.sources.connection import AvConnection, Connection, Peer, Progress
from stream.sources.decoder import Lost, Picture
from stream.sources.describe import live_step, on_timeline
from stream.sources.gst import FetchedStream, GstConnection, fetched
from stream.sources.hardware import begun
from stream.sources.pictures import FrameMaker
from stream.timeline import TIME_BASE, Timeline

_log = logging.getLogger(__name__)

#: Pictures that may wait, decoded but not yet converted: a second at usual rates.
_MOST_WAITING: Final = 30
#: What is known of a source that is connected and gives none.
_SILENT: Final = "nothing comes"
#: Frames without a picture begin when so many of the source's own are overdue, but after so many seconds at least.
_OVERDUE: Final = 5
_SHORTEST_WAIT: Final = 0.5
#: Seconds without any sign of the thread that reads, beyond its time-outs, after which it hangs: looking up a name may
#: take half as long.
_HANGS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """How a live source is read.

    Attributes:
        peer: time-outs and certificates.
        attempts: connections in a row that may fail, None for any number.
        longest_wait: seconds between two of them at most.
        when_lost: what comes while the source is away: frames without a picture, which are shown flat (`slate`) or as
            the last one that was anonymized (`hold`), or those only until the connection is lost, and then the `end`.
        budget: seconds that a picture may wait to be looked at.
        strict: whether pictures count as damaged where the decoder could conceal the damage.
        backend: who reads URLs that both can read. Pipelines and SRT are GStreamer's in any case.
        when_slow: what is done when pictures cannot be looked at as fast as they come.
        video_stream: number or title of the video stream to take, None for the main one.
        decoder: where it is decoded; GStreamer chooses by itself.
    """

    peer: Peer = field(default_factory=Peer)
    attempts: int | None = None
    longest_wait: float = 2.0
    when_lost: WhenLost = "slate"
    budget: float = 0.5
    strict: bool = True
    backend: Backend = "av"
    when_slow: WhenSlow = "drop"
    video_stream: str | None = None
    decoder: DecoderDevice = "cpu"


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A picture, the stream and connection that it belongs to, when its packet came, and whether its source waits."""

    item: Picture | Lost
    info: StreamInfo
    connection: int
    at: float
    waits: bool


class LiveSource:
    """Frames of a camera or a network stream on one timeline, over all its reconnects.

    Args:
        address: where it is.
        options: see there.
        clock: monotonic seconds.
        on_change: called with why it is away, without secrets, when that changes, also before the first picture, and
            with None when it is there. By a thread of the source's, which waits for it.

    Raises:
        UsageError: it is a pipeline that cannot be meant.
        RuntimeUnavailableError: it needs GStreamer, which or a part of which is not here.
        SourceError: it was given up before the first picture came.
    """

    def __init__(
        self,
        address: Address,
        options: LiveOptions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        self._options = options or LiveOptions()
        self._clock = clock
        #: Frames in a row that had no picture, since none came.
        self._missing = 0
        self._reader = _Reader(address, self._options, clock, on_change)
        self._name = str(address)
        first = self._reader.first()
        self.info = on_timeline(first)
        self._timeline = Timeline(self.info.rate)
        self._shown = first
        self._frames = FrameMaker(self.info, time_base=TIME_BASE, begin=0)
        self._exits: dict[str, None] = {}
        #: What is left out where pictures cannot be looked at as fast as they come.
        self.pace = Pace(self._options.when_slow, clock)

    @property
    def dropped(self) -> int:
        """Pictures that nobody looked at, since they were late or too many."""
        return self._reader.arrivals.dropped + self.pace.skipped

    @property
    def waited(self) -> float:
        """See `Patient`."""
        return self.pace.idle - self._reader.worked

    @property
    def holds(self) -> bool:
        """Whether frames without a picture are to show the last one that was anonymized."""
        return self._options.when_lost == "hold"

    @property
    def reconnects(self) -> int:
        """How often the source was lost and found again."""
        return max(0, self._reader.connections - 1)

    @property
    def waiting(self) -> int:
        """Pictures that came and that nobody has looked at yet."""
        return self._reader.arrivals.waiting

    @property
    def hangs(self) -> bool:
        """Whether it is held by a call that no time-out ends, so that it will never come back by itself."""
        peer = self._options.peer
        return self._clock() - self._reader.heard > _HANGS + peer.connect_timeout + peer.read_timeout

    @property
    def there(self) -> bool:
        """Whether it gives pictures now."""
        return self.last_error is None

    @property
    def last_error(self) -> str | None:
        """Why it is away, without secrets; None while it is there."""
        return self._reader.last_error or (_SILENT if self._missing else None)

    def __iter__(self) -> Iterator[Frame]:
        """Frames until the source is given up, or ends. Where its pictures change their size, so do the frames.

        Raises:
            SourceError: it was given up.
        """
        step = live_step(self.info.rate)
        patience = max(_SHORTEST_WAIT, _OVERDUE * float(step))
        connection, waited = 0, 0.0
        while True:
            away = waited >= patience
            began = self._clock()
            try:
                taken = self._reader.take(began, float(step) if away else patience)
            except EOFError:
                return
            self.pace.waited(self._clock() - began)
            if taken is None:
                if self._reader.waits:
                    waited = 0.0
                    continue
                waited += max(self._clock() - began, float(step))
                self._count_missing()
                yield self._frames.missing(AWAY, self._timeline.now(self._clock()), round(step / TIME_BASE))
                continue
            waited = 0.0
            self._count_missing(back=True)
            arrived, picture = taken
            if not (self.pace.wants(self._reader.arrivals.dropped) or self._reader.waits):
                continue
            if picture.connection != connection:
                self._timeline.restart()
                connection = picture.connection
            self._follow(picture.info)
            base = picture.info.time_base
            pts = self._timeline.place(picture.item.pts, base, arrived, waits=picture.waits)
            yield self._frames.make(picture.item, pts, round(picture.item.duration * base / TIME_BASE), picture.at)

    def problems(self) -> tuple[str, ...]:
        """None: what happens on the way is logged when it does, and a source that is given up raises."""
        return ()

    def side_exits(self) -> tuple[str, ...]:
        """Other streams, and data that frames carried."""
        return tuple(dict.fromkeys((*self.info.dropped, *self._exits, *self._frames.side_exits)))

    def close(self) -> None:
        """Hang up. A call into the network ends by its time-out, which nobody waits for."""
        self._reader.stop()

    def _count_missing(self, *, back: bool = False) -> None:
        """One more frame without a picture, or the end of them: one line for the first, and one for their number."""
        if not back:
            if not self._missing:
                instead = "the last anonymized one is shown" if self.holds else "frames are withheld"
                _log.warning("%s gives no pictures: %s until it does", self._name, instead)
            self._missing += 1
        elif self._missing:
            _log.warning("%s gives pictures again; %d frames were withheld", self._name, self._missing)
            self._missing = 0

    def _follow(self, info: StreamInfo) -> None:
        """Take pictures as they are from now on: a camera that was lost may come back as another."""
        if info is self._shown:
            return
        before, self._shown = self._shown, info
        self._exits |= dict.fromkeys((*info.dropped, *self._frames.side_exits))
        self._frames = FrameMaker(on_timeline(info), time_base=TIME_BASE, begin=0)
        if (info.width, info.height) != (before.width, before.height):
            _log.warning(
                "%s shows %dx%d instead of %dx%d", self._name, info.width, info.height, before.width, before.height
            )
        elif info.orientation != before.orientation:
            _log.warning("%s has turned its pictures", self._name)


class _Reader:
    """The thread that connects, reads and decodes, again and again."""

    def __init__(
        self,
        address: Address,
        options: LiveOptions,
        clock: Callable[[], float],
        on_change: Callable[[str | None], None],
    ) -> None:
        self._address = address
        self._name = str(address)
        self._options = options
        self._clock = clock
        self._on_change = on_change
        self._backoff = Backoff(longest=options.longest_wait)
        self._stopped = threading.Event()
        self._known = threading.Event()
        self._progress = Progress()
        self._info: StreamInfo | None = None
        self._error: BaseException | None = None
        self._room = threading.Event()
        self._room.set()
        self.connections = 0
        #: When the thread was last seen to go on: by a packet, or a new attempt.
        self.heard = clock()
        #: Seconds that the thread computed, in which it mostly decodes.
        self.worked = 0.0
        #: Why there is no connection, None while there is one, and while the first is tried.
        self.last_error: str | None = None
        #: Whether nothing is lost if nobody takes pictures for a while, and there is no hurry to show anything else.
        self.waits = False
        self.arrivals: Arrivals[_Arrived] = Arrivals(_MOST_WAITING, options.budget)
        threading.Thread(target=self._run, name="standin-read", daemon=True).start()

    def first(self) -> StreamInfo:
        """Of the first connection that gave a picture; waits for it."""
        # In steps, so that Ctrl-C is seen.
        while not self._known.wait(0.2):
            pass
        if self._info is None:
            raise self._error or SourceError(f"{self._name} ended before its first picture")
        return self._info

    def take(self, now: float, timeout: float) -> tuple[float, _Arrived] | None:
        """See `Arrivals.take`."""
        taken = self.arrivals.take(now, timeout)
        if taken is not None:
            self._room.set()
        return taken

    def stop(self) -> None:
        self._stopped.set()
        self._room.set()
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
            self._beat()
            try:
                if self._connection():
                    return
                reason = f"{self._name} has ended"
            except (UsageError, RuntimeUnavailableError) as error:
                if not (self.connections and isinstance(error, UsageError)):
                    # The next attempt would not be better.
                    raise
                # It was as wanted before, and may be again.
                reason = str(error)
            except StandinError as error:
                reason = str(error)
            if self._stopped.is_set():
                return
            if self._options.when_lost == "end" and self.connections:
                _log.warning("%s: the stream ends with it", reason)
                return
            self._tell(reason)
            self._wait(reason)

    def _wait(self, reason: str) -> None:
        wait = self._backoff.failed()
        if self._backoff.over(self._options.attempts):
            raise SourceError(self._backoff.given_up(reason))
        # One line when a state changes, and not one for every attempt.
        _log.log(logging.WARNING if self._backoff.news(reason) else logging.DEBUG, "%s; trying again", reason)
        self._stopped.wait(wait)

    def _connection(self) -> bool:
        """Reads one connection to its end; whether that is the end of the stream, too."""
        connection = _connect(self._address, self._options, self._progress)
        try:
            number, info, shape = self.connections + 1, None, None
            items = connection.pictures(strict=self._options.strict, beat=self._beat)
            for item in begun(items, self._name, self._options.decoder):
                if self._stopped.is_set():
                    return True
                if info is None:
                    if not isinstance(item, Picture):
                        continue
                    info, shape = connection.describe(item), connection.shape(item)
                    self.waits = connection.waits
                    self._begun(number, info)
                elif isinstance(item, Picture) and (now := connection.shape(item)) != shape:
                    info, shape = connection.describe(item), now
                came = connection.arrived(item)
                self._put(_Arrived(item, info, number, self._clock() if came is None else came, self.waits))
            return connection.ends and info is not None
        finally:
            self.waits = False
            connection.close()

    def _beat(self) -> None:
        self.heard = self._clock()
        self.worked = time.thread_time()

    def _put(self, arrived: _Arrived) -> None:
        if self.waits:
            # With one picture under way nothing can be late.
            self._room.wait()
            self._room.clear()
        self.arrivals.put(arrived, self._clock())

    def _begun(self, number: int, info: StreamInfo) -> None:
        if self.connections or self._backoff.failures:
            _log.warning("%s is there (%dx%d)", self._name, info.width, info.height)
        self.connections = number
        self._backoff.succeeded()
        self._info = self._info or info
        self._tell(None)
        self._known.set()

    def _tell(self, reason: str | None) -> None:
        """Why there is no connection from now on, or that there is one."""
        changed, self.last_error = reason != self.last_error, reason
        if changed:
            self._on_change(reason)


def _connect(address: Address, options: LiveOptions, progress: Progress) -> Connection:
    """By whom an address is read."""
    through_av = partial(AvConnection, address, options.peer, wanted=options.video_stream, decoder=options.decoder)
    if address.scheme == "srt" or (options.backend == "gst" and fetched(address)):
        return through_av(FetchedStream(address, options.peer))
    if address.place is Place.PIPELINE or (options.backend == "gst" and address.place is Place.NETWORK):
        return GstConnection(address, options.peer)
    return through_av(progress=progress)
