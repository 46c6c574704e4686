"""`standin run` ends in time when it is asked to, whoever it waits for: a writer, or a server that never reads."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import FACE, FLAT, ROOT, RUN
from tests.fakes import noise, read_pictures, shows_nothing, write_lossless
from tests.stream.sinks.servers import Deaf
from tests.stream.sources.camera import Camera, packets

pytestmark = pytest.mark.usefixtures("at_home")

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
#: Seconds in which a run has gone, on a machine that has nothing else to do.
_SECONDS = 3.0
_DEADLINE = 60.0


@contextlib.contextmanager
def started(*arguments: object, source: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
    """A run of its own."""
    command = [sys.executable, "-m", "stream", *RUN, *map(str, arguments)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], reached: object) -> None:
    limit = time.monotonic() + _DEADLINE
    while not reached():  # type: ignore[operator]
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.02)


def ends_in_time(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """What it said on standard error."""
    busy = max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))
    began = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=_DEADLINE)
    took = time.monotonic() - began
    assert took < _SECONDS * busy, errors
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    return errors


class Stalled:
    """A pipe with something in it, to which nothing is added and whose end never comes."""

    def __enter__(self) -> Stalled:
        self.reading, self._writing = os.pipe()
        return self

    def write(self, content: bytes, process: subprocess.Popen[str]) -> None:
        """All of it, as it is read; returns when that has happened."""
        os.set_blocking(self._writing, False)
        rest = memoryview(content)

        def done() -> bool:
            nonlocal rest
            with contextlib.suppress(BlockingIOError):
                rest = rest[os.write(self._writing, rest) :] if rest else rest
            unread = struct.unpack("i", fcntl.ioctl(self.reading, termios.FIONREAD, bytes(4)))[0]
            return not rest and not unread

        wait_for(process, done)

    def __exit__(self, *_: object) -> None:
        os.close(self.reading)
        os.close(self._writing)


@SIGNALS
def test_silent_standard_input_keeps_nobody(number: signal.Signals, tmp_path: Path) -> None:
    with Stalled() as pipe, started("-", tmp_path / "out.mkv", *FLAT, source=pipe.reading) as process:
        # So it waits for the rest of what says what it is.
        pipe.write(b"\x1a", process)
        errors = ends_in_time(process, number)
    assert "interrupted" in errors
    assert list(tmp_path.iterdir()) == []


@SIGNALS
def test_standard_input_that_stalls_in_the_middle_keeps_nobody(number: signal.Signals, tmp_path: Path) -> None:
    clip = write_lossless(tmp_path / "clip.mkv", noise(60)).read_bytes()
    folder = tmp_path / "out"
    folder.mkdir()
    with Stalled() as pipe, started("-", folder / "out.mkv", *FLAT, source=pipe.reading) as process:
        pipe.write(clip[: len(clip) * 3 // 4], process)
        wait_for(process, lambda: any(path.stat().st_size > 20_000 for path in folder.iterdir()))
        errors = ends_in_time(process, number)
    assert "not complete" not in errors
    pictures = read_pictures(folder / "out.mkv")
    assert 10 <= len(pictures) <= 45
    assert all(shows_nothing(picture, FACE) for picture in pictures)
    assert [path.name for path in folder.iterdir()] == ["out.mkv"]


@SIGNALS
def test_a_server_that_never_reads_keeps_nobody_and_the_recording_beside_it_is_whole(
    number: signal.Signals, tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    with Camera(packets()) as camera, Deaf() as deaf:
        server = f"rtmp://127.0.0.1:{deaf.port}/live/x"
        with started(camera.url, out, server, "--face", "mask", "--log-format", "text") as process:
            wait_for(process, lambda: deaf.clients and any(path.stat().st_size for path in tmp_path.iterdir()))
            # The server is to have something that it does not read.
            time.sleep(1.0)
            ends_in_time(process, number)
    assert len(read_pictures(out)) >= 10
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
