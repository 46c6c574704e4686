"""Files at the pace at which they are shown."""

from __future__ import annotations

import itertools

from stream.frame import Frame
from stream.sources.real_time import RealTime
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


def test_who_is_told_to_end_waits_no_longer() -> None:
    source = RealTime(MemorySource(frames(noise(500))))
    frames_of = iter(source)
    next(frames_of)
    source.end()
    assert len(finishes_within(5, lambda: list(frames_of))) == 499
