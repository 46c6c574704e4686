"""Signals: Ctrl-C and SIGTERM let a command finish what it has begun, and a second one gives it up."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from rich.console import Console

from stream.terminal import error_console, say


class Signals:
    """In hand while this is entered. A signal before anything has begun gives up as well.

    Args:
        console: of the command.
        finishing: what is said at the first signal.
        given_up: what is said when a command is given up.

    Attributes:
        asked: whether there was a signal since something has begun.
    """

    def __init__(self, console: Console, *, finishing: str, given_up: str) -> None:
        self._console = console
        self._finishing = finishing
        self._given_up = given_up
        self._before: dict[int, Any] = {}
        self._stop: Callable[[], None] | None = None
        self.asked = False

    def begin(self, stop: Callable[[], None]) -> None:
        """From now on there is something to finish. Libraries may have put their own handlers in place meanwhile.

        Args:
            stop: finishes it; returns at once.
        """
        self._stop = stop
        self._install()

    def __enter__(self) -> Self:
        self._before = {which: signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)}
        self._install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for which, handler in self._before.items():
            signal.signal(which, handler)
        if isinstance(error, KeyboardInterrupt):
            say(error_console(), self._given_up)

    def _install(self) -> None:
        for which in self._before:
            signal.signal(which, self._handle)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._stop is None or self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._console.print(self._finishing)
        self._stop()
