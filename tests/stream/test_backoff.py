"""Waits between attempts."""

import random

import pytest

from stream.backoff import Backoff


def test_waits_double_up_to_the_limit() -> None:
    backoff = Backoff(0.1, 2.0, draw=random.Random(1))
    waits = [backoff.failed() for _ in range(10)]
    limits = [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0, 2.0]
    assert all(limit / 2 <= wait <= limit for wait, limit in zip(waits, limits, strict=True))
    assert len(set(waits)) == 10
    assert backoff.failures == 10


def test_success_begins_anew() -> None:
    backoff = Backoff(0.1, 2.0)
    for _ in range(2000):
        backoff.failed()
    backoff.succeeded()
    assert backoff.failures == 0
    assert backoff.failed() <= 0.1


def test_it_is_over_when_more_attempts_failed_in_a_row_than_may() -> None:
    backoff = Backoff()
    for _ in range(2):
        assert not backoff.over(1)
        backoff.failed()
        assert not backoff.over(1)
        backoff.failed()
        assert backoff.over(1)
        assert backoff.given_up("no route") == "no route (given up: failed 2 times in a row)"
        backoff.succeeded()
    once = Backoff()
    once.failed()
    assert once.over(0)
    assert once.given_up("no route") == "no route (given up: failed once)"


def test_any_number_of_attempts_is_never_over() -> None:
    backoff = Backoff()
    for _ in range(2000):
        backoff.failed()
    assert not backoff.over(None)


@pytest.mark.parametrize(("first", "longest"), [(0, 1), (2, 1), (-1, 1)])
def test_limits_must_make_sense(first: float, longest: float) -> None:
    with pytest.raises(ValueError, match="expected 0 < first"):
        Backoff(first, longest)


def test_another_reason_is_news_and_one_that_was_told_a_moment_ago_is_not() -> None:
    now = [0.0]
    backoff = Backoff(clock=lambda: now[0])
    assert [backoff.news(reason) for reason in ("refused", "refused", "401", "401", "refused")] == [
        True,
        False,
        True,
        False,
        False,
    ]
    now[0] += 61
    assert backoff.news("401")
    backoff.succeeded()
    assert backoff.news("401")


def test_a_number_in_a_name_is_no_news_and_one_by_itself_is() -> None:
    backoff = Backoff()
    assert [backoff.news(reason) for reason in ("sink1: 401", "sink2: 401", "sink2: 404")] == [True, False, True]


def test_reasons_that_always_differ_are_not_told_for_ever() -> None:
    backoff = Backoff()
    assert sum(backoff.news(f"port {number}") for number in range(500)) <= 20
