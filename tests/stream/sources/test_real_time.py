"""Files at the pace at which they are shown."""

from __future__ import annotations

import itertools

import pytest

from stream.frame import Frame
from stream.sources.real_time import Due, RealTime
from tests.fakes import MemorySource, finishes_within, frames, noise


class Clock:
    """Time that goes on while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def paced(clock: Clock, count: int = 50) -> tuple[list[Frame], RealTime]:
    clip = frames(noise(count))
    return clip, RealTime(MemorySource(clip), clock=clock, sleep=clock.sleep)


def test_each_frame_comes_when_it_would_be_shown() -> None:
    clock = Clock()
    clip, source = paced(clock)
    came = [(frame, clock.now) for frame in source]
    assert [frame for frame, _ in came] == clip
    assert all(abs((now - 100) - (frame.time - clip[0].time)) < 1e-6 for frame, now in came)
    assert source.waited == pytest.approx(clip[-1].time - clip[0].time)


def test_frames_that_were_taken_too_late_are_not_made_up_for() -> None:
    clock = Clock()
    _, source = paced(clock)
    times = []
    for place, _frame in enumerate(source):
        times.append(clock.now)
        if place == 20:
            clock.now += 30
    steps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(steps) > 0.03
    assert max(steps) >= 30


def test_what_comes_at_once_is_due_one_after_the_other() -> None:
    clock = Clock()
    due = Due(clock=clock)
    assert [due.early(7 + number) for number in range(4)] == [0, 1, 2, 3]
    clock.now += 1.25
    assert due.early(8) == -0.25
    assert due.early(9) == 0.75


@pytest.mark.parametrize(("leap", "early"), [(None, [0, 1, 30, 31]), (1.0, [0, 1, 0, 1])])
def test_a_leap_is_waited_for_unless_it_counts_as_one(leap: float | None, early: list[float]) -> None:
    due = Due(leap=leap, clock=Clock())
    assert [due.early(at) for at in (0, 1, 30, 31)] == early


def test_time_that_goes_back_begins_anew() -> None:
    due = Due(clock=Clock())
    assert [due.early(at) for at in (100, 101, 3, 4)] == [0, 1, 0, 1]


def test_who_is_told_to_end_waits_no_longer() -> None:
    source = RealTime(MemorySource(frames(noise(500))))
    frames_of = iter(source)
    next(frames_of)
    source.end()
    assert len(finishes_within(5, lambda: list(frames_of))) == 499
