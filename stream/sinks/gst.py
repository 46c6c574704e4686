"""Sinks through GStreamer: anonymized pictures into any pipeline, and encoded ones to servers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any, Final
from urllib.parse import urlsplit

from engines.errors import SinkError, UsageError
from stream.address import Address
from stream.anonymizer import Anonymized
from stream.gst import bindings, require, verify_peer
from stream.gst_pixels import Layout, Pixels, rgb_colorimetry
from stream.sinks.gst_line import Line, Piece, nanoseconds
from stream.sinks.live_encoder import LiveEncoder
from stream.sinks.network import SinkOptions
from stream.sources.base import StreamInfo

_PEER: Final = "standin_peer"
#: Raw pictures that may wait.
_MOST_PICTURES: Final = 8
#: Seconds of encoded pictures that may wait; after more of them all up to the next key frame are dropped.
_MOST_SECONDS: Final = 2
#: Seconds that the last pictures get when the stream ends.
_SECONDS_TO_END: Final = 1.5
_TRANSPORT_STREAM: Final = "mpegtsmux alignment=7"
#: By scheme: what comes behind the parser, and the property that takes the address.
_TAILS: Final = {
    "srt": (f"{_TRANSPORT_STREAM} ! srtsink name={_PEER} wait-for-connection=false sync=false", "uri"),
    "udp": (f"{_TRANSPORT_STREAM} ! udpsink name={_PEER} sync=false", ""),
    "rtmp": (f"flvmux streamable=true ! rtmp2sink name={_PEER} sync=false", "location"),
    "rtmps": (f"flvmux streamable=true ! rtmp2sink name={_PEER} sync=false", "location"),
    "rtsp": (f"rtspclientsink name={_PEER} protocols=tcp", "location"),
    "rtsps": (f"rtspclientsink name={_PEER} protocols=tcp", "location"),
}
#: By FFmpeg's name of the codec: its parser, and its caps.
_CODECS: Final = {
    "h264": ("h264parse", "video/x-h264, stream-format=byte-stream, alignment=au"),
    "hevc": ("h265parse", "video/x-h265, stream-format=byte-stream, alignment=au"),
}
GST_SCHEMES: Final = tuple(_TAILS)


class _OnLine:
    """What all sinks have in common that give what they are given to a line."""

    _line: Line

    @property
    def dropped(self) -> int:
        """Frames that neither a pipeline nor a server behind it got."""
        return self._line.dropped

    @property
    def reconnects(self) -> int:
        """How often the pipeline, or the server behind it, was lost and found again."""
        return self._line.reconnects

    @property
    def there(self) -> bool:
        """Whether the stream is taken now."""
        return self._line.there

    @property
    def last_error(self) -> str | None:
        """Why it is not, without secrets; None while nothing is known against it."""
        return self._line.last_error

    @property
    def waiting(self) -> int:
        """Frames that wait to be taken now."""
        return self._line.waiting

    def hurry(self, seconds: float) -> None:
        """From now on, wait so many seconds altogether. May be called from a signal handler."""
        self._line.hurry(seconds)

    def abort(self) -> None:
        """End the pipeline; a server is hung up on."""
        self._line.end(0.0)


class GstSink(_OnLine):
    """Gives anonymized pictures to a pipeline that somebody describes, again and again.

    Args:
        address: `gst:` and a description; raw video is put in before it.
        info: of the frames.
        options: see there.
        patient: wait for a pipeline that is slow rather than drop frames: right for files, never for live sources.

    Raises:
        UsageError: the description cannot be meant.
        RuntimeUnavailableError: GStreamer or an element is missing.
    """

    def __init__(
        self, address: Address, info: StreamInfo, options: SinkOptions | None = None, *, patient: bool = False
    ) -> None:
        options = options or SinkOptions()
        self._info = info
        self._patient = patient
        self._seconds_to_end = max(options.timeout, _SECONDS_TO_END) if patient else _SECONDS_TO_END
        self._caps = ""
        self._pixels: Pixels | None = None
        tail = f"videoconvert ! {address.description}"
        self._line = Line(str(address), tail, options, room=_MOST_PICTURES)

    def write(self, item: Anonymized) -> None:
        """Give the next frame to the pipeline, if it takes one.

        Raises:
            SinkError: the pipeline was given up.
        """
        self._line.check()
        frame = item.frame
        if self._patient:
            self._line.wait()
        if not self._line.ready:
            self._line.skip()
            return
        pixels = self._pixels_for(item)
        self._line.push(Piece(pixels.write(item.image), nanoseconds(frame.pts, frame.time_base), self._caps))

    def close(self) -> None:
        """End the stream, and let the pipeline finish for a moment."""
        self._line.end(self._seconds_to_end)

    def _pixels_for(self, item: Anonymized) -> Pixels:
        caps = raw_caps(item, self._info)
        if self._pixels is None or caps != self._caps:
            found = bindings()
            video = found.video.VideoInfo.new_from_caps(found.gst.Caps.from_string(caps))
            layout = Layout("RGB", video.width, video.height, (0,), (int(video.stride[0]),), int(video.size))
            self._pixels, self._caps = Pixels(layout, self._info.tags), caps
        return self._pixels


class GstServerSink(_OnLine):
    """Sends anonymized frames to a server through GStreamer, again and again.

    Args:
        address: of the server.
        info: of the frames.
        options: see there.
        codec: encoder by name, None for H.264.
        crf: quality, None for our default.
        speed: the encoder's preset, None for our default.
        patient: wait for the server rather than drop frames, for a time (see `NetworkSink`).

    Raises:
        UsageError: this kind of server cannot be written to, or not with this encoder.
        RuntimeUnavailableError: GStreamer or an element is missing.
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
        if address.scheme not in _TAILS:
            raise UsageError(f"{address} cannot be written to through GStreamer; expected one of {', '.join(_TAILS)}")
        options = options or SinkOptions()
        self._name = str(address)
        self._patient = patient
        self._seconds_to_end = max(options.timeout, _SECONDS_TO_END) if patient else _SECONDS_TO_END
        self._encoded = EncodedPieces(info, codec=codec, crf=crf, speed=speed)
        tail, where = _TAILS[address.scheme]
        require(*(part.split()[0] for part in tail.split(" ! ")))
        self._line = Line(
            str(address),
            f"{self._encoded.parser} ! {tail}",
            options,
            room=max(2, math.ceil(_MOST_SECONDS * (info.rate or 25))),
            set_up=_caller(address, where, options),
            answered=_srt_answered if address.scheme == "srt" else lambda _: True,
            patient=patient,
        )

    def write(self, item: Anonymized) -> None:
        """Encode the next frame and give it to the pipeline.

        Raises:
            SinkError: the server was given up, or the encoder refuses the frame.
        """
        self._line.check()
        if self._patient:
            self._line.wait()
        if self._line.wants_key:
            self._encoded.want_key()
        for piece in self._encoded.encode(item):
            self._line.push(piece)

    def close(self) -> None:
        """Send what is left, for a moment at most, or for as long as a patient sink waits for its server.

        Raises:
            SinkError: a patient sink's server did not get everything.
        """
        for piece in self._encoded.flush():
            self._line.push(piece)
        self._line.end(self._seconds_to_end)
        if self._patient and not self._line.hurried:
            self._line.check()
            if self.dropped or not self._line.connections:
                raise SinkError(f"{self.dropped or 'all'} frames did not reach {self._name}")


class EncodedPieces:
    """Anonymized frames as encoded pieces for GStreamer; follows pictures that change their size.

    Args:
        info: of the frames.
        codec: encoder by name, None for H.264.
        crf: quality, None for our default.
        speed: the encoder's preset, None for our default.

    Raises:
        UsageError: there is no such encoder, or GStreamer is not given what it makes.
        SinkError: it takes no such pictures.
    """

    def __init__(
        self, info: StreamInfo, *, codec: str | None = None, crf: float | None = None, speed: str | None = None
    ) -> None:
        self._info = info
        self._make: Callable[[StreamInfo], LiveEncoder] = lambda its: LiveEncoder(
            its, codec=codec, crf=crf, speed=speed
        )
        self._encoder = self._make(info)
        name = self._encoder.context.codec.canonical_name
        if name not in _CODECS:
            raise UsageError(f"--codec {codec} makes {name}, and GStreamer is given {' or '.join(_CODECS)} only")
        self.parser, self._caps = _CODECS[name]

    def want_key(self) -> None:
        """The next frame shall be a key frame."""
        self._encoder.want_key()

    def encode(self, item: Anonymized) -> list[Piece]:
        """The pieces of the next frame.

        Raises:
            SinkError: the encoder refuses it.
        """
        height, width = item.image.shape[:2]
        last: list[Piece] = []
        if (width, height) != (self._info.width, self._info.height):
            last = self.flush()
            self._info = replace(self._info, width=width, height=height)
            self._encoder = self._make(self._info)
        return [*last, *map(self._piece, self._encoder.encode(item))]

    def flush(self) -> list[Piece]:
        """The pieces that the encoder still holds; it takes no frame afterwards."""
        return [self._piece(packet) for packet in self._encoder.flush()]

    def _piece(self, packet: Any) -> Piece:
        time = nanoseconds(packet.pts or 0, packet.time_base)
        return Piece(bytes(packet), time, self._caps, bool(packet.is_keyframe))


def raw_caps(item: Anonymized, info: StreamInfo) -> str:
    """What a frame's buffer is, for GStreamer."""
    height, width = item.image.shape[:2]
    rate, aspect = info.rate or Fraction(0), item.frame.pixel_aspect
    return (
        f"video/x-raw, format=(string)RGB, width=(int){width}, height=(int){height}, "
        f"framerate=(fraction){rate.numerator}/{rate.denominator}, "
        f"pixel-aspect-ratio=(fraction){aspect.numerator}/{aspect.denominator}, "
        f"colorimetry=(string){rgb_colorimetry(info.tags)}"
    )


def _caller(address: Address, where: str, options: SinkOptions) -> Callable[[Any], None]:
    """What tells a pipeline's last element whom to call."""

    def set_up(pipeline: Any) -> None:
        peer = pipeline.get_by_name(_PEER)
        if where:
            peer.set_property(where, address.text)
        else:
            parts = urlsplit(address.text)
            peer.set_property("host", parts.hostname or "127.0.0.1")
            peer.set_property("port", parts.port)
        if peer.find_property("auto-reconnect") is not None:
            # It would not say that it is away.
            peer.set_property("auto-reconnect", False)
        verify_peer(peer, insecure=options.insecure)

    return set_up


def _srt_answered(pipeline: Any) -> bool:
    """Whether somebody gets the stream: who calls takes it, and drops it, before anybody answers.

    Who listens is there for whoever comes, and when nobody does, too.
    """
    peer = pipeline.get_by_name(_PEER)
    if peer.get_property("mode").value_nick == "listener":
        return True
    known, sent = peer.get_property("stats").get_uint64("bytes-sent-total")
    return bool(known and sent)
