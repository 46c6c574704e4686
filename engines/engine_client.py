"""A connection to an engine process, from its client's side."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from engines.engine_messages import (
    Done,
    Failed,
    Open,
    Opened,
    Ping,
    Pulse,
    Run,
    closing,
    has_hung_up,
    is_same_user,
    make_socket,
    parse_answer,
    receive,
    send,
)
from engines.errors import RuntimeFailedError
from engines.shared_arrays import Inbox, Outbox

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from engines.runtime import Array


class EngineConnection:
    """Asks one thing at a time. Not for several threads at once, and of no use after an error that it raised.

    Every time to wait until is one of `time.monotonic`.

    Args:
        path: Of the process's socket.
        until: When connecting is given up.

    Raises:
        RuntimeFailedError: Nobody listens there.
    """

    def __init__(self, path: Path, until: float) -> None:
        self._path = path
        self._number = 0
        self._inbox = Inbox(1)
        self._outbox = Outbox(1)
        self._socket = make_socket()
        try:
            self._socket.settimeout(self._left(until))
            self._socket.connect(str(path))
            if not is_same_user(self._socket):
                raise RuntimeFailedError(f"another user's process listens at {path}; it is told nothing")
        except OSError as error:
            self._socket.close()
            raise RuntimeFailedError(f"no engine process answers at {path} ({error.strerror or error})") from None
        except BaseException:
            self._socket.close()
            raise

    @property
    def has_hung_up(self) -> bool:
        """Whether the process has gone."""
        # With a time-out, Python waits for something to read before it asks the system.
        self._socket.settimeout(0)
        return has_hung_up(self._socket)

    def ping(self, until: float) -> Pulse:
        """How the process is doing.

        Raises:
            RuntimeFailedError: It has gone, is silent or makes no sense.
        """
        answer = self._ask(Ping(), until)
        if isinstance(answer, Pulse):
            return answer
        raise self._unexpected(answer)

    def open(self, question: Open, until: float) -> Opened | Failed:
        """Names the graph that is to be run.

        Raises:
            RuntimeFailedError: The process has gone, is silent or makes no sense.
        """
        answer = self._ask(question, until)
        if isinstance(answer, Opened):
            self._inbox, self._outbox = Inbox(answer.limit), Outbox(answer.limit)
        elif not isinstance(answer, Failed):
            raise self._unexpected(answer)
        return answer

    def run(self, feeds: Mapping[str, Array], until: float) -> dict[str, Array] | Failed:
        """Runs the graph.

        Returns:
            The outputs, which are the caller's own, or why there are none; the connection is as good as before.

        Raises:
            RuntimeFailedError: The process has gone, is silent or makes no sense, or the arrays are too large.
        """
        self._number += 1
        try:
            arrays, descriptor = self._outbox.put(feeds)
        except OSError as error:
            raise RuntimeFailedError(f"there is no memory to share ({error.strerror or error})") from None
        with closing(descriptor):
            answer = self._ask(Run(number=self._number, arrays=arrays), until, descriptor)
        if isinstance(answer, Done | Failed) and answer.number not in {self._number, None}:
            raise self._unexpected(answer)
        if isinstance(answer, Done):
            return {name: np.array(view) for name, view in self._inbox.views(answer.arrays).items()}
        if isinstance(answer, Failed):
            return answer
        raise self._unexpected(answer)

    def close(self) -> None:
        """Hangs up and lets go of the memory; may be called again."""
        self._socket.close()
        self._inbox.close()
        self._outbox.close()

    def _ask(
        self, question: Ping | Open | Run, until: float, descriptor: int | None = None
    ) -> Pulse | Opened | Done | Failed:
        began = time.monotonic()
        try:
            self._socket.settimeout(self._left(until))
            send(self._socket, question, descriptor)
            self._socket.settimeout(self._left(until))
            raw, offered = receive(self._socket)
        except (TimeoutError, BlockingIOError):
            waited = time.monotonic() - began
            raise RuntimeFailedError(
                f"the engine process at {self._path} gave no answer within {waited:.1f} s"
            ) from None
        except OSError as error:
            raise RuntimeFailedError(
                f"the engine process at {self._path} has gone ({error.strerror or error})"
            ) from None
        with closing(offered):
            if not raw:
                raise RuntimeFailedError(f"the engine process at {self._path} has gone")
            if offered is not None:
                self._inbox.adopt(offered)
        return parse_answer(raw)

    def _left(self, until: float) -> float:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("too late")
        return left

    def _unexpected(self, answer: Pulse | Opened | Done | Failed) -> RuntimeFailedError:
        if isinstance(answer, Failed):
            return RuntimeFailedError(answer.text)
        return RuntimeFailedError(f"the engine process at {self._path} said {answer.kind!r} to another question")


def ping(path: Path, timeout: float = 1.0) -> Pulse:
    """Asks an engine process how it is doing.

    Args:
        path: Of its socket.
        timeout: Seconds.

    Raises:
        RuntimeFailedError: It is not there, or silent.
    """
    until = time.monotonic() + timeout
    connection = EngineConnection(path, until)
    try:
        return connection.ping(until)
    finally:
        connection.close()
