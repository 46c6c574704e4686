"""Pipelines that take what they are given, and those that do not: nobody waits for them."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engines.errors import RuntimeUnavailableError, SinkError, UsageError
from stream.gst import NANOSECONDS
from stream.sinks.gst_line import Line, Piece
from stream.sinks.network import SinkOptions
from tests.gstreamer import need, threads, wait_until

CAPS = "video/x-raw, format=(string)GRAY8, width=(int)64, height=(int)64, framerate=(fraction)20/1"
SIZE = 64 * 64
FAST = SinkOptions(timeout=0.5, longest_wait=0.2)


@pytest.fixture(autouse=True)
def gstreamer() -> None:
    need("appsrc", "identity", "filesink", "fakesink", "queue")


def piece(number: int, *, key: bool = True) -> Piece:
    return Piece(bytes([number % 256]) * SIZE, number * NANOSECONDS // 20, CAPS, key)


def feed(line: Line, count: int, *, first: int = 0, pause: float = 0.05) -> float:
    """Push so many pieces; the longest time that one took."""
    slowest = 0.0
    for number in range(first, first + count):
        began = time.monotonic()
        line.push(piece(number))
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(pause)
    return slowest


def until_given_up(line: Line) -> None:
    for number in range(200):
        line.check()
        assert feed(line, 1, first=number) < 0.3


def test_everything_arrives_and_the_end_does_too(tmp_path: Path) -> None:
    line = Line("x", f"filesink location={tmp_path / 'out'}", FAST, room=8)
    feed(line, 20, pause=0.01)
    line.end(2)
    content = np.fromfile(tmp_path / "out", np.uint8).reshape(-1, SIZE)
    assert [int(row[0]) for row in content] == list(range(20))
    assert (line.dropped, line.reconnects) == (0, 0)
    assert not threads()


def test_time_begins_with_the_pipeline(tmp_path: Path) -> None:
    """A stream that has been going for hours, in front of an element that goes by the clock."""
    line = Line("x", f"identity sync=true ! filesink location={tmp_path / 'out'}", FAST, room=8)
    feed(line, 10, first=20 * 3600 * 5)
    line.end(2)
    assert (tmp_path / "out").stat().st_size == 10 * SIZE


def test_a_pipe_that_nobody_reads_holds_up_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It takes 64 KiB, and then a write into it blocks for good."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    line = Line("x", f"filesink location={pipe} buffer-mode=unbuffered", FAST, room=4)
    with caplog.at_level(logging.WARNING):
        assert feed(line, 60) < 0.5
    assert line.dropped >= 10
    assert "it took nothing in time" in caplog.text
    began = time.monotonic()
    line.end(0)
    assert time.monotonic() - began < 1.5
    os.close(reader)
    wait_until(lambda: not threads())


def test_a_pipeline_that_cannot_start_is_given_up(tmp_path: Path) -> None:
    """Opening a pipe that nobody has opened for reading waits for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    line = Line("x", f"filesink location={pipe}", SinkOptions(timeout=0.3, attempts=0, longest_wait=0.1), room=4)
    with pytest.raises(SinkError, match=r"x: it took nothing in time \(given up: failed once\)"):
        until_given_up(line)
    os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
    wait_until(lambda: not threads())


@pytest.fixture
def unread(tmp_path: Path) -> Iterator[Line]:
    """One whose pipeline hangs on its way to the start, and cannot be ended."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    yield Line("x", f"filesink location={pipe}", SinkOptions(timeout=20), room=4)
    os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
    wait_until(lambda: not threads())


def seconds_to_end(line: Line, seconds: float) -> float:
    began = time.monotonic()
    line.end(seconds)
    return time.monotonic() - began


def test_an_end_waits_no_longer_than_a_pipeline_gets_for_it(unread: Line) -> None:
    assert 0.5 < seconds_to_end(unread, 0.5) < 1.8


def test_in_a_hurry_an_end_takes_no_longer_altogether(unread: Line) -> None:
    unread.hurry(0.6)
    unread.hurry(60)
    assert seconds_to_end(unread, 1.5) < 0.9


def test_a_hurry_that_begins_while_it_ends_counts(unread: Line) -> None:
    told = threading.Timer(0.2, lambda: unread.hurry(0.4))
    told.start()
    assert seconds_to_end(unread, 10) < 0.9
    told.join()


def test_in_a_hurry_what_can_end_does(tmp_path: Path) -> None:
    line = Line("x", f"filesink location={tmp_path / 'out'}", FAST, room=8)
    feed(line, 5, pause=0.01)
    line.hurry(0.6)
    assert seconds_to_end(line, 1.5) < 0.5
    assert (tmp_path / "out").stat().st_size == 5 * SIZE
    assert not threads()


def test_one_that_fails_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        line = Line("x", "identity error-after=12 ! fakesink", FAST, room=8)
        wait_until(lambda: feed(line, 1) < 1 and line.reconnects >= 2)
        line.check()
        line.end(0)
    assert len([record for record in caplog.records if record.getMessage().endswith("trying again")]) == 1


def test_one_that_works_again_is_said_to(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        line = Line("x", "identity error-after=60 ! fakesink", FAST, room=8)
        feed(line, 65, pause=0.01)
        wait_until(lambda: feed(line, 1) < 1 and "x takes the stream again" in caplog.text)
        line.end(0)


def test_attempts_come_to_an_end() -> None:
    line = Line("x", "identity error-after=1 ! fakesink", SinkOptions(attempts=2, longest_wait=0.1), room=8)
    with pytest.raises(SinkError, match=r"given up: failed 3 times in a row"):
        until_given_up(line)
    wait_until(lambda: not threads())


def test_nothing_follows_a_hole_but_what_depends_on_nothing(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    line = Line("x", f"filesink location={pipe} buffer-mode=unbuffered", SinkOptions(timeout=20), room=4)
    assert line.wants_key
    line.push(piece(200, key=False))
    assert line.dropped == 1
    line.push(piece(0))
    assert not line.wants_key
    number = 1
    while not line.wants_key:
        line.push(piece(number, key=False))
        number += 1
        time.sleep(0.01)
    seen = b""
    end = time.monotonic() + 10
    while len(seen) < SIZE * (number - 1) and time.monotonic() < end:
        try:
            seen += os.read(reader, 2**20)
        except BlockingIOError:
            time.sleep(0.01)
    line.push(piece(201, key=False))
    line.push(piece(100))
    while len(seen) < SIZE * number and time.monotonic() < end:
        try:
            seen += os.read(reader, 2**20)
        except BlockingIOError:
            time.sleep(0.01)
    line.end(1)
    os.close(reader)
    assert list(seen[::SIZE]) == [*range(number - 1), 100]
    assert line.dropped == 3


@pytest.mark.parametrize(
    ("tail", "error"),
    [("nonsense", RuntimeUnavailableError), ("fakesink colour=1", UsageError), ("fakesink !", UsageError)],
)
def test_what_cannot_be_is_said_at_once(tail: str, error: type[Exception]) -> None:
    before = threads()
    with pytest.raises(error):
        Line("x", tail, FAST, room=8)
    assert threads() == before
