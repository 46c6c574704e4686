"""One stream in a process of its own, whatever becomes of that process."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream.service.serve_config import SupervisorConfig
from tests.fakes import noise, read_pictures, shows_nothing, write_lossless
from tests.stream.service.services import FACE, alive, group, make_process, runs, ticking
from tests.stream.sources.camera import Camera

pytestmark = pytest.mark.usefixtures("at_home")


def test_a_file_is_anonymized_and_the_stream_has_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    write_lossless(tmp_path / "in.mkv", noise(5))
    process = make_process(tmp_path, "in.mkv")
    with ticking(process) as tick_until:
        tick_until(lambda: process.status().state == "ended", "the end of the file")
    pictures = read_pictures(tmp_path / "out.mkv")
    assert len(pictures) == 5
    assert all(shows_nothing(picture, FACE) for picture in pictures)
    status = process.status()
    assert (status.restarts, status.last_error) == (0, None)
    assert status.snapshot is not None
    assert status.snapshot.frames["anonymized"] == 5
    assert status.snapshot.stage_seconds["encode"] > 0
    shown = cv2.imdecode(np.frombuffer(process.preview() or b"", np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    assert shown.shape == (48, 64, 3)
    assert shown[14:30, 24:40].mean() < 10 < shown[36:, 46:].mean()
    assert {getattr(record, "stream", None) for record in caplog.records} == {"front"}
    assert any("detector.onnx" in record.getMessage() for record in caplog.records)


def test_a_killed_worker_is_started_again_and_so_is_a_stopped_one(camera: Camera, tmp_path: Path) -> None:
    process = make_process(tmp_path, camera.url, supervisor=SupervisorConfig(silence=4, longest_wait=0.3))
    with ticking(process) as tick_until:
        for number, reason in (
            (signal.SIGKILL, "its process was ended by SIGKILL"),
            (signal.SIGSTOP, "no sign of life for 4 s"),
        ):
            tick_until(lambda: runs(process), "frames")
            pid, began = process.pid, time.monotonic()
            assert pid is not None
            os.kill(pid, number)
            tick_until(lambda: process.status().state == "restarting", "the end of the worker")
            assert time.monotonic() - began < 15
            assert process.status().last_error == reason
            assert process.preview()
            assert not group(pid)
        tick_until(lambda: runs(process), "frames again")
        assert process.status().restarts == 2


def test_a_playlist_goes_on_after_its_worker_was_killed(camera: Camera, tmp_path: Path) -> None:
    playlist = tmp_path / "live.m3u8"
    process = make_process(tmp_path, camera.url, playlist.name, codec="libx264", overwrite=False)
    with ticking(process) as tick_until:
        tick_until(playlist.exists, "a segment")
        first = set(tmp_path.glob("live-*.ts"))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        tick_until(lambda: process.status().restarts == 1, "the end of the worker")
        tick_until(lambda: playlist.exists() and not first & set(tmp_path.glob("live-*.ts")), "segments of another")
        tick_until(lambda: runs(process), "frames again")
        assert process.status().state == "running"
    assert (process.status().restarts, process.status().last_error) == (1, "its process was ended by SIGKILL")


def test_a_playlist_of_somebody_else_is_not_replaced(camera: Camera, tmp_path: Path) -> None:
    (tmp_path / "films.m3u8").write_text("#EXTM3U\nholiday.mp4\n")
    process = make_process(tmp_path, camera.url, "films.m3u8", codec="libx264", overwrite=False)
    with ticking(process) as tick_until:
        tick_until(lambda: process.status().state == "failed", "the refusal")
    assert "films.m3u8 exists" in (process.status().last_error or "")
    assert (tmp_path / "films.m3u8").read_text() == "#EXTM3U\nholiday.mp4\n"


def test_a_worker_shows_no_address_and_dumps_no_core(camera: Camera, tmp_path: Path) -> None:
    process = make_process(tmp_path, camera.url)
    with ticking(process) as tick_until:
        tick_until(lambda: camera.clients, "the camera's client")
        pid = process.pid
        arguments = Path(f"/proc/{pid}/cmdline").read_text()
        limits = Path(f"/proc/{pid}/limits").read_text()
        # Nobody but root can look into a process that must not be dumped.
        owner = Path(f"/proc/{pid}/environ").stat().st_uid
    assert "front" in arguments
    assert not any(secret in arguments for secret in ("secret", "127.0.0.1", "out.mkv"))
    assert "Max core file size        0 " in limits
    assert owner == 0
    assert not alive(pid or 0)


def test_a_stream_is_paused_and_resumed(camera: Camera, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    process = make_process(tmp_path, camera.url, report="front.jsonl")
    with ticking(process) as tick_until:
        tick_until(lambda: runs(process), "frames")
        process.want("paused")
        assert process.status().state == "paused"
        tick_until(lambda: process.pid is None, "the end of the worker")
        assert read_pictures(tmp_path / "out.mkv")
        assert process.status().state == "paused"
        # What it did is told in the end, how late it was, too.
        assert re.search(
            r"it has ended: \d+ frames, .* too late .*latency \d+ ms at the median, .* at 99 %", caplog.text
        )
        said = json.loads((tmp_path / "front.jsonl").read_text().splitlines()[-1])
        assert said["type"] == "summary"
        assert 0 < said["latency"]["median"] <= said["latency"]["p99"]
        assert said["late"] >= 0
        process.want("running")
        tick_until(lambda: runs(process), "frames again")
        # Before the end, which counts as one.
        assert process.status().restarts == 0


def test_secrets_are_neither_shown_nor_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    process = make_process(
        tmp_path, "http://me:geheim99@127.0.0.1:9/live?key=geheim99", reconnect_attempts=0, connect_timeout=1
    )
    with ticking(process) as tick_until:
        tick_until(lambda: process.status().state == "restarting", "an error")
    shown = process.status().model_dump_json() + caplog.text
    assert "127.0.0.1:9" in shown
    assert "geheim99" not in shown
