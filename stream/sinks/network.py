"""Network sinks: anonymized frames to a server that may refuse, hang or come back, without holding up the stream.

Frames are encoded here, without delay. A courier, a process of its own, carries the packets: one that is silent for too
long is killed, and another one starts from a key frame. What could not be sent meanwhile is lost to the server, and
counted.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from av.video.codeccontext import VideoCodecContext

from engines.errors import SinkError, UsageError
from stream.address import Address
from stream.anonymizer import Anonymized
from stream.backoff import Backoff
from stream.sinks.delivery import Delivery
from stream.sinks.live_encoder import LiveEncoder
from stream.sources.base import StreamInfo

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
#: Packets that may wait for a courier, in seconds of the stream; more, and all up to the next key frame are dropped.
_MOST_SECONDS: Final = 5.0
#: Seconds that the last packets get when the stream ends.
_SECONDS_TO_END: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkOptions:
    """How a server is talked to.

    Attributes:
        timeout: seconds of silence after which a courier is given up.
        attempts: couriers in a row that may fail, None for any number.
        longest_wait: seconds between two of them at most.
        insecure: take any certificate.
    """

    timeout: float = 10.0
    attempts: int | None = None
    longest_wait: float = 2.0
    insecure: bool = False


class NetworkSink:
    """Sends anonymized frames to a server, again and again.

    Args:
        address: of the server.
        info: of the frames.
        options: see there.
        codec: encoder by name, None for H.264.
        crf: quality, None for our default.
        speed: the encoder's preset, None for our default.

    Raises:
        UsageError: this kind of server cannot be written to, or there is no such encoder.
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
    ) -> None:
        if address.scheme not in _FORMATS:
            raise UsageError(f"{address} cannot be written to: FFmpeg as it comes with PyAV has no {address.scheme}")
        self._encoder = LiveEncoder(info, codec=codec, crf=crf, speed=speed)
        self._carrier = _Carrier(address, options or SinkOptions(), self._encoder.context)

    @property
    def dropped(self) -> int:
        """Encoded frames that no server got."""
        return self._carrier.dropped

    @property
    def reconnects(self) -> int:
        """How often the server was lost and found again."""
        return max(0, self._carrier.connections - 1)

    def write(self, item: Anonymized) -> None:
        """Encode the next frame and hand it to the courier.

        Raises:
            SinkError: the server was given up, or the encoder refuses the frame.
        """
        self._carrier.check()
        if self._carrier.wants_key():
            self._encoder.want_key()
        for packet in self._encoder.encode(item):
            self._carrier.send(packet)

    def close(self) -> None:
        """Send what is left, for a moment at most."""
        for packet in self._encoder.flush():
            self._carrier.send(packet)
        self._carrier.end(_SECONDS_TO_END)

    def abort(self) -> None:
        """Hang up."""
        self._carrier.end(0.0)


class _Carrier:
    """Keeps a courier at work: a thread of its own starts it, feeds it and starts the next one."""

    def __init__(self, address: Address, options: SinkOptions, context: VideoCodecContext) -> None:
        self._address = address
        self._options = options
        self._context = context
        container, protocol = _FORMATS[address.scheme]
        secure = {"tls_verify": "0" if options.insecure else "1"} if address.secure else {}
        self._order = {"url": address.text, "format": container, "options": protocol | secure}
        self._backoff = Backoff(longest=options.longest_wait)
        self._changed = threading.Condition()
        self._waiting: deque[VideoPacket] = deque()
        self._begun = False  # whether the courier got its key frame
        self._ended = False
        self._hurry = threading.Event()
        self._courier: Delivery | None = None
        self._error: SinkError | None = None
        self.dropped = 0
        self.connections = 0
        self._thread = threading.Thread(target=self._run, name="standin-send", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Give up a courier that is silent; raise where all of them were given up."""
        if self._courier is not None:
            self._courier.check(self._options.timeout)
        if self._error is not None:
            raise self._error

    def wants_key(self) -> bool:
        """Whether the next packet must be a key frame to be of use."""
        with self._changed:
            return not self._begun and not any(packet.is_keyframe for packet in self._waiting)

    def send(self, packet: VideoPacket) -> None:
        """Let a packet wait for the courier."""
        with self._changed:
            self._waiting.append(packet)
            self._make_room()
            self._changed.notify_all()

    def end(self, seconds: float) -> None:
        """Nothing comes any more; what waits gets so many seconds."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if seconds:
            self._thread.join(seconds)
        self._hurry.set()
        if (courier := self._courier) is not None:
            courier.kill()
        self._thread.join(1.0)

    def _make_room(self) -> None:
        first, last = self._waiting[0], self._waiting[-1]
        if first.pts is None or last.pts is None or first.time_base is None:
            return
        if float((last.pts - first.pts) * first.time_base) > _MOST_SECONDS:
            # Later packets depend on these, so that they are of use only from the next key frame on.
            self.dropped += len(self._waiting)
            self._waiting.clear()
            self._begun = False

    def _run(self) -> None:
        try:
            while not self._over():
                self._carry()
        except Exception as error:  # noqa: BLE001  carried to the thread that writes, whatever it is
            self._error = error if isinstance(error, SinkError) else SinkError(f"{self._address}: {error}")
        finally:
            with self._changed:
                self.dropped += len(self._waiting)
                self._waiting.clear()

    def _over(self) -> bool:
        with self._changed:
            return self._hurry.is_set() or (self._ended and not self._waiting)

    def _carry(self) -> None:
        """One courier from start to end."""
        with self._changed:
            self._begun = False
            # What this server is to see first is what happens now.
            while self._waiting and not self._waiting[0].is_keyframe:
                self._waiting.popleft()
                self.dropped += 1
        courier = self._courier = Delivery(self._order, self._context)
        reason = None
        try:
            while (packet := self._next()) is not None:
                courier.send(packet)
                if courier.carried and self._backoff.failures:
                    _log.warning("%s takes the stream again", self._address)
                    self._backoff.succeeded()
            courier.finish(_SECONDS_TO_END)
        except OSError:
            reason = courier.reason()
        finally:
            courier.close()
            self.connections += bool(courier.carried)
            self._courier = None
        if reason is not None and not self._hurry.is_set():
            self._wait(reason)

    def _next(self) -> VideoPacket | None:
        with self._changed:
            while True:
                while self._waiting and not self._begun and not self._waiting[0].is_keyframe:
                    self._waiting.popleft()
                    self.dropped += 1
                if self._waiting:
                    self._begun = True
                    return self._waiting.popleft()
                if self._ended:
                    return None
                self._changed.wait()

    def _wait(self, reason: str) -> None:
        first = not self._backoff.failures
        wait = self._backoff.failed()
        if self._options.attempts is not None and self._backoff.failures > self._options.attempts:
            raise SinkError(f"{self._address}: {reason} (given up after {self._backoff.failures} attempts)")
        _log.log(logging.WARNING if first else logging.DEBUG, "%s: %s; trying again", self._address, reason)
        self._hurry.wait(wait)
