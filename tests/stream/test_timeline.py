"""One timeline from whatever a live source counts."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.timeline import TIME_BASE, Timeline

CLOCK = Fraction(1, 90_000)
FRAME = 3600  # 25 frames a second


def placed(stamps: list[int | None], *, time_base: Fraction = CLOCK, every: float = 0.04) -> list[int]:
    timeline = Timeline(Fraction(25))
    return [timeline.place(pts, time_base, 100 + i * every) for i, pts in enumerate(stamps)]


def test_the_source_s_clock_is_followed_from_zero() -> None:
    assert placed([7 * FRAME, 8 * FRAME, 10 * FRAME]) == [0, FRAME, 3 * FRAME]


def test_other_units_are_converted() -> None:
    assert placed([1000, 1040, 1080], time_base=Fraction(1, 1000)) == [0, FRAME, 2 * FRAME]


def test_jitter_of_arrival_leaves_the_clock_alone() -> None:
    timeline = Timeline()
    arrivals = [0.0, 0.21, 0.211, 0.212, 0.213]
    assert [timeline.place(i * FRAME, CLOCK, at) for i, at in enumerate(arrivals)] == [i * FRAME for i in range(5)]


@pytest.mark.parametrize("bits", [32, 33])
def test_counters_wrap_without_a_step(bits: int) -> None:
    end = 2**bits
    assert placed([end - 2 * FRAME, end - FRAME, 0, FRAME]) == [0, FRAME, 2 * FRAME, 3 * FRAME]


def test_a_picture_without_a_time_stamp_lies_where_it_arrived() -> None:
    assert placed([None, None, 500, 500 + FRAME], every=0.08) == [0, 2 * FRAME, 4 * FRAME, 5 * FRAME]


def test_a_clock_that_jumps_back_goes_on_by_arrival() -> None:
    timeline = Timeline()
    first = timeline.place(50_000_000, CLOCK, 10.0)
    assert timeline.place(90, CLOCK, 10.5) - first == 45_000
    assert timeline.place(90 + FRAME, CLOCK, 10.54) - first == 45_000 + FRAME
    assert timeline.rebased == 1


def test_a_clock_that_leaps_ahead_goes_on_by_arrival() -> None:
    timeline = Timeline(Fraction(25))
    timeline.place(0, CLOCK, 10.0)
    assert timeline.place(90_000 * 3600, CLOCK, 10.1) == pytest.approx(9000, abs=1)


def test_a_clock_that_runs_away_in_small_steps_stays_close_to_arrival() -> None:
    timeline = Timeline(Fraction(25))
    # A second on every picture's stamp, and 40 ms between two of them.
    out = [timeline.place(i * 90_000, CLOCK, 100 + i * 0.04) for i in range(251)]
    ahead = [seconds / 90_000 - i * 0.04 for i, seconds in enumerate(out)]
    assert max(ahead) < 3.1
    assert out[-1] / 90_000 > 10
    assert timeline.rebased > 200


def test_pictures_that_are_placed_by_arrival_do_not_run_away_either() -> None:
    timeline = Timeline(Fraction(1))
    out = [timeline.place(None, CLOCK, 100 + i * 0.04) for i in range(251)]
    assert out[-1] / 90_000 < 13.1


@pytest.mark.parametrize("rate", [3, 10, 30, 60])
def test_without_time_stamps_time_goes_as_fast_as_pictures_come_whatever_their_rate(rate: int) -> None:
    timeline, chance = Timeline(Fraction(25)), random.Random(1)
    # A network delays them, so that some come at once.
    arrivals = sorted(i / rate + chance.uniform(0, 0.2) for i in range(120 * rate))
    out = [timeline.place(None, CLOCK, at) for at in arrivals]
    assert out[-1] / 90_000 == pytest.approx(120, abs=0.5)
    assert all(second - first >= 90_000 / 25 / 4 - 1 for first, second in itertools.pairwise(out))


def test_a_burst_after_a_short_pause_is_followed() -> None:
    timeline = Timeline(Fraction(25))
    arrivals = [i * 0.04 if i < 50 else max(4.5, i * 0.04) for i in range(200)]
    assert [timeline.place(i * FRAME, CLOCK, at) for i, at in enumerate(arrivals)] == [i * FRAME for i in range(200)]
    assert timeline.rebased == 0


@pytest.mark.parametrize("error", [0.001, -0.001, 0.004])
def test_a_clock_that_is_a_little_wrong_is_followed_for_a_day(error: float) -> None:
    timeline, chance = Timeline(Fraction(1, 2)), random.Random(1)
    every = 2 * (1 + error)
    stamps = [round(i * every * 90_000) for i in range(43_200)]
    out = [timeline.place(pts, CLOCK, 2.0 * i + chance.uniform(0, 0.5)) for i, pts in enumerate(stamps)]
    assert out == stamps
    assert timeline.rebased == 0


def test_after_a_day_of_drift_a_clock_still_may_not_run_away() -> None:
    timeline = Timeline(Fraction(1, 2))
    for i in range(43_200):
        now = timeline.place(round(i * 1.998 * 90_000), CLOCK, 2.0 * i)
    for i in range(1, 251):
        last = timeline.place((100_000 + i) * 90_000, CLOCK, 86_400 + i * 0.04)
    assert (last - now) / 90_000 < 2 + 10 + 3.1


def test_a_burst_beyond_the_bound_disturbs_the_clock_only_until_it_is_over() -> None:
    timeline = Timeline(Fraction(25))
    # Ten seconds at once, and then a camera's own pace.
    for i in range(250):
        timeline.place(i * FRAME, CLOCK, 0.001 * i)
    rebased = timeline.rebased
    out = [timeline.place(i * FRAME, CLOCK, 0.25 + (i - 249) * 0.04) for i in range(250, 1000)]
    assert rebased > 0
    assert timeline.rebased == rebased
    assert {second - first for first, second in itertools.pairwise(out)} == {FRAME}


def test_a_source_that_waits_for_us_may_come_as_fast_as_it_is_taken() -> None:
    timeline = Timeline(Fraction(25))
    out = [timeline.place(i * FRAME, CLOCK, 5 + 0.001 * i, waits=True) for i in range(1000)]
    assert out == [i * FRAME for i in range(1000)]
    assert timeline.rebased == 0


def test_a_long_pause_that_the_clock_knows_of_is_kept() -> None:
    timeline = Timeline()
    timeline.place(0, CLOCK, 0.0)
    assert timeline.place(90_000 * 60, CLOCK, 60.0) == 90_000 * 60


def test_after_a_restart_the_time_between_counts() -> None:
    timeline = Timeline()
    timeline.place(5 * FRAME, CLOCK, 1.0)
    timeline.restart()
    assert timeline.place(6 * FRAME, CLOCK, 3.0) == 2 * 90_000
    assert timeline.place(7 * FRAME, CLOCK, 3.04) == 2 * 90_000 + FRAME


def test_our_own_pictures_lie_between_the_source_s() -> None:
    timeline = Timeline()
    timeline.place(0, CLOCK, 1.0)
    assert timeline.now(1.5) == 45_000
    assert timeline.now(2.0) == 90_000
    assert timeline.place(123, CLOCK, 2.5) == 135_000


def test_it_may_begin_with_our_own_pictures() -> None:
    timeline = Timeline()
    assert [timeline.now(5.0), timeline.now(6.0)] == [0, 90_000]


@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.integers(-(2**40), 2**40)), st.floats(-1, 5, allow_nan=False), st.booleans()),
        max_size=40,
    )
)
def test_time_never_stands_still_or_goes_back(items: list[tuple[int | None, float, bool]]) -> None:
    timeline = Timeline()
    now, out = 0.0, []
    for pts, later, own in items:
        now += later  # a monotonic clock does not go back, but one that did must do no harm
        out.append(timeline.now(now) if own else timeline.place(pts, TIME_BASE, now))
    assert all(first < second for first, second in itertools.pairwise(out))
    assert not out or out[0] == 0
