"""The guard alone, with an application behind it that says what came through."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from engines.errors import UsageError
from stream.service.api_guard import MOST_BYTES, Access, Guard, Message, Receive, Scope, Send, plain_host

TOKEN = "a-token-of-the-tests-0123456789"
ACCESS = Access(TOKEN, frozenset(), protect_reads=False)
HOST = (b"host", b"localhost")
BEARER = (b"authorization", b"Bearer " + TOKEN.encode())


class Echo:
    """Answers with the body that it got."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


async def chunks(*parts: bytes, whole: bool = True) -> AsyncIterator[Message]:
    """A body in parts; one that is not whole never ends."""
    for part in parts:
        yield {"type": "http.request", "body": part, "more_body": True}
    if not whole:
        await asyncio.Event().wait()
    yield {"type": "http.request", "body": b"", "more_body": False}


def ask(
    guard: Guard,
    body: AsyncIterator[Message] | None = None,
    *,
    method: str = "POST",
    path: str = "/x",
    headers: Sequence[tuple[bytes, bytes]] = (HOST, BEARER),
) -> tuple[int, bytes]:
    """Status and body of the answer."""
    sent: list[Any] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def once() -> None:
        parts = body or chunks()
        scope = {"type": "http", "method": method, "path": path, "headers": list(headers), "server": ("127.0.0.1", 1)}
        await guard(scope, lambda: anext(parts), send)

    asyncio.run(once())
    if not sent:
        return 0, b""
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def test_a_body_in_parts_comes_through_whole() -> None:
    assert ask(Guard(Echo(), ACCESS), chunks(b"ab", b"", b"c")) == (200, b"abc")


def test_a_body_is_given_up_as_soon_as_it_is_too_large() -> None:
    echo = Echo()
    half = b" " * (MOST_BYTES // 2)
    status, text = ask(Guard(echo, ACCESS), chunks(half, half, b" ", whole=False))
    assert (status, echo.bodies) == (413, [])
    assert str(MOST_BYTES) in json.loads(text)["detail"]


@pytest.mark.parametrize("length", [str(MOST_BYTES + 1), "9" * 4000])
def test_a_length_that_is_too_large_is_enough(length: str) -> None:
    echo = Echo()
    headers = (HOST, BEARER, (b"content-length", length.encode()))
    assert ask(Guard(echo, ACCESS), chunks(b"x"), headers=headers)[0] == 413
    assert echo.bodies == []


def test_a_body_that_comes_too_slowly_is_given_up() -> None:
    echo = Echo()
    assert ask(Guard(echo, ACCESS, seconds=0.05), chunks(b"x", whole=False))[0] == 408
    assert echo.bodies == []


def test_a_caller_who_goes_away_gets_no_answer() -> None:
    async def gone() -> AsyncIterator[Message]:
        yield {"type": "http.disconnect"}

    echo = Echo()
    assert ask(Guard(echo, ACCESS), gone()) == (0, b"")
    assert echo.bodies == []


def test_only_http_is_answered() -> None:
    echo = Echo()

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    asyncio.run(Guard(echo, ACCESS)({"type": "websocket"}, nothing, nothing))
    assert echo.bodies == []


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/pages/status.js"])
def test_pages_are_open_where_reading_is_protected(path: str) -> None:
    guard = Guard(Echo(), Access(TOKEN, frozenset(), protect_reads=True))
    assert ask(guard, method="GET", path=path, headers=[HOST])[0] == 200
    assert ask(guard, method="POST", path=path, headers=[HOST])[0] == 401


@pytest.mark.parametrize("path", ["/metrics", "/api/v1/overview", "/pages", "//", "/docs/", "/healthz/", "/new-route"])
def test_everything_else_is_protected_without_being_listed(path: str) -> None:
    guard = Guard(Echo(), Access(TOKEN, frozenset(), protect_reads=True))
    assert ask(guard, method="GET", path=path, headers=[HOST])[0] == 401
    assert ask(guard, method="GET", path=path, headers=[HOST, BEARER])[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get", "TRACE", "NONSENSE"])
def test_whatever_is_not_known_to_read_counts_as_a_change(method: str) -> None:
    guard = Guard(Echo(), ACCESS)
    assert ask(guard, method=method, headers=[HOST])[0] == 401
    assert ask(guard, method=method, path="/healthz", headers=[HOST])[0] == 401


@pytest.mark.parametrize("headers", [[], [HOST, HOST], [(b"host", b"evil.example")]])
def test_without_the_right_host_the_token_does_not_help(headers: list[tuple[bytes, bytes]]) -> None:
    echo = Echo()
    assert ask(Guard(echo, ACCESS), headers=[*headers, BEARER])[0] in (400, 421)
    assert echo.bodies == []


def test_the_address_at_which_a_connection_came_in_is_right() -> None:
    scope_address = [(b"host", b"127.0.0.1:99")]
    assert ask(Guard(Echo(), ACCESS), headers=[*scope_address, BEARER])[0] == 200


def test_wrong_tokens_are_counted_and_logged_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    guard = Guard(Echo(), ACCESS, clock=lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            ask(guard, headers=[HOST, (b"authorization", b"Bearer guessed")])
        now[0] += 1.5
        ask(guard, headers=[HOST, (b"authorization", b"Bearer guessed")])
    first, second = [record.getMessage() for record in caplog.records]
    assert "wrong API token" in first
    assert "(4 more before it)" in second
    assert "guessed" not in first + second


def test_a_secret_in_an_error_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise OSError("rtsp://user:secret@camera/x is gone")

    with caplog.at_level(logging.DEBUG):
        status, text = ask(Guard(fails, ACCESS), path="/x\nforged line")
    assert "in test_api_guard.py, line" in caplog.text
    assert "\nforged" not in caplog.text
    assert status == 500
    assert b"camera" not in text
    assert "rtsp://***@camera/x" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("given", "plain"),
    [("LocalHost.", "localhost"), ("[::1]", "::1"), ("0:0:0:0:0:0:0:1", "::1"), ("::ffff:10.0.0.1", "10.0.0.1"),
     ("[FE80::A]", "fe80::a"), ("cam-1.local", "cam-1.local")],
)  # fmt: skip
def test_hosts_are_compared_in_one_form(given: str, plain: str) -> None:
    assert plain_host(given) == plain


def test_the_token_is_not_in_what_is_printed() -> None:
    assert TOKEN not in repr(ACCESS)


def test_a_short_token_is_refused_without_being_shown() -> None:
    with pytest.raises(UsageError, match="16") as caught:
        Access("short-one", frozenset(), protect_reads=False)
    assert "short-one" not in str(caught.value)
