from __future__ import annotations

from benchmarks.colour import DECODED, ENCODED, measure
from stream.colour import slices


def test_every_conversion_is_timed_with_one_thread_and_with_all_that_its_size_is_worth() -> None:
    size = (1280, 1024)
    rows = measure(size, rounds=2)
    assert {(row["direction"], row["format"]) for row in rows} == {
        *(("from", name) for name in DECODED),
        *(("to", name) for name in ENCODED),
    }
    for row in rows:
        assert set(row["milliseconds"]) == {1, slices(*size)}
        assert all(value > 0 for value in row["milliseconds"].values())
