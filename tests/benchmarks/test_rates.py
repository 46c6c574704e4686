from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.rates import Rates, measure_rates


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_device_is_measured(tmp_path: Path, precision: str) -> None:
    found = measure_rates(tmp_path, "cpu", 1, precision, sides=(32, 64), copied=2**20)  # type: ignore[arg-type]
    assert found.operations > 1e6
    assert found.bytes > 1e6
    assert "64x64" in found.product


def test_the_best_of_two_measurements_counts() -> None:
    first, second = Rates(3e9, "one", 5e9), Rates(4e9, "another", 2e9)
    assert first.better(second) == second.better(first) == Rates(4e9, "another", 5e9)
