"""Video files through PyAV (FFmpeg)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.error
from av.codec.context import Flags
from av.container import OutputContainer
from av.filter import Graph
from av.packet import Packet
from av.video.stream import VideoStream

from engines.errors import SinkError, StreamStoppedError, UsageError
from stream.anonymizer import Anonymized
from stream.colour import ColourTags, FromRgb
from stream.sinks.audio import AudioCopy
from stream.sinks.encoder import EncoderChoice, choose_encoder
from stream.sinks.target import Target
from stream.sources.base import StreamInfo, file_url

_log = logging.getLogger(__name__)

#: Muxers that write one file and nothing beside it, unlike those for playlists and for pictures by number.
_ONE_FILE = {
    "mp4", "mov", "ipod", "3gp", "3g2", "psp", "f4v", "matroska", "webm", "avi", "mpegts", "mpeg",
    "vob", "svcd", "dvd", "vcd", "nut", "flv", "mxf", "asf", "ogg", "ogv", "gif", "apng",
    "webp", "ivf", "obu", "h264", "hevc", "mjpeg", "m4v", "mpeg1video", "mpeg2video", "yuv4mpegpipe", "dv", "gxf",
}  # fmt: skip
#: Containers whose muxer writes a display matrix; elsewhere pictures are stored upright.
_KEEPS_MATRIX = {"mp4", "mov", "matroska", "webm", "ipod", "3gp", "3g2", "psp"}
#: Containers without time stamps for presentation, or in which the first must not be negative: B-frames, which are
#: sent before they are shown, would move all pictures to a later time.
_NO_REORDERING = {"avi", "mpegts", "mpeg", "vob", "dvd", "svcd", "flv", "asf"}
#: Containers that count frames.
_CONSTANT_RATE = {"avi"}
#: Containers in which the durations of all packets make the duration of the whole.
_SUMS_DURATIONS = {"mp4", "mov", "ipod", "3gp", "3g2", "psp"}
_NOT_KEPT = (
    "METADATA_BLOCK_PICTURE", "COVERART", "DURATION", "NUMBER_OF_", "_STATISTICS_", "BPS", "ENCODER", "MAJOR_BRAND",
    "MINOR_VERSION", "COMPATIBLE_BRANDS",
)  # fmt: skip
_LONGEST_TAG = 4096
#: AVFieldOrder TT and BB.
_FIELD_ORDER = {True: 2, False: 3}


class VideoSink:
    """Writes one video stream, like the input's in size, time stamps, aspect, orientation and colour tags.

    Args:
        path: the output; its ending chooses the container.
        info: of the input.
        codec: encoder by name, None for what suits the container.
        crf: quality, None for our default.
        speed: the encoder's preset, None for our default.
        overwrite: replace an existing file.
        metadata: copy the input's container and stream tags.
        audio_from: the file whose sound is copied, None for none.
        start: seconds that were cut off at the beginning; time stamps move back by as much.

    Raises:
        UsageError: the ending or the encoder is unknown, or the container does not take the encoder or the audio.
        SinkError: the output cannot be created.
    """

    def __init__(
        self,
        path: Path,
        info: StreamInfo,
        *,
        codec: str | None = None,
        crf: float | None = None,
        speed: str | None = None,
        overwrite: bool = False,
        metadata: bool = False,
        audio_from: Path | None = None,
        start: float | None = None,
    ) -> None:
        self._path = path
        self._info = info
        self._cut = round(Fraction(start or 0) / info.time_base)
        self._shift = self._cut
        self._graph: Graph | None = None
        self._last_pts: int | None = None
        self._begin_pts: int | None = None
        self._end_pts = 0
        self._first_dts: int | None = None
        self._frames = 0
        self._bytes = 0
        self._target = Target(path, overwrite=overwrite)
        self._container: OutputContainer | None = None
        self._audio: AudioCopy | None = None
        try:
            self._container = self._open()
            self._formats = set(self._container.format.name.split(","))
            if self._formats & _CONSTANT_RATE:
                # What counts frames begins with the first: a later begin would become frames without content.
                self._shift += info.start_pts
            self._keeps_matrix = bool(_KEEPS_MATRIX & self._formats)
            self._orientation = info.orientation if self._keeps_matrix else type(info.orientation)()
            choice = self._choose(codec, crf, speed)
            self._from_rgb = FromRgb(choice.pix_fmt, info.tags)
            self._stream = self._add_stream(self._container, choice)
            if metadata:
                self._container.metadata.update(_kept(info.metadata))
                self._stream.metadata.update(_kept(info.stream_metadata))
            if audio_from is not None:
                first = (info.start_pts + self._cut) * info.time_base
                self._audio = AudioCopy(audio_from, self._container, start=first, shift=self._shift * info.time_base)
            self._begin(self._container, choice)
            self.encoder = choice
        except BaseException:
            self.abort()
            raise

    def write(self, item: Anonymized) -> None:
        """Encode and write the next frame.

        Raises:
            StreamStoppedError: the picture has another size; what is there can be kept.
            SinkError: the disk is full, or the encoder refuses the frame.
        """
        frame = item.frame
        if (frame.width, frame.height) != (self._info.width, self._info.height):
            raise StreamStoppedError(
                f"the pictures have changed from {self._info.width}x{self._info.height} to"
                f" {frame.width}x{frame.height}, and {self._path.name} can hold one size only; --segment begins another"
                " file then"
            )
        picture = self._from_rgb(self._orientation.undo(frame.image))
        if self._info.interlaced:
            picture = self._with_fields(picture)
        clock = self.encoder.time_base
        pts = round((frame.pts * frame.time_base - self._shift * self._info.time_base) / clock)
        # Where the encoder's clock is coarser than the input's, two pictures may fall together.
        self._last_pts = pts if self._last_pts is None else max(pts, self._last_pts + 1)
        picture.pts, picture.time_base = self._last_pts, clock
        picture.duration = round(frame.duration * frame.time_base / clock)
        self._begin_pts = self._last_pts if self._begin_pts is None else self._begin_pts
        self._end_pts = max(self._end_pts, self._last_pts + picture.duration)
        self._mux(picture)
        if self._audio is not None:
            shown = frame.duration * frame.time_base or 1 / (self._info.rate or Fraction(25))
            self._audio.write_until(frame.pts * frame.time_base + shown)

    def close(self) -> None:
        """Write what the encoder still holds and put the file in its place.

        Raises:
            SinkError: the file cannot be finished; nothing is left under the final name.
        """
        container = self._container
        if container is None:
            return
        if self._last_pts is None:
            # A video without a picture is of no use to anyone.
            self.abort()
            return
        try:
            self._mux(None)
            container.close()
            self._check()
        except av.error.FFmpegError as error:
            self.abort()
            raise self._failed(error) from error
        except SinkError:
            self.abort()
            raise
        self._container = None
        self._close_audio()
        self._target.commit()

    def abort(self) -> None:
        """Close and delete the temporary file."""
        container, self._container = self._container, None
        if container is not None:
            # The trailer may fail for the very reason for which this run is given up.
            with contextlib.suppress(av.error.FFmpegError):
                container.close()
        self._close_audio()
        self._target.discard()

    def _open(self) -> OutputContainer:
        options = {"movflags": "use_metadata_tags"} if self._path.suffix.lower() in {".mp4", ".mov", ".m4v"} else {}
        try:
            container = av.open(file_url(self._target.temporary), "w", container_options=options)
        except (ValueError, av.error.FFmpegError) as error:
            raise UsageError(
                f"cannot tell the container from {self._path.name!r}: use an ending like .mp4, .mkv or .webm"
            ) from error
        if container.format.name not in _ONE_FILE:
            container.close()
            raise UsageError(
                f"{self._path.name!r} would be written as {container.format.name}, which is not one video file:"
                " use an ending like .mp4, .mkv or .webm"
            )
        return container

    def _choose(self, codec: str | None, crf: float | None, speed: str | None) -> EncoderChoice:
        width, height = self._stored_size()
        return choose_encoder(
            self._info,
            self._path.suffix.lower(),
            width=width,
            height=height,
            codec=codec,
            crf=crf,
            speed=speed,
            constant_rate=bool(self._formats & _CONSTANT_RATE),
        )

    def _stored_size(self) -> tuple[int, int]:
        width, height = self._info.width, self._info.height
        return (height, width) if self._orientation.transpose else (width, height)

    def _add_stream(self, container: OutputContainer, choice: EncoderChoice) -> VideoStream:
        info = self._info
        tags = self._from_rgb.tags
        options = choice.options | _range_options(choice.codec, tags)
        try:
            # Only the average: time stamps go their own way. 25 where the input does not say.
            stream = container.add_stream(choice.codec, rate=info.rate or Fraction(25), options=options)
        except (ValueError, av.error.FFmpegError) as error:
            raise UsageError(
                f"{self._path.suffix} files cannot hold {choice.codec}: choose another --codec or ending"
            ) from error
        if not isinstance(stream, VideoStream):
            raise UsageError(f"{choice.codec} does not encode video")
        context = stream.codec_context
        context.width, context.height = self._stored_size()
        context.pix_fmt = choice.pix_fmt
        context.time_base = stream.time_base = choice.time_base
        context.flags |= Flags.frame_duration
        context.color_range, context.colorspace = tags.colour_range, tags.matrix
        context.color_primaries, context.color_trc = tags.primaries, tags.transfer
        if info.pixel_aspect is not None:
            turned = info.orientation.transpose and not self._orientation.transpose
            context.sample_aspect_ratio = 1 / info.pixel_aspect if turned else info.pixel_aspect
            if info.pixel_aspect != 1 and self._formats & {"matroska", "webm"} and not _says_aspect(choice.codec):
                _log.warning(
                    "%s: %s in this kind of file cannot say that pixels are not square, so players will show the"
                    " picture too wide or too narrow; an .mp4 file or H.264 can",
                    self._path.name,
                    choice.codec,
                )
        if info.interlaced:
            context.flags |= Flags.interlaced_dct | Flags.interlaced_me
            context.field_order = _FIELD_ORDER[info.top_field_first]
        if self._formats & _NO_REORDERING:
            context.max_b_frames = 0
        if self._keeps_matrix and info.display_matrix is not None:
            stream.set_display_matrix(info.display_matrix)
        return stream

    def _begin(self, container: OutputContainer, choice: EncoderChoice) -> None:
        """Write the header now, so that what does not go together is refused before any work is done."""
        try:
            container.start_encoding()
        except (av.error.ArgumentError, av.error.InvalidDataError, av.error.PatchWelcomeError) as error:
            raise UsageError(
                f"{self._path.suffix} files cannot hold {choice.codec} with {choice.pix_fmt} pictures of this input"
                f" ({error.strerror}): choose another --codec or ending"
            ) from error
        except av.error.FFmpegError as error:
            raise self._failed(error) from error

    def _check(self) -> None:
        """What was written must be there: a cheap look that needs no trust in any layer below."""
        size = self._target.temporary.stat().st_size
        if size < self._bytes:
            raise SinkError(f"cannot write {self._path}: {size} bytes arrived, {self._bytes} were sent. Disk full?")
        with av.open(file_url(self._target.temporary), metadata_errors="replace") as container:
            counted = container.streams.video[0].frames
        if counted and counted < self._frames:
            raise SinkError(f"cannot write {self._path}: it holds {counted} of {self._frames} frames")

    def _with_fields(self, picture: av.VideoFrame) -> av.VideoFrame:
        """The picture marked as two fields: PyAV cannot set the mark itself, FFmpeg's filter can."""
        if self._graph is None:
            graph = Graph()
            mode = "tff" if self._info.top_field_first else "bff"
            source = graph.add_buffer(
                width=picture.width,
                height=picture.height,
                format=picture.format,
                time_base=self.encoder.time_base,
            )
            graph.link_nodes(source, graph.add("setfield", f"mode={mode}"), graph.add("buffersink")).configure()
            self._graph = graph
        self._graph.push(picture)
        marked = self._graph.pull()
        if not isinstance(marked, av.VideoFrame):
            raise SinkError("marking the fields of an interlaced picture failed")
        self._from_rgb.tags.write_to(marked)
        return marked

    def _mux(self, picture: av.VideoFrame | None) -> None:
        if self._container is None:
            raise SinkError(f"{self._path} is closed already")
        try:
            packets = self._stream.encode(picture)
            if packets and self._first_dts is None:
                self._first_dts = packets[0].dts
            if packets and picture is None:
                self._stretch_last(packets[-1])
            for packet in packets:
                self._frames += 1
                self._bytes += packet.size
                self._container.mux_one(packet)
        except av.error.FFmpegError as error:
            raise self._failed(error) from error

    def _stretch_last(self, packet: Packet[VideoStream]) -> None:
        """MP4 is as long as all packets together, and the last one sent need not be the last one shown."""
        if None in (self._begin_pts, self._first_dts, packet.dts) or not self._formats & _SUMS_DURATIONS:
            return
        shown = self._end_pts - cast("int", self._begin_pts)
        sent = cast("int", packet.dts) - cast("int", self._first_dts)
        packet.duration = max(packet.duration or 0, shown - sent)

    def _failed(self, error: av.error.FFmpegError) -> SinkError:
        return SinkError(f"cannot write {self._path}: {error.strerror}")

    def _close_audio(self) -> None:
        if self._audio is not None:
            self._audio.close()
            self._audio = None


def _kept(metadata: Mapping[str, str]) -> dict[str, str]:
    """Tags without those that describe the old file, and without what can hold a picture as text."""
    return {
        key: value
        for key, value in metadata.items()
        if len(value) <= _LONGEST_TAG and not key.upper().startswith(_NOT_KEPT)
    }


def _range_options(codec: str, tags: ColourTags) -> dict[str, str]:
    """x264 says that the range is limited only together with something else; the video format says nothing new."""
    alone = (tags.colour_range, tags.matrix, tags.primaries, tags.transfer) == (1, 2, 2, 2)
    return {"x264-params": "videoformat=component"} if codec == "libx264" and alone else {}


def _says_aspect(codec: str) -> bool:
    """Whether the encoded pictures themselves hold the pixel aspect (PyAV cannot put it into Matroska's header)."""
    return any(name in codec for name in ("264", "265", "hevc", "mpeg", "mjpeg"))
