"""The dispatcher: who does what next, what is tried again, and what is set aside."""

from __future__ import annotations

import heapq
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from engines.errors import StandinError, UsageError
from stream.backoff import Backoff
from stream.batch.chunks import Piece, split
from stream.batch.crew import Crew, Done, Lost, Ready
from stream.batch.folder import Extras, OutputFolder, is_full
from stream.batch.inputs import is_image
from stream.batch.jobs import Job, Opened, Outcome, Progress
from stream.batch.manifest import Entry, Made
from stream.batch.remote import is_remote
from stream.config import RunSettings
from stream.terminal import visible

_log = logging.getLogger(__name__)

#: Seconds between two looks at who is stuck and whose wait is over.
_LOOK: Final = 0.25
#: Workers in a row that go before they have begun, until that is taken for the rule.
_MOST_LOST: Final = 5


@dataclass(frozen=True, slots=True)
class Rules:
    """How a batch goes about its work.

    Attributes:
        workers: at a time.
        attempts: at a file, each with another worker where there is one.
        wait: seconds before the second attempt; doubles with each one.
        longest_wait: seconds; no wait is longer.
        stall: seconds without anything from a worker, after which it is taken for stuck.
        patience: seconds until a first worker must be ready.
        chunk: seconds of a piece in which long files are looked at, None for whole files.
    """

    workers: int
    attempts: int = 3
    wait: float = 1.0
    longest_wait: float = 60.0
    stall: float = 300.0
    patience: float = 600.0
    chunk: float | None = None


@dataclass(slots=True, eq=False)
class _File:
    """A file under way, over all its attempts and pieces."""

    entry: Entry
    backoff: Backoff
    staging: Path
    pieces: Path | None = None
    avoid: set[int] = field(default_factory=set)
    detections: list[str] = field(default_factory=list)
    pieces_left: int = 0


@dataclass(slots=True, eq=False)
class _Task:
    """A job, and the worker's."""

    file: _File
    piece: Piece | None = None
    detections: str = ""
    attempts: int = 0
    given: float = 0.0
    beats: int = -1


class Dispatcher:
    """Gives the files of a manifest to a crew until none is left.

    Args:
        crew: who works.
        folder: where results go, with the manifest.
        rules: how often, how long.
        extras: what lies beside a result.
        settings: of all runs.
        on_end: called with the name of each file that ended, and with its error or None.
    """

    def __init__(
        self,
        crew: Crew,
        folder: OutputFolder,
        rules: Rules,
        extras: Extras,
        settings: RunSettings,
        *,
        on_end: Callable[[str, str | None], None] = lambda *_: None,
    ) -> None:
        self._crew = crew
        self._folder = folder
        self._manifest = folder.manifest
        self._rules = rules
        self._extras = extras
        self._settings = settings
        self._on_end = on_end
        self._starting: dict[int, float] = {}
        self._idle: list[int] = []
        self._busy: dict[int, _Task] = {}
        self._pieces: deque[_Task] = deque()
        self._again: list[tuple[float, int, _Task]] = []
        self._order = itertools.count()
        self._lost = self._unfit = 0
        self._began = False
        self._stopping = False
        #: Why nothing more is begun, None if that is so because nothing is left.
        self.stopped: str | None = None

    def stop(self) -> None:
        """Begin nothing more; what is under way is finished. May be called from a signal handler."""
        self._stopping = True

    @property
    def under_way(self) -> Mapping[int, Progress]:
        """What workers are doing now."""
        shown = {}
        for worker, task in self._busy.items():
            now = self._crew.progress(worker)
            shown[worker] = now if now and now.name == task.file.entry.name else Progress(task.file.entry.name)
        return shown

    def run(self, on_look: Callable[[], None] = lambda: None) -> None:
        """Work until nothing is left, or until stopped.

        Args:
            on_look: called several times a second.

        Raises:
            StandinError: no worker can begin, or results cannot be placed.
        """
        try:
            while True:
                self._assign()
                if not self._busy and (self._stopping or not self._waits):
                    return
                if not self._stopping:
                    self._hire()
                for event in self._crew.wait(_LOOK):
                    self._handle(event)
                self._look_for_stuck()
                on_look()
        finally:
            self._leave()

    @property
    def _waits(self) -> bool:
        return bool(self._pieces or self._again or self._manifest.untaken)

    def _hire(self) -> None:
        """As many workers as there should be, where there is work for them."""
        free = len(self._starting) + len(self._idle)
        work = len(self._pieces) + len(self._again) + self._manifest.untaken
        if free + len(self._busy) < self._rules.workers - self._unfit and free < work:
            self._starting[self._crew.hire()] = time.monotonic()

    def _assign(self) -> None:
        for worker in list(self._idle):
            if not self._stopping and (task := self._next(worker)) is not None:
                self._idle.remove(worker)
                self._give(worker, task)

    def _next(self, worker: int) -> _Task | None:
        """What a worker should do now: pieces of a file that was begun, second attempts, or the longest that waits."""
        if self._pieces:
            return self._pieces.popleft()
        for place, (due, _, task) in enumerate(self._again):
            # Where all have failed at it, any of them may try again.
            others = {*self._idle, *self._busy, *self._starting} - task.file.avoid
            if due <= time.monotonic() and (worker in others or not others):
                del self._again[place]
                heapq.heapify(self._again)
                return task
        entry = self._manifest.take()
        if entry is None:
            return None
        backoff = Backoff(self._rules.wait, max(self._rules.wait, self._rules.longest_wait))
        file = _File(entry, backoff, self._folder.stage())
        return self._split(file) or _Task(file)

    def _split(self, file: _File) -> _Task | None:
        """The first piece of a file that is long enough; the others wait in line."""
        entry, length = file.entry, self._rules.chunk
        # What may not have changed at all is not looked at in pieces before that is known.
        unsure = entry.content is not None or entry.made_of is not None
        if length is None or unsure or is_remote(entry.at) or is_image(entry.at):
            return None
        try:
            pieces = split(Path(entry.at), length, self._settings)
        except StandinError as error:
            # Whoever works on it will say so, too.
            _log.info("%s is not split: %s", entry.name, error)
            return None
        if len(pieces) < 2:
            return None
        file.pieces_left = len(pieces)
        file.pieces = self._folder.stage()
        file.detections = [str(file.pieces / str(number)) for number in range(len(pieces))]
        self._pieces += [_Task(file, piece, at) for piece, at in zip(pieces, file.detections, strict=True)]
        return self._pieces.popleft()

    def _give(self, worker: int, task: _Task) -> None:
        entry, file = task.file.entry, task.file
        task.given, task.beats = time.monotonic(), -1
        if task.piece is None:
            if task.attempts:
                # A worker that was taken for lost, and is not, has no place to write to any more.
                self._folder.drop(file.staging)
                file.staging = self._folder.stage()
            # Where some files are looked at in pieces, poses of all are kept as those of pieces are.
            found = None if self._rules.chunk is None or is_image(entry.at) else tuple(file.detections)
            job = Job(entry.name, entry.at, str(file.staging), entry.content, None, found, entry.made_of)
        else:
            job = Job(entry.name, entry.at, str(file.staging), None, task.piece, (task.detections,))
        self._busy[worker] = task
        self._crew.give(worker, job)

    def _handle(self, event: Ready | Done | Lost) -> None:
        match event:
            case Ready(worker, opened):
                self._starting.pop(worker, None)
                if opened.error is not None:
                    self._go_without(worker, opened.error, opened)
                else:
                    self._lost, self._began = 0, True
                    self._idle.append(worker)
            case Done(worker, outcome):
                task = self._busy.pop(worker)
                if outcome.worn:
                    self._crew.dismiss(worker)
                else:
                    self._idle.append(worker)
                self._done(worker, task, outcome)
            case Lost(worker, reason):
                self._lose(worker, reason)

    def _go_without(self, worker: int, error: str, opened: Opened) -> None:
        """A worker cannot work: a fault of its machine, if another one can."""
        self._crew.dismiss(worker)
        self._unfit += 1
        others = self._starting or self._idle or self._busy
        if not others and (not self._began or self._unfit >= self._rules.workers):
            kind = UsageError if opened.exit_code == UsageError.exit_code else StandinError
            raise kind(error)
        _log.warning("a worker cannot begin, and there is one less from now on: %s", error)

    def _lose(self, worker: int, reason: str) -> None:
        if worker in self._idle:
            self._idle.remove(worker)
        if self._starting.pop(worker, None) is not None:
            self._lost += 1
            if self._lost >= _MOST_LOST:
                raise StandinError(f"workers end before they have begun: {reason}")
        if (task := self._busy.pop(worker, None)) is not None:
            self._try_again(worker, task, f"its worker was lost: {reason}", usage=False)

    def _done(self, worker: int, task: _Task, outcome: Outcome) -> None:
        file = task.file
        if outcome.full:
            self._stopping, self.stopped = True, outcome.error
            self._drop(task.file)
        elif outcome.error is not None:
            self._try_again(worker, task, outcome.error, usage=outcome.usage)
        elif task.piece is not None:
            self._piece_ended(file)
        else:
            self._put(file, outcome, task.attempts + 1)

    def _put(self, file: _File, outcome: Outcome, attempts: int) -> None:
        made = Made(outcome.content, outcome.frames, outcome.withheld, outcome.seconds, outcome.problem)
        entry = file.entry
        try:
            if outcome.same:
                self._manifest.same(entry.name)
                trouble = self._folder.complete(entry, self._extras)
            else:
                trouble = self._folder.put(entry, made, file.staging, self._extras)
        except StandinError as error:
            if is_full(error):
                self._stopping, self.stopped = True, str(error)
                self._drop(file)
            else:
                # This one's place is not to be had; those of the others are.
                self._manifest.failed(entry.name, str(error), attempts)
                self._end(file, str(error))
            return
        if trouble is not None:
            self._manifest.lacks(entry.name, trouble)
        self._end(file, outcome.problem or trouble)

    def _try_again(self, worker: int, task: _Task, error: str, *, usage: bool) -> None:
        file = task.file
        task.attempts += 1
        file.avoid.add(worker)
        if not usage and task.attempts < self._rules.attempts:
            _log.info("%s will be tried again: %s", file.entry.name, error)
            due = time.monotonic() + file.backoff.failed()
            heapq.heappush(self._again, (due, next(self._order), task))
        elif task.piece is not None:
            # The last pass looks at what is missing.
            _log.warning("a piece of %s was not looked at: %s", visible(file.entry.name), error)
            self._piece_ended(file)
        else:
            tried = f" ({task.attempts} attempts)" if task.attempts > 1 else ""
            self._manifest.failed(file.entry.name, f"{error}{tried}", task.attempts)
            self._end(file, error)

    def _piece_ended(self, file: _File) -> None:
        file.pieces_left -= 1
        if not file.pieces_left:
            self._pieces.appendleft(_Task(file))

    def _end(self, file: _File, error: str | None) -> None:
        self._drop(file)
        self._on_end(file.entry.name, error)

    def _drop(self, file: _File) -> None:
        for folder in filter(None, (file.staging, file.pieces)):
            self._folder.drop(folder)

    def _look_for_stuck(self) -> None:
        now = time.monotonic()
        for worker, task in list(self._busy.items()):
            progress = self._crew.progress(worker)
            if progress is not None and progress.beats != task.beats:
                task.beats, task.given = progress.beats, now
            elif now - task.given > self._rules.stall:
                self._crew.dismiss(worker)
                self._lose(worker, f"nothing happened for {self._rules.stall:g} s")
        if not self._idle and not self._busy and self._starting:
            waited = now - min(self._starting.values())
            if waited > self._rules.patience:
                raise StandinError(
                    f"no worker was ready within {self._rules.patience:g} s: is there a machine with so many cores and "
                    "GPUs as a worker asks for (--cpus-per-worker, --gpus-per-worker)?"
                )

    def _leave(self) -> None:
        """What was begun and is not done waits for the next call."""
        for task in (*self._busy.values(), *self._pieces, *(task for _, _, task in self._again)):
            self._drop(task.file)
        for worker in (*self._busy, *self._idle, *self._starting):
            self._crew.dismiss(worker)
        self._busy.clear()
