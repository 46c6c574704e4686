"""Calls that an event loop waits for and that may hang: in daemon threads, a few at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

from engines.errors import DeadlineError

T = TypeVar("T")

#: Calls at once; those that hang count until they return.
MOST: Final = 16


class DaemonCalls:
    """Runs functions beside an event loop.

    The loop's own pool would not do: its threads keep the process alive, so that one call that never returns would
    keep it from ending.
    """

    def __init__(self) -> None:
        self._free = threading.BoundedSemaphore(MOST)

    async def call(self, function: Callable[[], T], seconds: float) -> T:
        """The function's result.

        Args:
            function: called in a thread of its own.
            seconds: that the caller waits; the function is not cut short.

        Raises:
            DeadlineError: there was no answer by then, or too many calls hang.
            Exception: whatever the function raised.
        """
        if not self._free.acquire(blocking=False):
            raise DeadlineError(f"{MOST} requests wait for an answer already; try again")
        answer: Future[T] = Future()
        # From here on it cannot be cancelled, so that whoever waits may leave and the thread can still answer.
        answer.set_running_or_notify_cancel()
        worker = threading.Thread(target=self._work, args=(function, answer), name="standin-status-call", daemon=True)
        try:
            worker.start()
        except RuntimeError:
            # There are too many threads already; the place must not be lost with them.
            self._free.release()
            raise
        waiting = asyncio.wrap_future(answer)
        try:
            await asyncio.wait([waiting], timeout=seconds)
            if not waiting.done():
                raise DeadlineError(f"there was no answer within {seconds:g} s; what was asked for may still be done")
            return waiting.result()
        finally:
            # An answer that comes when the loop has ended goes nowhere.
            waiting.cancel()

    def _work(self, function: Callable[[], T], answer: Future[T]) -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001  carried over to whoever waits, whatever it is
            self._free.release()
            answer.set_exception(error)
        else:
            self._free.release()
            answer.set_result(result)
