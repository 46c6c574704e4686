from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from engines.errors import DeadlineError
from stream.service.daemon_calls import MOST, DaemonCalls


def run(seconds: float, *functions: object) -> list[object]:
    """The answers, or what was raised, of calls at the same time."""

    async def all_of_them() -> list[object]:
        calls = DaemonCalls()
        return await asyncio.gather(
            *(calls.call(function, seconds) for function in functions),  # type: ignore[arg-type]
            return_exceptions=True,
        )

    return asyncio.run(all_of_them())


def test_answers_and_errors_come_back() -> None:
    def fail() -> None:
        raise KeyError("x")

    answer, error = run(5, lambda: threading.current_thread().daemon, fail)
    assert answer is True
    assert isinstance(error, KeyError)


def test_a_call_that_hangs_is_left_behind_and_the_loop_ends() -> None:
    released = threading.Event()
    [error] = run(0.05, released.wait)
    assert isinstance(error, DeadlineError)
    assert "0.05 s" in str(error)
    released.set()


def test_calls_that_hang_do_not_pile_up() -> None:
    released = threading.Event()
    answers = run(0.2, *[released.wait] * (MOST + 3))
    assert sum("wait for an answer already" in str(answer) for answer in answers) == 3
    assert all(isinstance(answer, DeadlineError) for answer in answers)
    released.set()


def test_places_come_free_again() -> None:
    async def many() -> int:
        calls = DaemonCalls()
        return sum([await calls.call(lambda: 1, 5) for _ in range(3 * MOST)])

    assert asyncio.run(many()) == 3 * MOST


HANGS = """
import asyncio, threading
from stream.service.daemon_calls import DaemonCalls
try:
    asyncio.run(DaemonCalls().call(threading.Event().wait, 0.1))
except TimeoutError:
    print("ended")
"""


def test_a_call_that_hangs_does_not_keep_the_process_alive() -> None:
    ended = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout.strip() == "ended", ended.stderr
    assert ended.returncode == 0


@pytest.mark.filterwarnings("error")
def test_an_answer_that_comes_after_the_loop_is_nobodys() -> None:
    released = threading.Event()
    run(0.01, released.wait)
    [worker] = [thread for thread in threading.enumerate() if thread.name == "standin-status-call"]
    released.set()
    worker.join(10)
    assert not worker.is_alive()
