from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.service.systemd import Notifier


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        yield listening


def environment(listener: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(listener.getsockname()), **more}


def test_what_becomes_of_the_service_is_told(listener: socket.socket) -> None:
    notifier = Notifier(environment(listener))
    notifier.ready()
    notifier.reloading()
    for _ in range(3):
        notifier.status("two streams\nREADY=0")
    notifier.stopping()
    told = [listener.recv(1000).decode() for _ in range(4)]
    assert told[0] == "READY=1"
    assert told[1].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert told[2] == "STATUS=two streams READY=0"
    assert told[3] == "STOPPING=1"


def test_signs_of_life_come_twice_as_often_as_they_must(listener: socket.socket) -> None:
    notifier = Notifier(environment(listener, WATCHDOG_USEC="10000000", WATCHDOG_PID=str(os.getpid())))
    assert notifier.interval == 5
    for _ in range(100):
        notifier.alive()
    assert listener.recv(1000) == b"WATCHDOG=1"
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.recv(1000)


@pytest.mark.parametrize(
    "more", [{}, {"WATCHDOG_USEC": "10", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "nonsense"}, {"WATCHDOG_USEC": "0"}]
)
def test_there_are_none_where_nobody_waits_for_them(more: dict[str, str], listener: socket.socket) -> None:
    notifier = Notifier(environment(listener, **more))
    notifier.alive()
    assert notifier.interval is None
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.recv(1000)


def test_a_socket_without_a_file_is_found_by_its_name() -> None:
    name = f"standin-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(5)
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert listening.recv(1000) == b"READY=1"


@pytest.mark.parametrize("variables", [{}, {"NOTIFY_SOCKET": "/nobody/listens/here"}])
def test_without_systemd_nothing_is_sent_and_nothing_fails(variables: dict[str, str]) -> None:
    Notifier(variables).ready()
