"""What every source is, and what it knows about its stream before the first frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Protocol, runtime_checkable

from stream.colour import ColourTags
from stream.frame import Frame
from stream.orientation import Orientation


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a sink needs to write a stream like the source's.

    Attributes:
        name: of the input, for messages and reports.
        width: of the upright picture, in stored pixels.
        height: of the upright picture, in stored pixels.
        frames: how many there will be, None where unknown; an estimate for progress.
        time_base: seconds per unit of `pts`.
        rate: frames per second on average, None where unknown.
        start_pts: of the first frame.
        pixel_aspect: of the picture as stored, None where the stream does not say.
        orientation: from stored to upright.
        display_matrix: as stored, None if there is none.
        pix_fmt: of the input's decoder.
        bits: per sample.
        tags: colour tags.
        interlaced: whether pictures hold two fields.
        top_field_first: which field comes first.
        metadata: of the container.
        stream_metadata: of the video stream.
        dropped: what else is in the input and does not go on, for people to read.
    """

    name: str
    width: int
    height: int
    frames: int | None = None
    time_base: Fraction = Fraction(1)
    rate: Fraction | None = None
    start_pts: int = 0
    pixel_aspect: Fraction | None = None
    orientation: Orientation = field(default_factory=Orientation)
    display_matrix: tuple[int, ...] | None = None
    pix_fmt: str = "rgb24"
    bits: int = 8
    tags: ColourTags = field(default_factory=ColourTags)
    interlaced: bool = False
    top_field_first: bool = True
    metadata: Mapping[str, str] = field(default_factory=dict)
    stream_metadata: Mapping[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()


def file_url(path: Path) -> str:
    """A local path for FFmpeg, which takes what stands before a colon for a protocol."""
    return f"file:{path}"


class Source(Protocol):
    """Gives frames in order of presentation."""

    @property
    def info(self) -> StreamInfo:
        """What is known before the first frame."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """The frames, once.

        Raises:
            SourceError: the input ends in the middle or cannot be read any further.
        """
        ...

    def problems(self) -> tuple[str, ...]:
        """What could not be read so far, for people; the run has failed if there is any."""
        ...

    def side_exits(self) -> tuple[str, ...]:
        """What was found so far that does not go on (`StreamInfo.dropped`, and what frames carried)."""
        ...

    def close(self) -> None:
        """Release the input. May be called from another thread than the one that iterates, after it has ended."""
        ...


@runtime_checkable
class Patient(Protocol):
    """A source that waits for its pictures, and knows for how long."""

    @property
    def waited(self) -> float:
        """Seconds so far, less those in which a thread of its own worked. Any thread may ask."""
        ...


@runtime_checkable
class Holding(Protocol):
    """A source that can be away, and says what is to be seen then."""

    @property
    def holds(self) -> bool:
        """Whether frames without a picture are to show the last one that was anonymized."""
        ...


@runtime_checkable
class Endable(Protocol):
    """A source that may wait for somebody for ever, and can be told not to."""

    def end(self) -> None:
        """Wait for nothing any more, and give nothing further. May be called from a signal handler."""
        ...
