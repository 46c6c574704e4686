"""The process: its exit code is right whatever threads are left behind, and it leaves no raw frame in a dump."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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


#: Of a command: what it does when it is interrupted, at import or when it runs.
_COMMAND = """
import os, signal, time
from pathlib import Path
def interrupted():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(20)
    except BaseException:
        Path("caught").touch()
{at_import}
def command() -> None:
    interrupted()
"""


@pytest.mark.parametrize(
    ("name", "at_import", "caught"),
    [("run", "interrupted()", False), ("run", "", True), ("doctor", "", False)],
    ids=["at import", "in a command", "in one that imports what it looks for"],
)
def test_what_swallows_an_interrupt_cannot_where_nothing_has_begun(
    name: str, at_import: str, caught: bool, tmp_path: Path
) -> None:
    (tmp_path / "slow_command.py").write_text(_COMMAND.format(at_import=at_import))
    body = (
        f"import os; os.chdir({str(tmp_path)!r}); sys.path.insert(0, '.')\n"
        f"cli._COMMANDS[{name!r}] = ('slow_command', 'command')\n"
        f"sys.argv[1:] = [{name!r}]; entry.main()"
    )
    ended = _run(body)
    assert (ended.returncode, ended.stderr) == (0 if caught else 130, "")
    assert (tmp_path / "caught").exists() == caught


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
