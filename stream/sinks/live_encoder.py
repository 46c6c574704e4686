"""An encoder for those who watch while it happens: nothing is held back, and a key frame comes when it is asked for."""

from __future__ import annotations

from fractions import Fraction
from typing import Final, cast

import av
import av.error
from av.codec.context import Flags
from av.container import OutputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.stream import VideoStream

from engines.errors import SinkError, UsageError
from stream.anonymizer import Anonymized
from stream.colour import ColourTags, FromRgb
from stream.sinks.encoder import EncoderChoice, choose_encoder
from stream.sources.base import StreamInfo

#: Seconds from one key frame to the next: whoever tunes in waits for one.
_BETWEEN_KEYS: Final = 2.0
#: x264 holds 42 frames back by default; each of them would be delay.
_WITHOUT_DELAY: Final = {
    "libx264": {"tune": "zerolatency"},
    "libx265": {"tune": "zerolatency"},
    # A picture that is asked to be a key frame would be intra-coded, and not be one.
    "h264_nvenc": {"tune": "ull", "delay": "0", "forced-idr": "1"},
    "hevc_nvenc": {"tune": "ull", "delay": "0", "forced-idr": "1"},
}
#: Codecs whose headers may be in the stream, before any picture.
_WITH_HEADERS: Final = frozenset({"h264", "hevc"})


class LiveEncoder:
    """Encodes anonymized frames without delay; headers of H.264 and HEVC are in the stream as well as beside it.

    Args:
        info: of the frames.
        codec: encoder by name, None for H.264.
        crf: quality, None for our default.
        speed: the encoder's preset, None for our default.
        container: that the packets go into; a stream is added to it, and they come out ready to be muxed.
        between_keys: seconds from one key frame to the next where none is asked for.

    Raises:
        UsageError: there is no such encoder, it has no such option, or the container does not take it.
        SinkError: it takes no such pictures.
    """

    def __init__(
        self,
        info: StreamInfo,
        *,
        codec: str | None = None,
        crf: float | None = None,
        speed: str | None = None,
        container: OutputContainer | None = None,
        between_keys: float = _BETWEEN_KEYS,
    ) -> None:
        choice = choose_encoder(
            info, ".ts", width=info.width, height=info.height, codec=codec, crf=crf, speed=speed, further=_live_options
        )
        self._from_rgb = FromRgb(choice.pix_fmt, info.tags)
        self._clock = choice.time_base
        self._last: int | None = None
        self._wants_key = True
        self._stream = None if container is None else _add_stream(container, choice, info)
        context = (
            cast("VideoCodecContext", av.CodecContext.create(choice.codec, "w"))
            if self._stream is None
            else self._stream.codec_context
        )
        context.width, context.height, context.pix_fmt = info.width, info.height, choice.pix_fmt
        context.time_base, context.framerate = choice.time_base, info.rate or Fraction(25)
        context.gop_size = max(1, round(between_keys * (info.rate or 25)))
        context.max_b_frames = 0
        context.flags |= Flags.global_header
        _describe(context, info, self._from_rgb.tags)
        context.options = dict(choice.options)
        try:
            context.open()
        except (av.error.FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SinkError(f"{choice.codec} cannot encode without delay: {reason}") from error
        self.context = context

    def want_key(self) -> None:
        """The next frame shall be a key frame."""
        self._wants_key = True

    def encode(self, item: Anonymized) -> list[Packet[av.VideoStream]]:
        """The packets of the next frame.

        Raises:
            SinkError: the encoder refuses it.
        """
        frame = item.frame
        picture = self._from_rgb(frame.image)
        pts = round(frame.pts * frame.time_base / self._clock)
        self._last = pts if self._last is None else max(pts, self._last + 1)
        picture.pts, picture.time_base = self._last, self._clock
        picture.pict_type = PictureType.I if self._wants_key else PictureType.NONE
        self._wants_key = False
        return self._encode(picture)

    def flush(self) -> list[Packet[av.VideoStream]]:
        """The packets that the encoder still holds; it takes no frame afterwards."""
        return self._encode(None)

    def _encode(self, picture: av.VideoFrame | None) -> list[Packet[av.VideoStream]]:
        try:
            packets = self.context.encode(picture)
        except av.error.FFmpegError as error:
            raise SinkError(f"the encoder failed: {error.strerror}") from error
        complete = [self._with_headers(packet) for packet in packets]
        for packet in complete:
            packet.time_base = self._clock
            if self._stream is not None:
                packet.stream = self._stream
        return complete

    def _with_headers(self, packet: Packet[av.VideoStream]) -> Packet[av.VideoStream]:
        """Not every encoder repeats its headers where they are beside the stream, and whoever tunes in needs them."""
        headers = self.context.extradata
        if not packet.is_keyframe or not headers or self.context.codec.canonical_name not in _WITH_HEADERS:
            return packet
        content = bytes(packet)
        if headers[:16] in content:
            return packet
        made = Packet(headers + content)
        made.pts, made.dts, made.duration, made.is_keyframe = packet.pts, packet.dts, packet.duration, True
        return cast("Packet[av.VideoStream]", made)


def _add_stream(container: OutputContainer, choice: EncoderChoice, info: StreamInfo) -> VideoStream:
    try:
        stream = container.add_stream(choice.codec, rate=info.rate or Fraction(25))
    except (ValueError, av.error.FFmpegError) as error:
        raise UsageError(f"{container.format.name} cannot hold {choice.codec}: choose another --codec") from error
    stream.time_base = choice.time_base
    return cast("VideoStream", stream)


def _describe(context: VideoCodecContext, info: StreamInfo, tags: ColourTags) -> None:
    """How the pictures are meant: colours, and the shape of their pixels (they are stored upright)."""
    context.color_range, context.colorspace = tags.colour_range, tags.matrix
    context.color_primaries, context.color_trc = tags.primaries, tags.transfer
    if info.pixel_aspect is not None:
        context.sample_aspect_ratio = 1 / info.pixel_aspect if info.orientation.transpose else info.pixel_aspect


def _live_options(codec: str) -> dict[str, str]:
    return _WITHOUT_DELAY.get(codec, {}) | _headers_too(codec)


def _headers_too(codec: str) -> dict[str, str]:
    """With a global header, x264 leaves headers out of the stream, and MPEG-TS would have none."""
    if codec == "libx264":
        return {"x264-params": "repeat-headers=1"}
    return {"x265-params": "log-level=error:repeat-headers=1"} if codec == "libx265" else {}
