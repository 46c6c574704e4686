"""Frames encoded as a run encodes them, and thrown away.

With people whom a benchmark put where nobody is, those who are there are not covered: what leaves the encoder must not
lie in any file, not even for a moment.
"""

from __future__ import annotations

from fractions import Fraction
from typing import cast

import av
import av.error
from av.video.codeccontext import VideoCodecContext

from engines.errors import SinkError
from engines.runtime import Device
from stream.anonymizer import Anonymized
from stream.colour import FromRgb
from stream.sinks.encoder import choose_encoder, usual_codec
from stream.sinks.live_encoder import LiveEncoder
from stream.sources.base import StreamInfo


class FileEncoder:
    """The encoder of an MP4 file, without the file.

    Args:
        info: of the frames.
        device: of the networks beside it.

    Attributes:
        codec: the encoder's name.

    Raises:
        SinkError: it takes no such pictures.
    """

    def __init__(self, info: StreamInfo, device: Device) -> None:
        choice = choose_encoder(info, ".mp4", width=info.width, height=info.height, codec=usual_codec(device))
        self.codec = choice.codec
        self._from_rgb = FromRgb(choice.pix_fmt, info.tags)
        self._clock = choice.time_base
        context = cast("VideoCodecContext", av.CodecContext.create(choice.codec, "w"))
        context.width, context.height, context.pix_fmt = info.width, info.height, choice.pix_fmt
        context.time_base, context.framerate = choice.time_base, info.rate or Fraction(25)
        context.options = dict(choice.options)
        self._context = context

    def encode(self, item: Anonymized) -> int:
        """How many bytes came out for the next frame, or for earlier ones.

        Raises:
            SinkError: the encoder refuses it.
        """
        return self.encode_picture(self.picture(item))

    def picture(self, item: Anonymized) -> av.VideoFrame:
        """A frame in the encoder's format."""
        picture = self._from_rgb(item.image)
        picture.pts, picture.time_base = round(item.frame.pts * item.frame.time_base / self._clock), self._clock
        return picture

    def flush(self) -> int:
        """How many bytes the encoder still held."""
        return self.encode_picture(None)

    def encode_picture(self, picture: av.VideoFrame | None) -> int:
        """As `encode`, for one that is in the encoder's format; None for the end."""
        try:
            return sum(packet.size for packet in self._context.encode(picture))
        except av.error.FFmpegError as error:
            raise SinkError(f"the encoder failed: {error.strerror}") from error


class EncodedAway:
    """A sink that encodes and keeps nothing.

    Args:
        info: of the frames.
        live: whether as for a server, without delay, rather than as for a file.
        device: of the networks: a GPU may have an encoder of its own.

    Raises:
        SinkError: the encoder takes no such pictures.
    """

    def __init__(self, info: StreamInfo, *, live: bool, device: Device = "cpu") -> None:
        self._encoder: FileEncoder | LiveEncoder
        self._encoder = LiveEncoder(info, codec=usual_codec(device)) if live else FileEncoder(info, device)
        self._open = True

    def write(self, item: Anonymized) -> None:
        """Encode the next frame.

        Raises:
            SinkError: the encoder refuses it.
        """
        self._encoder.encode(item)

    def close(self) -> None:
        """Encode what is held back."""
        if self._open:
            self._open = False
            self._encoder.flush()

    def abort(self) -> None:
        """There is nothing to leave behind."""
        self._open = False
