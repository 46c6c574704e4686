"""A crew: the workers of a batch, wherever they are. The dispatcher knows no more of them than this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from stream.batch.jobs import Job, Opened, Outcome, Progress


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has loaded its engines, or cannot."""

    worker: int
    opened: Opened


@dataclass(frozen=True, slots=True)
class Done:
    """A worker has ended its job."""

    worker: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker, or the machine that it was on, is gone."""

    worker: int
    reason: str


Event = Ready | Done | Lost


class Crew(Protocol):
    """Workers by number; no number comes twice."""

    def hire(self) -> int:
        """Begin another worker; `Ready` follows, as soon as there is a place for it."""
        ...

    def give(self, worker: int, job: Job) -> None:
        """Give a ready worker a job; `Done` or `Lost` follows."""
        ...

    def wait(self, seconds: float) -> list[Event]:
        """What has happened, at the latest after so many seconds."""
        ...

    def progress(self, worker: int) -> Progress | None:
        """How far a worker last was, None where it has not said yet."""
        ...

    def dismiss(self, worker: int) -> None:
        """End a worker, whatever it does; nothing follows."""
        ...
