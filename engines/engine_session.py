"""One client of an engine process: what it says, checked, and what it is told."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

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
    parse_question,
    receive,
    send,
)
from engines.errors import RuntimeFailedError, StandinError, UsageError
from engines.shared_arrays import Inbox, Outbox

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from engines.batching import Batcher
    from engines.engine_pool import EnginePool
    from engines.runtime import Device


class Session:
    """Serves one connection, in the thread that calls.

    Args:
        connection: To the client; closed by the caller.
        pool: Of engines.
        device: That they run on.
        threads: For one operator, where the client names no number.
        memory: Bytes of arrays that one message may have, each way.
        pulse: How the process is doing.
        may_open: Whether this is not one client too many, who may ask for the pulse alone: the process's owner would
            take silence for its end.
    """

    def __init__(
        self,
        connection: socket.socket,
        pool: EnginePool,
        *,
        device: Device,
        threads: int | None,
        memory: int,
        pulse: Callable[[], Pulse],
        may_open: bool,
    ) -> None:
        self._connection = connection
        self._pool = pool
        self._device = device
        self._threads = threads
        self._memory = memory
        self._pulse = pulse
        self._may_open = may_open
        self._inbox = Inbox(memory)
        self._outbox = Outbox(memory)
        self._engine: Batcher | None = None

    def serve(self) -> None:
        """Answers until the client goes.

        Raises:
            RuntimeFailedError: The client said what no client says, and is not listened to any more.
            OSError: The connection broke, or the client does not take its answers.
        """
        with contextlib.ExitStack() as in_use:
            while True:
                raw, descriptor = receive(self._connection)
                with closing(descriptor):
                    if not raw:
                        return
                    answer, fresh = self._answer(raw, descriptor, in_use)
                with closing(fresh):
                    send(self._connection, answer, fresh)

    def _is_wanted(self) -> bool:
        return not has_hung_up(self._connection)

    def _answer(
        self, raw: bytes, descriptor: int | None, in_use: contextlib.ExitStack
    ) -> tuple[Pulse | Opened | Done | Failed, int | None]:
        question = parse_question(raw)
        if isinstance(question, Ping):
            return self._pulse(), None
        if isinstance(question, Run):
            return self._run(question, descriptor)
        try:
            return self._open(question, in_use), None
        except StandinError as error:
            return Failed.of(error), None

    def _open(self, question: Open, in_use: contextlib.ExitStack) -> Opened:
        if self._engine is not None:
            raise UsageError("this connection has its graph; open another one for another graph")
        if not self._may_open:
            raise RuntimeFailedError("the engine process has as many clients as it takes; start it with more --clients")
        if question.device != self._device:
            raise UsageError(
                f"device {question.device!r} was asked for, this engine process runs on {self._device!r}; "
                "ask the one for that device"
            )
        if question.threads is None:
            question = question.model_copy(update={"threads": self._threads})
        engine = in_use.enter_context(self._pool.use(question, self._is_wanted))
        self._engine = engine
        return Opened(provider=engine.provider, limit=self._memory, largest=dict(engine.largest))

    def _run(self, question: Run, descriptor: int | None) -> tuple[Done | Failed, int | None]:
        if self._engine is None:
            raise RuntimeFailedError("a client asked for a run before it named a graph")
        if descriptor is not None:
            self._inbox.adopt(descriptor)
        # Read where they lie, and gone from here before the next message: they keep the client's memory alive.
        feeds = self._inbox.views(question.arrays)
        try:
            arrays, fresh = self._outbox.put(self._engine.run(feeds, self._is_wanted))
        except (StandinError, OSError) as error:  # the latter where there is no memory
            return Failed.of(error, question.number), None
        return Done(number=question.number, arrays=arrays), fresh
