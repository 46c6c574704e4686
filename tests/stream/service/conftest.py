from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from stream.service.control import EngineStatus
from stream.service.status import StatusServer
from tests.fakes import Box
from tests.stream.service.fake_control import TOKEN, FakeControl, stream
from tests.stream.service.services import FACE
from tests.stream.sources.camera import Camera, packets


@pytest.fixture(scope="module")
def face() -> Box:
    """What the store's one detector sees in every picture."""
    return FACE


@pytest.fixture(scope="session")
def pieces() -> list[bytes]:
    """What a camera sends."""
    return packets()


@pytest.fixture
def camera(pieces: list[bytes]) -> Iterator[Camera]:
    with Camera(pieces) as plugged:
        yield plugged


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[FakeControl, StatusServer]]:
    """One server for all tests of a file that do not ask for another."""
    control = FakeControl()
    with StatusServer(control, port=0, token=TOKEN) as running:
        yield control, running
    assert not running.running


@pytest.fixture
def control(served: tuple[FakeControl, StatusServer]) -> FakeControl:
    """What the server shows: one stream, called `door`."""
    served[0].reset(stream("door"), engines=(EngineStatus(device="cuda", running=True, runs=7, rows=21),))
    return served[0]


@pytest.fixture
def server(served: tuple[FakeControl, StatusServer], control: FakeControl) -> StatusServer:
    return served[1]


@pytest.fixture
def client(server: StatusServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=10) as opened:
        yield opened
