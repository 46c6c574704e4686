"""Crews without Ray: what workers do is a function of the worker and the job."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from stream.batch.crew import Done, Event, Lost, Ready
from stream.batch.jobs import Job, Opened, Outcome, Progress

_FINE = Opened()
#: An outcome; or a text, if the worker is lost; or None, if it never answers.
Answer = Outcome | str | None


def write(_: int, job: Job) -> Outcome:
    """What a worker does that has no trouble."""
    if job.piece is None:
        Path(job.staging, Path(job.name).name).write_text(f"made of {job.at}")
    return Outcome(content="c", frames=3, seconds=1.0)


class FunctionCrew:
    """Workers that answer at the next `wait`.

    Attributes:
        jobs: that were given, with the workers' numbers.
        dismissed: workers that were ended.
    """

    def __init__(
        self,
        work: Callable[[int, Job], Answer] = write,
        *,
        opened: Opened | None = _FINE,
        unfit: Mapping[int, Opened] = MappingProxyType({}),
    ) -> None:
        self._work = work
        self._opened = opened
        self._unfit = unfit
        self._events: list[Event] = []
        self._count = 0
        self.jobs: list[tuple[int, Job]] = []
        self.dismissed: list[int] = []

    def hire(self) -> int:
        self._count += 1
        if self._opened is None:
            self._events.append(Lost(self._count, "it ended at once"))
        else:
            self._events.append(Ready(self._count, self._unfit.get(self._count, self._opened)))
        return self._count

    def give(self, worker: int, job: Job) -> None:
        self.jobs.append((worker, job))
        answer = self._work(worker, job)
        if isinstance(answer, str):
            self._events.append(Lost(worker, answer))
        elif answer is not None:
            self._events.append(Done(worker, answer))

    def wait(self, seconds: float) -> list[Event]:
        if not self._events:
            time.sleep(min(seconds, 0.01))
        events, self._events = self._events, []
        return events

    def progress(self, worker: int) -> Progress | None:
        return None

    def dismiss(self, worker: int) -> None:
        self.dismissed.append(worker)
