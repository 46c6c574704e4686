from __future__ import annotations

from itertools import permutations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from engines.assignment import best_pairs

#: Few different ones, so that there are ties, and any.
values = st.sampled_from([0.0, 0.05, 0.1, 0.5, 1.0]) | st.floats(0, 1, width=32)
tables = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=5), elements=values)


def largest_sum(table: npt.NDArray[np.float64]) -> float:
    """By trying everything."""
    if table.shape[0] > table.shape[1]:
        table = table.T
    rows = np.arange(table.shape[0])
    return max(float(table[rows, list(columns)].sum()) for columns in permutations(range(table.shape[1]), len(rows)))


@settings(max_examples=300, deadline=None)
@given(tables, st.sampled_from([0.01, 0.1, 0.5]))
def test_no_other_pairs_are_worth_more(table: npt.NDArray[np.float32], least: float) -> None:
    rows, columns = best_pairs(table, least)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert len(set(columns.tolist())) == len(columns) == len(rows)
    assert (table[rows, columns] >= least).all()
    allowed = np.where(table >= least, table, 0).astype(np.float64)
    assert allowed[rows, columns].sum() == pytest.approx(largest_sum(allowed), abs=1e-9)


def test_the_best_for_one_is_given_up_for_the_best_for_all() -> None:
    rows, columns = best_pairs(np.array([[0.9, 0.8], [0.8, 0.0]]), 0.1)
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])


def test_values_need_not_end_at_one() -> None:
    rows, columns = best_pairs(np.array([[3.0, 1.0000001], [2.5, 0.0]]), 1)
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])


def test_many_of_both_have_partners() -> None:
    rng = np.random.default_rng(0)
    order = rng.permutation(200)
    table = rng.uniform(0, 0.4, (200, 220))
    table[np.arange(200), order] = 0.9
    rows, columns = best_pairs(table, 0.1)
    assert rows.tolist() == list(range(200))
    assert columns.tolist() == order.tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1])
def test_what_is_no_overlap_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        best_pairs(np.array([[0.5, value]]), 0.1)
