"""Recorder: anonymized frames to segments in a folder, for weeks, and whatever happens to the power.

A segment is written in fragments of about a second, each of which reaches the disk before the one after the next is
written. Whatever ends a run, whole fragments are kept: by `close` and `abort`, and at the start of the next run where
this one had no time left for that.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, cast

import av
import av.error
from av.container import OutputContainer

from engines.errors import SinkError, UsageError
from stream.anonymizer import Anonymized
from stream.quantities import Extent
from stream.sinks.live_encoder import LiveEncoder
from stream.sinks.retention import Retention
from stream.sinks.segments import PartialFile, recover
from stream.sources.base import StreamInfo

if TYPE_CHECKING:
    from av.packet import Packet

_log = logging.getLogger(__name__)

Container = Literal["mp4", "mkv"]

_FORMATS: Final = {"mp4": "mp4", "mkv": "matroska"}
_TEN_MINUTES: Final = Extent(seconds=600)
_EVERYTHING: Final = Extent()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderOptions:
    """How a recording is cut and kept.

    Attributes:
        container: fragmented MP4, or Matroska.
        segment: how long and how large a segment may become; the first frame beyond begins the next one.
        retain: how old segments may become, and how large all together; the oldest go first. Nothing for all.
        fragment: seconds after which what was written is on disk.
    """

    container: Container = "mp4"
    segment: Extent = _TEN_MINUTES
    retain: Extent = _EVERYTHING
    fragment: float = 1.0

    def __post_init__(self) -> None:
        if not 0.1 <= self.fragment <= 60:
            raise ValueError(f"expected fragments of 0.1 to 60 seconds, got {self.fragment}")


@dataclass(frozen=True, slots=True)
class _Coding:
    """How pictures become packets."""

    codec: str | None
    crf: float | None
    speed: str | None


class Recorder:
    """Writes segments, each of which begins with a key frame and can be played by itself.

    A frame of another size than the one before begins a new segment. Several runs may write into one folder.

    Args:
        folder: where segments go; it is made if it is not there.
        info: of the frames.
        options: see there.
        codec: encoder by name, None for H.264.
        crf: quality, None for our default.
        speed: the encoder's preset, None for our default.

    Raises:
        UsageError: the folder is none, or there is no such encoder, or the container does not take it.
        SinkError: the folder cannot be written, or what an earlier run left in it cannot be recovered.
    """

    def __init__(
        self,
        folder: Path,
        info: StreamInfo,
        options: RecorderOptions | None = None,
        *,
        codec: str | None = None,
        crf: float | None = None,
        speed: str | None = None,
    ) -> None:
        self._folder = folder
        self._info = info
        self._options = options or RecorderOptions()
        self._coding = _Coding(codec, crf, speed)
        # What does not go together is refused before any work is done.
        _open_muxer(cast("BinaryIO", io.BytesIO()), info, self._options, self._coding)[0].close()
        _make_folder(folder)
        #: What earlier runs had left unfinished.
        self.recovered = recover(folder)
        #: Segments finished so far.
        self.finished = 0
        self._retention = Retention(folder, self._options.retain)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="standin-sync")
        self._segment: _Segment | None = None
        with self._explained():
            self._retention.look()
            self._retention.apply()

    @property
    def deleted(self) -> int:
        """Segments that were deleted because there were too many or they were too old."""
        return self._retention.deleted

    def write(self, item: Anonymized) -> None:
        """Encode and write the next frame.

        Raises:
            SinkError: the disk is full, or the encoder refuses the frame. What was recorded until then is kept.
        """
        with self._explained():
            if self._segment is not None and self._segment.ends_before(item, self._options.segment):
                self._finish()
            if self._segment is None:
                self._segment = self._begin(item)
            if self._segment.write(item):
                self._retention.apply(self._segment.size)

    def close(self) -> None:
        """Finish the segment.

        Raises:
            SinkError: it cannot be finished; its whole fragments are kept.
        """
        with self._explained():
            self._finish()
        self._pool.shutdown(wait=False)

    def abort(self) -> None:
        """Keep what was recorded: all of it is anonymized, and each segment is whole. Never raises."""
        with contextlib.suppress(SinkError), self._explained():
            self._finish()
        self._pool.shutdown(wait=False)

    def _begin(self, item: Anonymized) -> _Segment:
        height, width = item.image.shape[:2]
        info = replace(self._info, width=width, height=height)
        return _Segment(self._folder, info, self._options, self._coding, _wall_time(item), self._pool)

    def _finish(self) -> None:
        if self._segment is None:
            return
        path = self._segment.finish()
        self._segment = None
        self.finished += 1
        _log.debug("finished %s", path)
        self._retention.look()
        self._retention.apply()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Whatever fails: the segment's whole fragments are kept, and the error says what could not be written."""
        try:
            yield
        except SinkError:
            self._salvage()
            raise
        except (OSError, av.error.FFmpegError) as error:
            self._salvage()
            reason = error.strerror or str(error)
            raise SinkError(
                f"cannot write into {self._folder}: {reason}; what was recorded until then is kept"
            ) from error

    def _salvage(self) -> None:
        segment, self._segment = self._segment, None
        if segment is None:
            return
        try:
            self.finished += segment.salvage() is not None
        except OSError as error:
            # The next run tries again.
            _log.warning("cannot finish a segment in %s: %s", self._folder, error.strerror or error)


class _Segment:
    """One file from its first frame to its last."""

    def __init__(
        self,
        folder: Path,
        info: StreamInfo,
        options: RecorderOptions,
        coding: _Coding,
        began: datetime,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._shape = (info.height, info.width, 3)
        self._pool = pool
        self._pause = options.fragment / 2
        self._synced = time.monotonic()
        self._unsynced = False
        self._start: Fraction | None = None
        self._origin: int | None = None
        #: Bytes of pictures so far.
        self.size = 0
        self._file = PartialFile.create(folder, began, f".{options.container}")
        try:
            self._container, self._encoder = _open_muxer(cast("BinaryIO", self._file), info, options, coding)
        except BaseException:
            self._file.discard()
            raise

    def ends_before(self, item: Anonymized, limit: Extent) -> bool:
        """Whether a frame belongs to the next segment."""
        if self._start is None:
            return False
        lasted = item.frame.pts * item.frame.time_base - self._start
        return (
            item.image.shape != self._shape
            or (limit.seconds is not None and lasted >= Fraction(limit.seconds))
            or (limit.size is not None and self.size >= limit.size)
        )

    def write(self, item: Anonymized) -> bool:
        """Add a frame; whether something was written to the disk."""
        if self._start is None:
            self._start = item.frame.pts * item.frame.time_base
        for packet in self._encoder.encode(item):
            self._mux(packet)
        return self._flush()

    def finish(self) -> Path:
        """The finished segment."""
        for packet in self._encoder.flush():
            self._mux(packet)
        self._container.close()
        return self._file.place()

    def salvage(self) -> Path | None:
        """The whole fragments that reached the file, None where there are none."""
        self._file.freeze()
        with contextlib.suppress(OSError, av.error.FFmpegError):
            self._container.close()
        return self._file.salvage()

    def _mux(self, packet: Packet[av.VideoStream]) -> None:
        if self._origin is None:
            self._origin = packet.pts or 0
        packet.pts = (packet.pts or 0) - self._origin
        packet.dts = (packet.dts or 0) - self._origin
        self.size += packet.size
        self._container.mux_one(packet)

    def _flush(self) -> bool:
        some = self._file.flush()
        self._unsynced |= some
        if self._unsynced and time.monotonic() - self._synced >= self._pause:
            self._file.sync(self._pool)
            self._synced, self._unsynced = time.monotonic(), False
        return some


def _open_muxer(
    file: BinaryIO, info: StreamInfo, options: RecorderOptions, coding: _Coding
) -> tuple[OutputContainer, LiveEncoder]:
    """A container that is written in fragments, with its header, and the encoder for it."""
    # By duration, not by key frame: what depends on a torn fragment comes after it and is gone, too.
    fragments = {
        "mp4": {"movflags": "empty_moov+default_base_moof", "frag_duration": str(round(options.fragment * 1e6))},
        "mkv": {"cluster_time_limit": str(round(options.fragment * 1e3))},
    }[options.container]
    container = av.open(
        file, "w", format=_FORMATS[options.container], container_options=fragments | {"flush_packets": "1"}
    )
    try:
        encoder = LiveEncoder(info, codec=coding.codec, crf=coding.crf, speed=coding.speed, container=container)
        container.start_encoding()
    except (av.error.ArgumentError, av.error.InvalidDataError, av.error.PatchWelcomeError) as error:
        raise UsageError(
            f".{options.container} segments cannot hold {coding.codec or 'this video'} ({error.strerror}): choose"
            " another --codec or container"
        ) from error
    return container, encoder


def _wall_time(item: Anonymized) -> datetime:
    """When the frame came: the wall clock is for names alone."""
    now = time.time()
    if item.frame.arrived is not None:
        now -= max(0.0, time.monotonic() - item.frame.arrived)
    return datetime.fromtimestamp(now, UTC)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError as error:
        raise UsageError(f"{folder} is a file; a folder for segments is expected") from error
    except FileNotFoundError as error:
        raise UsageError(f"the folder of the output {folder} does not exist: create {folder.parent} first") from error
    except OSError as error:
        raise SinkError(f"cannot make the folder {folder}: {error.strerror}") from error
