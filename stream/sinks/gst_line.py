"""Line: what keeps a pipeline of GStreamer's taking what it is given, and makes another one when it does not.

Whoever gives never waits: a pipeline has a short queue, and what does not fit is lost to it, and counted.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from engines.errors import SinkError, StandinError
from stream.backoff import Backoff, Patience
from stream.gst import ENDED, NANOSECONDS, Running, bindings, parse, trouble
from stream.sinks.network import SinkOptions

_log = logging.getLogger(__name__)

IN: Final = "standin_in"
HEAD: Final = f"appsrc name={IN} format=time is-live=true block=false max-bytes=0 max-buffers=0 max-time=0"
#: Seconds for which the first pipeline may keep its maker waiting.
_LONGEST_START: Final = 1.0
#: Seconds between two looks at a pipeline.
_LOOK: Final = 0.05
_FIRST_LOOK: Final = 0.005
#: Pieces after which a pipeline that has taken all of them counts as one that takes what it is given.
_TAKES: Final = 5
#: Seconds for which a pipeline must have worked to count as one that does.
_PROVEN: Final = 1.0
_SECONDS_TO_STOP: Final = 0.7
#: Seconds for which an end waits for that, without a hurry and, as a part of what there is, with one.
_SECONDS_TO_LEAVE: Final = 1.0
_SECONDS_TO_LEAVE_SOON: Final = 0.3


@dataclass(frozen=True, slots=True)
class Piece:
    """What a pipeline is given at once.

    Attributes:
        content: of the buffer.
        pts: nanoseconds of the stream.
        caps: what the content is.
        key: whether it needs nothing that came before.
    """

    content: bytes
    pts: int
    caps: str
    key: bool = True


class Line:
    """One pipeline after another, each fed through an appsrc of ours before it.

    Args:
        name: as it may be shown.
        tail: description of what comes behind our appsrc.
        options: see there.
        room: pieces that may wait.
        set_up: called with each pipeline before it begins.
        answered: of a pipeline that takes what it is given: whether somebody behind it does, too.
        patient: whether somebody waits for it who does not wait for ever (see `NetworkSink`).

    Raises:
        UsageError: the description cannot be meant.
        RuntimeUnavailableError: GStreamer or an element is missing.
    """

    def __init__(
        self,
        name: str,
        tail: str,
        options: SinkOptions,
        *,
        room: int,
        set_up: Callable[[Any], None] = lambda _: None,
        answered: Callable[[Any], bool] = lambda _: True,
        patient: bool = False,
    ) -> None:
        self._name = name
        self._patience = Patience(options.timeout if patient and options.attempts is None else math.inf)
        self._description = f"{HEAD} ! {tail}"
        self._options = options
        self._room = room
        self._set_up = set_up
        self._answered = answered
        self._backoff = Backoff(longest=options.longest_wait)
        self._lock = threading.Lock()
        self._feed: Feed | None = None
        self._ended = threading.Event()
        self._hurry = threading.Event()
        self._error: StandinError | None = None
        self._lost = 0
        self._latest = math.inf
        #: Pipelines that worked.
        self.connections = 0
        #: Whether the pipeline of now takes what it is given.
        self.there = False
        #: Why none does, without secrets; None while nothing is known against it.
        self.last_error: str | None = None
        self._first = self._make()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name="standin-send", daemon=True)
        self._thread.start()
        # Nobody is kept waiting yet.
        self._begun.wait(_LONGEST_START)

    @property
    def dropped(self) -> int:
        """Pieces that no pipeline took."""
        return self._lost

    @property
    def reconnects(self) -> int:
        """How often a pipeline was lost and another one took its place."""
        return max(0, self.connections - 1)

    @property
    def waiting(self) -> int:
        """Pieces that wait for the pipeline now."""
        feed = self._feed
        return 0 if feed is None else feed.waiting

    @property
    def ready(self) -> bool:
        """Whether a piece would be taken now."""
        feed = self._feed
        return feed is not None and feed.waiting < self._room

    @property
    def wants_key(self) -> bool:
        """Whether the next piece must need nothing that came before."""
        feed = self._feed
        return feed is None or not feed.begun

    def check(self) -> None:
        """Whether it goes on.

        Raises:
            SinkError: it was given up.
        """
        if self._error is not None:
            raise self._error

    def wait(self) -> None:
        """Until a piece would be taken, but no longer than a pipeline gets for that.

        Raises:
            SinkError: it was given up.
        """
        end = time.monotonic() + self._options.timeout
        while not self.ready and time.monotonic() < min(end, self._latest) and not self._ended.is_set():
            self.check()
            time.sleep(_FIRST_LOOK)

    def skip(self) -> None:
        """There is a piece that is not worth making, since it would not be taken."""
        with self._lock:
            self._lost += 1

    def push(self, piece: Piece) -> None:
        """Give a piece to the pipeline, or let it go."""
        with self._lock:
            if self._feed is None or not self._feed.push(piece, self._room):
                self._lost += 1

    @property
    def hurried(self) -> bool:
        """Whether it was told how long it may wait."""
        return self._latest < math.inf

    def hurry(self, seconds: float) -> None:
        """From now on, wait so many seconds altogether. Takes no lock."""
        self._latest = min(self._latest, time.monotonic() + seconds)

    def end(self, seconds: float) -> None:
        """Nothing comes any more; what waits gets so many seconds."""
        until = time.monotonic() + seconds
        self._ended.set()
        # The hurry may begin meanwhile.
        while self._thread.is_alive() and time.monotonic() < min(until, self._latest - _SECONDS_TO_LEAVE_SOON):
            self._thread.join(_LOOK)
        self._hurry.set()
        self._thread.join(_SECONDS_TO_LEAVE_SOON if self._latest < math.inf else _SECONDS_TO_LEAVE)

    def _make(self) -> Any:
        pipeline = parse(self._description, name=self._name)
        self._set_up(pipeline)
        return pipeline

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                self._carry()
        except StandinError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001  carried to the thread that writes, whatever it is
            self._error = SinkError(f"{self._name}: {error}")

    def _carry(self) -> None:
        """One pipeline from start to end."""
        pipeline, self._first = self._first or self._make(), None
        running, feed = Running(pipeline), Feed(pipeline.get_by_name(IN))
        try:
            self.last_error = reason = self._watch(running, feed)
        finally:
            self._begun.set()
            self.there = False
            with self._lock:
                self._feed = None
                self._lost += feed.waiting
            running.stop(_SECONDS_TO_STOP)
        if not self._ended.is_set():
            self._wait(reason)

    def _watch(self, running: Running, feed: Feed) -> str:
        """Look after a pipeline until it is of no use any more; why it is not."""
        began = moved = time.monotonic()
        taken, told, counted = -1, False, False
        while not self._hurry.wait(_LOOK if self._begun.is_set() and not self._ended.is_set() else _FIRST_LOOK):
            if (reason := trouble(running.bus)) is not None:
                return reason
            if running.failed:
                return "the pipeline does not start"
            now = time.monotonic()
            if running.begun.is_set() and self._feed is None and not told:
                self._feed = feed
                self._begun.set()
            before = taken
            if feed.taken != taken or (self._feed is not None and not feed.waiting):
                moved, taken = now, feed.taken
            elif now - moved > self._options.timeout:
                return "it took nothing in time"
            # Fewer may have gone no further than to an element that waits for its server.
            takes = taken >= _TAKES and (not feed.waiting or taken > before >= _TAKES)
            if not counted and takes and self._answered(running.pipeline):
                self.connections += 1
                self.there, self.last_error = True, None
                self._patience.rewarded()
                counted = True
            if self._backoff.failures and counted and now - began > _PROVEN:
                _log.warning("%s takes the stream again", self._name)
                self._backoff.succeeded()
            if self._ended.is_set() and not told:
                feed.end()
                told = True
        return ENDED

    def _wait(self, reason: str) -> None:
        wait = self._backoff.failed()
        if self._backoff.over(self._options.attempts) or self._patience.over():
            raise SinkError(self._backoff.given_up(f"{self._name}: {reason}"))
        # One line when a state changes, and not one for every attempt.
        level = logging.WARNING if self._backoff.news(reason) else logging.DEBUG
        _log.log(level, "%s: %s; trying again", self._name, reason)
        self._ended.wait(wait)


class Feed:
    """The appsrc before one pipeline.

    Args:
        source: made by `HEAD`.
    """

    def __init__(self, source: Any) -> None:
        self.source = source
        self._caps = ""
        self._offset: int | None = None
        # Of what was given and what waits, so that nobody sees the one with a piece that the other is without.
        self._lock = threading.Lock()
        self._given = 0
        #: Whether it got what all later pieces depend on.
        self.begun = False

    @property
    def waiting(self) -> int:
        """Pieces that were given and not taken."""
        return int(self.source.get_property("current-level-buffers"))

    @property
    def taken(self) -> int:
        """Pieces that were taken."""
        with self._lock:
            return self._given - self.waiting

    def push(self, piece: Piece, room: int) -> bool:
        """Give a piece, if there is room for it and it is of use; whether the pipeline has it now.

        Args:
            piece: see there.
            room: pieces that may wait.
        """
        fits = self.waiting < room
        # What comes next depends on this one.
        self.begun &= fits
        if not fits or not (piece.key or self.begun):
            return False
        buffer = self._buffer(piece)
        with self._lock:
            self.begun = self.source.push_buffer(buffer) == bindings().gst.FlowReturn.OK
            self._given += self.begun
        return self.begun

    def end(self) -> None:
        """Nothing comes any more."""
        self.source.end_of_stream()

    def _buffer(self, piece: Piece) -> Any:
        gst = bindings().gst
        if piece.caps != self._caps:
            self.source.set_caps(gst.Caps.from_string(piece.caps))
            self._caps = piece.caps
        if self._offset is None:
            # The pipeline's time begins when it does, wherever the stream is.
            self._offset = self._now() - piece.pts
        buffer = gst.Buffer.new_wrapped(piece.content)
        buffer.pts = buffer.dts = max(0, piece.pts + self._offset)
        if not piece.key:
            buffer.set_flags(gst.BufferFlags.DELTA_UNIT)
        return buffer

    def _now(self) -> int:
        """Nanoseconds for which the pipeline has been running."""
        clock = self.source.get_clock()
        return 0 if clock is None else max(0, int(clock.get_time()) - int(self.source.get_base_time()))


def nanoseconds(pts: int, time_base: Fraction) -> int:
    """A time stamp as GStreamer counts."""
    return round(pts * time_base * NANOSECONDS)
