"""Callers who hold a connection without using it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("uvicorn", reason='needs pip install "standin[serve]"')

from stream.service.api_guard import Receive, Scope, Send
from stream.service.http_server import make_server

LARGE = b"x" * 2**20
SLOWEST = 0.8


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Far more than a socket takes unread, for whoever asks for it."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(64 if scope["path"] == "/large" else 0):
        await send({"type": "http.response.body", "body": LARGE, "more_body": True})
    await send({"type": "http.response.body", "body": b"end"})


@pytest.fixture
def port() -> Iterator[int]:
    listening = socket.create_server(("127.0.0.1", 0))
    server = make_server(answer, slowest=SLOWEST)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join(10)
    listening.close()
    assert not thread.is_alive()


def seconds_until_cut(connection: socket.socket) -> float:
    """Until the server closes it; what came before is thrown away."""
    began = time.monotonic()
    connection.settimeout(20)
    try:
        while connection.recv(1 << 20):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - began


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_a_request_that_never_comes_ends_the_connection(port: int, begun: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(begun)
        assert seconds_until_cut(connection) > SLOWEST / 2


def test_an_answer_that_is_not_taken_ends_the_connection(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(2 * SLOWEST)
        taken = 0
        connection.settimeout(20)
        try:
            while more := connection.recv(1 << 20):
                taken += len(more)
        except ConnectionError:
            pass
        assert taken < 64 * len(LARGE)


def test_a_connection_that_is_used_lives_on(port: int) -> None:
    end = time.monotonic() + 3 * SLOWEST
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while time.monotonic() < end:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            received = b""
            while not received.endswith(b"0\r\n\r\n"):
                more = connection.recv(4096)
                assert more
                received += more
            assert b"end" in received
            time.sleep(SLOWEST / 8)


def test_more_connections_than_allowed_are_told_to_wait(port: int) -> None:
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(80)]
    try:
        held[-1].sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 503 " in held[-1].recv(4096)
    finally:
        for each in held:
            each.close()
