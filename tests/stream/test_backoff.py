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


@pytest.mark.parametrize(("first", "longest"), [(0, 1), (2, 1), (-1, 1)])
def test_limits_must_make_sense(first: float, longest: float) -> None:
    with pytest.raises(ValueError, match="expected 0 < first"):
        Backoff(first, longest)
