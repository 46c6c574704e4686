"""The newest counts."""

from __future__ import annotations

import threading

import pytest

from stream.sources.arrivals import Arrivals


def test_what_arrives_is_taken_in_order() -> None:
    arrivals: Arrivals[str] = Arrivals(3, 10.0)
    arrivals.put("a", 1.0)
    arrivals.put("b", 2.0)
    assert [arrivals.take(2.0, 0), arrivals.take(2.0, 0), arrivals.take(2.0, 0)] == [(1.0, "a"), (2.0, "b"), None]
    assert arrivals.dropped == 0


def test_what_waits_is_counted() -> None:
    arrivals: Arrivals[int] = Arrivals(2, 10.0)
    assert arrivals.waiting == 0
    for number in range(3):
        arrivals.put(number, 0.0)
    assert arrivals.waiting == 2
    arrivals.take(0.0, 0)
    assert arrivals.waiting == 1


def test_the_oldest_goes_where_there_are_too_many() -> None:
    arrivals: Arrivals[int] = Arrivals(2, 10.0)
    for number in range(5):
        arrivals.put(number, 0.0)
    assert arrivals.take(0.0, 0) == (0.0, 3)
    assert arrivals.dropped == 3


def test_what_is_late_goes_but_never_the_newest() -> None:
    arrivals: Arrivals[str] = Arrivals(9, 0.5)
    for at in (0.0, 0.2, 1.0):
        arrivals.put(f"{at}", at)
    assert arrivals.take(1.1, 0) == (1.0, "1.0")
    assert arrivals.dropped == 2
    arrivals.put("old", 0.0)
    assert arrivals.take(99.0, 0) == (0.0, "old")


def test_taking_waits_for_the_next() -> None:
    arrivals: Arrivals[str] = Arrivals(2, 1.0)
    timer = threading.Timer(0.05, arrivals.put, ("a", 1.0))
    timer.start()
    assert arrivals.take(1.0, 10) == (1.0, "a")


def test_the_end_comes_after_the_last() -> None:
    arrivals: Arrivals[str] = Arrivals(2, 1.0)
    arrivals.put("a", 0.0)
    arrivals.end()
    assert arrivals.take(0.0, 0) == (0.0, "a")
    with pytest.raises(EOFError):
        arrivals.take(0.0, 10)


def test_a_failure_comes_after_the_last() -> None:
    arrivals: Arrivals[str] = Arrivals(2, 1.0)
    arrivals.put("a", 0.0)
    arrivals.end(ValueError("broken"))
    assert arrivals.take(0.0, 0) == (0.0, "a")
    with pytest.raises(ValueError, match="broken"):
        arrivals.take(0.0, 10)
