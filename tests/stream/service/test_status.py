"""The status server as it is reached over the network: on loopback, on any free port."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi", reason='needs pip install "standin[serve]"')
pytest.importorskip("uvicorn", reason='needs pip install "standin[serve]"')

import contextlib

from engines.errors import StandinError, UsageError
from stream.service.api_guard import MOST_BYTES
from stream.service.status import StatusServer
from stream.service.status_app import make_app
from tests.stream.service.fake_control import AUTHORIZED, NEW, TOKEN, FakeControl, problem, raw, stream

CHANGES = [
    ("POST", "api/v1/streams"),
    ("POST", "api/v1/streams/door/pause"),
    ("POST", "api/v1/streams/door/resume"),
    ("DELETE", "api/v1/streams/door"),
    ("PUT", "api/v1/streams/door"),
    ("PATCH", "anything"),
]


# Who may ask


@pytest.mark.parametrize(("method", "path"), CHANGES)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer \xff",
    ],
)
def test_changes_need_the_token(
    client: httpx.Client, control: FakeControl, method: str, path: str, authorization: str | None
) -> None:
    before = dict(control.streams)
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    answer = client.request(method, path, json=NEW, headers=headers)  # type: ignore[arg-type]
    problem(answer, 401)
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert control.streams == before


def test_two_tokens_are_none(server: StatusServer, control: FakeControl) -> None:
    answer = raw(
        server.port,
        b"DELETE /api/v1/streams/door HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n"
        b"Authorization: Bearer x\r\nConnection: close\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 401")
    assert "door" in control.streams


def test_it_is_the_guard_that_stops_all_this(control: FakeControl) -> None:
    """The application alone takes changes from anybody, under any name and of any size."""

    async def ask() -> tuple[int, int]:
        transport = httpx.ASGITransport(make_app(control))
        async with httpx.AsyncClient(transport=transport, base_url="http://evil.example") as client:
            body = json.dumps({"name": "large", "values": {}}).encode().ljust(2 * MOST_BYTES)
            added = await client.post("/api/v1/streams", content=body, headers={"Content-Type": "application/json"})
            removed = await client.delete("/api/v1/streams/door")
            return added.status_code, removed.status_code

    assert asyncio.run(ask()) == (201, 204)
    assert set(control.streams) == {"large"}


@pytest.mark.parametrize(
    ("host", "status"),
    [("evil.example", 421), ("127.0.0.1.evil.example", 421), ("localhost.evil.example:80", 421), ("127.0.0.2", 421),
     ("", 400), ("a b", 400), ("localhost:x", 400), ("user@localhost", 400)],
)  # fmt: skip
def test_another_host_name_is_refused_even_with_the_token(
    client: httpx.Client, control: FakeControl, host: str, status: int
) -> None:
    problem(client.delete("api/v1/streams/door", headers={**AUTHORIZED, "Host": host}), status)
    assert "door" in control.streams
    # Reading, too: a page that calls this machine by a name of its own would see the previews.
    problem(client.get("api/v1/streams", headers={"Host": host}), status)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8765", "localhost.", "[0:0::1]"])
def test_loopback_goes_by_its_own_names(client: httpx.Client, host: str) -> None:
    assert client.get("api/v1/streams", headers={"Host": host}).status_code == 200


def test_further_names_may_be_allowed(control: FakeControl) -> None:
    with StatusServer(control, port=0, token=TOKEN, allowed_hosts=["Fleet.Example"]) as running:
        answer = httpx.get(f"{running.url}api/v1/streams", headers={"Host": "fleet.example:443"})
        assert answer.status_code == 200


def test_without_a_token_there_are_no_changes(control: FakeControl) -> None:
    with StatusServer(control, port=0) as running, httpx.Client(base_url=running.url) as client:
        assert client.get("api/v1/streams").status_code == 200
        for method, path in CHANGES:
            assert "token" in problem(client.request(method, path, headers=AUTHORIZED), 403)
        assert "door" in control.streams


# Too much and too slow


def test_a_body_that_is_too_large_is_refused_by_its_length(client: httpx.Client, control: FakeControl) -> None:
    for size in (MOST_BYTES + 1, 20 * MOST_BYTES):
        detail = problem(client.post("api/v1/streams", content=b" " * size, headers=AUTHORIZED), 413)
        assert str(MOST_BYTES) in detail
    assert not control.added


def test_a_body_without_a_length_is_refused_before_it_is_whole(server: StatusServer) -> None:
    chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
    head = b"POST /api/v1/streams HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + TOKEN.encode()
    # The last chunk never comes, so that an answer means that nobody waited for it.
    answer = raw(server.port, head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * (MOST_BYTES // 0x1000 + 1))
    assert answer.startswith(b"HTTP/1.1 413")


def test_a_body_of_the_allowed_size_is_read(client: httpx.Client, control: FakeControl) -> None:
    body = b'{"name": "x", "values": {}}'
    answer = client.post(
        "api/v1/streams",
        content=body.ljust(MOST_BYTES),
        headers={**AUTHORIZED, "Content-Type": "application/json"},
    )
    assert answer.status_code == 201


def test_a_stranger_gets_no_body_read(server: StatusServer) -> None:
    answer = raw(server.port, b"POST /api/v1/streams HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    "request_", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000, b"\x16\x03\x01\x02\x00"]
)
def test_what_is_no_http_ends_the_connection(server: StatusServer, client: httpx.Client, request_: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        assert raw(server.port, request_ + b"\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert client.get("healthz").status_code == 200


def test_many_connections_at_once_do_not_end_it(server: StatusServer) -> None:
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
    for each in held:
        each.close()
    deadline = time.monotonic() + 10
    while httpx.get(f"{server.url}healthz").status_code != 200:
        assert time.monotonic() < deadline


def test_wrong_tokens_are_logged_once_a_second_without_the_token(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for _ in range(30):
            client.delete("api/v1/streams/door", headers={"Authorization": "Bearer guessed-by-somebody"})
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("stream")]
    assert 1 <= len(lines) <= 10
    assert "127.0.0.1" in lines[0]
    assert not [line for line in lines if "guessed" in line or TOKEN in line]


# Starting and stopping


def test_a_taken_port_is_named(server: StatusServer, control: FakeControl) -> None:
    with pytest.raises(UsageError, match=rf"127\.0\.0\.1 port {server.port}"):
        StatusServer(control, port=server.port).start()


def test_a_host_of_another_machine_is_named(control: FakeControl) -> None:
    with pytest.raises(UsageError, match=r"192\.0\.2\.1"):
        StatusServer(control, "192.0.2.1", 0, token=TOKEN).start()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "fleet.example"])
def test_an_open_address_needs_a_token(control: FakeControl, host: str) -> None:
    with pytest.raises(UsageError, match="token"):
        StatusServer(control, host, 0)


@pytest.mark.parametrize("token", ["", "short", "with a space in it", "käse-käse-käse-käse", "line\nbreak-line-break"])
def test_tokens_that_are_weak_or_cannot_be_sent_are_refused(control: FakeControl, token: str) -> None:
    with pytest.raises(UsageError, match="token") as caught:
        StatusServer(control, token=token)
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [{"port": -1}, {"port": 65536}, {"allowed_hosts": ["a:80"]}, {"allowed_hosts": [""]}, {"host": ""},
     {"allowed_hosts": ["http://a"]}, {"allow_paths": [Path("/")]}, {"token": None, "protect_reads": True}],
)  # fmt: skip
def test_arguments_that_cannot_be_meant_are_refused(control: FakeControl, changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        StatusServer(control, **{"token": TOKEN, **changes})


def test_an_open_address_protects_reading_but_not_the_probes(control: FakeControl) -> None:
    control.streams["door"] = stream("door", state="failed")
    with StatusServer(control, "0.0.0.0", 0, token=TOKEN) as running:
        base = f"http://127.0.0.1:{running.port}"
        for path in ("/api/v1/overview", "/api/v1/streams/door/preview.jpg", "/metrics"):
            problem(httpx.get(base + path), 401)
            assert httpx.get(base + path, headers=AUTHORIZED).status_code == 200
        assert httpx.get(f"{base}/").status_code == 200
        assert httpx.get(f"{base}/healthz", headers={"Host": "10.1.2.3"}).status_code == 200
        reasons = {"ready": False, "reasons": ["stream door is failed"]}
        assert httpx.get(f"{base}/readyz").json() == {"ready": False, "reasons": []}
        assert httpx.get(f"{base}/readyz", headers=AUTHORIZED).json() == reasons


def test_reading_at_an_open_address_can_be_made_free(control: FakeControl) -> None:
    with StatusServer(control, "0.0.0.0", 0, token=TOKEN, protect_reads=False) as running:
        assert httpx.get(f"http://127.0.0.1:{running.port}/api/v1/overview").status_code == 200


def test_it_stops_at_once_with_connections_open_and_leaves_nothing(control: FakeControl) -> None:
    before = set(threading.enumerate())
    running = StatusServer(control, port=0, token=TOKEN)
    running.start()
    with httpx.Client(base_url=running.url) as client:
        client.get("healthz")
        with socket.create_connection(("127.0.0.1", running.port)):
            began = time.monotonic()
            running.stop()
            assert time.monotonic() - began < 3
    running.stop()
    assert set(threading.enumerate()) <= before
    with StatusServer(control, port=running.port):
        pass


def test_it_stops_while_the_streams_do_not_answer(control: FakeControl) -> None:
    running = StatusServer(control, port=0)
    running.start()
    control.answers.clear()
    try:
        with socket.create_connection(("127.0.0.1", running.port)) as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while not any(thread.name == "standin-status-call" for thread in threading.enumerate()):
                time.sleep(0.01)
            began = time.monotonic()
            running.stop()
            assert time.monotonic() - began < 4
    finally:
        control.answers.set()
    assert not running.running


def test_it_listens_on_ipv6_too(control: FakeControl) -> None:
    running = StatusServer(control, "::1", 0)
    try:
        running.start()
    except UsageError as error:
        pytest.skip(f"no IPv6 here: {error}")
    try:
        assert running.url == f"http://[::1]:{running.port}/"
        assert httpx.get(f"{running.url}api/v1/streams").status_code == 200
    finally:
        running.stop()


def test_it_starts_once(server: StatusServer) -> None:
    with pytest.raises(StandinError, match="another"):
        server.start()


WITHOUT = """
import sys
sys.modules["fastapi"] = None
from stream.service.status import StatusServer
from engines.errors import RuntimeUnavailableError
try:
    StatusServer(None)
except RuntimeUnavailableError as error:
    print(error)
"""


def test_without_its_libraries_it_says_what_to_install() -> None:
    ended = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=60, check=False)
    assert 'pip install "standin[serve]"' in ended.stdout, ended.stderr
