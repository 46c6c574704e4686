"""Calls with a deadline: a stage that hangs must not hang the stream, nor let a frame through."""

from __future__ import annotations

import math
import queue
import threading
import time
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

    def wait(self, seconds: float) -> bool:
        """Whether the call has ended by then."""
        return self._done.wait(seconds)

    def result(self) -> T:
        """What the call returned; raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._result


_Inbox = queue.SimpleQueue[_Job[Any] | None]


class DeadlineRunner:
    """Runs calls in threads of its own, and stops waiting for those that hang.

    A native call that hangs cannot be cancelled: its thread is left behind (it is a daemon, so the process can
    still end) and the next call gets a new one. After `patience` misses in a row, `HungError` ends the run.
    Several threads may call at once; each call then has a thread to itself, and what several of them miss together
    counts as one miss: it is one and the same stall.

    Args:
        name: of the stage, for messages and for the threads.
        seconds: the deadline of every call.
        patience: how many calls in a row may miss it.
    """

    def __init__(self, name: str, seconds: float, *, patience: int = 4) -> None:
        self._name = name
        self._seconds = seconds
        self._patience = patience
        self._lock = threading.Lock()
        self._misses = 0
        self._last_miss = -math.inf
        self._idle: list[_Inbox] = []

    def call(self, function: Callable[[], T]) -> T:
        """The function's result.

        Raises:
            DeadlineError: it did not answer in time.
            HungError: the same for the `patience`-th time in a row.
            Exception: whatever the function raised.
        """
        inbox = self._worker()
        job = _Job(function)
        began = time.monotonic()
        inbox.put(job)
        if not job.wait(self._seconds):
            # Left behind; it ends if its call ever returns.
            inbox.put(None)
            raise self._missed(began)
        self._give_back(inbox, began)
        return job.result()

    def close(self) -> None:
        """Let the threads end."""
        with self._lock:
            idle, self._idle = self._idle, []
        for inbox in idle:
            inbox.put(None)

    def _worker(self) -> _Inbox:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        inbox: _Inbox = queue.SimpleQueue()
        threading.Thread(target=_work, args=(inbox,), name=f"standin-{self._name}", daemon=True).start()
        return inbox

    def _give_back(self, inbox: _Inbox, began: float) -> None:
        with self._lock:
            # What ends while others hang says nothing about those that come.
            if began >= self._last_miss:
                self._misses = 0
            self._idle.append(inbox)

    def _missed(self, began: float) -> DeadlineError | HungError:
        with self._lock:
            if began >= self._last_miss:
                self._misses += 1
                self._last_miss = time.monotonic()
            misses = self._misses
        missed = f"{self._name} gave no answer within {self._seconds:g} s"
        if misses >= self._patience:
            return HungError(f"{missed}, {misses} times in a row")
        return DeadlineError(missed)


def _work(inbox: _Inbox) -> None:
    while (job := inbox.get()) is not None:
        job.run()
        # Or the last frame would stay alive until the next one comes.
        del job
