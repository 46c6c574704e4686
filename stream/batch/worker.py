"""A worker: engines loaded once, then file after file. Where it runs, and who asks it, is not its business."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from engines.device_loss import is_device_lost, says_device_lost
from engines.errors import SinkError, SourceError, StandinError, UsageError
from engines.own_process import dump_no_core
from engines.store import Store, home
from stream.address import redacted
from stream.anonymizer import Anonymizer
from stream.assemble import Bundles, detectors_of, find_bundles
from stream.batch import chunks, remote
from stream.batch.chunks import Piece
from stream.batch.folder import is_full
from stream.batch.inputs import HIDDEN, REPORT, mark_of
from stream.batch.jobs import Job, Opened, Order, Outcome, Progress
from stream.config import RunSettings
from stream.pipeline import Pipeline
from stream.report import versions
from stream.run import RunResult, run
from stream.sources.base import StreamInfo

_log = logging.getLogger(__name__)


class Worker:
    """Works on one job at a time; `progress` may be asked from another thread meanwhile.

    Args:
        order: what all jobs have in common.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._settings = order.settings.model_copy(update={"threads": order.threads})
        self._anonymizer: Anonymizer | None = None
        self._progress = Progress()

    def open(self) -> Opened:
        """Load the engines."""
        # It is no child of the command that takes care of this elsewhere.
        dump_no_core()
        try:
            if (own := versions()["standin"]) != self._order.version:
                raise UsageError(
                    f"{socket.gethostname()} has Standin {own}, this machine {self._order.version}: install the same"
                )
            if self._order.output is not None and not Path(self._order.output, HIDDEN).is_dir():
                raise SinkError(_unseen(self._order.output))
            self._engines()
        except StandinError as error:
            return Opened(redacted(str(error)), error.exit_code)
        return Opened(host=socket.gethostname())

    def progress(self) -> Progress:
        """How far the job under way is."""
        return self._progress

    def work(self, job: Job) -> Outcome:
        """Do a job; whatever goes wrong is in what comes back."""
        self._progress = Progress(job.name, beats=self._progress.beats + 1)
        began = time.monotonic()
        if not Path(job.staging).is_dir():
            # A fault of this machine, not of the file: others may do it.
            return Outcome(error=_shown(_unseen(job.staging), job), worn=True)
        try:
            if job.piece is not None and job.detections is not None:
                return self._piece(job, job.piece, Path(job.detections[0]), began)
            return self._whole(job, began)
        except StandinError as error:
            return Outcome(
                error=_shown(str(error), job),
                usage=isinstance(error, UsageError),
                full=is_full(error),
                worn=is_device_lost(error),
            )
        except Exception as error:  # noqa: BLE001  the others go on, whatever it is
            # Its file is set aside, the others go on; what it was stands in the worker's log.
            _log.exception("%s ended by an error that nobody expected", job.name)
            return Outcome(error=_shown(f"{type(error).__name__}: {error}", job), worn=True)

    def close(self) -> None:
        """Release the engines."""
        anonymizer, self._anonymizer = self._anonymizer, None
        if anonymizer is not None:
            anonymizer.close()

    def _whole(self, job: Job, began: float) -> Outcome:
        with self._input(job.at) as (path, content):
            if content == job.known:
                return Outcome(same=True, content=content)
            if job.made_of is not None and content != job.made_of[1]:
                other = redacted(job.made_of[0])
                return Outcome(
                    error=f"its result was made of {other}: give --base, another --output, or --overwrite", usage=True
                )
            settings = self._settings_of(job)
            result = run(
                path,
                Path(job.staging, Path(job.name).name),
                settings,
                # With a detections file of its own, a run opens its detectors behind that file.
                anonymizer=self._engines() if settings.detections is None else None,
                on_start=self._started,
                on_frame=lambda _: self._beat(),
            )
        return _outcome(result, content, time.monotonic() - began)

    def _piece(self, job: Job, piece: Piece, detections: Path, began: float) -> Outcome:
        frames = chunks.look(
            Path(job.at),
            piece,
            self._engines(),
            detections,
            detectors_of(self._bundles(), self._settings),
            settings=self._settings,
            on_frame=self._beat,
        )
        return Outcome(frames=frames, seconds=time.monotonic() - began)

    def _settings_of(self, job: Job) -> RunSettings:
        """The settings of one run."""
        changes: dict[str, object] = {}
        if self._order.reports:
            changes["report"] = Path(job.staging, f"{Path(job.name).name}{REPORT}")
        # Without pieces only for poses, which are kept as vertices, as those of files with pieces are.
        if job.detections or (job.detections is not None and self._bundles().surface is not None):
            whole = Path(job.staging, "detections")
            chunks.merge([Path(part) for part in job.detections], whole)
            changes["detections"] = whole
            # The run opens its own: twice the memory would be the alternative.
            self.close()
        return self._settings.model_copy(update=changes)

    def _bundles(self) -> Bundles:
        return find_bundles(self._settings, Store(home()))

    def _engines(self) -> Anonymizer:
        if self._anonymizer is None:
            self._anonymizer = Anonymizer.from_settings(self._settings, offline=True)
        return self._anonymizer

    @contextlib.contextmanager
    def _input(self, at: str) -> Iterator[tuple[Path, str]]:
        """The input as a file, with the sha256 of its content.

        Raises:
            SourceError: it cannot be read, or changed while it was.
        """
        if remote.is_remote(at):
            with remote.fetched(at, lambda _: self._beat(0)) as found:
                yield found
            return
        path = Path(at)
        try:
            before = mark_of(path.stat())
            content = self._digest(path)
            yield path, content
            after = mark_of(path.stat())
        except OSError as error:
            if isinstance(error, StandinError):
                raise
            raise SourceError(f"cannot read {at}: {error.strerror or error}") from error
        if before != after:
            raise SourceError(f"{at} was changed while it was read")

    def _digest(self, path: Path) -> str:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
                self._beat(0)
        return digest.hexdigest()

    def _started(self, info: StreamInfo, _: Pipeline) -> None:
        now = self._progress
        self._progress = Progress(now.name, 0, info.frames, now.beats + 1)

    def _beat(self, frames: int = 1) -> None:
        now = self._progress
        self._progress = Progress(now.name, now.frames + frames, now.total, now.beats + 1)


def _outcome(result: RunResult, content: str, seconds: float) -> Outcome:
    summary = result.summary
    if summary.stopped is not None:
        # An engine that hung may still be at it.
        return Outcome(error=redacted(summary.stopped), worn=True)
    if lost := next(filter(says_device_lost, summary.reasons), None):
        # All that came after it is grey, and so would be every later file: another process does it anew.
        return Outcome(error=f"the GPU was lost: {redacted(lost)}", worn=True)
    if not summary.frames:
        return Outcome(error="not a single frame was written", usage=True)
    return Outcome(
        content=content,
        frames=summary.frames,
        withheld=summary.withheld,
        seconds=seconds,
        problem=redacted("; ".join(result.problems)) or None,
    )


def _unseen(folder: str) -> str:
    return f"{socket.gethostname()} does not see the folder {folder}: is it mounted there?"


def _shown(text: str, job: Job) -> str:
    """An error's words, with the result's own place for the one that it has until it is whole."""
    output = job.staging.partition(f"{os.sep}{HIDDEN}{os.sep}")[0]
    final = Path(output, job.name).parent
    return redacted(" ".join(text.replace(job.staging, str(final)).split()))
