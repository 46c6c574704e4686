"""Network sinks: anonymized frames to a server that may refuse, hang or come back, without holding up the stream.

Frames are encoded here, without delay. A courier, a process of its own, carries the packets: one that is silent for too
long is killed, and another one starts from a key frame. What could not be sent meanwhile is lost to the server, and
counted, or kept in a spool until the server is back.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, cast

import av
from av.video.codeccontext import VideoCodecContext

from engines.errors import SinkError, UsageError
from stream.address import Address, redacted
from stream.anonymizer import Anonymized
from stream.backoff import Backoff, Patience
from stream.sinks.delivery import Delivery, Process, dismiss, start_courier
from stream.sinks.live_encoder import LiveEncoder
from stream.sinks.spool import Recent, Spool
from stream.sources.base import StreamInfo
from stream.tls import check_sink, tls_options

if TYPE_CHECKING:
    from stream.sinks.delivery import VideoPacket

_log = logging.getLogger(__name__)

#: By scheme: FFmpeg's container, and options of its protocol.
_FORMATS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "rtsp": ("rtsp", {"rtsp_transport": "tcp"}),
    "rtsps": ("rtsp", {"rtsp_transport": "tcp"}),
    "rtmp": ("flv", {"flvflags": "no_duration_filesize"}),
    "rtmps": ("flv", {"flvflags": "no_duration_filesize"}),
    "udp": ("mpegts", {}),
}
#: Seconds that the last packets get when the stream ends.
_SECONDS_TO_END: Final = 1.5
#: Those of them at whose end no server is waited for any more, but for a courier that was killed.
_SECONDS_TO_KILL: Final = 0.3
#: Of a file: packets that may wait before the file does, and bytes that are kept for a server that is lost.
_MOST_WAITING: Final = 50
_KEPT: Final = 2**26
_LOOK: Final = 0.02
#: Seconds between two looks at whether a courier that gets nothing is still there.
_LONGEST_WAIT: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkOptions:
    """How a server is talked to.

    Attributes:
        timeout: seconds of silence after which a courier is given up.
        attempts: couriers in a row that may fail, None for any number.
        longest_wait: seconds between two of them at most.
        insecure: take any certificate.
        spool: bytes of encoded frames that are kept while the server is away, and sent when it is back. With 0 it gets
            what happens then, and a few seconds before at most.
    """

    timeout: float = 10.0
    attempts: int | None = None
    longest_wait: float = 2.0
    insecure: bool = False
    spool: int = 0


class NetworkSink:
    """Sends anonymized frames to a server, again and again. When their size changes, the server is called anew.

    Args:
        address: of the server.
        info: of the frames.
        options: see there.
        codec: encoder by name, None for H.264.
        crf: quality, None for our default.
        speed: the encoder's preset, None for our default.
        patient: wait for the server rather than drop frames, but for no longer than `attempts` allow, or, without any,
            for `timeout`: right for files, never for live sources.

    Raises:
        UsageError: this kind of server cannot be written to, or not verified, or there is no such encoder.
        SinkError: the encoder takes no such pictures.
    """

    def __init__(
        self,
        address: Address,
        info: StreamInfo,
        options: SinkOptions | None = None,
        *,
        codec: str | None = None,
        crf: float | None = None,
        speed: str | None = None,
        patient: bool = False,
    ) -> None:
        if address.scheme not in _FORMATS:
            raise UsageError(f"{address} cannot be written to: FFmpeg as it comes with PyAV has no {address.scheme}")
        options = options or SinkOptions()
        check_sink(address, options.insecure)
        if patient:
            options = replace(options, spool=options.spool or _KEPT)
        self._name = str(address)
        self._patient = patient
        self._seconds_to_end = max(options.timeout, _SECONDS_TO_END) if patient else _SECONDS_TO_END
        self._info = info
        self._codec, self._crf, self._speed = codec, crf, speed
        self._encoder = LiveEncoder(info, codec=codec, crf=crf, speed=speed)
        self._carrier = _Carrier(address, options, _description(self._encoder.context), patient=patient)

    @property
    def dropped(self) -> int:
        """Encoded frames that no server got."""
        return self._carrier.dropped

    @property
    def reconnects(self) -> int:
        """How often the server was lost and found again."""
        return max(0, self._carrier.connections - 1)

    @property
    def there(self) -> bool:
        """Whether the server takes the stream now."""
        return self._carrier.there

    @property
    def last_error(self) -> str | None:
        """Why the server is away, without secrets; None while nothing is known against it."""
        return self._carrier.last_error

    @property
    def spooled(self) -> int:
        """Encoded frames that were kept while the server was away; some may have been dropped later."""
        return 0 if self._patient else self._carrier.spooled

    @property
    def waiting(self) -> int:
        """Encoded frames that wait for the server now."""
        return self._carrier.waiting

    def write(self, item: Anonymized) -> None:
        """Encode the next frame and hand it to the courier.

        Raises:
            SinkError: the server was given up, or the encoder refuses the frame.
        """
        self._carrier.check()
        if self._patient:
            self._carrier.wait(_MOST_WAITING)
        self._follow(item)
        if self._carrier.wants_key():
            self._encoder.want_key()
        for packet in self._encoder.encode(item):
            self._carrier.send(packet)

    def close(self) -> None:
        """Send what is left, for a moment at most, or for as long as a patient sink waits for its server.

        Raises:
            SinkError: a patient sink's server did not get everything.
        """
        for packet in self._encoder.flush():
            self._carrier.send(packet)
        self._carrier.end(self._seconds_to_end)
        if self._patient and not self._carrier.hurried:
            self._carrier.check()
            if self.dropped:
                why = f": {self.last_error}" if self.last_error else ""
                raise SinkError(f"{self.dropped} frames did not reach {self._name}{why}")

    def hurry(self, seconds: float) -> None:
        """From now on, wait so many seconds altogether. May be called from a signal handler."""
        self._carrier.hurry(seconds)

    def abort(self) -> None:
        """Hang up."""
        self._carrier.end(0.0)

    def _follow(self, item: Anonymized) -> None:
        """A changed size needs another encoder, and a server that expects it."""
        height, width = item.image.shape[:2]
        if (width, height) == (self._info.width, self._info.height):
            return
        for packet in self._encoder.flush():
            self._carrier.send(packet)
        self._info = replace(self._info, width=width, height=height)
        self._encoder = LiveEncoder(self._info, codec=self._codec, crf=self._crf, speed=self._speed)
        self._carrier.change(_description(self._encoder.context))


def _description(context: VideoCodecContext) -> VideoCodecContext:
    """What a courier must know of an encoder, without holding on to it."""
    same = cast("VideoCodecContext", av.CodecContext.create(context.codec.name, "w"))
    same.width, same.height = context.width, context.height
    same.time_base, same.framerate = context.time_base, context.framerate
    return same


class _Carrier:
    """Keeps a courier at work: a thread of its own starts it, feeds it and starts the next one."""

    def __init__(self, address: Address, options: SinkOptions, stream: VideoCodecContext, *, patient: bool) -> None:
        self._patient = patient
        self._patience = Patience(options.timeout if patient and options.attempts is None else math.inf)
        self._seconds_to_end = max(options.timeout, _SECONDS_TO_END) if patient else _SECONDS_TO_END
        self._address = address
        self._options = options
        self._stream = stream
        container, protocol = _FORMATS[address.scheme]
        protocol = protocol | tls_options(address, options.insecure)
        self._order = {"url": address.text, "format": container, "options": protocol}
        self._backoff = Backoff(longest=options.longest_wait)
        self._changed = threading.Condition()
        self._backlog = Spool(options.spool) if options.spool else Recent()
        self._ended = False
        self._hurry = threading.Event()
        self._courier: Delivery | None = None
        #: The next courier, started while there is nothing to do but wait.
        self._spare: Process | None = None
        #: Whether a server takes the stream.
        self.there = False
        #: Why none does.
        self.last_error: str | None = None
        self._latest = math.inf
        self._lost = 0  # with couriers
        self._error: SinkError | None = None
        self.connections = 0
        self.spooled = 0
        self._thread = threading.Thread(target=self._run, name="standin-send", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Packets that no server will get."""
        return self._backlog.dropped + self._lost

    @property
    def waiting(self) -> int:
        """Packets that wait for a server."""
        with self._changed:
            if self._courier is not None:
                self._backlog.settle(self._courier.carried)
            return self._backlog.waiting

    def check(self) -> None:
        """Give up a courier that is silent; raise where all of them were given up."""
        if self._courier is not None:
            self._courier.check(self._options.timeout)
        if self._error is not None:
            raise self._error

    def wants_key(self) -> bool:
        """Whether the next packet must be a key frame to be of use."""
        with self._changed:
            return self._backlog.wants_key()

    def change(self, stream: VideoCodecContext) -> None:
        """The packets from now on are of another stream, the first of them a key frame."""
        with self._changed:
            self._stream = stream

    def send(self, packet: VideoPacket) -> None:
        """Let a packet wait for the courier."""
        with self._changed:
            self._backlog.put(packet, self._stream)
            self.spooled += bool(self._options.spool) and not self.there
            self._changed.notify_all()

    def wait(self, most: int) -> None:
        """Until fewer packets wait than so many, or nobody has time for that.

        Raises:
            SinkError: the server was given up.
        """
        while self.waiting >= most and time.monotonic() < self._latest:
            self.check()
            time.sleep(_LOOK)

    @property
    def hurried(self) -> bool:
        """Whether it was told how long it may wait."""
        return self._latest < math.inf

    def hurry(self, seconds: float) -> None:
        """From now on, wait so many seconds altogether. Takes no lock."""
        self._latest = min(self._latest, time.monotonic() + seconds)

    def end(self, seconds: float) -> None:
        """Nothing comes any more; what waits gets so many seconds."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        until = time.monotonic() + seconds
        # The hurry may begin meanwhile.
        while self._thread.is_alive() and time.monotonic() < min(until, self._latest) - _SECONDS_TO_KILL:
            self._thread.join(_LOOK)
        self._hurry.set()
        with self._changed:
            self._changed.notify_all()
        if (courier := self._courier) is not None:
            courier.kill()
        self._thread.join(_SECONDS_TO_KILL if self._latest < math.inf else 1.0)

    def _run(self) -> None:
        try:
            while not self._over():
                self._carry()
        except Exception as error:  # noqa: BLE001  carried to the thread that writes, whatever it is
            self._error = (
                error if isinstance(error, SinkError) else SinkError(f"{self._address}: {redacted(str(error))}")
            )
        finally:
            if self._spare is not None:
                dismiss(self._spare)
            with self._changed:
                self._backlog.clear()

    def _over(self) -> bool:
        with self._changed:
            none = not self._backlog.waiting if self._patient else self._backlog.following() is None
            return self._hurry.is_set() or (self._ended and none)

    def _carry(self) -> None:
        """One courier from start to end."""
        with self._changed:
            self._backlog.restart()
            stream = self._backlog.following() or self._stream
        courier = self._courier = Delivery(self._order, stream, self._spare, on_taken=self._taken)
        self._spare = None
        reason = None
        try:
            while (packet := self._next(courier, stream)) is not None:
                courier.send(packet)
            courier.finish(0.0 if self._hurry.is_set() else self._seconds_to_end)
            if self._patient and courier.lost:
                reason = courier.reason()
        except OSError:
            reason = courier.reason()
        finally:
            courier.close()
            with self._changed:
                self._backlog.settle(courier.carried)
                # A spool still has them, and counts by itself.
                self._lost += 0 if self._options.spool else courier.lost
                self._courier = None
                self.there = False
        if reason is not None and not self._hurry.is_set():
            self._wait(reason)

    def _taken(self) -> None:
        """The server has taken the first packet of a courier's."""
        self.connections += 1
        self.there, self.last_error = True, None
        self._patience.rewarded()
        if self._backoff.failures:
            _log.warning("%s takes the stream again", self._address)
            self._backoff.succeeded()

    def _next(self, courier: Delivery, stream: VideoCodecContext) -> VideoPacket | None:
        """The next packet of a stream for its courier, None when there will be none."""
        with self._changed:
            self._backlog.settle(courier.carried)
            while not self._hurry.is_set():
                following = self._backlog.following()
                if following is stream:
                    return self._backlog.take()
                if following is not None or self._ended:
                    return None
                # Nothing else says that it has gone while there is nothing to send.
                self._changed.wait(_LONGEST_WAIT)
                if courier.gone:
                    raise BrokenPipeError
        return None

    def _wait(self, reason: str) -> None:
        wait = self._backoff.failed()
        self.last_error = reason
        if self._backoff.over(self._options.attempts) or self._patience.over():
            raise SinkError(self._backoff.given_up(f"{self._address}: {reason}"))
        # One line when a state changes, and not one for every attempt.
        level = logging.WARNING if self._backoff.news(reason) else logging.DEBUG
        _log.log(level, "%s: %s; trying again", self._address, reason)
        self._spare = start_courier()
        self._hurry.wait(wait)
