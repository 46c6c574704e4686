"""Several streams, a process each, as a service: started, watched, started again, and changed while they run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engines.errors import StandinError, UsageError
from engines.runtime import Device
from stream.presets import did_you_mean
from stream.service.control import Overview, UnknownStreamError
from stream.service.engine_keeper import EngineKeepers
from stream.service.serve_config import (
    ServeConfig,
    StreamConfig,
    check_sinks,
    haste,
    in_force,
    make_stream,
    read_serve_config,
)
from stream.service.stream_process import StreamProcess
from stream.service.strictness import check_strictness
from stream.service.systemd import Notifier

if TYPE_CHECKING:
    from stream.service.status import StatusServer

_log = logging.getLogger(__name__)

#: Sections of the config that are read only once, by their fields.
_SECTIONS: Final = {"status": "status", "engines": "engine_process"}
#: Seconds between two looks at all processes.
_TICK: Final = 0.05
#: Seconds between two looks at the config file.
_LOOK: Final = 1.0
#: Seconds that killed processes get to be gone.
_SECONDS_TO_DIE: Final = 0.4


class Service:
    """Runs the streams of a config file; a `stream.control.Control`.

    Args:
        path: of the config file.

    Raises:
        UsageError: the file cannot be read, or what it says cannot be meant.
        StandinError: the status page cannot be had.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = _stamp(path)
        self._config = read_serve_config(path)
        self._lock = threading.RLock()
        self._streams: dict[str, StreamProcess] = {}
        #: No stream any more, but their processes are still there.
        self._leaving: list[StreamProcess] = []
        self._notifier = Notifier()
        self._wake = threading.Event()
        self._ending = False
        self._reload = False
        self._looked_after = time.monotonic()
        self._engines = None if self._config.engines is None else EngineKeepers(self._config.engines)
        self._status = self._make_status()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the streams in the config file."""
        return tuple(self._config.streams)

    @property
    def warning(self) -> str | None:
        """What the config file probably does not mean, None where nothing is odd."""
        return haste(self._config.streams.values(), self._config.supervisor)

    @property
    def status_url(self) -> str | None:
        """Of the status page, None where there is none."""
        return self._status.url if self._status is not None else None

    def engine_pids(self) -> dict[Device, int]:
        """Process ids of the engine processes, by device."""
        return self._engines.pids() if self._engines is not None else {}

    def hide(self, text: str) -> str:
        """A text without the secrets of the config."""
        return self._config.secrets.hide(text)

    def run(self) -> None:
        """Run until `stop`; to be called by the main thread, since workers do not outlive the thread that starts them.

        Raises:
            StandinError: the status page cannot be started.
        """
        self._looked_after = time.monotonic()
        self._warn()
        with self._lock:
            for name, stream in self._config.streams.items():
                self._streams[name] = self._process(stream, self._config)
        try:
            if self._status is not None:
                self._status.start()
            self._tick()
            self._notifier.ready()
            self._loop()
        finally:
            self._notifier.stopping()
            self._drain()

    def stop(self) -> None:
        """End all streams and return from `run`. May be called from a signal handler."""
        # Not by the event: the interrupted thread may hold its lock.
        self._ending = True

    def reload(self) -> None:
        """Read the config file again. May be called from a signal handler."""
        self._reload = True

    def overview(self) -> Overview:
        """What there is now."""
        with self._lock:
            streams = tuple(self._streams.values())
        engines = self._engines.status() if self._engines is not None else ()
        return Overview(streams=tuple(stream.status() for stream in streams), engines=engines)

    def stood_still(self) -> float:
        """Seconds since the loop last looked after the streams."""
        return time.monotonic() - self._looked_after

    def preview(self, name: str) -> bytes | None:
        """A small JPEG of the last frame that went out, anonymized as it was; None before the first.

        Raises:
            UnknownStreamError: there is no such stream.
        """
        return self._find(name).preview()

    def add(self, name: str, values: Mapping[str, Any]) -> None:
        """Begin another stream, until it is removed or the service ends.

        Args:
            name: not taken yet.
            values: what a `[streams.NAME]` table of the config file may hold, but for placeholders.

        Raises:
            UsageError: the name is taken or no name, the values cannot be meant, or they find or cover less than the
                settings in force.
        """
        with self._lock:
            config = self._config
            origin = f"stream {name!r}"
            if name in self._streams:
                raise UsageError(f"{origin} is there already; remove it first, or choose another name")
            stream = make_stream(name, values, config.defaults, config.folder, secrets=None, origin=origin)
            check_strictness(stream.settings, in_force(config))
            check_sinks([*(other.config for other in self._streams.values()), stream], origin=origin)
            self._streams[name] = self._process(stream, config)
        if warning := haste([stream], config.supervisor):
            _log.warning("%s", warning)
        _log.info("added", extra={"stream": name})
        self._wake.set()

    def pause(self, name: str) -> None:
        """End its process, and keep the stream.

        Raises:
            UnknownStreamError: there is no such stream.
        """
        self._find(name).want("paused")
        self._wake.set()

    def resume(self, name: str) -> None:
        """Begin a paused, failed or ended stream again.

        Raises:
            UnknownStreamError: there is no such stream.
        """
        self._find(name).want("running")
        self._wake.set()

    def remove(self, name: str) -> None:
        """End its process, and forget the stream.

        Raises:
            UnknownStreamError: there is no such stream.
        """
        with self._lock:
            self._leave(self._find(name))
            del self._streams[name]
        self._wake.set()

    def _loop(self) -> None:
        looked = time.monotonic()
        while not self._ending:
            self._wake.wait(_TICK)
            self._wake.clear()
            if time.monotonic() - looked >= _LOOK:
                looked = time.monotonic()
                self._look()
            if self._reload:
                self._reload = False
                self._notifier.reloading()
                self._read_again()
                self._notifier.ready()
            self._tick()
            self._notifier.alive()

    def _look(self) -> None:
        """What need not be done at every tick."""
        if self._config.supervisor.watch and (stamp := _stamp(self._path)) != self._stamp:
            self._stamp, self._reload = stamp, True
        states = [stream.state for stream in self.overview().streams]
        self._notifier.status(f"{states.count('running')} of {len(states)} streams are running")

    def _tick(self) -> None:
        self._looked_after = time.monotonic()
        with self._lock:
            leaving, streams = tuple(self._leaving), tuple(self._streams.values())
        for stream in leaving:
            stream.tick()
        taken = {place for stream in leaving if not stream.gone for place in stream.config.places}
        for stream in streams:
            # Who writes to where another one still does waits until that has ended.
            if not taken or taken.isdisjoint(stream.config.places):
                stream.tick()
        with self._lock:
            self._leaving = [stream for stream in self._leaving if not stream.gone]

    def _read_again(self) -> None:
        """Change what has changed in the file; what is wrong in it changes nothing."""
        try:
            new = read_serve_config(self._path)
            with self._lock:
                added = [s.config for name, s in self._streams.items() if name not in self._config.streams]
            check_sinks(
                [*new.streams.values(), *(s for s in added if s.name not in new.streams)], origin=str(self._path)
            )
        except StandinError as error:
            _log.error("the config was not taken over, the old one is in force: %s", error)
            return
        except Exception:  # noqa: BLE001  the streams that run must not end by what nobody thought of
            _log.exception("the config was not taken over, the old one is in force")
            return
        with self._lock:
            old, self._config = self._config, new
            for name in (old.streams.keys() - new.streams.keys()) & self._streams.keys():
                self._leave(self._streams.pop(name))
            for name, stream in new.streams.items():
                if name in self._streams:
                    # What was paused or ended by hand stays so until somebody changes it.
                    if stream != old.streams.get(name):
                        self._streams[name].change(stream, new.secrets)
                elif stream != old.streams.get(name):
                    self._streams[name] = self._process(stream, new)
            for process in self._streams.values():
                process.supervise(new.supervisor)
        _log.info("the config was read again")
        self._warn()
        for field, section in _SECTIONS.items():
            if getattr(new, field) != getattr(old, field):
                _log.warning("[%s] has changed, which counts from the service's next start on", section)

    def _warn(self) -> None:
        if warning := self.warning:
            _log.warning("%s", warning)
        with self._lock:
            added = [s.config for name, s in self._streams.items() if name not in self._config.streams]
        for stream in added:
            try:
                check_strictness(stream.settings, in_force(self._config))
            except UsageError as error:
                _log.warning(
                    "it was added over the API before [defaults] changed, and would be refused now; remove it, and add "
                    "it again if it is still wanted (%s)",
                    error,
                    extra={"stream": stream.name},
                )

    def _drain(self) -> None:
        """End all processes: those that can finish what is under way, those that cannot are killed."""
        end = time.monotonic() + self._config.supervisor.drain + _SECONDS_TO_DIE
        with self._lock:
            streams = (*self._streams.values(), *self._leaving)
        for stream in streams:
            stream.want("gone")
            stream.tick()
        if self._status is not None:
            self._status.stop()
        while not all(stream.gone for stream in streams) and time.monotonic() < end:
            time.sleep(_TICK)
            self._looked_after = time.monotonic()
            for stream in streams:
                stream.tick()
            self._notifier.alive()
        for stream in streams:
            stream.kill("the service ends")
        if self._engines is not None:
            self._engines.close()

    def _process(self, stream: StreamConfig, config: ServeConfig) -> StreamProcess:
        find_engine = self._engines.path if self._engines is not None else None
        return StreamProcess(stream, config.secrets, config.supervisor, find_engine)

    def _leave(self, stream: StreamProcess) -> None:
        stream.want("gone")
        self._leaving.append(stream)
        _log.info("removed", extra={"stream": stream.config.name})

    def _find(self, name: str) -> StreamProcess:
        with self._lock:
            if name not in self._streams:
                raise UnknownStreamError(f"there is no stream {name!r}: {did_you_mean(name, self._streams)}")
            return self._streams[name]

    def _make_status(self) -> StatusServer | None:
        if (status := self._config.status) is None:
            return None
        # Only here: it needs libraries of its own.
        from stream.service.status import StatusServer

        return StatusServer(
            self,
            status.host,
            status.port,
            token=status.token(),
            allowed_hosts=status.allowed_hosts,
            allow_paths=status.allow_paths,
            protect_reads=status.protect_reads,
        )


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file does, None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
