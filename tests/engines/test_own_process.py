"""Each in a process of its own: a limit on core dumps cannot be taken back."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys

import pytest

from tests.engines.serving import SECONDS, is_running, wait_until

#: Sets the limit that the system may give by default, and prints what a dump would meet.
DUMPS = """
import ctypes, resource
from engines.own_process import dump_no_core

resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
library = ctypes.CDLL(None)
library.prctl(4, 1, 0, 0, 0)
{guard}
print(resource.getrlimit(resource.RLIMIT_CORE)[0], library.prctl(3, 0, 0, 0, 0))
"""

#: Starts a child, says which, and waits.
PARENT = """
import subprocess, sys, time

child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""
#: Reads nothing, so that nothing but the kernel tells it of its parent's end.
CHILD = """
import os, time
from engines.own_process import end_with_parent

{guard}
print("ready", flush=True)
time.sleep(60)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS, check=False)


def test_a_process_dumps_no_core_neither_to_a_file_nor_to_a_handler() -> None:
    assert run(DUMPS.format(guard="dump_no_core()")).stdout.split() == ["0", "0"]


def test_control_without_the_guard_a_process_may_be_dumped() -> None:
    limit, flag = run(DUMPS.format(guard="")).stdout.split()
    assert (int(limit), flag) == (resource.getrlimit(resource.RLIMIT_CORE)[1], "1")


@pytest.mark.parametrize(
    ("guard", "ends"),
    [("end_with_parent(os.getppid())", True), ("end_with_parent()", True), ("", False)],
    ids=["with its parent's id", "without", "control: no guard"],
)
def test_a_process_ends_with_its_parent_even_if_that_was_killed(guard: str, ends: bool) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD.format(guard=guard)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout as said:
        child = int(said.readline())
    assert is_running(child)
    parent.kill()
    parent.wait()
    try:
        if ends:
            wait_until(lambda: not is_running(child))
        else:
            with pytest.raises(AssertionError):
                wait_until(lambda: not is_running(child), 1.0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def test_a_process_whose_parent_had_gone_before_ends_at_once() -> None:
    ended = run("import os; from engines.own_process import end_with_parent; end_with_parent(os.getpid())")
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "")
