"""Video files through PyAV (FFmpeg)."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from engines.errors import SourceError
from stream.config import DecoderDevice
from stream.frame import Frame
from stream.sources.base import file_url
from stream.sources.decoder import Decoder, Picture
from stream.sources.describe import describe, main_video, shortfall, step
from stream.sources.hardware import accelerated, check_accelerated, hint
from stream.sources.packets import read_packets
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
        wanted: number or title of the video stream to take, None for the main one.
        decoder: where it is decoded.

    Raises:
        UsageError: the wanted stream is not there.
        SourceError: the file is not a video, has no video stream or no frame that can be decoded.
    """

    def __init__(
        self,
        path: Path,
        *,
        start: float | None = None,
        end: float | None = None,
        strict: bool = True,
        wanted: str | None = None,
        decoder: DecoderDevice = "cpu",
    ) -> None:
        self._path = path
        self._decoder: DecoderDevice = decoder
        self._wanted = wanted
        self._strict = strict
        self._container = _open(path, decoder)
        self._problems: list[str] = []
        try:
            self._stream = main_video(self._container, str(path), wanted)
            check_accelerated(self._stream, decoder, str(path))
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
        usual = step(self.info)
        for item in Decoder(self._stream, strict=self._strict).pictures(self._packets()):
            pts = item.pts
            if pts is None:
                pts = self.info.start_pts if last is None else last + usual
            if self._end_pts is not None and pts >= self._end_pts:
                break
            if self._first_pts is not None and pts < self._first_pts:
                continue
            # No muxer takes a time stamp twice.
            last = pts if last is None else max(pts, last + 1)
            frame = self._frames.make(item, last, item.duration)
            end = last + (frame.duration or usual)
            yield frame
        else:
            if last is not None and not self._problems:
                missing = shortfall(self.info, self._container, self._stream, end)
                self._problems += [missing] if missing else []
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
        raise SourceError(f"{self._path}: no frame of the video stream can be decoded{hint(self._decoder)}")

    def _begin_again(self) -> None:
        """Back to the first packet: reopening is the one way that works for every container."""
        self._container.close()
        self._container = _open(self._path, self._decoder)
        self._stream = main_video(self._container, str(self._path), self._wanted)
        self._problems.clear()

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
        return read_packets(self._container, self._stream, self._path.name, self._problems.append)


def _open(path: Path, decoder: DecoderDevice) -> InputContainer:
    try:
        return av.open(file_url(path), metadata_errors="replace", hwaccel=accelerated(decoder))
    except (av.error.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{path} cannot be opened as video: {reason}. Is it a video file, and complete?") from error
    except RuntimeError as error:
        # PyAV's own, of decoders; FFmpeg's, some of which are such errors too, came first.
        raise SourceError(f"{path} cannot be opened: {error}{hint(decoder)}") from error
