"""Encoder: which codec, pixel format and options write a stream like the input's."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, cast

import av
import av.error
from av.codec import Codec
from av.codec.codec import UnknownCodecError
from av.video.codeccontext import VideoCodecContext
from av.video.format import VideoFormat

from engines.errors import SinkError, UsageError
from engines.runtime import Device
from stream.sources.base import StreamInfo

_log = logging.getLogger(__name__)

#: What writes H.264, unless another encoder is asked for. The one of a GPU is listed by every FFmpeg that was built
#: with it, GPU or not; it may be missing, of another driver, or taken by too many streams.
_ON_PROCESSOR, _ON_GPU = "libx264", "h264_nvenc"
#: In the place of an encoder's name: the GPU's where it can be used, and the processor's otherwise.
GPU: Final = "gpu"
#: What suits a container where it is not H.264.
_CODECS_BY_ENDING = {".webm": "libvpx-vp9", ".gif": "gif", ".ogv": "libtheora", ".mjpeg": "mjpeg"}
#: Measured on two cores (benchmarks/vs_deface.py): x264's "medium" costs more than the detector does.
_DEFAULT_SPEEDS = {
    "libx264": "veryfast",
    "libx264rgb": "veryfast",
    "libx265": "veryfast",
    "libsvtav1": "10",
} | dict.fromkeys(("h264_nvenc", "hevc_nvenc"), "p4")
_DEFAULT_CRF = {"libx264": 20, "libx264rgb": 20, "libx265": 22, "libsvtav1": 28, "libvpx-vp9": 30} | dict.fromkeys(
    ("h264_nvenc", "hevc_nvenc"), 22
)
#: NVIDIA's encoder has a bit rate by default, whatever the picture.
_BY_QUALITY = {"rc": "vbr", "b": "0"}
_EIGHT_BIT = ("yuv420p", "yuv422p", "yuv444p", "yuv440p", "yuv411p", "yuv410p", "gray", "gbrp")


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """An encoder that has been opened once with these settings, so it is known to work.

    Attributes:
        codec: its name as PyAV knows it.
        pix_fmt: eight bits a sample.
        time_base: seconds per unit of the encoder's time stamps: the input's, where the encoder takes it.
        options: private options.
    """

    codec: str
    pix_fmt: str
    time_base: Fraction
    options: dict[str, str] = field(default_factory=dict)


def usual_codec(device: Device) -> str | None:
    """What encodes beside networks on a device where no encoder is asked for, as `choose_encoder` takes it."""
    return GPU if device in ("cuda", "tensorrt") else None


def choose_encoder(
    info: StreamInfo,
    ending: str,
    *,
    width: int,
    height: int,
    codec: str | None = None,
    crf: float | None = None,
    speed: str | None = None,
    constant_rate: bool = False,
    further: Callable[[str], dict[str, str]] = lambda _: {},
) -> EncoderChoice:
    """The encoder for an output.

    Args:
        info: of the input.
        ending: of the output's name, with the dot, lower case.
        width: of the pictures as they will be stored.
        height: of the pictures as they will be stored.
        codec: wanted by name, None for what suits the ending; `GPU` for the GPU's encoder if it writes what suits the
            ending and opens here, with these settings.
        crf: wanted quality, None for our default.
        speed: wanted preset, None for our default.
        constant_rate: the container counts frames and has no time stamps.
        further: gives more options for an encoder's name, to be tried as well.

    Raises:
        UsageError: no such encoder, or it has no such option or value.
        SinkError: the encoder takes no picture of this size.
    """
    usual = _CODECS_BY_ENDING.get(ending, _ON_PROCESSOR)
    if codec == GPU:
        # Zero is lossless for the one and "whatever you like" for the other.
        if usual == _ON_PROCESSOR and (crf is None or crf >= 1):
            try:
                return choose_encoder(
                    info,
                    ending,
                    width=width,
                    height=height,
                    codec=_ON_GPU,
                    crf=crf,
                    speed=speed,
                    constant_rate=constant_rate,
                    further=further,
                )
            except (SinkError, UsageError) as error:
                _log.info("the processor encodes: %s", error)
        codec = None
    name = codec or usual
    encoder = _find(name)
    options = _options(encoder, crf=crf, speed=speed) | further(name)
    candidates = _pixel_formats(info.pix_fmt, [f.name for f in encoder.video_formats or ()], name)
    clocks = _clocks(info, constant_rate=constant_rate)
    reason = "it takes no eight-bit pixel format"
    for pix_fmt, clock in itertools.product(candidates, clocks):
        problem = _try(name, pix_fmt, options, (width, height), clock, info.rate)
        if problem is None:
            return EncoderChoice(name, pix_fmt, clock, options)
        reason = problem
    if (crf is not None or speed is not None) and any(
        _try(name, pix_fmt, {}, (width, height), clock, info.rate) is None
        for pix_fmt, clock in itertools.product(candidates, clocks)
    ):
        raise UsageError(f"{name} does not take crf={crf} with speed={speed}: {reason}")
    rate = f" at {float(info.rate):g} frames per second" if info.rate else ""
    raise SinkError(f"{name} cannot encode {width}x{height} pictures like {info.pix_fmt}{rate}: {reason}")


def _clocks(info: StreamInfo, *, constant_rate: bool) -> list[Fraction]:
    """Units of time to try, the finest first: some encoders know only few, some only their frame rates."""
    frames = 1 / (info.rate or Fraction(25))
    # MPEG-4 counts in at most 65,535 parts of a second.
    return [frames] if constant_rate else [info.time_base, Fraction(1, 60_000), frames]


def _find(name: str) -> Codec:
    try:
        encoder = Codec(name, "w")
    except UnknownCodecError as error:
        raise UsageError(f"no encoder {name!r} here; `standin doctor` lists the usual ones") from error
    if encoder.type != "video":
        raise UsageError(f"{name!r} is an encoder for {encoder.type}, not for video")
    return encoder


def _options(encoder: Codec, *, crf: float | None, speed: str | None) -> dict[str, str]:
    """Options under the names that this encoder has for them."""
    name = encoder.name
    known = {option.name for option in encoder.create("video").supported_options.private}
    options: dict[str, str] = {}
    quality = next((key for key in ("crf", "cq", "global_quality", "qp") if key in known), None)
    pace = next((key for key in ("preset", "cpu-used") if key in known), None)
    if crf is not None and quality is None:
        raise UsageError(f"{name} has no quality scale, so --crf cannot be used with it")
    if speed is not None and pace is None:
        raise UsageError(f"{name} has no speed setting, so --speed cannot be used with it")
    wanted_crf = crf if crf is not None else _DEFAULT_CRF.get(name)
    wanted_speed = speed if speed is not None else _DEFAULT_SPEEDS.get(name)
    if quality and wanted_crf is not None:
        options[quality] = f"{wanted_crf:g}"
    if pace and wanted_speed is not None:
        options[pace] = wanted_speed
    if name == "libvpx-vp9":
        # VP9 ignores crf unless the bit rate is zero, and is slow beyond use in its default deadline.
        options |= {"deadline": "realtime", "row-mt": "1"}
        options.setdefault("cpu-used", "6")
    if name.endswith("_nvenc"):
        options |= _BY_QUALITY
    if name == "libx265":
        options["x265-params"] = "log-level=error"
    return options


def _pixel_formats(source: str, offered: Sequence[str], codec: str) -> list[str]:
    """Formats to try, the nearest to the input's first: same subsampling, then finer, then any eight-bit one."""
    shape = VideoFormat(source)
    if shape.is_rgb or shape.has_palette:
        wanted = ["gbrp", "rgb24", "bgr0", "yuv444p", "yuv420p"]
    elif len(shape.components) <= 2:
        # H.264 and HEVC decoders give grey back as 4:2:0 with another idea of its range.
        wanted = ["yuv420p", "yuv444p"] if codec.startswith("libx26") else ["gray", "yuv420p", "yuv444p"]
    else:
        ratio = (shape.chroma_width(64), shape.chroma_height(64))
        same = [
            name
            for name in _EIGHT_BIT[:6]
            if (VideoFormat(name).chroma_width(64), VideoFormat(name).chroma_height(64)) == ratio
        ]
        # Encoders that insist on even sides for 4:2:0 take odd ones in 4:4:4.
        wanted = [*same, "yuv444p", "yuv420p"]
    if codec == "mjpeg":
        # JPEG is always full range; anything else needs an option, and most players would show it wrongly.
        return ["yuvj" + name.removeprefix("yuv") for name in wanted if name in {"yuv420p", "yuv422p", "yuv444p"}]
    ordered = [name for name in dict.fromkeys([*wanted, *_EIGHT_BIT]) if not offered or name in offered]
    return ordered or [name for name in offered if VideoFormat(name).components[0].bits == 8]


def _try(
    name: str, pix_fmt: str, options: dict[str, str], size: tuple[int, int], clock: Fraction, rate: Fraction | None
) -> str | None:
    """Why an encoder does not open with these settings, None if it does."""
    context = cast("VideoCodecContext", av.CodecContext.create(name, "w"))
    context.width, context.height = size
    context.pix_fmt = pix_fmt
    context.framerate = rate or Fraction(25)
    context.time_base = clock
    context.options = dict(options)
    try:
        context.open()
    except (av.error.FFmpegError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None
