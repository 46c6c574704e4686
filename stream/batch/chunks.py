"""Chunks: a long file is looked at in pieces side by side, and covered in one go.

Detectors look at single frames, so pieces can be looked at anywhere and in any order. What ties frames together
(tracks, latents, hold, lookahead, masks of earlier frames) happens afterwards, in one pass over the whole file that
reads what was found from a detections file: so the seams cannot be told from any other place. A frame that no piece has
looked at, or that was decoded differently there, is not in the file under its own picture, and the last pass looks at
it itself. Results are those of `standin run --detections`, bit by bit: dense poses come as vertices. Without dense
poses those are the results of any run.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from engines.errors import SinkError, SourceError
from stream.anonymizer import Anonymizer
from stream.config import RunSettings
from stream.detections import DetectionsFile, Detectors, Place
from stream.detectors.cached import to_rows
from stream.frame import Frame
from stream.side_by_side import side_by_side
from stream.sources.base import file_url
from stream.sources.describe import main_video
from stream.sources.hardware import check_decoder
from stream.sources.video import VideoSource


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a file.

    Attributes:
        start: seconds from the beginning, None for the beginning.
        end: seconds from the beginning, None for the end.
    """

    start: float | None
    end: float | None


def split(path: Path, seconds: float, settings: RunSettings) -> tuple[Piece, ...]:
    """A video in pieces of about so many seconds, each beginning at a key frame.

    Args:
        path: of the video.
        seconds: that a piece is long, about.
        settings: of the run; its start and end count.

    Returns:
        One piece where it is not longer, or where nothing tells where its key frames are.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        with av.open(file_url(path), metadata_errors="replace") as container:
            stream = main_video(container, str(path), settings.video_stream)
            length = float((container.duration or 0) / av.time_base)
            cuts = list(_cuts(container, stream, seconds, settings.start or 0.0, min(settings.end or length, length)))
    except (av.error.FFmpegError, ValueError) as error:
        raise SourceError(f"{path} cannot be opened as video: {error}") from error
    ends = [settings.start, *cuts, settings.end]
    return tuple(Piece(start, end) for start, end in pairwise(ends))


def look(
    path: Path,
    piece: Piece,
    anonymizer: Anonymizer,
    detections: Path,
    made_by: Detectors,
    *,
    settings: RunSettings,
    on_frame: Callable[[], None] = lambda: None,
) -> int:
    """Look at all frames of a piece and write what is found.

    Args:
        path: of the video.
        piece: which part of it.
        anonymizer: whose detectors look.
        detections: the file to write.
        made_by: what the file says of them.
        settings: of the run.
        on_frame: called after each frame.

    Returns:
        How many frames are in the file.

    Raises:
        StandinError: the video cannot be read, or the file cannot be written.
    """
    strict = settings.decoding == "strict"
    check_decoder(settings.decoder)
    source = VideoSource(
        path,
        start=piece.start,
        end=piece.end,
        strict=strict,
        wanted=settings.video_stream,
        decoder=settings.decoder,
    )
    count = 0
    with contextlib.closing(source), contextlib.closing(DetectionsFile(detections, made_by)) as file:
        anonymizer.prepare(source.info.width, source.info.height)

        def add(frame: Frame) -> bool:
            seen = anonymizer.look(frame)
            if seen.failure is None:
                file.add(Place.of(frame), to_rows(seen.detections, made_by.surface))
            return seen.failure is None

        for kept in side_by_side(add, source, anonymizer.parallel):
            count += kept
            on_frame()
    return count


def merge(parts: Sequence[Path], whole: Path) -> None:
    """Make one detections file of several.

    Args:
        parts: those that are there; others are passed over, since their frames will be looked at again.
        whole: the file to write; there is none if no part is there.

    Raises:
        SinkError: it cannot be written.
    """
    present = [part for part in parts if part.exists()]
    if not present:
        return
    try:
        shutil.copyfile(present[0], whole)
        with contextlib.closing(sqlite3.connect(whole, isolation_level=None)) as database:
            for part in present[1:]:
                _add(database, part)
    except (sqlite3.Error, OSError) as error:
        raise SinkError(f"cannot write {whole}: {error}") from error


def _add(database: sqlite3.Connection, part: Path) -> None:
    database.execute("ATTACH ? AS part", (str(part),))
    database.execute("BEGIN")
    (last,) = database.execute("SELECT coalesce(max(id), 0) FROM frames").fetchone()
    columns = [name for _, name, *_ in database.execute("PRAGMA part.table_info(regions)") if name != "frame"]
    database.execute(
        "INSERT OR IGNORE INTO frames SELECT id + ?, time, picture, regions, checksum FROM part.frames", (last,)
    )
    database.execute(
        f"INSERT INTO regions (frame, {', '.join(columns)}) SELECT frame + ?, {', '.join(columns)} FROM part.regions "  # noqa: S608
        "WHERE frame + ? IN (SELECT id FROM frames)",
        (last, last),
    )
    database.execute("COMMIT")
    database.execute("DETACH part")


def _cuts(container: InputContainer, stream: VideoStream, seconds: float, start: float, end: float) -> Iterator[float]:
    """Times of key frames, about so many seconds from each other, between start and end."""
    base, last, first = stream.time_base, start, next(container.demux(stream)).pts
    if base is None or first is None:
        return
    while (wanted := last + seconds) < end - seconds / 2:
        container.seek(first + round(wanted / base), stream=stream, backward=True)
        packet = next(container.demux(stream))
        if packet.pts is None or not packet.is_keyframe:
            return
        cut = float((packet.pts - first) * base)
        if cut > last:
            yield cut
            last = cut
        else:
            # Key frames lie further apart than that.
            seconds *= 2
