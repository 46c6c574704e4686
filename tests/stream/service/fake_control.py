"""Streams that do nothing: a small `stream.control.Control` that can be looked at and changed; how to ask for it."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Mapping
from typing import Any

import httpx
from PIL import Image

from engines.errors import UsageError
from stream.metrics import LATENCY_BOUNDS, Latencies, Snapshot
from stream.service.control import EngineStatus, Overview, StreamStatus, UnknownStreamError

TOKEN = "a-token-of-the-tests-0123456789"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
#: A stream that can be added.
NEW = {"name": "yard", "values": {"input": "rtsp://camera/yard", "output": "rtsp://server/yard"}}
SNAPSHOT = Snapshot(
    seconds=61.5,
    frames={"anonymized": 12345, "withheld": 3, "dropped": 17},
    regions={"face": 2, "person": 4},
    rate=24.75,
    latency=Latencies(counts=(1,) * (len(LATENCY_BOUNDS) + 1), total=12.5, recent=(0.11, 0.182, 0.3)),
    stage_seconds={"detect": 4.5},
    waiting={"looked": 1},
    reconnects={"source": 5, "sink": 1},
)


def stream(name: str, **changes: Any) -> StreamStatus:
    """A stream that runs."""
    values: dict[str, Any] = {"source": "rtsp://camera/door", "sinks": ("rtsp://server/door",), "since": 1e9}
    return StreamStatus(**{"name": name, "state": "running", "snapshot": SNAPSHOT, **values, **changes})


def jpeg(colour: tuple[int, int, int] = (40, 120, 90)) -> bytes:
    """A small flat picture."""
    file = io.BytesIO()
    Image.new("RGB", (64, 36), colour).save(file, "JPEG")
    return file.getvalue()


def problem(answer: httpx.Response, status: int) -> str:
    """The sentence of an answer that must be a problem."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) == {"type", "title", "status", "detail"}
    assert body["status"] == status
    return str(body["detail"])


def raw(port: int, request: bytes) -> bytes:
    """Everything that comes back to bytes that an HTTP library would not send."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(request)
        received = b""
        while more := connection.recv(65536):
            received += more
    return received


class FakeControl:
    """Streams in a dictionary.

    Args:
        streams: that there are.
        engines: that there are.
    """

    def __init__(self, *streams: StreamStatus, engines: tuple[EngineStatus, ...] = ()) -> None:
        #: While it is not set, nothing is answered.
        self.answers = threading.Event()
        self.reset(*streams, engines=engines)

    def reset(self, *streams: StreamStatus, engines: tuple[EngineStatus, ...] = ()) -> None:
        """As if it were made anew."""
        self.streams = {each.name: each for each in streams}
        self.engines = engines
        self.picture: bytes | None = jpeg()
        self.added: dict[str, dict[str, Any]] = {}
        self.still = 0.0
        self.answers.set()

    def overview(self) -> Overview:
        self.answers.wait()
        return Overview(streams=tuple(self.streams.values()), engines=self.engines)

    def stood_still(self) -> float:
        return self.still

    def preview(self, name: str) -> bytes | None:
        self._require(name)
        return self.picture

    def add(self, name: str, values: Mapping[str, Any]) -> None:
        if name in self.streams:
            raise UsageError(f"there is a stream {name!r} already; its source is rtsp://user:secret@camera/x")
        self.added[name] = dict(values)
        self.streams[name] = stream(name, state="starting", snapshot=None)

    def pause(self, name: str) -> None:
        self._change(name, "paused")

    def resume(self, name: str) -> None:
        self._change(name, "running")

    def remove(self, name: str) -> None:
        self._require(name)
        del self.streams[name]

    def _change(self, name: str, state: str) -> None:
        self._require(name)
        self.streams[name] = self.streams[name].model_copy(update={"state": state})

    def _require(self, name: str) -> None:
        if name not in self.streams:
            raise UnknownStreamError(f"there is no stream {name!r}")
