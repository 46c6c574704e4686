"""Who may ask the status server for what. Stands before the application, so that no route can forget it.

Three things are checked: the Host header, also on loopback, since a web page in a browser of this machine can reach
loopback under a name of its own (DNS rebinding); the bearer token, for every change and where asked for also to
read; and the size of what comes in.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import logging
import re
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from engines.errors import UsageError
from stream.address import redacted

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

#: Bytes that the body of a request may have.
MOST_BYTES: Final = 64 * 2**10
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_SHORTEST_TOKEN: Final = 16
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
#: Whether the process is there may be asked by anybody under any name: health checks go to addresses of all kinds.
_PROBES: Final = frozenset({"/healthz", "/readyz"})
#: What is the same in every installation.
_PUBLIC: Final = frozenset({"/", "/docs", "/openapi.json"})
_PUBLIC_FOLDER: Final = "/pages/"
_READING: Final = frozenset({"GET", "HEAD"})
#: A refused sender gets so much of its body read and thrown away, or it would miss the answer.
_LINGER_BYTES: Final = 2**20
_LINGER_SECONDS: Final = 0.5
#: Everything that a page needs comes from here, and no script is in a page.
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final[Headers] = [
    (b"content-security-policy", _POLICY),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
]


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask.

    Attributes:
        token: that changes need, None for no changes at all.
        hosts: names and addresses under which this server may be called, besides loopback and the address at which
            a connection came in.
        protect_reads: whether reading needs the token, too.
    """

    token: str | None = field(repr=False)
    hosts: frozenset[str]
    protect_reads: bool

    def __post_init__(self) -> None:
        if self.token is None:
            return
        if len(self.token) < _SHORTEST_TOKEN:
            raise UsageError(f"the API token has {len(self.token)} characters; give it at least {_SHORTEST_TOKEN}")
        if not self.token.isascii() or not self.token.isprintable() or " " in self.token:
            raise UsageError("the API token may hold printable ASCII characters without spaces only")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not answered: an HTTP status, and a sentence."""

    status: int
    detail: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Guard:
    """An ASGI application before another one.

    Args:
        app: gets what may be asked, with the body already read.
        access: who may ask.
        seconds: in which a body has to be there.
        clock: monotonic seconds.
    """

    def __init__(
        self, app: App, access: Access, *, seconds: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._access = access
        self._seconds = seconds
        self._wrong = _Throttled(clock)
        self._failed = _Throttled(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        outgoing = _Outgoing(send)
        try:
            refusal = self._refusal(scope)
            body = refusal or await self._body(scope, receive)
            if isinstance(body, Refusal):
                await _refuse(body, scope, receive, outgoing)
            elif body is not None:
                inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
                await self._app(inner, _replay(body, receive), outgoing)
        except Exception as error:  # noqa: BLE001  neither the caller nor the streams may get it
            self._failed.warn(f"{scope['method']} {scope['path']!r} failed {_described(error)}")
            if not outgoing.started:
                await outgoing.problem(Refusal(500, INSIDE))

    def _refusal(self, scope: Scope) -> Refusal | None:
        """Why the request cannot be answered; None if it can."""
        path, headers, reading = scope["path"], scope["headers"], scope["method"] in _READING
        host = self._wrong_host(headers, scope)
        missing = self._wrong_token(headers, scope) if self._access.protect_reads or not reading else None
        if path in _PROBES and reading:
            # Reasons name streams, so they are for those who may read.
            scope.setdefault("state", {})["reader"] = host is None and missing is None
            return None
        if host is not None:
            return host
        if reading and (path in _PUBLIC or path.startswith(_PUBLIC_FOLDER)):
            return None
        return missing

    def _wrong_host(self, headers: Headers, scope: Scope) -> Refusal | None:
        given = _values(headers, b"host")
        found = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        if found is None:
            return Refusal(400, "the request has no valid Host header")
        server = scope.get("server") or ("",)
        if plain_host(found.group(1)) in self._access.hosts | _LOOPBACK | {plain_host(str(server[0]))}:
            return None
        return Refusal(
            421, "this server does not go by the name in the Host header; if it should, add that to its allowed_hosts"
        )

    def _wrong_token(self, headers: Headers, scope: Scope) -> Refusal | None:
        if self._access.token is None:
            return Refusal(403, "changes are off, since no token is configured; start the server with an API token")
        given = _values(headers, b"authorization")
        if not given:
            return Refusal(401, "this needs the header Authorization: Bearer TOKEN", (_challenge(),))
        scheme, _, token = given[0].partition(" ")
        right = hmac.compare_digest(_digest(token.strip()), _digest(self._access.token))
        if right and len(given) == 1 and scheme.lower() == "bearer":
            return None
        self._wrong.warn(f"a wrong API token came from {(scope.get('client') or ('unknown',))[0]}")
        return Refusal(401, "the token is wrong", (_challenge(b', error="invalid_token"'),))

    async def _body(self, scope: Scope, receive: Receive) -> bytes | Refusal | None:
        """The whole body; None if the caller went away."""
        too_large = Refusal(413, f"the body of a request may have {MOST_BYTES} bytes at most")
        length = _values(scope["headers"], b"content-length")
        if length and (len(length[0]) > 9 or int(length[0]) > MOST_BYTES):
            return too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > MOST_BYTES:
                        return too_large
        except TimeoutError:
            return Refusal(408, f"the body was not there after {self._seconds:g} s")
        return bytes(body)


class _Outgoing:
    """Sends, with the headers that every answer has."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
        await self._send(message)

    async def problem(self, refusal: Refusal, *, more: bool = False) -> None:
        body = json.dumps(problem(refusal.status, refusal.detail)).encode()
        headers = [
            (b"content-type", PROBLEM_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            *refusal.headers,
            *([(b"connection", b"close")] if more else []),
        ]
        await self({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self({"type": "http.response.body", "body": body, "more_body": more})


class _Throttled:
    """Warns once a second at most, and says how often it would have."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = -1.0
        self._kept_back = 0

    def warn(self, text: str) -> None:
        now = self._clock()
        if now - self._last < 1.0:
            self._kept_back += 1
            return
        more = f" ({self._kept_back} more before it)" if self._kept_back else ""
        self._last, self._kept_back = now, 0
        log.warning("%s%s", redacted(text), more)


#: RFC 9457.
PROBLEM_TYPE: Final = "application/problem+json"
#: All that is said of an error that is not the caller's.
INSIDE: Final = "something failed inside the status server; its log says more"


def problem(status: int, detail: str) -> dict[str, Any]:
    """What a refused request gets, as JSON of `PROBLEM_TYPE`."""
    return {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}


def plain_host(name: str) -> str:
    """A host as it is compared: lower case, without brackets or final dot, addresses in their shortest form.

    Args:
        name: of a host, or an address; no port.
    """
    plain = name.strip().removeprefix("[").removesuffix("]").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(plain)
    except ValueError:
        return plain
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key == name]


def _digest(token: str) -> bytes:
    """Of one length, so that the time of a comparison tells nothing of the token's."""
    return hashlib.sha256(token.encode()).digest()


def _described(error: Exception) -> str:
    """In one line, with the place alone: a whole traceback would show values, too."""
    *_, last = traceback.extract_tb(error.__traceback__)
    return f"in {Path(last.filename).name}, line {last.lineno}: {' '.join(repr(error).split())}"


def _challenge(more: bytes = b"") -> tuple[bytes, bytes]:
    return b"www-authenticate", b'Bearer realm="standin"' + more


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body in one piece, then what else comes."""
    waiting = [body]

    async def again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return again


async def _refuse(refusal: Refusal, scope: Scope, receive: Receive, outgoing: _Outgoing) -> None:
    """Answer at once; then read on for a moment, since closing a connection with unread data can lose the answer."""
    sends = any(key in (b"content-length", b"transfer-encoding") for key, _ in scope["headers"])
    await outgoing.problem(refusal, more=sends)
    if not sends:
        return
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            left, more = _LINGER_BYTES, True
            while more and left > 0:
                message = await receive()
                more = message.get("more_body", False)
                left -= len(message.get("body", b""))
    except TimeoutError:
        log.debug("a refused request is still being sent")
    await outgoing({"type": "http.response.body", "body": b"", "more_body": False})
