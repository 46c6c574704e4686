from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from stream.anonymizer import Anonymized
from stream.frame import Frame
from stream.pulse import SILENT, Pulse
from stream.regions import Regions


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def item(pts: int) -> Anonymized:
    image = np.full((4, 6, 3), 9, np.uint8)
    return Anonymized(
        Frame(image, pts=pts, time_base=Fraction(1, 90_000), source="camera", arrived=5.0), Regions.empty()
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pulse(clock: Clock) -> Pulse:
    return Pulse(Fraction(10), clock)


def write_evenly(pulse: Pulse, clock: Clock, gap: float, count: int) -> int:
    """Frames that come and are written at this pace; the last one's time stamp."""
    pts = 0
    for number in range(count):
        pts = round(number * gap * 90_000)
        assert pulse.takes(item(pts))
        clock.now += gap if number < count - 1 else 0
    return pts


def test_before_the_first_frame_it_waits_for_as_long_as_it_takes(pulse: Pulse) -> None:
    assert pulse.patience is None
    with pytest.raises(ValueError, match="no frame before"):
        pulse.fill()


def test_silence_begins_after_a_second(pulse: Pulse, clock: Clock) -> None:
    write_evenly(pulse, clock, 0.1, 20)
    assert pulse.patience == pytest.approx(1.0)
    clock.now += 0.75
    assert pulse.patience == pytest.approx(0.25)
    clock.now += 5
    assert pulse.patience == 0


def test_slow_engines_are_no_silent_ones(pulse: Pulse, clock: Clock) -> None:
    write_evenly(pulse, clock, 0.6, 40)
    assert pulse.patience == pytest.approx(2.4, rel=0.05)


def test_silence_is_filled_at_the_rate_of_the_source_with_flat_frames_that_go_on_in_time(
    pulse: Pulse, clock: Clock
) -> None:
    last = write_evenly(pulse, clock, 0.1, 20)
    clock.now += 1.0
    filled = []
    for _ in range(5):
        filled.append(pulse.fill())
        assert pulse.patience == pytest.approx(0.1)
        clock.now += 0.1
    assert [f.frame.pts for f in filled] == [last + 90_000 + round(n * 9_000) for n in range(5)]
    assert all(f.withheld == SILENT and (f.image == 128).all() for f in filled)
    assert all(f.frame.source == "camera" and f.frame.arrived is None for f in filled)


def test_what_comes_after_its_time_was_filled_is_not_taken(pulse: Pulse, clock: Clock) -> None:
    last = write_evenly(pulse, clock, 0.1, 20)
    clock.now += 2.0
    pulse.fill()
    assert not pulse.takes(item(last + 9_000))
    assert not pulse.takes(item(last + 180_000))
    assert pulse.takes(item(last + 180_001))
    assert pulse.patience == pytest.approx(1.0)


def test_a_silence_does_not_count_as_a_usual_gap(pulse: Pulse, clock: Clock) -> None:
    last = write_evenly(pulse, clock, 0.1, 20)
    clock.now += 30.0
    pulse.fill()
    clock.now += 0.1
    assert pulse.takes(item(last + 31 * 90_000))
    assert pulse.patience == pytest.approx(1.0)


def test_frames_without_a_rate_are_filled_in_at_25_a_second(clock: Clock) -> None:
    pulse = Pulse(None, clock)
    assert pulse.takes(item(0))
    clock.now += 1
    pulse.fill()
    assert pulse.patience == pytest.approx(0.04)


def test_time_stamps_rise_even_where_no_time_passes(pulse: Pulse) -> None:
    first = item(0)
    assert pulse.takes(replace(first, frame=replace(first.frame, time_base=Fraction(1))))
    assert [pulse.fill().frame.pts, pulse.fill().frame.pts] == [1, 2]
