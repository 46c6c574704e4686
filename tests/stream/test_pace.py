from __future__ import annotations

import pytest

from stream.pace import Pace, WhenSlow


class Source:
    """Pictures at a rate, and engines that take so long for each that is looked at."""

    def __init__(self, when_slow: WhenSlow, rate: float = 20) -> None:
        self.now = 0.0
        self.period = 1 / rate
        self.pace = Pace(when_slow, lambda: self.now)
        self.late = 0
        self.looked = 0

    def run(self, seconds: float, takes: float, *, when_simple: float | None = None) -> float:
        """The share of pictures that was looked at in this time."""
        end, came, looked = self.now + seconds, 0, 0
        next_at = self.now
        while self.now < end:
            if self.now < next_at:
                self.pace.waited(next_at - self.now)
                self.now = next_at
            while self.now - next_at > 0.5:
                next_at += self.period
                came += 1
                self.late += 1
            next_at += self.period
            came += 1
            if self.pace.wants(self.late):
                looked += 1
                self.now += when_simple if when_simple is not None and self.pace.simple else takes
        return looked / came


def test_engines_that_keep_up_see_every_picture() -> None:
    for when_slow in ("drop", "lower-rate", "classical"):
        source = Source(when_slow)
        assert source.run(60, 0.03) == 1.0
        assert source.late == source.pace.skipped == 0
        assert not source.pace.simple


def test_dropping_leaves_nothing_out_by_itself() -> None:
    source = Source("drop")
    source.run(60, 0.12)
    assert source.late > 300
    assert source.pace.skipped == 0
    assert not source.pace.simple


def test_a_lower_rate_is_even_and_as_high_as_the_engines_allow() -> None:
    source = Source("lower-rate")
    source.run(20, 0.12)
    late = source.late
    source.run(30, 0.12)
    assert source.late - late < 10
    assert source.pace.every == 3


def test_the_full_rate_comes_back_when_the_engines_are_fast_again() -> None:
    source = Source("lower-rate")
    source.run(30, 0.3)
    assert source.pace.every >= 6
    source.run(40, 0.02)
    assert source.pace.every == 1


def test_a_rate_on_the_edge_does_not_swing() -> None:
    source = Source("lower-rate", rate=10)
    source.run(30, 0.105)
    seen = set()
    for _ in range(30):
        source.run(2, 0.105)
        seen.add(source.pace.every)
    assert seen == {2}


def test_stand_ins_are_left_out_while_the_engines_are_slow() -> None:
    source = Source("classical")
    source.run(6, 0.12, when_simple=0.03)
    assert source.pace.simple
    assert source.pace.skipped == 0


def test_stand_ins_are_tried_again_and_come_back_when_there_is_time() -> None:
    source = Source("classical")
    source.run(10, 0.12, when_simple=0.03)
    source.run(60, 0.03, when_simple=0.03)
    assert not source.pace.simple


def test_tries_that_fail_become_rarer() -> None:
    source = Source("classical")
    source.run(30, 0.12, when_simple=0.03)
    late = source.late
    source.run(200, 0.12, when_simple=0.03)
    assert source.late - late < 0.05 * 200 * 20


@pytest.mark.parametrize("takes", [0.2, 0.5])
def test_where_classical_covering_is_too_slow_as_well_pictures_are_dropped(takes: float) -> None:
    source = Source("classical")
    source.run(60, takes, when_simple=takes)
    assert source.pace.simple
    assert source.late > 0
