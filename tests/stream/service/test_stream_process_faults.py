"""One stream in a process of its own that gets stuck, or that nothing can come of."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from stream.service.serve_config import SupervisorConfig
from tests.fakes import noise, write_lossless
from tests.stream.service.services import make_process, runs, ticking
from tests.stream.sources.camera import Camera

pytestmark = pytest.mark.usefixtures("at_home")


def test_a_worker_that_is_stuck_in_a_native_call_is_killed(tmp_path: Path) -> None:
    # Opening it waits for somebody who writes, inside of FFmpeg; other threads of the worker go on.
    os.mkfifo(tmp_path / "in.mkv")
    process = make_process(tmp_path, "in.mkv", supervisor=SupervisorConfig(silence=3, start=4, longest_wait=0.3))
    with ticking(process) as tick_until:
        tick_until(lambda: process.status().state == "restarting", "the end of the worker")
    assert process.status().last_error == "no sign of life for 4 s"


def test_a_worker_that_waits_for_its_camera_is_not(camera: Camera, tmp_path: Path) -> None:
    camera.unplug()
    process = make_process(tmp_path, camera.url, supervisor=SupervisorConfig(silence=3, start=4, longest_wait=0.3))
    with ticking(process) as tick_until:
        began = time.monotonic()
        tick_until(lambda: time.monotonic() - began > 7, "time")
        assert process.status().state == "starting"
        assert process.status().restarts == 0
        camera.plug_in()
        tick_until(lambda: runs(process), "frames")


def test_wrong_usage_is_not_tried_again(tmp_path: Path) -> None:
    write_lossless(tmp_path / "in.mkv", noise(3))
    (tmp_path / "out.mkv").mkdir()
    process = make_process(tmp_path, "in.mkv")
    with ticking(process) as tick_until:
        tick_until(lambda: process.status().state == "failed", "the end of the worker")
        assert process.status().restarts == 0
        assert "out.mkv is a folder; a file is expected" in (process.status().last_error or "")
        # But when somebody says so.
        (tmp_path / "out.mkv").rmdir()
        process.want("running")
        tick_until(lambda: process.status().state == "ended", "the end of the file")


@pytest.mark.parametrize("sink", ["disk/recordings/", "disk/live.m3u8"])
def test_a_folder_that_is_there_later_is_waited_for(camera: Camera, tmp_path: Path, sink: str) -> None:
    disk = tmp_path / "disk"
    process = make_process(tmp_path, camera.url, sink, codec="libx264")
    with ticking(process) as tick_until:
        tick_until(lambda: process.status().restarts == 2, "two starts")
        assert process.status().state == "restarting"
        assert process.status().last_error == f"{disk} is not there; it is looked for again"
        disk.mkdir()
        tick_until(lambda: runs(process), "frames")


def test_a_file_that_is_there_later_is_waited_for(tmp_path: Path) -> None:
    process = make_process(tmp_path, "late.mkv")
    with ticking(process) as tick_until:
        tick_until(lambda: process.status().restarts == 1, "a start")
        assert process.status().last_error == f"{tmp_path / 'late.mkv'} is not there; it is looked for again"
        write_lossless(tmp_path / "new.mkv", noise(3)).rename(tmp_path / "late.mkv")
        tick_until(lambda: process.status().state == "ended", "the end of the file")


def test_what_fails_too_often_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "in.mp4").write_bytes(b"no video")
    process = make_process(tmp_path, "in.mp4", supervisor=SupervisorConfig(attempts=1, longest_wait=0.3))
    with ticking(process) as tick_until:
        tick_until(lambda: process.status().state == "failed", "two starts")
    assert process.status().restarts == 1
    assert "in.mp4" in (process.status().last_error or "")


def test_a_damaged_file_is_read_once_and_the_damage_is_told(tmp_path: Path) -> None:
    clip = write_lossless(tmp_path / "in.mkv", noise(20))
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    process = make_process(tmp_path, "in.mkv")
    with ticking(process) as tick_until:
        tick_until(lambda: process.status().state == "ended", "the end of the file")
    assert process.status().restarts == 0
    assert process.status().last_error is not None
    assert (tmp_path / "out.mkv").exists()
