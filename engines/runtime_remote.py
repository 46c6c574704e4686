"""A graph that runs in an engine process (`engines.engine_process`), as if it ran here.

Every run that is under way has a connection to itself, with its own shared memory. A run that is given up closes its
connection, so that an answer that comes late has nowhere to arrive.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from engines.engine_client import EngineConnection
from engines.engine_messages import Failed, Open
from engines.errors import RuntimeFailedError, RuntimeUnavailableError, StandinError, UsageError
from engines.private_socket import check_path
from engines.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from engines.bundle import Bundle
    from engines.runtime import Array, Device

log = logging.getLogger(__name__)

#: Seconds after a failed attempt to connect in which none is made: after the first, and at most.
_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 2.0


class RemoteRuntime(Runtime):
    """A graph in an engine process; opened by `engines.runtime.open_runtime`.

    If the process dies, hangs or is started again, runs fail, at the latest when their time is up, and work again by
    themselves once a process listens at the path. What failed is not asked twice: it may be what the process died of.

    Args:
        bundle: A verified bundle; the process opens and verifies it by itself, and must find the same.
        graph: Name of the graph in its manifest.
        server: Path of the process's socket.
        device: To run on; the process is one for that device.
        threads: Threads for one operator on the CPU; what the process was started with if None.
        spinning: Whether idle threads of ONNX Runtime wait busily.
        bfloat16: Whether OpenVINO computes in bfloat16.
        timeout: Seconds that a run may take, with everything that belongs to it.
        patience: Seconds until the process listens and has opened the graph, at first.

    Raises:
        UsageError: The path cannot be that of a socket, or the process is for another device.
        BundleError: There is no such graph, its file does not fit the manifest, or it was changed.
        RuntimeUnavailableError: No process answers there, or it cannot use the device.
    """

    def __init__(
        self,
        bundle: Bundle,
        graph: str,
        *,
        server: Path,
        device: Device = "cpu",
        threads: int | None = None,
        spinning: bool = False,
        bfloat16: bool = False,
        timeout: float = 10.0,
        patience: float = 120.0,
    ) -> None:
        super().__init__(bundle.graph(graph), device)
        check_path(server)
        if timeout <= 0:
            raise UsageError(f"timeout is {timeout}; expected more than 0 seconds")
        self._server = server
        self._timeout = timeout
        self._question = Open(
            bundle=str(bundle.path.absolute()),
            digest=bundle.digest,
            graph=graph,
            device=device,
            threads=threads,
            spinning=spinning,
            bfloat16=bfloat16,
        )
        self._lock = threading.Lock()
        self._idle: list[EngineConnection] = []
        self._is_closed = False
        self._failures = 0
        self._not_before = 0.0
        self._reason = ""
        self._provider = ""
        self._largest: dict[str, int] = {}
        self._give_back(self._connect_patiently(time.monotonic() + patience))

    @property
    def provider(self) -> str:
        """Name of what executes the graph over there."""
        return self._provider

    @property
    def largest(self) -> Mapping[str, int]:
        """Of what executes the graph over there."""
        return self._largest

    def close(self) -> None:
        """Hangs up; runs under way end first. May be called again."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        until = time.monotonic() + self._timeout
        connection = self._borrow(until)
        try:
            answer = connection.run(feeds, until)
        except BaseException:
            connection.close()
            raise
        self._give_back(connection)
        if isinstance(answer, Failed):
            raise answer.exception()
        if set(answer) != {tensor.name for tensor in self.outputs}:
            raise RuntimeFailedError(f"the engine process gave {', '.join(sorted(answer))} for {self._graph.file}")
        return {tensor.name: answer[tensor.name] for tensor in self.outputs}

    def _borrow(self, until: float) -> EngineConnection:
        """A connection of its own for every run that is under way."""
        while True:
            with self._lock:
                if self._is_closed:
                    raise self._closed()
                if not self._idle:
                    break
                connection = self._idle.pop()
            if not connection.has_hung_up:
                return connection
            connection.close()
        try:
            return self._connect(until)
        except RuntimeFailedError:
            raise
        except StandinError as error:
            # At the start it would be its own error; in the middle of a stream it is a run that failed.
            raise RuntimeFailedError(str(error)) from error

    def _give_back(self, connection: EngineConnection) -> None:
        with self._lock:
            if not self._is_closed:
                self._idle.append(connection)
                return
        connection.close()

    def _connect_patiently(self, until: float) -> EngineConnection:
        while True:
            try:
                return self._connect(until)
            except RuntimeFailedError as error:
                if self._not_before >= until:
                    raise RuntimeUnavailableError(f"{error}; is the engine process running?") from None
                time.sleep(max(0.0, self._not_before - time.monotonic()))

    def _connect(self, until: float) -> EngineConnection:
        """Another connection, with the graph opened; fails at once while the last failure is fresh."""
        with self._lock:
            wait, reason = self._not_before - time.monotonic(), self._reason
        if wait > 0:
            raise RuntimeFailedError(f"{reason}; asked again in {wait:.1f} s")
        try:
            connection = EngineConnection(self._server, until)
            try:
                answer = connection.open(self._question, until)
                if isinstance(answer, Failed):
                    raise answer.exception()
            except BaseException:
                connection.close()
                raise
        except StandinError as error:
            self._has_failed(error)
            raise
        self._has_succeeded()
        self._provider, self._largest = answer.provider, answer.largest
        return connection

    def _has_failed(self, error: StandinError) -> None:
        with self._lock:
            self._not_before = time.monotonic() + min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(self._failures, 30))
            self._failures += 1
            self._reason = str(error)
            is_first = self._failures == 1
        if is_first:
            log.log(logging.WARNING if self._provider else logging.INFO, "%s: %s", self._graph.file, error)

    def _has_succeeded(self) -> None:
        with self._lock:
            failures, self._failures = self._failures, 0
            self._not_before = 0.0
        if failures:
            log.info("%s: the engine process is back", self._graph.file)
