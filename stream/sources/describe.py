"""What a container that FFmpeg has opened says of its video."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import cast

import av
from av.container import InputContainer
from av.format import ContainerFormat
from av.sidedata.sidedata import SideData, SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from engines.errors import SourceError, UsageError
from stream.colour import ColourTags
from stream.orientation import Orientation
from stream.sources.base import StreamInfo
from stream.timeline import TIME_BASE

#: AVFieldOrder: top or bottom field coded first (TT, BB), and displayed first where that differs (TB, BT).
_BOTTOM_FIRST = {3, 4}
_INTERLACED = {2, 3, 4, 5}
#: A picture that carries nothing.
_BARE = av.VideoFrame(16, 16, "gray")
#: Takes down what a picture carries; its type stubs do not know it.
_fill = cast("Callable[[object, av.VideoFrame], None]", SideDataContainer.__init__)
#: Where containers keep a stream's title; MP4 calls it the name of the handler.
_TITLES = ("title", "handler_name")
#: Frames per second that a live stream may say it has, and what it has otherwise.
_LIVE_RATES = (Fraction(1), Fraction(120))
_USUAL_RATE = Fraction(25)


def can_demux(name: str) -> bool:
    """Whether this FFmpeg reads a format, by FFmpeg's name for it."""
    try:
        return ContainerFormat(name, "r").is_input
    except ValueError:
        return False


def main_video(container: InputContainer, name: str, wanted: str | None = None) -> VideoStream:
    """The largest video stream that is no cover picture; the default one where sizes are equal.

    Args:
        container: open.
        name: of the input, as it may be shown.
        wanted: the number or the title of the stream to take instead.

    Raises:
        SourceError: there is none, or none that can be decoded here.
        UsageError: the wanted one is not there.
    """
    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    videos = [s for s in container.streams.video if not s.disposition & pictures]
    if not videos:
        raise SourceError(f"{name} has no video stream")
    candidates = [s for s in videos if s.codec_context is not None]
    if not candidates:
        raise SourceError(f"{name}: there is no decoder here for its video stream")
    if wanted is not None:
        return _wanted(candidates, name, wanted)
    return max(candidates, key=lambda s: (s.width * s.height, bool(s.disposition & Disposition.default), -s.index))


def _wanted(candidates: Sequence[VideoStream], name: str, wanted: str) -> VideoStream:
    named = {str(stream.index): stream for stream in candidates}
    titles = {stream.index: next(filter(None, map(stream.metadata.get, _TITLES)), "") for stream in candidates}
    # A title that is a number means less than the number itself.
    for stream in candidates:
        if title := titles[stream.index]:
            named.setdefault(title, stream)
    if wanted in named:
        return named[wanted]
    there = ", ".join(
        f"{stream.index} ({stream.width}x{stream.height}{', ' + title if (title := titles[stream.index]) else ''})"
        for stream in candidates
    )
    raise UsageError(f"{name} has no video stream {wanted!r}; it has {there}")


def describe(
    name: str,
    container: InputContainer,
    stream: VideoStream,
    frame: av.VideoFrame,
    start_pts: int,
    span: tuple[float | None, float | None],
) -> StreamInfo:
    """What is known before the first frame is given out.

    Args:
        name: of the input, as it may be shown.
        container: open.
        stream: its main video.
        frame: the first that could be decoded.
        start_pts: time stamp at which pictures begin.
        span: seconds at which to start and end, None each for the beginning and the end.
    """
    matrix, orientation = display_matrix(frame), orientation_of(frame)
    width, height = frame.width, frame.height
    if orientation.transpose:
        width, height = height, width
    order = stream.codec_context.field_order
    return StreamInfo(
        name=name,
        width=width,
        height=height,
        frames=_count(container, stream, span),
        time_base=stream.time_base or Fraction(1, 1000),
        rate=stream.average_rate or stream.guessed_rate,
        start_pts=start_pts,
        pixel_aspect=stream.sample_aspect_ratio or None,
        orientation=orientation,
        display_matrix=matrix,
        pix_fmt=frame.format.name,
        bits=max((component.bits for component in frame.format.components), default=8),
        tags=ColourTags.of(frame),
        interlaced=frame.interlaced_frame or order in _INTERLACED,
        top_field_first=order not in _BOTTOM_FIRST,
        metadata=dict(container.metadata),
        stream_metadata=dict(stream.metadata),
        dropped=(
            *(_label(other) for other in container.streams if other.index != stream.index),
            *(["chapters"] if container.chapters() else []),
        ),
    )


def stored_size(info: StreamInfo) -> tuple[int, int]:
    """Width and height of pictures before they are turned upright."""
    return (info.height, info.width) if info.orientation.transpose else (info.width, info.height)


def side_data(frame: av.VideoFrame) -> Iterator[SideData]:
    """What a decoded picture carries beside its pixels."""
    # PyAV keeps the entries with the picture, and the picture with the entries: it would stay until Python collects
    # garbage. Filled once more, from a picture that carries nothing, they let go of it.
    entries = frame.side_data
    _fill(entries, frame)
    # By index: iterating them gives what their type stubs say it does not.
    indexed = cast("Sequence[SideData]", entries)
    found = tuple(indexed[index] for index in range(len(indexed)))
    _fill(entries, _BARE)
    return iter(found)


def display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    """How a decoded picture says it is to be shown (see `Orientation.from_matrix`), None if it does not."""
    for data in side_data(frame):
        if data.type == SideDataType.DISPLAYMATRIX:
            return struct.unpack("=9i", bytes(data)[:36])
    return None


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """From a decoded picture as it is stored to the upright one."""
    matrix = display_matrix(frame)
    return Orientation.from_matrix(matrix) if matrix else Orientation()


def duration(container: InputContainer, stream: VideoStream) -> Fraction:
    """How long the video stream says it is, in seconds; 0 where only something else says how long it is."""
    if stream.duration and stream.time_base:
        return stream.duration * stream.time_base
    if tag := stream.metadata.get("DURATION"):
        # Matroska keeps one for each stream: hours, minutes, seconds.
        try:
            hours, minutes, seconds = (Fraction(part) for part in tag.strip("\0 ").split(":"))
            return hours * 3600 + minutes * 60 + seconds
        except ValueError:
            return Fraction(0)
    if container.duration and len(container.streams) == 1:
        return Fraction(container.duration, av.time_base)
    return Fraction(0)


def _count(container: InputContainer, stream: VideoStream, span: tuple[float | None, float | None]) -> int | None:
    rate = stream.average_rate or stream.guessed_rate
    start, end = span
    if stream.frames and span == (None, None):
        return stream.frames
    seconds = duration(container, stream) or Fraction(container.duration or 0, av.time_base)
    if not rate or not seconds:
        return None
    seconds = min(seconds, Fraction(end)) if end is not None else seconds
    return max(0, round((seconds - Fraction(start or 0)) * rate)) or None


def step(info: StreamInfo) -> int:
    """Units of the stream's time base from one picture to the next, where nothing else says."""
    return max(1, round(1 / ((info.rate or Fraction(25)) * info.time_base)))


def live_step(rate: Fraction | None) -> Fraction:
    """Seconds from one frame of a live stream to the next, also where its rate is unknown or cannot be true."""
    low, high = _LIVE_RATES
    return 1 / (rate if rate is not None and low <= rate <= high else _USUAL_RATE)


def on_timeline(info: StreamInfo) -> StreamInfo:
    """What a sink has to know: frames come on our timeline, for as long as they come."""
    return replace(info, time_base=TIME_BASE, start_pts=0, frames=None, rate=1 / live_step(info.rate))


def shortfall(info: StreamInfo, container: InputContainer, stream: VideoStream, end: int) -> str | None:
    """What a stream that ended lacks of what its header promised, None if nothing.

    Files that were cut off often end without any error, long before that time.

    Args:
        info: of the stream.
        container: open.
        stream: its main video.
        end: time stamp at which the last picture ended.
    """
    base = info.time_base
    # MP4 counts from the first picture. Matroska, NUT and ASF count from zero, and of others it is not certain.
    begin = info.start_pts if "mov" in container.format.name.split(",") else min(0, info.start_pts)
    came = (end - begin) * base
    promised = duration(container, stream)
    slack = max(3 * step(info) * base, min(Fraction(1), promised / 50))
    if came + slack >= promised:
        return None
    return f"{info.name} ends after {float(came):.2f} of {float(promised):.2f} seconds: it is not complete"


def _label(stream: Stream) -> str:
    codec = stream.codec_context.name if stream.codec_context is not None else "unknown codec"
    if stream.disposition & Disposition.attached_pic:
        return f"cover picture (stream {stream.index}, {codec})"
    return f"{stream.type} stream {stream.index} ({codec})"
