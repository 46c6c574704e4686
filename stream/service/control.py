"""What can be seen of several streams from outside, and what can be done to them.

The contract between those who run streams (`stream.service.serve`) and those who show them (`stream.service.status`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from engines.errors import StandinError
from stream.metrics import Snapshot

#: `away`: the source is lost and withheld frames go out; `restarting`: its process is being started again;
#: `failed`: it was given up.
StreamState = Literal["starting", "running", "away", "paused", "restarting", "failed", "ended"]

#: In which frames go out; elsewhere the last snapshot says nothing about now.
GOING_OUT: Final = frozenset({"running", "away"})
#: A stream in one of these is meant to be there.
_WANTED: Final = frozenset({"starting", "running", "away", "restarting", "failed"})


class UnknownStreamError(StandinError, LookupError):
    """There is no stream of that name."""


class StreamStatus(BaseModel):
    """One stream as it may be shown. Credentials are not in it.

    Attributes:
        name: of the stream.
        source: where it comes from, redacted.
        sinks: where it goes to, redacted.
        state: see `StreamState`.
        since: wall-clock time (seconds since 1970) at which it came into that state.
        restarts: how often its process had to be started again.
        last_error: what went wrong last, None if nothing did.
        source_error: why the source is away, None while it is there, or where nobody knows.
        withheld_for: seconds for which every frame has been withheld although the source is there, None where others
            go out.
        snapshot: what it does, None before its first frame.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    source: str
    sinks: tuple[str, ...]
    state: StreamState
    since: float
    restarts: int = 0
    last_error: str | None = None
    source_error: str | None = None
    withheld_for: float | None = None
    snapshot: Snapshot | None = None

    @property
    def trouble(self) -> str | None:
        """Why it is not as it should be; None where it runs, or is not meant to."""
        if self.state not in _WANTED:
            return None
        if self.state != "running":
            reason = self.source_error or (self.last_error if self.state in ("restarting", "failed") else None)
            return f"stream {self.name} is {self.state}{f': {reason}' if reason else ''}"
        if self.withheld_for is None:
            return None
        reason = self.snapshot.last_error if self.snapshot is not None else None
        told = f"stream {self.name}: every frame has been withheld for {self.withheld_for:.0f} s"
        return f"{told}: {reason}" if reason else told


class EngineStatus(BaseModel):
    """One engine process as it may be shown.

    Attributes:
        device: that its engines run on.
        running: whether it answers.
        restarts: how often it had to be started again.
        runs: engine runs so far.
        rows: rows of their batches together; over `runs`, the mean batch that streams share.
    """

    model_config = ConfigDict(frozen=True)

    device: str
    running: bool
    restarts: int = 0
    runs: int = 0
    rows: int = 0


class Overview(BaseModel):
    """All streams and engine processes at one moment."""

    model_config = ConfigDict(frozen=True)

    streams: tuple[StreamStatus, ...] = ()
    engines: tuple[EngineStatus, ...] = Field(default=())


class Control(Protocol):
    """Several running streams. Any thread may call."""

    def overview(self) -> Overview:
        """What there is now."""
        ...

    def stood_still(self) -> float:
        """Seconds since whoever runs the streams last looked after them. Answers at once, whatever they do."""
        ...

    def preview(self, name: str) -> bytes | None:
        """A small JPEG of the last frame that went out, anonymized as it was; None before the first.

        Raises:
            UnknownStreamError: there is no such stream.
        """
        ...

    def add(self, name: str, values: Mapping[str, Any]) -> None:
        """Begin another stream.

        Args:
            name: not taken yet.
            values: what a `[streams.NAME]` table of the config file may hold.

        Raises:
            UsageError: the name is taken or no name, the values cannot be meant, or they find or cover less than the
                settings in force.
        """
        ...

    def pause(self, name: str) -> None:
        """End its process, and keep the stream.

        Raises:
            UnknownStreamError: there is no such stream.
        """
        ...

    def resume(self, name: str) -> None:
        """Begin a paused or failed stream again.

        Raises:
            UnknownStreamError: there is no such stream.
        """
        ...

    def remove(self, name: str) -> None:
        """End its process, and forget the stream.

        Raises:
            UnknownStreamError: there is no such stream.
        """
        ...
