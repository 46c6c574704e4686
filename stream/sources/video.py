"""Video files through PyAV (FFmpeg)."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import cast

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from engines.errors import SourceError
from stream.frame import Frame
from stream.sources.base import file_url
from stream.sources.decoder import Decoder, Picture
from stream.sources.describe import describe, duration, main_video
from stream.sources.pictures import FrameMaker

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
        self._problems: list[str] = []
        try:
            self._stream = main_video(self._container, str(path))
            first_pts, first = self._first()
            self.info = describe(path.name, self._container, self._stream, first, first_pts, (start, end))
            self._begin_again()
        except BaseException:
            self._container.close()
            raise
        base = self.info.time_base
        self._first_pts = None if start is None else self.info.start_pts + round(Fraction(start) / base)
        self._end_pts = None if end is None else self.info.start_pts + round(Fraction(end) / base)
        self._frames = FrameMaker(self.info)

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
            frame = self._frames.make(item, last, item.duration)
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
        return (*self.info.dropped, *self._frames.side_exits)

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
        self._stream = main_video(self._container, str(self._path))
        self._problems.clear()

    def _step(self) -> int:
        rate = self.info.rate or Fraction(25)
        return max(1, round(1 / (rate * self.info.time_base)))

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
        promised = duration(self._container, self._stream)
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
