"""Engine servers in a thread of the test, and what waits for them."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engines.engine_client import ping
from engines.engine_messages import Open
from engines.engine_pool import open_asked
from engines.engine_server import EngineServer, ServerSettings
from engines.errors import RuntimeFailedError
from engines.runtime import Runtime
from tests.engines.helpers import tiny_draft

SECONDS = 20.0


def feeds(value: float, rows: int = 1, width: int = 3) -> dict[str, Any]:
    return {"x": np.full((rows, 2, width), value, np.float32), "n": np.full(rows, 7, np.int64)}


def doubled(given: Mapping[str, Any]) -> Any:
    return 2 * given["x"] + given["n"][:, None, None].astype(np.float32)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def mapped() -> int:
    """Shared memory that this process has mapped."""
    return sum("memfd:standin" in line for line in Path("/proc/self/maps").read_text().splitlines())


def wait_until(holds: Callable[[], bool], seconds: float = SECONDS) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    return not states(pid) <= {"Z"}


def states(pid: int) -> set[str]:
    """Of all threads of a process; of none where there is no such process."""
    found = set()
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.add(path.read_text(encoding="utf-8").rpartition(") ")[2][0])
    return found


class Blocking(Runtime):
    """`doubler`, that holds back every run whose first number is negative until it is let go."""

    def __init__(self) -> None:
        super().__init__(tiny_draft().graphs["detector"], "cpu")
        self.entered = threading.Event()
        self.let_go = threading.Event()
        self.opened = 0

    def __call__(self, question: Open) -> Runtime:
        self.opened += 1
        return self

    @property
    def provider(self) -> str:
        return "blocking"

    def _run(self, given: Mapping[str, Any]) -> dict[str, Any]:
        if given["x"].flat[0] < 0:
            self.entered.set()
            assert self.let_go.wait(SECONDS)
        return {"y": doubled(given)}

    def close(self) -> None:
        pass


@contextlib.contextmanager
def serving(
    path: Path, settings: ServerSettings | None = None, opener: Callable[[Open], Runtime] = open_asked
) -> Iterator[EngineServer]:
    """A server that listens for as long as the context lasts."""
    server = EngineServer(path, settings or ServerSettings(), opener=opener)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        wait_until(lambda: not thread.is_alive() or answers(path))
        assert thread.is_alive()
        yield server
    finally:
        server.stop()
        thread.join()


def answers(path: Path) -> bool:
    try:
        ping(path)
    except RuntimeFailedError:
        return False
    return True
