"""The status server: a page, metrics and an API for several streams, in a thread of its own.

It is off unless asked for, and on loopback unless told otherwise. Whatever becomes of it, the streams go on.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from engines.errors import RuntimeUnavailableError, StandinError, UsageError
from stream.service.api_guard import Access, Guard, plain_host
from stream.service.api_values import allowed_paths
from stream.service.control import Control

if TYPE_CHECKING:
    import uvicorn

log = logging.getLogger(__name__)

DEFAULT_PORT: Final = 8765
_SECONDS_TO_START: Final = 10.0
#: The server itself gives what is under way a second.
_SECONDS_TO_STOP: Final = 5.0


class StatusServer:
    """Serves what a `Control` knows, until it is stopped.

    Reading is free on loopback. Elsewhere it needs the token like changes do, unless `protect_reads` says otherwise.
    `/healthz` and `/readyz` answer to anybody.

    Args:
        control: the streams; all calls come from threads of the server.
        host: name or address to listen on.
        port: 0 for any that is free; `port` then tells which.
        token: that changes need, None for no changes.
        allowed_hosts: further names under which the server may be called, such as the machine's own.
        allow_paths: files, cameras and folders that streams added over the API may use; none by default.
        protect_reads: whether reading needs the token; None for yes where the host is not loopback.

    Raises:
        UsageError: arguments that cannot be meant, such as an open address without a token.
        RuntimeUnavailableError: the libraries are not installed.
    """

    def __init__(
        self,
        control: Control,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        token: str | None = None,
        allowed_hosts: Iterable[str] = (),
        allow_paths: Iterable[Path] = (),
        protect_reads: bool | None = None,
    ) -> None:
        if not 0 <= port <= 65535:
            raise UsageError(f"the status server's port is {port}; expected 0 to 65535")
        access = _access(host, token, allowed_hosts, protect_reads)
        self._wanted = (host, port)
        try:
            from stream.service.http_server import make_server
            from stream.service.status_app import make_app
        except ImportError as error:
            raise RuntimeUnavailableError(
                f'the status page needs FastAPI, uvicorn and prometheus-client ({error}); pip install "standin[serve]"'
            ) from error
        self._server: uvicorn.Server = make_server(
            Guard(make_app(control, allow_paths=allowed_paths(allow_paths)), access)
        )
        self._thread: threading.Thread | None = None
        self._port = port

    @property
    def host(self) -> str:
        """That it listens on, as it was given."""
        return self._wanted[0]

    @property
    def port(self) -> int:
        """That it listens on; the real one once it has started."""
        return self._port

    @property
    def url(self) -> str:
        """Of the page."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/"

    @property
    def running(self) -> bool:
        """Whether it answers."""
        return self._thread is not None and self._thread.is_alive() and self._server.started

    def start(self) -> None:
        """Listen, and answer from another thread; once only.

        Raises:
            UsageError: the host is none of this machine's, or the port is taken or not permitted.
            StandinError: it did not start.
        """
        if self._thread is not None:
            raise StandinError("this status server was started before; make another one")
        listening = _listen(*self._wanted)
        self._port = int(listening.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, args=(listening,), name="standin-status", daemon=True)
        self._thread.start()
        self._wait_until_started(self._thread)
        log.info("the status page is at %s", self.url)

    def stop(self) -> None:
        """Answer what is under way, for a second at most, and listen no more; harmless when repeated."""
        thread = self._thread
        if thread is None:
            return
        self._server.should_exit = True
        thread.join(_SECONDS_TO_STOP)
        if thread.is_alive():
            log.warning("the status server does not end; it is left behind")

    def __enter__(self) -> StatusServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _serve(self, listening: socket.socket) -> None:
        reason = ""
        try:
            self._server.run(sockets=[listening])
        except BaseException as error:  # noqa: BLE001  the streams go on without their page
            reason = f": {type(error).__name__}: {error}"
        finally:
            listening.close()
        if not self._server.should_exit:
            log.error("the status page is gone, the streams go on%s", reason)

    def _wait_until_started(self, thread: threading.Thread) -> None:
        end = time.monotonic() + _SECONDS_TO_START
        while not self._server.started:
            if not thread.is_alive() or time.monotonic() > end:
                self._server.should_exit = True
                raise StandinError(f"the status server did not start on {self.url}; the log says why")
            time.sleep(0.01)


def _access(host: str, token: str | None, allowed_hosts: Iterable[str], protect_reads: bool | None) -> Access:
    loopback = _is_loopback(host)
    if token is None and not loopback:
        raise UsageError(
            f"the status server would listen on {host}, where others can reach it, without a token; "
            "give it one, or let it listen on 127.0.0.1"
        )
    if token is None and protect_reads:
        raise UsageError("reading is to be protected, but there is no token; give the status server one")
    protect = not loopback if protect_reads is None else protect_reads
    return Access(token, _host_names((host, *allowed_hosts)), protect)


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach it. Other names than localhost may mean anything."""
    plain = plain_host(host)
    return ipaddress.ip_address(plain).is_loopback if _is_address(plain) else plain == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UsageError(f"the status server cannot listen on {host}: {error.strerror or error}") from error
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        raise UsageError(
            f"the status server cannot listen on {host} port {port}: {error.strerror or error}; choose another port"
        ) from error
    return listening


def _host_names(names: Iterable[str]) -> frozenset[str]:
    """As they are compared with Host headers."""
    plain = {name: plain_host(name) for name in names}
    for name, found in plain.items():
        if not found or "/" in found or (":" in found and not _is_address(found)):
            raise UsageError(f"{name!r} is no host by whose name the status server could be called; leave out any port")
    return frozenset(plain.values())


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
