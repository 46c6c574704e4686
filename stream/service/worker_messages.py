"""What a stream's worker process is told, and what it tells: the contract of `stream_process` and `stream_worker`.

The order comes on standard input, so that no list of processes shows an address. What the worker tells goes through a
pipe of its own: messages, each behind a letter and its length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, Literal

from pydantic import BaseModel, ConfigDict

from stream.metrics import Snapshot

#: The letters: a `Report` and a `LogLine` as JSON, and a JPEG.
REPORT: Final = b"R"
LOG_LINE: Final = b"L"
PREVIEW: Final = b"P"

_HEADER: Final = struct.Struct("<cI")
_LONGEST: Final = 16 * 2**20


class Order(BaseModel):
    """What a worker is to do. It holds credentials: it is never shown, logged or put on a command line.

    Attributes:
        name: of the stream.
        parent: process id of who gives the order; the worker does not outlive it.
        source: where the stream comes from.
        sinks: where it goes to.
        settings: those of `RunSettings` that were given.
        interval: seconds between two reports.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str
    parent: int
    source: str
    sinks: tuple[str, ...]
    settings: dict[str, Any]
    interval: float = 1.0


class Report(BaseModel):
    """How a worker fares.

    Attributes:
        beats: how often its main thread was seen at work. It stands still when that thread does, or the one that reads
            a live source, whatever other threads may do.
        state: `starting` until the first frame went out, `away` while the source is.
        snapshot: what it did, None before the first frame.
        source_error: why its source is away, None while it is there or not known to be away.
        withheld_for: seconds for which nothing but withheld frames went out although the source is there, None where
            others did, or where these are few.
        error: why it ends, None while it does not, or if it ends as it should.
    """

    model_config = ConfigDict(frozen=True)

    beats: int
    state: Literal["starting", "running", "away"]
    snapshot: Snapshot | None = None
    source_error: str | None = None
    withheld_for: float | None = None
    error: str | None = None


class LogLine(BaseModel):
    """Something that was logged in a worker, already without secrets."""

    model_config = ConfigDict(frozen=True)

    level: int
    logger: str
    message: str
    error: str | None = None


def send(pipe: BinaryIO, letter: bytes, content: bytes) -> None:
    """Write one message.

    Raises:
        OSError: nobody reads any more.
    """
    pipe.write(_HEADER.pack(letter, len(content)) + content)
    pipe.flush()


def receive(pipe: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Messages until the pipe ends; half a message is none.

    Raises:
        ValueError: what comes is no message.
    """
    while len(head := pipe.read(_HEADER.size)) == _HEADER.size:
        letter, length = _HEADER.unpack(head)
        if length > _LONGEST:
            raise ValueError(f"a worker announced a message of {length} bytes; at most {_LONGEST} are expected")
        content = pipe.read(length)
        if len(content) < length:
            return
        yield letter, content
