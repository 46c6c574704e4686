"""What a container that FFmpeg has opened says of its video."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import cast

import av
from av.container import InputContainer
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from engines.errors import SourceError
from stream.colour import ColourTags
from stream.orientation import Orientation
from stream.sources.base import StreamInfo

#: AVFieldOrder: top or bottom field coded first (TT, BB), and displayed first where that differs (TB, BT).
_BOTTOM_FIRST = {3, 4}
_INTERLACED = {2, 3, 4, 5}


def main_video(container: InputContainer, name: str) -> VideoStream:
    """The largest video stream that is no cover picture; the default one where sizes are equal.

    Raises:
        SourceError: there is none, or none that can be decoded here.
    """
    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    videos = [s for s in container.streams.video if not s.disposition & pictures]
    if not videos:
        raise SourceError(f"{name} has no video stream")
    candidates = [s for s in videos if s.codec_context is not None]
    if not candidates:
        raise SourceError(f"{name}: there is no decoder here for its video stream")
    return max(candidates, key=lambda s: (s.width * s.height, bool(s.disposition & Disposition.default), -s.index))


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
    matrix = _display_matrix(frame)
    orientation = Orientation.from_matrix(matrix) if matrix else Orientation()
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
    # By index: iterating the container itself gives what its type stubs say it does not.
    entries = cast("Sequence[SideData]", frame.side_data)
    return (entries[index] for index in range(len(entries)))


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    for data in side_data(frame):
        if data.type == SideDataType.DISPLAYMATRIX:
            return struct.unpack("=9i", bytes(data)[:36])
    return None


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


def _label(stream: Stream) -> str:
    codec = stream.codec_context.name if stream.codec_context is not None else "unknown codec"
    if stream.disposition & Disposition.attached_pic:
        return f"cover picture (stream {stream.index}, {codec})"
    return f"{stream.type} stream {stream.index} ({codec})"
