"""Streams in processes of their own, as tests start and watch them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from stream.service.control import Control, StreamStatus
from stream.service.placeholders import Secrets
from stream.service.serve import Service
from stream.service.serve_config import SupervisorConfig, make_stream
from stream.service.stream_process import StreamProcess
from tests.command import ROOT
from tests.fakes import Box

#: That the store's one detector sees in every picture.
FACE: Box = (20, 10, 44, 34)
#: Cheap, and exact: what is covered is black.
SETTINGS: dict[str, object] = {
    "preset": "faces",
    "face": "mask",
    "margin": 0.0,
    "codec": "ffv1",
    "threads": 1,
    "read_timeout": 2,
    "overwrite": True,
}


def until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Wait for a condition; a failure if it does not come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def make_process(
    folder: Path, source: str, sink: str = "out.mkv", *, supervisor: SupervisorConfig | None = None, **settings: object
) -> StreamProcess:
    """A stream called `front`."""
    values = {"input": source, "output": sink, **SETTINGS, **settings}
    config = make_stream("front", values, {}, folder, secrets=None, origin="test")
    return StreamProcess(config, Secrets({}, folder), supervisor or SupervisorConfig(longest_wait=0.3))


@contextlib.contextmanager
def ticking(process: StreamProcess) -> Iterator[Callable[[Callable[[], object], str], None]]:
    """Gives a function that ticks until a condition is true; at the end nothing is left."""

    def tick_until(condition: Callable[[], object], what: str) -> None:
        def ticked() -> object:
            process.tick()
            return condition()

        until(ticked, f"{what}; {process.status()}")

    try:
        yield tick_until
    finally:
        process.want("gone")
        process.kill("the test ends")
        tick_until(lambda: process.gone, "its end")


def runs(process: StreamProcess) -> bool:
    """Whether frames come out of it."""
    status = process.status()
    return status.state == "running" and status.snapshot is not None and status.snapshot.frames["anonymized"] > 0


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is more than an entry in a table."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def group(pid: int) -> list[int]:
    """All living processes of a process group."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if os.getpgid(int(entry.name)) == pid and alive(int(entry.name)):
                    members.append(int(entry.name))
    return members


def workers_of(parent: int) -> list[tuple[str, int]]:
    """Living workers of a process: streams and process ids."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError):
            words = (entry / "cmdline").read_bytes().decode().split("\0")
            owner = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            if int(owner) == parent and words[2] == "stream.service.stream_worker" and alive(int(entry.name)):
                found.append((words[3], int(entry.name)))
    return found


class Serving:
    """`standin serve` in a process of its own, and what it logs.

    Args:
        config: its file.
        options: of the command.
        environment: variables that it gets besides those of the tests.
    """

    def __init__(self, config: Path, *options: str, environment: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stream", "serve", str(config), *options],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def workers(self) -> dict[str, int]:
        """Process ids of the workers, by stream."""
        return dict(workers_of(self.process.pid))

    def wait_for(self, *texts: str, seconds: float = 30.0) -> None:
        """Until each of the texts was logged."""
        until(lambda: all(any(text in line for line in self.log) for text in texts), f"{texts} in {self.log}", seconds)

    def count(self, text: str) -> int:
        """Lines of the log that hold a text."""
        return sum(text in line for line in self.log)

    def end(self, number: signal.Signals = signal.SIGTERM) -> float:
        """End it by a signal; the seconds that it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(30)
        return time.monotonic() - began

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        workers = self.workers().values()
        self.process.kill()
        self.process.wait()
        # The kernel ends them; what it did not end is not to stay behind because a test fails.
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self._reader.join(5)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.log.append(line.rstrip("\n"))


def write_config(path: Path, streams: Mapping[str, Mapping[str, object]], more: str = "") -> Path:
    """A config file of cheap streams."""
    tables = {"defaults": SETTINGS, **{f"streams.{name}": values for name, values in streams.items()}}
    lines = []
    for name, values in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    # At once, so that nobody reads a half of it.
    new = path.with_suffix(".new")
    new.write_text("\n".join([*lines, more]) + "\n")
    new.replace(path)
    return path


@contextlib.contextmanager
def running(service: Service) -> Iterator[Service]:
    # One thread for all its life, as the command's main thread is: workers end with it.
    thread = threading.Thread(target=service.run, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.stop()
        thread.join(10)
        assert not thread.is_alive()


def status(control: Control, name: str) -> StreamStatus:
    return next(stream for stream in control.overview().streams if stream.name == name)


def frames(control: Control, name: str) -> int:
    snapshot = status(control, name).snapshot
    return snapshot.frames["anonymized"] if snapshot else 0
