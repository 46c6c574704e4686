"""Calls with a deadline: a stage that hangs must not hang the stream, nor let a frame through."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from engines.errors import DeadlineError, StandinError

T = TypeVar("T")


class HungError(StandinError, RuntimeError):
    """A stage missed its deadline so often in a row that going on makes no sense."""


class _Job(Generic[T]):
    """One call on its way to a worker thread and back."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._done = threading.Event()
        self._result: T
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:  # noqa: BLE001  carried over to the thread that waits, whatever it is
            self._error = error
        self._done.set()

    def wait(self, seconds: float) -> T:
        if not self._done.wait(seconds):
            raise DeadlineError(f"no answer within {seconds:g} s")
        if self._error is not None:
            raise self._error
        return self._result


class DeadlineRunner:
    """Runs calls one after the other in a thread of its own, and stops waiting for those that hang.

    A native call that hangs cannot be cancelled: its thread is left behind (it is a daemon, so the process can
    still end) and the next call gets a new one. After `patience` misses in a row, `HungError` ends the run.

    Args:
        name: of the stage, for messages and for the thread.
        seconds: the deadline of every call.
        patience: how many calls in a row may miss it.
    """

    def __init__(self, name: str, seconds: float, *, patience: int = 4) -> None:
        self._name = name
        self._seconds = seconds
        self._patience = patience
        self._misses = 0
        self._inbox: queue.SimpleQueue[_Job[Any] | None] | None = None

    def call(self, function: Callable[[], T]) -> T:
        """The function's result.

        Raises:
            DeadlineError: it did not answer in time.
            HungError: the same for the `patience`-th time in a row.
            Exception: whatever the function raised.
        """
        job = _Job(function)
        if self._inbox is None:
            self._inbox = queue.SimpleQueue()
            threading.Thread(target=_work, args=(self._inbox,), name=f"standin-{self._name}", daemon=True).start()
        self._inbox.put(job)
        try:
            result = job.wait(self._seconds)
        except DeadlineError as error:
            self.close()
            self._misses += 1
            if self._misses >= self._patience:
                raise HungError(
                    f"{self._name} gave no answer within {self._seconds:g} s, {self._misses} times in a row"
                ) from error
            raise DeadlineError(f"{self._name} gave no answer within {self._seconds:g} s") from error
        self._misses = 0
        return result

    def close(self) -> None:
        """Let the thread end once its call returns."""
        if self._inbox is not None:
            self._inbox.put(None)
            self._inbox = None


def _work(inbox: queue.SimpleQueue[_Job[Any] | None]) -> None:
    while (job := inbox.get()) is not None:
        job.run()
        # Or the last frame would stay alive until the next one comes.
        del job
