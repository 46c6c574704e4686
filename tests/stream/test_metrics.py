from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from stream.anonymizer import Anonymized
from stream.frame import Frame
from stream.metrics import LATENCY_BOUNDS, Meter, SinkState, Snapshot, percentiles
from stream.regions import Regions
from tests.fakes import faces


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def item(arrived: float | None = None, withheld: str | None = None, regions: Regions | None = None) -> Anonymized:
    frame = Frame(np.zeros((4, 4, 3), np.uint8), arrived=arrived)
    return Anonymized(frame, regions or Regions.empty(), withheld=withheld)


def test_frames_are_counted_by_outcome_and_the_last_reason_is_kept() -> None:
    meter = Meter(Clock())
    for one in (item(), item(withheld="first"), item(withheld="second"), item()):
        meter(one)
    snapshot = meter.snapshot()
    assert snapshot.frames == {"anonymized": 2, "withheld": 2}
    assert snapshot.last_error == "second"


def test_regions_are_those_of_the_last_frame() -> None:
    meter = Meter(Clock())
    meter(item(regions=faces((0, 0, 2, 2), (1, 1, 3, 3))))
    assert meter.snapshot().regions == {"face": 2}
    meter(item())
    assert meter.snapshot().regions == {}


def test_the_rate_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    meter = Meter(clock)
    for _ in range(200):
        clock.now += 0.1
        meter(item())
    assert meter.snapshot().rate == pytest.approx(10, abs=0.5)
    clock.now += 2.5
    assert meter.snapshot().rate == pytest.approx(5, abs=0.5)
    clock.now += 60
    assert meter.snapshot().rate == 0


def test_latencies_are_counted_in_classes_from_arrival_to_now() -> None:
    clock = Clock()
    meter = Meter(clock)
    for seconds in (0.004, 0.01, 0.26, 0.26, 30.0):
        meter(item(arrived=clock.now - seconds))
    meter(item())  # of a file, or filled in
    latency = meter.snapshot().latency
    expected = dict.fromkeys(LATENCY_BOUNDS, 0) | {0.01: 2, 0.3: 2}
    assert latency.counts == (*expected.values(), 1)
    assert latency.total == pytest.approx(30.534)
    assert latency.recent == pytest.approx((0.26, 30.0, 30.0))


def test_without_live_frames_there_is_no_latency() -> None:
    meter = Meter(Clock())
    meter(item())
    assert meter.snapshot().latency.recent is None


def test_a_snapshot_goes_through_json_unchanged() -> None:
    meter = Meter(Clock())
    meter(item(arrived=49.5, withheld="détection failed: \x00", regions=faces((0, 0, 2, 2))))
    snapshot = meter.snapshot().model_copy(
        update={
            "reconnects": {"source": 2},
            "waiting": {"detect": 1},
            "sinks": (SinkState(name="a", there=False, away=1.5, dropped=3), SinkState(name="b")),
        }
    )
    assert Snapshot.model_validate_json(snapshot.model_dump_json()) == snapshot


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], None), ([7.0], (7, 7, 7)), ([*range(1, 101)], (50, 95, 99)), ([3.0, 1.0, 2.0], (2, 3, 3))],
)
def test_percentiles_are_of_the_nearest_rank(values: list[float], expected: tuple[float, float, float] | None) -> None:
    assert percentiles(deque(values), (50, 95, 99)) == expected
