"""Whoever reads the pipe gets every frame at once, and whoever does not holds up nothing for long."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from engines.errors import SinkError, StreamStoppedError, UsageError
from stream.sinks.base import Hurried
from stream.sinks.pipe import PipeSink
from tests.fakes import finishes_within
from tests.stream.sinks.recordings import INFO, RATE, numbered, play

#: Frames that no pipe has room for.
LARGE = replace(INFO, width=240, height=160)


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Both ends."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as out, os.fdopen(writing, "wb") as into:
        yield out, into


def write_for_ever(sink: PipeSink) -> None:
    noise = np.random.default_rng(0)
    for number in range(10_000):
        item = numbered(number, width=LARGE.width, height=LARGE.height)
        item.image[:] = noise.integers(0, 255, item.image.shape, np.uint8)
        sink.write(item)


def test_every_frame_arrives_in_time(tmp_path: Path) -> None:
    with (tmp_path / "out.mkv").open("wb") as file:
        sink = PipeSink(file, INFO)
        for number in range(50):
            sink.write(numbered(number))
        sink.close()
        sink.abort()
    played = play(tmp_path / "out.mkv")
    assert played.numbers == list(range(50))
    assert played.begins_with_key
    assert np.allclose(played.times, np.arange(50) / RATE, atol=1e-3)


def test_a_stream_without_a_descriptor_will_do() -> None:
    stream = io.BytesIO()
    sink = PipeSink(stream, INFO)
    sink.write(numbered(0))
    sink.close()
    assert play(io.BytesIO(stream.getvalue())).numbers == [0]


def test_a_frame_is_on_its_way_when_the_next_one_comes(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    out, into = pipe
    sink = PipeSink(into, INFO)
    seen = b""
    for number in range(20):
        sink.write(numbered(number))
        seen += out.read(65_536)
        if number:
            assert play(io.BytesIO(seen)).numbers == list(range(number))
    sink.abort()


def test_a_program_reads_it_while_it_is_made() -> None:
    script = (
        "import av, sys\n"
        "with av.open(sys.stdin.buffer) as container:\n"
        "    print(sum(1 for _ in container.decode(video=0)))\n"
    )
    reader = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert reader.stdin is not None
    sink = PipeSink(reader.stdin, INFO)
    for number in range(300):
        sink.write(numbered(number))
    sink.close()
    assert reader.communicate(timeout=30)[0].strip() == b"300"


def test_a_reader_that_has_gone_ends_the_run(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    out, into = pipe
    sink = PipeSink(into, INFO)
    sink.write(numbered(0))
    out.close()
    with pytest.raises(SinkError, match="whoever read standard output has gone"):
        finishes_within(10, lambda: write_small(sink))
    sink.abort()


def write_small(sink: PipeSink) -> None:
    for number in range(10_000):
        sink.write(numbered(number))


def test_a_reader_that_never_reads_is_not_waited_for_at_the_end(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    sink = PipeSink(pipe[1], LARGE)
    assert isinstance(sink, Hurried)
    failed: list[BaseException] = []

    def write() -> None:
        try:
            write_for_ever(sink)
        except SinkError as error:
            failed.append(error)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    writer.join(1.0)
    # The control: it waits for as long as nobody says otherwise.
    assert writer.is_alive()
    began = time.monotonic()
    sink.hurry(0.3)
    writer.join(5)
    assert not writer.is_alive()
    assert 0.2 < time.monotonic() - began < 1
    assert "took nothing in time" in str(failed[0])
    with pytest.raises(SinkError, match="took nothing in time"):
        sink.close()


def test_a_reader_that_takes_nothing_in_time_ends_the_run(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    sink = PipeSink(pipe[1], LARGE, timeout=0.5)
    began = time.monotonic()
    with pytest.raises(SinkError, match="took nothing in time"):
        finishes_within(10, lambda: write_for_ever(sink))
    assert 0.5 < time.monotonic() - began < 3
    sink.abort()


def test_giving_up_ends_a_write_that_waits(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    sink = PipeSink(pipe[1], LARGE)
    threading.Timer(0.5, sink.abort).start()
    began = time.monotonic()
    with pytest.raises(SinkError, match="took nothing in time"):
        finishes_within(10, lambda: write_for_ever(sink))
    assert time.monotonic() - began < 1.5


def test_a_slow_reader_gets_all(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    out, into = pipe
    seen = bytearray()

    def read() -> None:
        while some := out.read(3000):
            seen.extend(some)
            time.sleep(0.001)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    sink = PipeSink(into, INFO, codec="mpeg4")
    for number in range(200):
        sink.write(numbered(number))
    sink.close()
    into.close()
    reader.join(10)
    assert play(io.BytesIO(bytes(seen))).numbers == list(range(200))


def test_a_run_without_frames_writes_nothing(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    out, into = pipe
    PipeSink(into, INFO).close()
    into.close()
    assert out.read(1) == b""


def test_a_changed_size_ends_the_run() -> None:
    stream = io.BytesIO()
    sink = PipeSink(stream, INFO)
    sink.write(numbered(0))
    with pytest.raises(StreamStoppedError, match="have become 120x64 instead of 96x48"):
        sink.write(numbered(1, width=120, height=64))
    sink.close()
    assert play(io.BytesIO(stream.getvalue())).numbers == [0]


def test_what_cannot_be_meant_is_refused() -> None:
    ours, theirs = pty.openpty()
    with (
        os.fdopen(ours, "rb", buffering=0),
        os.fdopen(theirs, "wb", buffering=0) as terminal,
        pytest.raises(UsageError, match="is a terminal"),
    ):
        PipeSink(terminal, INFO)
    with pytest.raises(UsageError, match="no encoder 'nonsense'"):
        PipeSink(io.BytesIO(), INFO, codec="nonsense")


def test_a_full_disk_is_an_error() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("wb", buffering=0) as full:
        sink = PipeSink(full, INFO)
        with pytest.raises(SinkError, match="cannot write to standard output: No space left"):
            sink.write(numbered(0))
        sink.abort()
