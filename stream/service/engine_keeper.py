"""Engine processes of a service, one for each device: started when a stream needs one, watched, started again.

While one is away, the runs of its streams fail, so that their frames are withheld; they come back by themselves.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from engines.engine_client import ping
from engines.engine_messages import Pulse
from engines.engine_process import EngineProcess, settings_for, start_engine_process
from engines.errors import RuntimeFailedError, StandinError
from engines.runtime import Device
from stream.backoff import Backoff
from stream.service.control import EngineStatus
from stream.service.serve_config import EngineConfig

_log = logging.getLogger(__name__)

#: Seconds between two looks, and for an answer.
_LOOK: Final = 0.5
_ANSWER: Final = 1.0
#: Seconds until a process that was just started must answer: libraries are loaded first.
_START: Final = 60.0
#: Seconds that a process gets to end by itself.
_SECONDS_TO_END: Final = 0.3


class EngineKeeper:
    """Keeps one engine process at work, from a thread of its own.

    Args:
        device: that its engines run on.
        folder: where its socket is; of this user alone.
        config: see there.

    Raises:
        UsageError: nothing can listen there, or the config does not suit the device.
        OSError: no process can be started.
    """

    def __init__(self, device: Device, folder: Path, config: EngineConfig) -> None:
        self.device: Device = device
        self.path = folder / f"{device}.sock"
        self._config = config
        self._process: EngineProcess = start_engine_process(
            self.path, replace(settings_for(device, config.threads), stall=config.stall)
        )
        self._begun = time.monotonic()
        self._answered: float | None = None
        self._backoff = Backoff(0.25, config.longest_wait)
        self._pulse: Pulse | None = None
        self._before = (0, 0)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_after, name="standin-engines", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Of the process that runs now, or ran last."""
        return self._process.pid

    def status(self) -> EngineStatus:
        """How it fares."""
        pulse = self._pulse
        runs, rows = self._before
        return EngineStatus(
            device=self.device,
            running=self._answered is not None,
            restarts=self._process.restarts,
            runs=runs + (pulse.runs if pulse else 0),
            rows=rows + (pulse.rows if pulse else 0),
        )

    def close(self) -> None:
        """End the process."""
        self._ended.set()
        with self._lock:
            self._process.close(_SECONDS_TO_END)
        self._thread.join(_SECONDS_TO_END)

    def _look_after(self) -> None:
        while not self._ended.wait(_LOOK):
            if (reason := self._trouble()) is None:
                continue
            _log.warning("the engine process for %s is started again: %s", self.device, reason)
            self._answered = None
            if self._ended.wait(self._backoff.failed()):
                return
            with self._lock:
                if not self._ended.is_set():
                    self._restart()

    def _trouble(self) -> str | None:
        """Why it has to be started again, None if it has not."""
        if not self._process.is_alive:
            return "it has ended"
        now = time.monotonic()
        try:
            pulse = ping(self.path, _ANSWER)
        except RuntimeFailedError as error:
            since, limit = (self._begun, _START) if self._answered is None else (self._answered, self._config.silence)
            return f"no answer for {limit:g} s ({error})" if now - since > limit else None
        self._pulse = pulse
        if pulse.stalled is not None:
            return f"it is stuck: {pulse.stalled}"
        if self._answered is None:
            _log.info("the engine process for %s answers", self.device)
        self._answered = now
        if now - self._begun > self._config.longest_wait:
            self._backoff.succeeded()
        return None

    def _restart(self) -> None:
        if (pulse := self._pulse) is not None:
            self._before = (self._before[0] + pulse.runs, self._before[1] + pulse.rows)
            self._pulse = None
        try:
            self._process.restart()
        except OSError as error:
            _log.error("the engine process for %s cannot be started: %s", self.device, error.strerror)
        self._begun = time.monotonic()


class EngineKeepers:
    """The engine processes of a service.

    Args:
        config: see there.
        folder: for their sockets, of this user alone; None for one that systemd gives, or a new one.
    """

    def __init__(self, config: EngineConfig, folder: Path | None = None) -> None:
        self._config = config
        self._folder = folder
        self._made: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()
        self._keepers: dict[Device, EngineKeeper] = {}
        self._closed = False

    def path(self, device: Device) -> Path:
        """Of the socket of a device's engine process, which is started if it is not there.

        Raises:
            StandinError: it cannot be started.
        """
        with self._lock:
            if self._closed:
                raise StandinError("the engine processes have ended")
            if device not in self._keepers:
                try:
                    self._keepers[device] = EngineKeeper(device, self._place(), self._config)
                except OSError as error:
                    reason = error.strerror or str(error)
                    raise StandinError(f"no engine process for {device} can be started: {reason}") from error
            return self._keepers[device].path

    def _place(self) -> Path:
        if self._folder is None:
            if given := os.environ.get("RUNTIME_DIRECTORY"):
                self._folder = Path(given.partition(":")[0]) / "engines"
            else:
                self._made = tempfile.TemporaryDirectory(prefix="standin-")
                self._folder = Path(self._made.name)
        return self._folder

    def status(self) -> tuple[EngineStatus, ...]:
        """How they fare."""
        with self._lock:
            return tuple(keeper.status() for keeper in self._keepers.values())

    def pids(self) -> dict[Device, int]:
        """Process ids, by device."""
        with self._lock:
            return {device: keeper.pid for device, keeper in self._keepers.items()}

    def close(self) -> None:
        """End them."""
        with self._lock:
            self._closed = True
            keepers = tuple(self._keepers.values())
        for keeper in keepers:
            keeper.close()
        if self._made is not None:
            self._made.cleanup()


#: Gives the path of the socket that serves a device.
FindEngine = Callable[[Device], Path]
