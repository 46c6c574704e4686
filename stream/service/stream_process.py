"""A stream over all lives of its worker process: started, watched, ended, started again.

Only the thread that ticks starts processes, and it must last as long as they do: the kernel ends a worker when the
thread that started it has gone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Mapping
from typing import Final, Literal

from engines.errors import StandinError
from stream.backoff import Backoff
from stream.metrics import Snapshot
from stream.service.control import StreamState, StreamStatus
from stream.service.engine_keeper import FindEngine
from stream.service.placeholders import Secrets
from stream.service.serve_config import StreamConfig, SupervisorConfig
from stream.service.worker_messages import Order, Report
from stream.service.worker_process import Worker
from stream.terminal import EXIT_USAGE, EXIT_WITHHELD

_log = logging.getLogger(__name__)

#: Exit codes of workers that have done all that there was.
_DONE: Final = (0, EXIT_WITHHELD)
_FIRST_WAIT: Final = 0.25
#: Of `RunSettings`: the socket of the process that runs the engines.
_ENGINE_SETTING: Final = "engine_server"

Wanted = Literal["running", "paused", "gone"]


class StreamProcess:
    """A stream, over all lives of its worker. One thread ticks; any thread may ask and change what is wanted.

    Args:
        config: of the stream.
        secrets: that its addresses hold.
        supervisor: how long to wait for what.
        find_engine: gives the socket of the engine process for a device, None where the worker runs engines by itself.
    """

    def __init__(
        self,
        config: StreamConfig,
        secrets: Secrets,
        supervisor: SupervisorConfig,
        find_engine: FindEngine | None = None,
    ) -> None:
        self._config = config
        self._secrets = secrets
        self._supervisor = supervisor
        self._find_engine = find_engine
        self._next: tuple[StreamConfig, Secrets] | None = None
        self._worker: Worker | None = None
        self._lock = threading.RLock()
        self._backoff = Backoff(_FIRST_WAIT, supervisor.longest_wait)
        self._due = 0.0
        self._again = False
        self._wanted: Wanted = "running"
        self._state: StreamState = "starting"
        self._since = time.time()
        self._restarts = 0
        self._last_error: str | None = None
        #: Of workers that have ended.
        self._report: Report | None = None
        self._preview: bytes | None = None
        self._withholding = False

    @property
    def config(self) -> StreamConfig:
        """What the stream is to do, as of the last change."""
        return self._next[0] if self._next else self._config

    @property
    def gone(self) -> bool:
        """Whether it was to end, and has no process any more."""
        return self._wanted == "gone" and self._worker is None

    def want(self, what: Wanted) -> None:
        """Let it run (again), pause or end at the next tick."""
        with self._lock:
            self._wanted = what
            if what == "running" and self._state in ("paused", "failed", "ended"):
                self._fresh()
                self._enter("starting")
            elif what == "paused":
                self._enter("paused")

    def supervise(self, supervisor: SupervisorConfig) -> None:
        """Wait for other times from now on."""
        self._supervisor = supervisor

    def change(self, config: StreamConfig, secrets: Secrets) -> None:
        """Run by another config from the next tick on."""
        with self._lock:
            self._next = (config, secrets)
            if self._wanted == "running":
                self._enter("starting", "its settings have changed")

    def tick(self) -> None:
        """Do what is due. Never waits for a worker that lives."""
        with self._lock:
            now = time.monotonic()
            if self._worker is not None:
                code = self._worker.ended()
                if code is None:
                    self._watch(self._worker, now)
                    return
                ended, self._worker = self._worker, None
                self._preview = ended.preview or self._preview
                self._report = ended.report or self._report
                self._judge(ended, code, now)
            if self._next is not None:
                (self._config, self._secrets), self._next = self._next, None
                self._fresh()
            if self._wanted == "running" and self._state not in ("failed", "ended") and now >= self._due:
                self._start()

    def kill(self, reason: str) -> None:
        """End its process at once."""
        if self._worker is not None:
            self._worker.kill(reason)

    def status(self) -> StreamStatus:
        """How it fares."""
        worker, config = self._worker, self.config
        now = worker.report if worker is not None and self._wanted == "running" else None
        report = worker.report if worker is not None and worker.report is not None else self._report
        source_error = now.source_error if now is not None else None
        return StreamStatus(
            name=config.name,
            source=config.source.shown,
            sinks=tuple(sink.shown for sink in config.sinks),
            state=self._state,
            since=self._since,
            restarts=self._restarts,
            last_error=self._last_error,
            source_error=source_error and self._secrets.hide(source_error),
            withheld_for=now.withheld_for if now is not None and self._state == "running" else None,
            snapshot=self._shown(report.snapshot) if report is not None and report.snapshot is not None else None,
        )

    def preview(self) -> bytes | None:
        """A JPEG of the last frame that went out."""
        worker = self._worker
        return (worker.preview if worker is not None else None) or self._preview

    @property
    def pid(self) -> int | None:
        """Of its worker, None where there is none."""
        return self._worker.pid if self._worker is not None else None

    def _shown(self, snapshot: Snapshot) -> Snapshot:
        """With the outputs' names as the config has them: a worker knows what is behind placeholders."""
        named = [sink.shown for sink in self._config.sinks]
        if len(named) != len(snapshot.sinks):
            named = [self._secrets.hide(sink.name) for sink in snapshot.sinks]
        sinks = tuple(
            sink.model_copy(update={"name": name, "error": sink.error and self._secrets.hide(sink.error)})
            for name, sink in zip(named, snapshot.sinks, strict=True)
        )
        source = snapshot.source
        if source is not None and source.error is not None:
            source = source.model_copy(update={"error": self._secrets.hide(source.error)})
        return snapshot.model_copy(update={"sinks": sinks, "source": source})

    def _fresh(self) -> None:
        """What was before does not count any more."""
        self._again, self._due = False, 0.0
        self._backoff.succeeded()

    def _start(self) -> None:
        config = self._config
        settings = config.settings.model_dump(mode="json", exclude_unset=True)
        try:
            if self._find_engine is not None:
                settings[_ENGINE_SETTING] = str(self._find_engine(config.settings.device))
            order = Order(
                name=config.name,
                parent=os.getpid(),
                source=config.source.text,
                sinks=tuple(sink.text for sink in config.sinks),
                settings=settings,
            )
            self._worker = Worker(order, self._secrets)
        except (OSError, StandinError) as error:
            self._failed(f"its process cannot be started: {error}", time.monotonic())

    def _watch(self, worker: Worker, now: float) -> None:
        """Of a process that lives."""
        if worker.asked is not None:
            if now - worker.asked >= self._supervisor.drain:
                worker.kill("it did not end in time")
            return
        if self._wanted != "running" or self._next is not None:
            worker.stop()
            return
        state = worker.report.state if worker.report is not None else "starting"
        if state == "starting":
            self._enter("restarting" if self._again else "starting")
            limit = max(self._supervisor.start, self._supervisor.silence)
        else:
            self._enter("away" if state == "away" else "running")
            limit = self._supervisor.silence
            self._say_whether_withheld(worker.report)
            if now - worker.begun > self._supervisor.longest_wait:
                self._backoff.succeeded()
        if now - worker.beaten > limit:
            worker.kill(f"no sign of life for {limit:g} s")

    def _say_whether_withheld(self, report: Report | None) -> None:
        """A line where from now on nothing but withheld frames goes out, and one where others do again."""
        withholding = report is not None and report.state == "running" and report.withheld_for is not None
        if withholding and not self._withholding:
            why = report.snapshot.last_error if report is not None and report.snapshot is not None else None
            _log.warning("every frame is withheld: %s", self._secrets.hide(why or "no reason"), extra=self._extra)
        elif self._withholding and not withholding:
            _log.info("not every frame is withheld any more", extra=self._extra)
        self._withholding = withholding

    def _judge(self, worker: Worker, code: int, now: float) -> None:
        """Of a process that has ended: was it meant to, and what is next?"""
        if worker.asked is not None:
            if worker.killed:
                _log.warning("%s", worker.killed, extra=self._extra)
            return
        error = worker.report.error if worker.report is not None else None
        reason = self._secrets.hide(worker.killed or error or _how(code))
        if code in _DONE:
            self._last_error = reason if error else self._last_error
            self._enter("ended", reason if error else None)
        elif code == EXIT_USAGE:
            self._last_error = reason
            self._enter("failed", reason)
        else:
            self._failed(reason, now)

    def _failed(self, reason: str, now: float) -> None:
        self._last_error = reason
        wait = self._backoff.failed()
        if self._backoff.over(self._supervisor.attempts):
            self._enter("failed", self._backoff.given_up(reason))
            return
        self._due = now + wait
        self._again = True
        self._restarts += 1
        # Where it could not even start it is in this state already, and stays in it without another line.
        self._enter("restarting", reason)

    def _enter(self, state: StreamState, reason: str | None = None) -> None:
        """Come into a state; one line of the log for each change."""
        if state == self._state:
            return
        self._state, self._since = state, time.time()
        level = logging.WARNING if state in ("away", "restarting", "failed") else logging.INFO
        _log.log(level, "%s", f"{state}: {reason}" if reason else state, extra=self._extra)

    @property
    def _extra(self) -> Mapping[str, str]:
        return {"stream": self._config.name}


def _how(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process was ended by signal {-code}"
