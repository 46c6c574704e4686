"""Which of two lists are the same: each has one partner at most."""

from __future__ import annotations

import lap
import numpy as np
import numpy.typing as npt


def best_pairs(values: npt.NDArray[np.floating], least: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The pairs that have the largest sum of values together (linear assignment).

    Args:
        values: (N, M), of every pair, 0 or more, say how much they overlap.
        least: above 0; pairs of less are none.

    Returns:
        Rows and columns, (P,) each, of the pairs, by row.

    Raises:
        ValueError: a value is no such number: who belongs to whom could not be trusted.
    """
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError("values of pairs have to be 0 or more")
    if not values.size:
        # lapjv of nothing at all writes where it must not.
        return np.empty(0, np.intp), np.empty(0, np.intp)
    worth = np.where(values >= least, values, 0).astype(np.float64)
    _, column_of, _ = lap.lapjv(worth.max() - worth, extend_cost=True)
    rows = np.flatnonzero(column_of >= 0)
    columns = column_of[rows].astype(np.intp)
    same = worth[rows, columns] > 0
    return rows[same], columns[same]
