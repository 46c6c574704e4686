"""The process: its exit code is right whatever threads are left behind, and it leaves no raw frame in a dump."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

_PRELUDE = "import sys, threading, time; import stream.__main__ as entry; from stream import cli\n"


def _run(body: str, *, seconds: float = 30) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", _PRELUDE + body], capture_output=True, text=True, timeout=seconds)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 130])
def test_the_exit_code_of_the_command_line_is_that_of_the_process(code: int) -> None:
    assert _run(f"cli.main = lambda: sys.exit({code})\nentry.main()").returncode == code


def test_a_thread_that_hangs_does_not_keep_the_process_or_change_its_exit_code() -> None:
    began = time.monotonic()
    body = (
        "threading.Thread(target=time.sleep, args=(60,), name='standin-detection', daemon=False).start()\n"
        "cli.main = lambda: sys.exit(3)\n"
        "entry.main()"
    )
    assert _run(body).returncode == 3
    assert time.monotonic() - began < 25


def test_the_process_dumps_no_core() -> None:
    body = (
        "import ctypes, resource\n"
        "cli.main = lambda: print(resource.getrlimit(resource.RLIMIT_CORE)[0], ctypes.CDLL(None).prctl(3))\n"
        "entry.main()"
    )
    assert _run(body).stdout.split() == ["0", "0"]


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [0.25, 0.6])
def test_a_signal_while_the_program_starts_ends_it_quietly(which: signal.Signals, after: float) -> None:
    command = [sys.executable, "-m", "stream", "doctor"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(after)
    os.kill(process.pid, which)
    _, errors = process.communicate(timeout=60)
    # The interpreter itself may still be starting; what counts is that our own start leaves no traceback.
    assert process.returncode in {0, 130, -which}
    assert "stream/" not in errors


def test_what_is_to_be_done_at_the_end_is_done_and_nothing_is_taken_apart() -> None:
    body = (
        "import atexit, tempfile\n"
        "class Part:\n"
        "    def __del__(self): print('taken apart', flush=True)\n"
        "part, folder = Part(), tempfile.TemporaryDirectory()\n"
        "atexit.register(lambda: print('done'))\n"
        "cli.main = lambda: (print(folder.name), sys.exit(3))\n"
        "entry.main()"
    )
    ended = _run(body)
    folder, *rest = ended.stdout.split("\n")
    assert (ended.returncode, rest, ended.stderr) == (3, ["done", ""], "")
    assert not os.path.exists(folder)
