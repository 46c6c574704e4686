"""An encoder for those who watch while it happens: nothing is held back, and a key frame comes when it is asked for."""

from __future__ import annotations

from fractions import Fraction
from typing import Final, cast

import av
import av.error
from av.codec.context import Flags
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from engines.errors import SinkError
from stream.anonymizer import Anonymized
from stream.colour import FromRgb
from stream.sinks.encoder import choose_encoder
from stream.sources.base import StreamInfo

#: Seconds from one key frame to the next: whoever tunes in waits for one.
_BETWEEN_KEYS: Final = 2
#: x264 holds 42 frames back by default; each of them would be delay.
_WITHOUT_DELAY: Final = {
    "libx264": {"tune": "zerolatency"},
    "libx265": {"tune": "zerolatency"},
    "h264_nvenc": {"tune": "ull", "delay": "0"},
    "hevc_nvenc": {"tune": "ull", "delay": "0"},
}


class LiveEncoder:
    """Encodes anonymized frames without delay; headers are in the stream as well as beside it.

    Args:
        info: of the frames.
        codec: encoder by name, None for H.264.
        crf: quality, None for our default.
        speed: the encoder's preset, None for our default.

    Raises:
        UsageError: there is no such encoder, or it has no such option.
        SinkError: it takes no such pictures.
    """

    def __init__(
        self, info: StreamInfo, *, codec: str | None = None, crf: float | None = None, speed: str | None = None
    ) -> None:
        choice = choose_encoder(info, ".ts", width=info.width, height=info.height, codec=codec, crf=crf, speed=speed)
        self._from_rgb = FromRgb(choice.pix_fmt, info.tags)
        self._clock = choice.time_base
        self._last: int | None = None
        self._wants_key = True
        context = cast("VideoCodecContext", av.CodecContext.create(choice.codec, "w"))
        context.width, context.height, context.pix_fmt = info.width, info.height, choice.pix_fmt
        context.time_base, context.framerate = choice.time_base, info.rate or Fraction(25)
        context.gop_size = max(1, round(_BETWEEN_KEYS * (info.rate or 25)))
        context.max_b_frames = 0
        context.flags |= Flags.global_header
        tags = self._from_rgb.tags
        context.color_range, context.colorspace = tags.colour_range, tags.matrix
        context.color_primaries, context.color_trc = tags.primaries, tags.transfer
        if info.pixel_aspect is not None:
            context.sample_aspect_ratio = 1 / info.pixel_aspect if info.orientation.transpose else info.pixel_aspect
        context.options = choice.options | _WITHOUT_DELAY.get(choice.codec, {}) | _headers_too(choice.codec)
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
        for packet in packets:
            packet.time_base = self._clock
        return cast("list[Packet[av.VideoStream]]", packets)


def _headers_too(codec: str) -> dict[str, str]:
    """With a global header, x264 leaves headers out of the stream, and MPEG-TS would have none."""
    if codec == "libx264":
        return {"x264-params": "repeat-headers=1"}
    return {"x265-params": "log-level=error:repeat-headers=1"} if codec == "libx265" else {}
