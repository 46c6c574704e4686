from __future__ import annotations

import itertools

import pytest

from stream import complaints
from stream.complaints import Complaints


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(complaints, "time", clock)
    return clock


def said(watched: Complaints, clock: Clock, reason: str, seconds: float, step: float = 0.5) -> list[tuple[float, int]]:
    """When something was said, and how many it was for."""
    begun, found = clock.now, []
    while clock.now < begun + seconds:
        if count := watched.due(reason):
            found.append((clock.now - begun, count))
        clock.now += step
    return found


def test_the_same_reason_is_said_ever_more_rarely_and_at_least_once_a_minute(clock: Clock) -> None:
    found = said(Complaints(), clock, "dark", 400)
    times = [when for when, _ in found]
    assert times[:5] == [0, 1, 3, 7, 15]
    assert max(b - a for a, b in itertools.pairwise(times)) <= 60.5
    assert sum(count for _, count in found) <= 800
    assert [count for _, count in found[:4]] == [1, 2, 4, 8]


def test_another_reason_is_said_soon_but_reasons_that_alternate_are_no_flood(clock: Clock) -> None:
    watched = Complaints()
    said(watched, clock, "dark", 30)
    assert said(watched, clock, "broken", 2)[0][0] <= 1
    flood = sum(len(said(watched, clock, reason, 0.2, step=0.1)) for _ in range(50) for reason in ("one", "other"))
    assert flood <= 25


def test_after_a_long_quiet_it_begins_anew(clock: Clock) -> None:
    watched = Complaints()
    said(watched, clock, "dark", 100)
    clock.now += 61
    assert [when for when, _ in said(watched, clock, "dark", 4)][:3] == [0, 1, 3]
