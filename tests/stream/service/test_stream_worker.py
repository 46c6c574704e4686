"""The child's side: what it tells its parent, and what counts as a sign of life."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stream.anonymizer import Anonymized, Anonymizer
from stream.frame import Frame
from stream.metrics import Meter
from stream.pipeline import Pipeline
from stream.pulse import SILENT
from stream.regions import Regions
from stream.service.stream_worker import Reporter, _Forward
from stream.service.worker_messages import LOG_LINE, PREVIEW, REPORT, LogLine, Order, Report, receive
from stream.sources.live import AWAY
from stream.watch import Watch
from tests.command import ROOT
from tests.fakes import FILLS, FixedDetector, MemorySink, MemorySource, flat_settings, frames, noise
from tests.stream.service.services import SETTINGS, alive, until
from tests.stream.sources.camera import Camera


class Parent:
    """Reads what a reporter tells."""

    def __init__(self) -> None:
        read_end, write_end = os.pipe()
        self.reporter = Reporter(os.fdopen(write_end, "wb"), 0.05, self._ping)
        self.pings = 0
        self.messages: list[tuple[bytes, bytes]] = []
        self._pipe = os.fdopen(read_end, "rb")
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self.reporter.start()

    def _ping(self) -> None:
        self.pings += 1

    @property
    def reports(self) -> list[Report]:
        return [Report.model_validate_json(content) for letter, content in self.messages if letter == REPORT]

    def end(self) -> Report:
        """The last report."""
        self.reporter.close()
        self.reporter._pipe.close()
        self._thread.join(5)
        return self.reports[-1]

    def _read(self) -> None:
        with self._pipe as pipe:
            self.messages.extend(receive(pipe))


@pytest.fixture
def parent() -> Iterator[Parent]:
    there = Parent()
    yield there
    if not there.reporter._pipe.closed:
        there.end()


def item(withheld: str | None = None) -> Anonymized:
    return Anonymized(Frame(np.full((48, 64, 3), 90, np.uint8)), Regions.empty(), withheld=withheld)


def test_every_frame_that_came_is_a_sign_of_life(parent: Parent) -> None:
    for withheld in (None, "too dark", AWAY):
        parent.reporter.frame(item(withheld))
    assert parent.end().beats == 3


def test_a_frame_that_was_filled_in_because_none_came_is_no_sign_of_life(parent: Parent) -> None:
    parent.reporter.frame(item())
    for _ in range(10):
        parent.reporter.frame(item(SILENT))
    assert parent.end().beats == 1


class Hanging(MemorySource):
    hangs = True


def test_what_is_made_for_a_source_that_hangs_is_no_sign_of_life(parent: Parent) -> None:
    source, sink = Hanging(frames(noise(1))), MemorySink()
    covering = Anonymizer([FixedDetector((20, 10, 44, 34))], FILLS, flat_settings())
    parent.reporter.begin(Watch(source, [sink], Pipeline(source, covering, sink), Meter()))
    parent.reporter.frame(item())
    for _ in range(10):
        parent.reporter.frame(item(AWAY))
    source.hangs = False
    parent.reporter.frame(item(AWAY))
    last = parent.end()
    assert (last.beats, last.state) == (2, "away")


def test_before_the_first_frame_an_answer_is_a_sign_of_life_and_afterwards_it_is_none(parent: Parent) -> None:
    until(lambda: parent.pings >= 2, "pings")
    parent.reporter.pong(0, None)
    parent.reporter.pong(0, None)
    parent.reporter.frame(item())
    parent.reporter.pong(0, None)
    assert parent.end().beats == 3


def test_the_state_is_that_of_the_last_frame(parent: Parent) -> None:
    for withheld in (None, AWAY, None):
        parent.reporter.frame(item(withheld))
    assert parent.end().state == "running"
    parent_of_another = Parent()
    parent_of_another.reporter.frame(item(AWAY))
    assert parent_of_another.end().state == "away"


def test_why_the_source_is_away_is_reported_at_once_also_before_the_first_frame(parent: Parent) -> None:
    parent.reporter.source("rtsp://me:geheim@camera/1: 401 Unauthorized")
    until(lambda: any(report.source_error for report in parent.reports), "the reason")
    assert parent.reports[-1].source_error == "rtsp://***@camera/1: 401 Unauthorized"
    parent.reporter.source(None)
    last = parent.end()
    assert (last.state, last.source_error) == ("starting", None)


def test_nothing_but_withheld_frames_for_a_while_is_reported(parent: Parent) -> None:
    reporter, began = parent.reporter, time.monotonic()
    reporter.frame(item())
    while not parent.reports or parent.reports[-1].withheld_for is None:
        reporter.frame(item(SILENT))
        assert time.monotonic() - began < 10
        time.sleep(0.05)
    assert parent.reports[-1].withheld_for >= 2
    assert time.monotonic() - began >= 2
    reporter.frame(item())
    assert parent.end().withheld_for is None


@pytest.mark.parametrize("frames_in_a_row", [[None, "dark", None], [None, "dark", "dark"], [AWAY] * 5])
def test_single_withheld_frames_and_an_absent_source_are_no_alarm(
    parent: Parent, frames_in_a_row: list[str | None]
) -> None:
    for withheld in frames_in_a_row:
        parent.reporter.frame(item(withheld))
    # Nothing more comes for longer than many of them would take.
    time.sleep(2.3)
    assert parent.end().withheld_for is None


def test_what_a_run_did_and_its_last_anonymized_frame_are_reported(parent: Parent) -> None:
    reporter = parent.reporter
    covering = Anonymizer([FixedDetector((20, 10, 44, 34))], FILLS, flat_settings())
    source = MemorySource(frames(noise(5)))
    sink, meter = MemorySink(), Meter()
    pipeline = Pipeline(source, covering, sink, observers=[meter, reporter.frame])
    reporter.begin(Watch(source, [sink], pipeline, meter))
    pipeline.run()
    last = parent.end()
    assert last.snapshot is not None
    assert last.snapshot.frames["anonymized"] == 5
    assert set(last.snapshot.stage_seconds) >= {"decode", "encode"}
    assert set(last.snapshot.waiting) >= {"detect", "encode"}
    previews = [content for letter, content in parent.messages if letter == PREVIEW]
    assert previews
    assert previews[-1].startswith(b"\xff\xd8")
    # Who is told of frames can ask for one, even if the process ends right then.
    told = next(
        number
        for number, (letter, content) in enumerate(parent.messages)
        if letter == REPORT and Report.model_validate_json(content).snapshot is not None
    )
    assert PREVIEW in [letter for letter, _ in parent.messages[:told]]


def test_what_is_logged_is_forwarded_without_secrets(parent: Parent) -> None:
    log, forward = logging.getLogger("tests.forwarded"), _Forward(parent.reporter)
    log.addHandler(forward)
    log.warning("lost %s", "rtsp://me:geheim@camera/1")
    try:
        raise ConnectionError("rtsp://me:geheim@camera/1")
    except ConnectionError:
        log.exception("failed")
    log.removeHandler(forward)
    parent.reporter.error = "over"
    assert parent.end().error == "over"
    lines = [LogLine.model_validate_json(content) for letter, content in parent.messages if letter == LOG_LINE]
    assert [(line.level, line.message) for line in lines] == [
        (logging.WARNING, "lost rtsp://***@camera/1"),
        (logging.ERROR, "failed"),
    ]
    assert "geheim" not in str(lines)
    assert "ConnectionError" in (lines[1].error or "")


def test_a_parent_that_does_not_read_holds_nobody_up() -> None:
    read_end, write_end = os.pipe()
    pipe = os.fdopen(write_end, "wb")
    reporter = Reporter(pipe, 0.001, lambda: None)
    reporter.start()
    for number in range(2000):
        reporter.frame(item())
        reporter.line(LogLine(level=20, logger="x", message=f"{number} " + "x" * 1000))
    assert reporter._beats == 2000
    # And where there is no parent any more, there is nothing to be done.
    os.close(read_end)
    reporter.close()
    assert not reporter._thread.is_alive()
    with pytest.raises(BrokenPipeError):
        pipe.close()


def test_a_worker_whose_parent_has_gone_before_it_began_ends(tmp_path: Path) -> None:
    order = Order(
        name="front", parent=1, source=str(tmp_path / "in.mkv"), sinks=(str(tmp_path / "out.mkv"),), settings={}
    )
    ended = subprocess.run(
        [sys.executable, "-m", "stream.service.stream_worker", "front", "1"],
        cwd=ROOT,
        input=order.model_dump_json().encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, b"", b"")


#: Starts a worker, says which, and waits.
PARENT = """
import json, os, subprocess, sys, time
_, write = os.pipe()
worker = subprocess.Popen(
    [sys.executable, *json.loads(sys.argv[2]), "front", str(write)], stdin=subprocess.PIPE, pass_fds=(write,)
)
worker.stdin.write(json.dumps(json.loads(sys.argv[1]) | {"parent": os.getpid()}).encode())
worker.stdin.close()
print(worker.pid, flush=True)
time.sleep(60)
"""
GUARDED = ["-m", "stream.service.stream_worker"]
UNGUARDED = [
    "-c",
    "import stream.service.stream_worker as worker; worker.end_with_parent = lambda _: None; worker.main()",
]


def start_by_another(camera: Camera, folder: Path, command: list[str]) -> tuple[subprocess.Popen[str], int]:
    """A parent, and the worker that it has started, which reads from the camera."""
    order = {"name": "front", "source": camera.url, "sinks": [str(folder / "out.mkv")], "settings": SETTINGS}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, json.dumps(order), json.dumps(command)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    with parent.stdout as said:
        worker = int(said.readline())
    until(lambda: camera.clients, "the camera's client")
    return parent, worker


@pytest.mark.usefixtures("at_home")
def test_a_worker_ends_with_its_parent_even_when_it_is_stopped(camera: Camera, tmp_path: Path) -> None:
    parent, worker = start_by_another(camera, tmp_path, GUARDED)
    os.kill(worker, signal.SIGSTOP)
    parent.kill()
    parent.wait()
    until(lambda: not alive(worker), "its end", 5)


@pytest.mark.usefixtures("at_home")
def test_control_without_the_guard_a_worker_outlives_its_parent(camera: Camera, tmp_path: Path) -> None:
    parent, worker = start_by_another(camera, tmp_path, UNGUARDED)
    parent.kill()
    parent.wait()
    try:
        with pytest.raises(AssertionError):
            until(lambda: not alive(worker), "its end", 2)
    finally:
        os.kill(worker, signal.SIGKILL)
