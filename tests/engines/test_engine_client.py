from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engines.engine_client import EngineConnection, ping
from engines.engine_messages import Done, Open, Opened, Pulse, make_socket, receive
from engines.errors import RuntimeFailedError
from engines.private_socket import listen
from engines.shared_arrays import Outbox
from tests.engines.serving import SECONDS, descriptors, feeds

#: For who has patience.
LATER = 1e9
OPEN = Open(bundle="/b", digest="0" * 64, graph="detector", device="cpu", threads=None, spinning=False)
OPENED = Opened(provider="p", limit=2**20).model_dump_json().encode()
PULSE = Pulse(device="cpu").model_dump_json().encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "engine"


@contextlib.contextmanager
def saying(path: Path, *answers: bytes, descriptors: tuple[int, ...] = ()) -> Iterator[None]:
    """A process that gives these answers to the first client, whatever it asks, and hangs up."""
    with listen(path) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                for number, answer in enumerate(answers):
                    receive(connection)
                    given = descriptors if number == len(answers) - 1 else ()
                    socket.send_fds(connection, [answer], list(given)) if given else connection.send(answer)
                receive(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(SECONDS)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (b"\xff", "makes no sense"),
        (b'{"kind": "opened"}', "makes no sense"),
        (b'{"kind": "opened", "provider": "p", "limit": -1}', "makes no sense"),
        (PULSE, "'pulse' to another question"),
        (b"", "has gone"),
    ],
)
def test_a_process_that_says_what_makes_no_sense_is_not_believed(path: Path, said: bytes, text: str) -> None:
    with saying(path, said):
        connection = EngineConnection(path, LATER)
        with pytest.raises(RuntimeFailedError, match=text):
            connection.open(OPEN, LATER)
        connection.close()


def test_outputs_outside_of_what_is_shared_are_refused(path: Path) -> None:
    specs, descriptor = Outbox(2**20).put({"y": np.zeros(4, np.float32)})
    assert descriptor is not None
    wrong = tuple(spec.model_copy(update={"offset": 2**20}) for spec in specs)
    said = Done(number=1, arrays=wrong).model_dump_json().encode()
    with saying(path, OPENED, said, descriptors=(descriptor,)):
        connection = EngineConnection(path, LATER)
        connection.open(OPEN, LATER)
        with pytest.raises(RuntimeFailedError, match="does not lie in"):
            connection.run(feeds(1), LATER)
        connection.close()
    os.close(descriptor)


def test_a_run_that_comes_too_late_to_be_asked_for_leaves_no_descriptor(path: Path) -> None:
    with saying(path, OPENED):
        connection = EngineConnection(path, LATER)
        connection.open(OPEN, LATER)
        before = descriptors()
        with pytest.raises(RuntimeFailedError, match="no answer within"):
            connection.run(feeds(1), time.monotonic() - 1)
        # The memory itself, which the connection keeps.
        assert descriptors() == before + 1
        connection.close()


def test_silence_ends_when_the_time_is_up(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with make_socket() as silent:
        silent.bind(str(path))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(RuntimeFailedError, match=r"no answer within 0\.2 s"):
            ping(path, 0.2)
        assert 0.19 < time.monotonic() - began < 5


def test_a_process_with_no_room_for_another_connection_is_an_error_in_time(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with make_socket() as silent, contextlib.ExitStack() as stack:
        silent.bind(str(path))
        silent.listen(0)

        def fill() -> None:
            for _ in range(20):
                stack.callback(EngineConnection(path, time.monotonic() + 0.2).close)

        with pytest.raises(RuntimeFailedError, match="no engine process answers"):
            fill()


def test_nobody_there_is_an_error_at_once(path: Path) -> None:
    with pytest.raises(RuntimeFailedError, match="No such file"):
        ping(path, SECONDS)
    path.parent.mkdir(mode=0o700)
    with make_socket() as dead:
        dead.bind(str(path))
    with pytest.raises(RuntimeFailedError, match="refused"):
        ping(path, SECONDS)
