"""uvicorn as a small server inside another program: bounded in time, connections and memory, and quiet."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

#: Connections at once; more are answered with 503.
_MOST_CONNECTIONS: Final = 64
#: A connection is cut when a request was not read, answered and taken in so many seconds.
_SLOWEST: Final = 30.0
_MOST_HEADER_BYTES: Final = 16 * 2**10
_SECONDS_TO_STOP: Final = 1


class _Connection(H11Protocol):
    """One connection that cannot be held open by sending or taking slowly: uvicorn has no limit for either."""

    slowest: ClassVar[float] = _SLOWEST
    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin_anew()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._begin_anew()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._limit is not None:
            self._limit.cancel()

    def _begin_anew(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._limit = self.loop.call_later(self.slowest, self.transport.abort)


def make_server(app: Any, *, slowest: float = _SLOWEST) -> uvicorn.Server:
    """A server that is run with sockets that listen already.

    Args:
        app: an ASGI application.
        slowest: seconds in which a request has to be read, answered and taken.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=type("_TimedConnection", (_Connection,), {"slowest": slowest}),
            ws="none",
            loop="asyncio",
            lifespan="off",
            interface="asgi3",
            # What callers do wrong is answered, not logged; what fails inside is logged by the application.
            log_config=None,
            log_level="critical",
            access_log=False,
            # Believing X-Forwarded-For would let callers choose the address in the log.
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            h11_max_incomplete_event_size=_MOST_HEADER_BYTES,
            timeout_graceful_shutdown=_SECONDS_TO_STOP,
        )
    )
