"""Nobody reads a password in the list of processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from stream.process_title import title
from tests.stream.sinks.servers import Deaf

PROCESSES = Path("/proc")


def test_a_title_hides_what_addresses_hide() -> None:
    arguments = ["standin", "run", "rtsp://me:s3cret@camera/1", "gst:x264enc ! rtmpsink user-pw=s3cret", "a b.mkv"]
    assert title(arguments) == ("standin run 'rtsp://***@camera/1' 'gst:x264enc ! rtmpsink user-pw=***' 'a b.mkv'")


@pytest.mark.skipif(not PROCESSES.is_dir(), reason="there is no /proc")
def test_a_running_command_shows_no_password(tmp_path: Path) -> None:
    with Deaf() as camera:
        address = f"rtsp://me:s3cret@127.0.0.1:{camera.port}/1"
        command = [sys.executable, "-m", "stream", "run", address, str(tmp_path / "out.mkv")]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                line = PROCESSES / str(process.pid) / "cmdline"
                end = time.monotonic() + 20
                while b"***" not in line.read_bytes():
                    assert time.monotonic() < end
                    assert process.poll() is None
                    time.sleep(0.02)
                shown = line.read_bytes()
            finally:
                process.kill()
    assert b"s3cret" not in shown
    assert b"127.0.0.1" in shown
