"""Order and waves: which regions may be generated together without changing the result."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stream.outline import Box


def waves(boxes: Sequence[Box]) -> list[list[int]]:
    """Groups of regions, each to be cut, generated and stitched as one batch.

    A region joins the current wave if its box intersects no box of an earlier region that is not yet stitched when the
    wave begins. Boxes of one wave are then disjoint, and every region finds the frame as it would if regions were
    stitched one after the other.

    Args:
        boxes: of everything that a region reads or writes, in the order of stitching.

    Returns:
        Indices into `boxes`, every one once.
    """
    array = np.array(boxes, np.int64).reshape(-1, 4)
    low, high = array[:, :2], array[:, 2:]
    # In which wave a region comes: after every earlier one that it meets.
    turn = np.zeros(len(array), np.int64)
    for i in range(1, len(array)):
        meets = ((low[:i] < high[i]) & (low[i] < high[:i])).all(axis=1)
        if meets.any():
            turn[i] = turn[:i][meets].max() + 1
    return [np.flatnonzero(turn == wave).tolist() for wave in range(int(turn.max()) + 1 if len(turn) else 0)]
