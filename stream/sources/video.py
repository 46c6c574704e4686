"""Video files through PyAV (FFmpeg)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain
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
from stream.sources.base import StreamInfo, file_url
from stream.sources.decoder import Decoder, Lost, Picture

#: AVFieldOrder: top or bottom field coded first (TT, BB), and displayed first where that differs (TB, BT).
_BOTTOM_FIRST = {3, 4}
_INTERLACED = {2, 3, 4, 5}

_SIDE_EXITS_EVERY = 250
_SIDE_EXITS = {
    SideDataType.A53_CC: "closed captions",
    SideDataType.SEI_UNREGISTERED: "SEI user data",
    SideDataType.S12M_TIMECODE: "time code",
    SideDataType.GOP_TIMECODE: "time code",
}
#: How far back seeking goes, in seconds, until it finds a key frame before the wanted time.
_STEPS_BACK = (0, 2, 10, 60)


class VideoSource:
    """Frames of the main video stream of a file.

    A picture that cannot be decoded, or that may be wrong because of one that could not, comes as a `damaged` frame
    at its own time, so that it is withheld rather than lost (`stream.sources.decoder`).

    Args:
        path: of the file.
        start: seconds from the beginning at which to start, None for the beginning.
        end: seconds from the beginning at which to stop, None for the end.
        strict: whether pictures count as damaged where the decoder could conceal the damage.

    Raises:
        SourceError: the file is not a video, has no video stream or no frame that can be decoded.
    """

    def __init__(
        self, path: Path, *, start: float | None = None, end: float | None = None, strict: bool = True
    ) -> None:
        self._path = path
        self._strict = strict
        self._container = _open(path)
        self._exits: dict[str, None] = {}
        self._problems: list[str] = []
        self._shown = 0
        try:
            self._stream = _main_video(self._container, path)
            first_pts, first = self._first()
            self.info = _describe(path, self._container, self._stream, first, first_pts, (start, end))
            self._begin_again()
        except BaseException:
            self._container.close()
            raise
        base = self.info.time_base
        self._first_pts = None if start is None else self.info.start_pts + round(Fraction(start) / base)
        self._end_pts = None if end is None else self.info.start_pts + round(Fraction(end) / base)
        self._to_rgb = ToRgb(*_stored_size(self.info))

    def __iter__(self) -> Iterator[Frame]:
        """Frames in order of presentation, with strictly increasing `pts`.

        Raises:
            SourceError: nothing lies between `start` and `end`.
        """
        last: int | None = None
        end = 0
        step = self._step()
        for item in Decoder(self._stream, strict=self._strict).pictures(self._packets()):
            pts = item.pts
            if pts is None:
                pts = self.info.start_pts if last is None else last + step
            if self._end_pts is not None and pts >= self._end_pts:
                break
            if self._first_pts is not None and pts < self._first_pts:
                continue
            # No muxer takes a time stamp twice.
            last = pts if last is None else max(pts, last + 1)
            frame = self._frame(item, last)
            end = last + (frame.duration or step)
            yield frame
        else:
            if last is not None:
                self._check_length(end)
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

    def _first(self) -> tuple[int, av.VideoFrame]:
        """The time stamp at which pictures begin, and the first that can be decoded."""
        begin: int | None = None
        for item in Decoder(self._stream, strict=self._strict).pictures(self._read()):
            begin = item.pts if begin is None else begin
            if isinstance(item, Picture):
                return begin or 0, item.frame
        raise SourceError(f"{self._path}: no frame of the video stream can be decoded")

    def _begin_again(self) -> None:
        """Back to the first packet: reopening is the one way that works for every container."""
        self._container.close()
        self._container = _open(self._path)
        self._stream = _main_video(self._container, self._path)
        self._problems.clear()

    def _step(self) -> int:
        rate = self.info.rate or Fraction(25)
        return max(1, round(1 / (rate * self.info.time_base)))

    def _note_side_exits(self, frame: av.VideoFrame) -> None:
        """What frames carry beside their picture; it goes no further in any case, so now and then is often enough.

        Asking PyAV for it ties the frame into a reference cycle, which keeps its picture until Python collects garbage.
        """
        self._shown += 1
        if (self._shown - 1) % _SIDE_EXITS_EVERY < 2:
            for data in _side_data(frame):
                if label := _SIDE_EXITS.get(data.type):
                    self._exits[label] = None

    def _frame(self, item: Picture | Lost, pts: int) -> Frame:
        info = self.info
        aspect = info.pixel_aspect or Fraction(1)
        image, damaged, light = None, item.damaged, info.tags.light
        if isinstance(item, Picture):
            light = ColourTags.of(item.frame).light
            self._note_side_exits(item.frame)
            if damaged is None:
                try:
                    image = info.orientation.apply(self._to_rgb(item.frame))
                except (av.error.FFmpegError, ValueError) as error:
                    damaged = f"its colours cannot be converted: {error}"
        if image is None:
            image = flat_image((info.height, info.width, 3))
        return Frame(
            image=np.asarray(image, np.uint8),
            pts=pts,
            begin=info.start_pts,
            time_base=info.time_base,
            source=info.name,
            duration=item.duration,
            pixel_aspect=1 / aspect if info.orientation.transpose else aspect,
            transfer=light,
            damaged=damaged,
        )

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        """Packets from a key frame at or before the start on."""
        if self._first_pts is None:
            return self._read()
        nearest = self._seek(self._first_pts)
        # Some pictures after an open group's key frame need the group before it, so that one is decoded too.
        earlier = None if nearest is None else self._seek(nearest[0] - 1)
        if earlier is None:
            self._begin_again()
            return self._read()
        return earlier[1]

    def _seek(self, wanted: int) -> tuple[int, Iterator[Packet[VideoStream]]] | None:
        """The time stamp of a key frame at or before the wanted time, and the packets from it on."""
        for seconds in _STEPS_BACK:
            try:
                self._container.seek(wanted - round(seconds / self.info.time_base), stream=self._stream, backward=True)
            except av.error.FFmpegError:
                return None
            packets = self._read()
            packet = next(packets, None)
            if packet and packet.is_keyframe and packet.pts is not None and packet.pts <= wanted:
                return packet.pts, chain([packet], packets)
        return None

    def _read(self) -> Iterator[Packet[VideoStream]]:
        packets = self._container.demux(self._stream)
        cut = False
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                if cut:
                    self._problems.append(f"{self._path.name} ends in the middle of a picture")
                return
            except av.error.FFmpegError as error:
                self._problems.append(f"{self._path.name} cannot be read to its end: {error.strerror}")
                # What the decoder still holds is whole; an empty packet brings it out.
                empty = cast("Packet[VideoStream]", Packet())
                empty.stream = self._stream
                yield empty
                return
            cut = packet.is_corrupt if packet.size else cut
            yield packet

    def _check_length(self, end: int) -> None:
        """Files that were cut off often end without any error, long before the time that their header promises."""
        if self._problems:
            return
        base = self.info.time_base
        # MP4 counts from the first picture. Matroska, NUT and ASF count from zero, and of others it is not certain.
        begin = self.info.start_pts if "mov" in self._container.format.name.split(",") else min(0, self.info.start_pts)
        came = (end - begin) * base
        promised = _duration(self._container, self._stream)
        slack = max(3 * self._step() * base, min(Fraction(1), promised / 50))
        if came + slack < promised:
            self._problems.append(
                f"{self._path.name} ends after {float(came):.2f} of {float(promised):.2f} seconds: it is not complete"
            )


def _open(path: Path) -> InputContainer:
    try:
        return av.open(file_url(path), metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{path} cannot be opened as video: {reason}. Is it a video file, and complete?") from error


def _main_video(container: InputContainer, path: Path) -> VideoStream:
    """The largest video stream that is no cover picture; the default one where sizes are equal."""
    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    videos = [s for s in container.streams.video if not s.disposition & pictures]
    if not videos:
        raise SourceError(f"{path} has no video stream")
    candidates = [s for s in videos if s.codec_context is not None]
    if not candidates:
        raise SourceError(f"{path}: there is no decoder here for its video stream")
    return max(candidates, key=lambda s: (s.width * s.height, bool(s.disposition & Disposition.default), -s.index))


def _describe(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    frame: av.VideoFrame,
    start_pts: int,
    span: tuple[float | None, float | None],
) -> StreamInfo:
    matrix = _display_matrix(frame)
    orientation = Orientation.from_matrix(matrix) if matrix else Orientation()
    width, height = frame.width, frame.height
    if orientation.transpose:
        width, height = height, width
    order = stream.codec_context.field_order
    return StreamInfo(
        name=path.name,
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


def _duration(container: InputContainer, stream: VideoStream) -> Fraction:
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
    seconds = _duration(container, stream) or Fraction(container.duration or 0, av.time_base)
    if not rate or not seconds:
        return None
    seconds = min(seconds, Fraction(end)) if end is not None else seconds
    return max(0, round((seconds - Fraction(start or 0)) * rate)) or None


def _label(stream: Stream) -> str:
    codec = stream.codec_context.name if stream.codec_context is not None else "unknown codec"
    if stream.disposition & Disposition.attached_pic:
        return f"cover picture (stream {stream.index}, {codec})"
    return f"{stream.type} stream {stream.index} ({codec})"
