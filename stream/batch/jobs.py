"""What a batch and its workers say to each other: names, numbers and errors, never a picture."""

from __future__ import annotations

from dataclasses import dataclass, field

from stream.batch.chunks import Piece
from stream.config import RunSettings


@dataclass(frozen=True, slots=True)
class Order:
    """What all jobs of a worker have in common.

    Attributes:
        settings: of every run.
        threads: for the engines, None for one per core.
        reports: whether every run writes a report.
        version: of Standin, which has to be the worker's own.
        output: folder that a worker must see, None where that is sure.
    """

    settings: RunSettings
    threads: int | None
    reports: bool
    version: str
    output: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One file, or a piece of one that is only looked at.

    Attributes:
        name: of the result.
        at: path or URL of the input.
        staging: folder that all that is written goes to.
        known: sha256 of the input for which there is nothing to do, None for none.
        piece: which part to look at, None for the whole job.
        detections: files with what was found in the file's pieces, of which there may be none; of a piece, the one file
            to write; None for a run that has nothing to do with pieces.
        made_of: place and sha256 of the one input that the result which is there may be replaced by, None for any.
    """

    name: str
    at: str
    staging: str
    known: str | None = None
    piece: Piece | None = None
    detections: tuple[str, ...] | None = None
    made_of: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended.

    Attributes:
        error: why it failed, None if it did not.
        usage: whether another attempt would end the same way.
        full: whether there is no room for anything else either.
        worn: whether the worker must not be used any more.
        same: whether the input is the known one, so that nothing was done.
        content: sha256 of the input.
        frames: written, or looked at.
        withheld: of them.
        seconds: that it took.
        problem: what could not be read of the input, None if all could.
    """

    error: str | None = None
    usage: bool = False
    full: bool = False
    worn: bool = False
    same: bool = False
    content: str = ""
    frames: int = 0
    withheld: int = 0
    seconds: float = 0.0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """How a worker began.

    Attributes:
        error: why it cannot work, None if it can.
        exit_code: that goes with it.
        host: where it is.
    """

    error: str | None = None
    exit_code: int = 0
    host: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a worker is.

    Attributes:
        name: of the result.
        frames: written or looked at.
        total: that there are, None where unknown.
        beats: becomes another number whenever anything happens.
    """

    name: str = ""
    frames: int = 0
    total: int | None = None
    beats: int = field(default=0, compare=False)
