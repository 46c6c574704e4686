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
    fits = values >= least
    # Most fit nobody, and the search takes the cube of their number. lapjv of nothing at all writes where it must not.
    rows, columns = np.flatnonzero(fits.any(axis=1)), np.flatnonzero(fits.any(axis=0))
    if not rows.size:
        return rows, columns
    worth = np.where(fits, values, 0)[np.ix_(rows, columns)].astype(np.float64)
    _, column_of, _ = lap.lapjv(worth.max() - worth, extend_cost=True)
    mine = np.flatnonzero(column_of >= 0)
    theirs = column_of[mine].astype(np.intp)
    same = worth[mine, theirs] > 0
    return rows[mine[same]], columns[theirs[same]]
