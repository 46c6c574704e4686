"""HLS: anonymized frames as a playlist and its segments in a folder, for a web server to give out while they are made.

The names of the segments hold when the run began, so that no name ever stands for another content: players and caches
may keep them.
"""

from __future__ import annotations

import contextlib
import glob
import io
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

import av
import av.error
from av.container import OutputContainer

from engines.errors import SinkError, StreamStoppedError, UsageError
from stream.anonymizer import Anonymized
from stream.sinks.live_encoder import LiveEncoder
from stream.sinks.target import check_target
from stream.sources.base import StreamInfo, file_url

_log = logging.getLogger(__name__)

_ENDINGS: Final = {"mpegts": "ts", "fmp4": "m4s"}
_PROBES: Final = {"mpegts": "mpegts", "fmp4": "mp4"}
#: Players find few others, and some encoders make no key frame when they are asked to.
_PLAYED: Final = ("h264", "hevc")
#: Segments that may be late before something must be wrong.
_MOST_LATE: Final = 3
_END: Final = "#EXT-X-ENDLIST"
#: FFmpeg counts wherever this stands in a path.
_COUNTED: Final = re.compile(r"%0?\d*d")


@dataclass(frozen=True, slots=True, kw_only=True)
class HlsOptions:
    """What a playlist is like.

    Attributes:
        seconds: of a segment; viewers are some segments behind.
        window: segments in the list, None for all since the beginning. Those that left it are deleted a little later.
        kind: MPEG-TS follows a changed size of the pictures; fragmented MP4 is what some players want for HEVC.
    """

    seconds: float = 2.0
    window: int | None = 6
    kind: Literal["mpegts", "fmp4"] = "mpegts"

    def __post_init__(self) -> None:
        if not 0.1 <= self.seconds <= 60:
            raise ValueError(f"expected segments of 0.1 to 60 seconds, got {self.seconds}")
        if self.window is not None and self.window < 2:
            raise ValueError(f"expected at least two segments in the list, got {self.window}")


class HlsSink:
    """Writes a playlist and its segments; the playlist is there from the first whole segment on.

    Args:
        playlist: ends in .m3u8; segments go beside it.
        info: of the frames.
        options: see there.
        codec: encoder by name, None for H.264.
        crf: quality, None for our default.
        speed: the encoder's preset, None for our default.
        overwrite: replace an existing playlist and its segments.

    Raises:
        UsageError: the playlist cannot be meant, there is no such encoder, or segments do not take it.
        SinkError: the folder cannot be written.
    """

    def __init__(
        self,
        playlist: Path,
        info: StreamInfo,
        options: HlsOptions | None = None,
        *,
        codec: str | None = None,
        crf: float | None = None,
        speed: str | None = None,
        overwrite: bool = False,
    ) -> None:
        _check(playlist, overwrite=overwrite)
        self._playlist = playlist
        self._info = info
        self._options = options or HlsOptions()
        self._codec, self._crf, self._speed = codec, crf, speed
        self._run = f"{playlist.stem}-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
        self._stale = _left_behind(playlist) if overwrite else []
        self._cut_at: Fraction | None = None  # when the segment that is being made began
        self._begun = False
        self._container: OutputContainer | None = None
        self._sent = 0  # bytes of pictures that are in no segment of the list
        self._last, self._last_at = "", Fraction(0)  # the last segment in the list, and when it came
        # What does not go together is refused before any work is done.
        with self._explained(), av.open(io.BytesIO(), "w", format=_PROBES[self._options.kind]) as probe:
            self._encode_into(probe)

    def write(self, item: Anonymized) -> None:
        """Encode and write the next frame.

        Raises:
            StreamStoppedError: the picture has another size than before, and segments of this kind cannot follow it.
            SinkError: the disk is full.
        """
        height, width = item.image.shape[:2]
        with self._explained():
            if (width, height) != (self._info.width, self._info.height):
                self._follow(width, height)
            if self._container is None:
                self._container = self._open()
            time = item.frame.pts * item.frame.time_base
            if self._cut_at is None:
                self._last_at = time
            if self._cut_at is None or time - self._cut_at >= Fraction(self._options.seconds):
                self._encoder.want_key()
                self._cut_at = time
            for packet in self._encoder.encode(item):
                self._container.mux_one(packet)
                if packet.is_keyframe:
                    self._check(time)
                self._sent += packet.size

    def close(self) -> None:
        """Write the last segment and say in the playlist that it was the last.

        Raises:
            SinkError: the disk is full.
        """
        with self._explained():
            self._finish()
            if self._begun:
                self._end_list()

    def abort(self) -> None:
        """End the playlist: viewers have seen what is in it. Never raises."""
        with contextlib.suppress(SinkError):
            self.close()

    def _follow(self, width: int, height: int) -> None:
        """Another size needs another encoder, and players must be told."""
        if self._options.kind != "mpegts" and self._container is not None:
            raise StreamStoppedError(
                f"the pictures have become {width}x{height} instead of {self._info.width}x{self._info.height}, which"
                f" MP4 segments of one playlist cannot follow: use MPEG-TS segments, or start again"
            )
        self._finish()
        self._info = replace(self._info, width=width, height=height)

    def _open(self) -> OutputContainer:
        folder, ending = self._playlist.parent, _ENDINGS[self._options.kind]
        flags = ["temp_file", "omit_endlist", "independent_segments"]
        flags += ["append_list"] if self._begun else []
        flags += ["delete_segments"] if self._options.window is not None else []
        container = av.open(
            file_url(self._playlist),
            "w",
            format="hls",
            container_options={
                "hls_time": str(self._options.seconds),
                "hls_list_size": str(self._options.window or 0),
                "hls_flags": "+".join(flags),
                # Players that saw an earlier run expect no number twice.
                "hls_start_number_source": "epoch",
                "hls_segment_type": self._options.kind,
                "hls_segment_filename": str(folder / f"{self._run}-%05d.{ending}"),
                "hls_fmp4_init_filename": f"{self._run}-init.mp4",
            },
        )
        try:
            self._encode_into(container)
        except BaseException:
            container.close()
            raise
        for path in self._stale:
            path.unlink(missing_ok=True)
        self._stale = []
        self._begun = True
        return container

    def _encode_into(self, container: OutputContainer) -> None:
        # Key frames are where segments are cut, as far as it is up to us.
        self._encoder = LiveEncoder(
            self._info,
            codec=self._codec,
            crf=self._crf,
            speed=self._speed,
            container=container,
            between_keys=10 * self._options.seconds,
        )
        if self._encoder.context.codec.canonical_name not in _PLAYED:
            raise UsageError(f"HLS segments hold H.264 or HEVC, not {self._codec}; choose another --codec")
        container.start_encoding()

    def _check(self, time: Fraction | None = None) -> None:
        """FFmpeg says nothing when a segment or the list did not get onto the disk.

        Args:
            time: of a key frame that was just written, None when all is written.
        """
        names = self._listed()
        new = names[names.index(self._last) + 1 :] if self._last in names else names
        if not new and time is not None and time - self._last_at <= _MOST_LATE * Fraction(self._options.seconds):
            return
        # It was cut here, so that all before is in the list.
        arrived = sum((self._playlist.parent / name).stat().st_size for name in new)
        if arrived < self._sent:
            raise SinkError(
                f"cannot write {self._playlist}: {arrived} bytes arrived, {self._sent} were sent. Disk full?"
            )
        self._sent = 0
        self._last, self._last_at = new[-1] if new else self._last, time or self._last_at

    def _listed(self) -> list[str]:
        """Names of our segments in the list."""
        text = self._playlist.read_text(encoding="utf-8") if self._playlist.exists() else ""
        return [line for line in text.splitlines() if line.startswith(f"{self._run}-")]

    def _finish(self) -> None:
        container, self._container = self._container, None
        if container is None:
            return
        self._cut_at = None
        try:
            for packet in self._encoder.flush():
                container.mux_one(packet)
                self._sent += packet.size
        finally:
            container.close()
        self._check()
        if self._options.window is not None:
            self._sweep()

    def _sweep(self) -> None:
        """FFmpeg deletes segments some time after they left the list, and forgets the last of them when it ends."""
        names = self._listed()
        for path in self._playlist.parent.glob(f"{glob.escape(self._run)}-*"):
            if path.name not in names and not path.name.endswith("-init.mp4"):
                path.unlink(missing_ok=True)

    def _end_list(self) -> None:
        text = self._playlist.read_text(encoding="utf-8")
        if _END not in text:
            _replace(self._playlist, f"{text.rstrip()}\n{_END}\n")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (SinkError, UsageError):
            raise
        except (OSError, av.error.FFmpegError) as error:
            raise SinkError(f"cannot write {self._playlist}: {error.strerror or error}") from error


def _check(playlist: Path, *, overwrite: bool) -> None:
    check_target(playlist, overwrite=overwrite)
    if playlist.suffix.lower() != ".m3u8":
        raise UsageError(f"an HLS playlist ends in .m3u8, got {playlist.name!r}")
    if _COUNTED.search(str(playlist)):
        raise UsageError(f"{playlist} holds something like %d, which FFmpeg would replace by a number; rename it")


def _left_behind(playlist: Path) -> list[Path]:
    """Segments of earlier runs with this playlist."""
    ours = re.compile(rf"{re.escape(playlist.stem)}-\d{{8}}T\d{{12}}Z-(?:\d{{5,}}|init)\.(?:ts|m4s|mp4)(?:\.tmp)?")
    return [path for path in playlist.parent.iterdir() if ours.fullmatch(path.name)]


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
