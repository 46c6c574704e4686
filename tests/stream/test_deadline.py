from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from engines.errors import DeadlineError
from stream.deadline import DeadlineRunner, HungError


def test_the_result_comes_back() -> None:
    runner = DeadlineRunner("stage", 5)
    assert [runner.call(lambda i=i: i * i) for i in range(5)] == [0, 1, 4, 9, 16]  # type: ignore[misc]
    runner.close()


def test_calls_share_one_thread() -> None:
    runner = DeadlineRunner("stage", 5)
    assert len({runner.call(threading.get_ident) for _ in range(5)}) == 1
    runner.close()


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3), StopIteration()])
def test_whatever_the_function_raises_is_raised(error: BaseException) -> None:
    def fail() -> None:
        raise error

    runner = DeadlineRunner("stage", 5)
    with pytest.raises(type(error)):
        runner.call(fail)
    assert runner.call(lambda: 1) == 1
    runner.close()


def test_a_call_that_hangs_is_given_up_in_time_and_the_next_one_works() -> None:
    runner = DeadlineRunner("detection", 0.1)
    release = threading.Event()
    began = time.perf_counter()
    with pytest.raises(DeadlineError, match=r"detection gave no answer within 0.1 s"):
        runner.call(release.wait)
    assert time.perf_counter() - began < 2
    assert runner.call(lambda: "fine") == "fine"
    release.set()
    runner.close()


def test_a_late_answer_is_not_taken_for_the_next_one() -> None:
    runner = DeadlineRunner("stage", 0.1)
    with pytest.raises(DeadlineError):
        runner.call(lambda: time.sleep(0.2) or "late")  # type: ignore[func-returns-value]
    assert runner.call(lambda: time.sleep(0.05) or "next") == "next"  # type: ignore[func-returns-value]
    time.sleep(0.2)
    assert runner.call(lambda: "third") == "third"
    runner.close()


def test_misses_in_a_row_end_it_and_an_answer_in_between_forgives_them() -> None:
    runner = DeadlineRunner("stage", 0.03, patience=3)
    release = threading.Event()
    for _ in range(2):
        for _ in range(2):
            with pytest.raises(DeadlineError):
                runner.call(release.wait)
        runner.call(lambda: None)
    for _ in range(2):
        with pytest.raises(DeadlineError):
            runner.call(release.wait)
    with pytest.raises(HungError, match="3 times in a row"):
        runner.call(release.wait)
    release.set()
    runner.close()


def miss_together(runner: DeadlineRunner, release: threading.Event, calls: int) -> list[Exception]:
    """What so many calls at once are told."""
    told: list[Exception] = []
    ready = threading.Barrier(calls)

    def call() -> None:
        ready.wait(10)
        try:
            runner.call(release.wait)
        except (DeadlineError, HungError) as error:
            told.append(error)

    threads = [threading.Thread(target=call) for _ in range(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def test_one_stall_that_several_calls_meet_is_one_miss() -> None:
    runner = DeadlineRunner("stage", 0.5, patience=3)
    release = threading.Event()
    kinds = [[type(error) for error in miss_together(runner, release, 4)] for _ in range(3)]
    assert kinds == [[DeadlineError] * 4, [DeadlineError] * 4, [HungError] * 4]
    release.set()
    runner.close()


def test_threads_end_after_close_and_after_hanging_calls_return() -> None:
    def running() -> int:
        # By name: threads that other tests have left behind end when they like.
        return sum(thread.name == "standin-ending" for thread in threading.enumerate())

    runner = DeadlineRunner("ending", 0.05)
    release = threading.Event()
    with pytest.raises(DeadlineError):
        runner.call(release.wait)
    runner.call(lambda: None)
    assert running() == 2
    runner.close()
    release.set()
    limit = time.monotonic() + 5
    while running() and time.monotonic() < limit:
        time.sleep(0.01)
    assert running() == 0


def test_calls_from_several_threads_run_side_by_side() -> None:
    runner = DeadlineRunner("stage", 5)
    meeting = threading.Barrier(3, timeout=4)
    with ThreadPoolExecutor(3) as pool:
        places = list(pool.map(lambda _: runner.call(meeting.wait), range(3)))
    runner.close()
    assert sorted(places) == [0, 1, 2]


def test_several_threads_may_call_at_once() -> None:
    runner = DeadlineRunner("stage", 5)
    together = threading.Barrier(3)
    callers = [threading.Thread(target=runner.call, args=(lambda: together.wait(4),)) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(5)
    assert not together.broken
    runner.close()


def test_closing_twice_and_before_any_call_is_harmless() -> None:
    runner = DeadlineRunner("stage", 1)
    runner.close()
    runner.close()
    assert runner.call(lambda: 1) == 1
    runner.close()


def test_nothing_of_a_call_stays_alive_after_it() -> None:
    class Picture:
        pass

    runner = DeadlineRunner("stage", 5)
    picture = Picture()
    alive = weakref.ref(picture)
    runner.call(partial(id, picture))
    del picture
    time.sleep(0.05)
    gc.collect()
    assert alive() is None
    runner.close()
