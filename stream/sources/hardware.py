"""Decoding in a graphics card, for who asks for it.

Such decoders conceal damage without a word (`stream.sources.decoder`), so nobody gets one who did not give up strict
decoding as well. Pictures come back to the host, where regions are copied into them: one copy each, as decoded.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Final

import av
import av.error
from av.codec.hwaccel import HWAccel

from engines.errors import RuntimeUnavailableError, SourceError
from stream.config import DecoderDevice
from stream.sources.decoder import Lost, Picture

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from av.packet import Packet
    from av.video.stream import VideoStream

#: Width and height of the picture that is tried; cards decode none that is much smaller.
_TRIED: Final = (256, 144)
#: Pictures that cannot be decoded, from the beginning on, after which nobody waits for one that can: half a minute.
MOST_LOST: Final = 1000
#: What an error that may be the card's is followed by.
HINT: Final = "the GPU may not decode such pictures; try --decoder cpu"


def accelerated(device: DecoderDevice) -> HWAccel | None:
    """What a container is opened with; each needs its own."""
    return None if device == "cpu" else HWAccel(device, allow_software_fallback=False)


@cache
def check_decoder(device: DecoderDevice) -> None:
    """See that a picture can be decoded there, in H.264, which all cards know that decode; asked once per process.

    CUDA alone does not tell: the driver's video part is another library, which containers often lack.

    Raises:
        RuntimeUnavailableError: it cannot.
    """
    acceleration = accelerated(device)
    if acceleration is None:
        return
    try:
        decoder = av.CodecContext.create("h264", "r", hwaccel=acceleration)
        decoded = [frame for packet in (*_a_picture(), None) for frame in decoder.decode(packet)]
        reason: object = None if decoded else "it gives no picture"
    except (av.error.FFmpegError, RuntimeError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
    if reason is not None:
        raise RuntimeUnavailableError(
            f"no GPU decodes video here ({reason}): CUDA's driver, with its video part, is needed; use --decoder cpu"
        )


def _a_picture() -> list[Packet[VideoStream]]:
    """Grey, in H.264."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height = _TRIED
    encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, 25)
    picture = av.VideoFrame(*_TRIED, "yuv420p")
    for plane in picture.planes:
        plane.update(bytes([128]) * plane.buffer_size)
    picture.pts = 0
    return [*encoder.encode(picture), *encoder.encode(None)]


def check_accelerated(stream: VideoStream, device: DecoderDevice, name: str) -> None:
    """See that a stream is decoded where it was asked for: PyAV is content if any stream of a container is.

    Args:
        stream: freshly opened.
        device: that was asked for.
        name: of the input, as it may be shown.

    Raises:
        SourceError: the processor would decode it.
    """
    if device != "cpu" and not stream.codec_context.is_hwaccel:
        raise SourceError(
            f"{name} is in {stream.codec_context.name}, which FFmpeg decodes on no GPU here{hint(device)}"
        )


def begun(items: Iterable[Picture | Lost], name: str, device: DecoderDevice) -> Iterator[Picture | Lost]:
    """All that a decoder gives, if it gives a picture at all.

    Args:
        items: from `Decoder.pictures`.
        name: of the input, as it may be shown.
        device: where it is decoded.

    Raises:
        SourceError: none of the first 1000 pictures can be decoded.
    """
    iterator = iter(items)
    for lost, item in enumerate(iterator, start=1):
        yield item
        if isinstance(item, Picture):
            break
        if lost >= MOST_LOST:
            raise SourceError(f"none of the first {lost} pictures of {name} can be decoded{hint(device)}")
    yield from iterator


def hint(device: DecoderDevice) -> str:
    """What is to be added where something cannot be decoded, or nothing."""
    return "" if device == "cpu" else f"; {HINT}"
