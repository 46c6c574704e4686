"""Serves engines to other processes: runs what their clients ask for, several requests at a time where that is right.

No client is trusted with more than its own answers: what it says is checked, what it shares is only read, and whatever
goes wrong with one ends its connection and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from engines.batching import Limits
from engines.engine_messages import Open, Pulse, is_same_user
from engines.engine_pool import EnginePool, Watch, open_asked
from engines.engine_session import Session
from engines.errors import StandinError
from engines.private_socket import listen

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engines.runtime import Device, Runtime

log = logging.getLogger(__name__)

#: Seconds that a client may take to read an answer of a few hundred bytes.
_SENDING: Final = 5
#: Seconds to wait where the system has no descriptor left for another client.
_NO_ROOM: Final = 0.2
#: Seconds that threads get to end by themselves.
_ENDING: Final = 1.0


@dataclass(frozen=True)
class ServerSettings:
    """How an engine process serves.

    Attributes:
        device: that all its engines run on.
        threads: for one operator on the CPU where a client names no number; all cores if None.
        limits: how requests for one graph share its runs.
        stall: seconds after which a run that has not returned counts as hung. The longest honest one is shorter.
        memory: bytes of arrays that one message may have, each way.
        most_clients: connections; a client has one for each run that it has under way at a time.
    """

    device: Device = "cpu"
    threads: int | None = None
    limits: Limits = field(default_factory=Limits)
    stall: float = 30.0
    memory: int = 3 * 2**29
    most_clients: int = 256

    def __post_init__(self) -> None:
        if self.stall <= 0 or self.memory < 1 or self.most_clients < 1:
            raise ValueError(f"expected stall, memory and clients over 0, got {self}")


class EngineServer:
    """Listens at a path and serves clients there, each in a thread of its own.

    Args:
        path: Of the socket.
        settings: How it serves.
        opener: Opens a graph for a client.
    """

    def __init__(self, path: Path, settings: ServerSettings, *, opener: Callable[[Open], Runtime] = open_asked) -> None:
        self._path = path
        self._settings = settings
        self._watch = Watch()
        self._pool = EnginePool(settings.limits, self._watch, settings.stall, opener)
        self._lock = threading.Lock()
        self._clients: dict[socket.socket, threading.Thread] = {}
        self._wake, self._woken = socket.socketpair()

    def serve(self, owner: int | None = None) -> None:
        """Serves until `stop` is called, or the owner has gone.

        Args:
            owner: Descriptor of a pipe that ends when the owner does.

        Raises:
            UsageError: Nothing can listen at the path, or another process does.
            OSError: The socket cannot be made.
        """
        try:
            with listen(self._path) as listener, selectors.DefaultSelector() as selector:
                for source in (listener, self._woken, *(() if owner is None else (owner,))):
                    selector.register(source, selectors.EVENT_READ)
                listener.settimeout(0)
                log.info("serving engines on %s at %s", self._settings.device, self._path)
                while not {key.fileobj for key, _ in selector.select()} - {listener}:
                    self._accept(listener)
        finally:
            self._hang_up()

    def stop(self) -> None:
        """Makes `serve` end. Any thread and any signal handler may call it."""
        with contextlib.suppress(OSError):
            self._wake.send(b".", socket.MSG_DONTWAIT)

    def pulse(self) -> Pulse:
        """How it is doing."""
        engines, counts = self._pool.counts()
        with self._lock:
            clients = len(self._clients)
        return Pulse(
            device=self._settings.device,
            stalled=self._watch.stalled(),
            clients=clients,
            engines=engines,
            requests=counts.requests,
            runs=counts.runs,
            rows=counts.rows,
        )

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            log.warning("no client can be let in (%s); is the limit of open files too low?", error)
            time.sleep(_NO_ROOM)
            return
        try:
            connection.settimeout(None)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SENDING, 0))
            if not is_same_user(connection):
                raise PermissionError("it is another user's")
            thread = threading.Thread(target=self._serve_client, args=(connection,), name="standin-client", daemon=True)
            with self._lock:
                self._clients[connection] = thread
            thread.start()
        except (OSError, RuntimeError) as error:  # the latter where there can be no further thread
            log.warning("a client was refused: %s", error)
            with self._lock:
                self._clients.pop(connection, None)
            connection.close()

    def _serve_client(self, connection: socket.socket) -> None:
        settings = self._settings
        try:
            with connection:
                session = Session(
                    connection,
                    self._pool,
                    device=settings.device,
                    threads=settings.threads,
                    memory=settings.memory,
                    pulse=self.pulse,
                    may_open=len(self._clients) <= settings.most_clients,
                )
                session.serve()
        except OSError as error:
            log.debug("a client has gone: %s", error)
        except StandinError as error:
            log.warning("a client was hung up on: %s", error)
        except Exception:
            log.exception("serving a client failed")
        finally:
            with self._lock:
                del self._clients[connection]

    def _hang_up(self) -> None:
        with self._lock:
            clients = dict(self._clients)
        for connection in clients:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        until = time.monotonic() + _ENDING
        for thread in clients.values():
            thread.join(max(0.0, until - time.monotonic()))
        self._pool.close()
        self._wake.close()
        self._woken.close()
