"""Video files through PyAV (FFmpeg)."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from engines.errors import SourceError
from stream.colour import ColourTags, ToRgb
from stream.frame import Frame, flat_image
from stream.orientation import Orientation
from stream.sources.base import StreamInfo

_log = logging.getLogger(__name__)

#: AVFieldOrder: top or bottom field coded first (TT, BB), and displayed first where that differs (TB, BT).
_BOTTOM_FIRST = {3, 4}
_INTERLACED = {2, 3, 4, 5}

_SIDE_EXITS = {
    SideDataType.A53_CC: "closed captions",
    SideDataType.SEI_UNREGISTERED: "SEI user data",
    SideDataType.S12M_TIMECODE: "time code",
    SideDataType.GOP_TIMECODE: "time code",
}


class VideoSource:
    """Frames of the main video stream of a file.

    A picture that cannot be decoded, or that the decoder calls damaged, comes as a `damaged` frame at its own time,
    so that it is withheld rather than lost.

    Args:
        path: of the file.
        start: seconds from the beginning at which to start, None for the beginning.
        end: seconds from the beginning at which to stop, None for the end.

    Raises:
        SourceError: the file is not a video, has no video stream or no frame that can be decoded.
    """

    def __init__(self, path: Path, *, start: float | None = None, end: float | None = None) -> None:
        self._path = path
        self._container = _open(path)
        self._exits: dict[str, None] = {}
        self._errors = 0
        try:
            self._stream = _main_video(self._container, path)
            self._stream.thread_type = "AUTO"
            first = next(self._decoded(), None)
            if first is None or not isinstance(first, av.VideoFrame):
                raise SourceError(f"{path}: no frame of the video stream can be decoded")
            self.info = _describe(path, self._container, self._stream, first)
            self._begin_again()
        except BaseException:
            self._container.close()
            raise
        base = self.info.time_base
        self._first_pts = None if start is None else self.info.start_pts + round(Fraction(start) / base)
        self._end_pts = None if end is None else self.info.start_pts + round(Fraction(end) / base)
        self._to_rgb = ToRgb(*_stored_size(self.info))
        self._problems: list[str] = []

    def __iter__(self) -> Iterator[Frame]:
        """Frames in order of presentation, with strictly increasing `pts`.

        Raises:
            SourceError: nothing lies between `start` and `end`.
        """
        if self._first_pts is not None:
            self._container.seek(self._first_pts, stream=self._stream, backward=True)
        last: int | None = None
        step = self._step()
        for item in self._decoded():
            pts: int | None = item if isinstance(item, int) else item.pts
            if pts is None:
                pts = self.info.start_pts if last is None else last + step
            if self._end_pts is not None and pts >= self._end_pts:
                break
            if self._first_pts is not None and pts < self._first_pts:
                continue
            # No muxer takes a time stamp twice.
            last = pts if last is None else max(pts, last + 1)
            yield self._frame(item, last)
        if last is None:
            raise SourceError(f"{self._path}: no frame lies between the start and the end that were asked for")

    def problems(self) -> tuple[str, ...]:
        """Why the file could not be read to its end, if so."""
        return tuple(self._problems)

    def side_exits(self) -> tuple[str, ...]:
        """Other streams, and data that frames carried."""
        return (*self.info.dropped, *self._exits)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _begin_again(self) -> None:
        """Back to the first packet: reopening is the one way that works for every container."""
        self._container.close()
        self._container = _open(self._path)
        self._stream = _main_video(self._container, self._path)
        self._stream.thread_type = "AUTO"
        self._exits.clear()
        self._errors = 0

    def _step(self) -> int:
        rate = self.info.rate or Fraction(25)
        return max(1, round(1 / (rate * self.info.time_base)))

    def _frame(self, item: av.VideoFrame | int, pts: int) -> Frame:
        info = self.info
        aspect = info.pixel_aspect or Fraction(1)
        if isinstance(item, int):
            image, duration = flat_image((info.height, info.width, 3)), 0
            damaged: str | None = "decoding failed"
        else:
            for data in _side_data(item):
                if label := _SIDE_EXITS.get(data.type):
                    self._exits[label] = None
            image = info.orientation.apply(self._to_rgb(item))
            duration = item.duration or 0
            damaged = "the decoder calls the picture damaged" if item.is_corrupt else None
        return Frame(
            image=np.asarray(image, np.uint8),
            pts=pts,
            time_base=info.time_base,
            source=info.name,
            duration=duration,
            pixel_aspect=1 / aspect if info.orientation.transpose else aspect,
            transfer=info.tags.light,
            damaged=damaged,
        )

    def _decoded(self) -> Iterator[av.VideoFrame | int]:
        """Decoded frames, and the time stamps of packets that could not be decoded, in order of presentation."""
        expected: set[int] = set()
        for packet in self._packets():
            if packet.pts is not None and not packet.is_discard:
                expected.add(packet.pts)
            try:
                frames = packet.decode()
            except av.error.EOFError:
                continue
            except av.error.FFmpegError as error:
                self._errors += 1
                _log.info("%s: a packet cannot be decoded: %s", self._path.name, error.strerror)
                continue
            for frame in frames:
                if frame.pts is not None:
                    yield from self._lost(expected, before=frame.pts)
                    expected.discard(frame.pts)
                yield frame
        yield from self._lost(expected, before=None)

    def _lost(self, expected: set[int], *, before: int | None) -> Iterator[int]:
        """Time stamps that were sent to the decoder, should have come out by now and did not: one for each error.

        Without an error, a packet without a picture is how the stream is made (leading pictures after a cut).
        """
        overdue = sorted(pts for pts in expected if before is None or pts < before)
        for pts in overdue:
            expected.discard(pts)
            if self._errors:
                self._errors -= 1
                yield pts

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError as error:
                self._problems.append(f"{self._path.name} cannot be read to its end: {error.strerror}")
                # What the decoder still holds is whole; an empty packet brings it out.
                yield cast("Packet[VideoStream]", Packet())
                return
            yield packet


def _open(path: Path) -> InputContainer:
    try:
        return av.open(str(path), metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise SourceError(
            f"{path} cannot be opened as video: {error.strerror}. Is it a video file, and complete?"
        ) from error


def _main_video(container: InputContainer, path: Path) -> VideoStream:
    """The largest video stream that is no cover picture; the default one where sizes are equal."""
    candidates = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not candidates:
        raise SourceError(f"{path} has no video stream")
    return max(candidates, key=lambda s: (s.width * s.height, bool(s.disposition & Disposition.default), -s.index))


def _describe(path: Path, container: InputContainer, stream: VideoStream, frame: av.VideoFrame) -> StreamInfo:
    matrix = _display_matrix(frame)
    orientation = Orientation.from_matrix(matrix) if matrix else Orientation()
    width, height = frame.width, frame.height
    if orientation.transpose:
        width, height = height, width
    time_base = stream.time_base or Fraction(1, 1000)
    order = stream.codec_context.field_order
    return StreamInfo(
        name=path.name,
        width=width,
        height=height,
        frames=_count(container, stream),
        time_base=time_base,
        rate=stream.average_rate or stream.guessed_rate,
        start_pts=frame.pts or 0,
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
        dropped=tuple(_label(other) for other in container.streams if other.index != stream.index),
    )


def _stored_size(info: StreamInfo) -> tuple[int, int]:
    return (info.height, info.width) if info.orientation.transpose else (info.width, info.height)


def _side_data(frame: av.VideoFrame) -> Iterator[SideData]:
    # By index: iterating the container itself gives what its type stubs say it does not.
    entries = cast("Sequence[SideData]", frame.side_data)
    return (entries[index] for index in range(len(entries)))


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    for data in _side_data(frame):
        if data.type == SideDataType.DISPLAYMATRIX:
            return struct.unpack("=9i", bytes(data)[:36])
    return None


def _count(container: InputContainer, stream: VideoStream) -> int | None:
    if stream.frames:
        return stream.frames
    rate = stream.average_rate or stream.guessed_rate
    if not rate:
        return None
    if stream.duration and stream.time_base:
        return round(stream.duration * stream.time_base * rate) or None
    if container.duration:
        return round(Fraction(container.duration, av.time_base) * rate) or None
    return None


def _label(stream: Stream) -> str:
    codec = stream.codec_context.name if stream.codec_context is not None else "unknown codec"
    if stream.disposition & Disposition.attached_pic:
        return f"cover picture (stream {stream.index}, {codec})"
    return f"{stream.type} stream {stream.index} ({codec})"
