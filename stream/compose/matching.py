"""Which detections are the same person, and which faces a person's stand-in covers already."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stream.outline import Box, PixelMask, overlap

#: Mask overlap from which a person and a dense pose are the same.
SAME_IOU = 0.4


def match(
    persons: Sequence[PixelMask], surfaces: Sequence[PixelMask], *, iou: float = SAME_IOU
) -> list[tuple[int, int]]:
    """Pairs of a person and a dense pose that are one: greedily, in the order of the first, then of the second.

    Args:
        persons: masks of persons, in the detector's order.
        surfaces: masks of CSE detections, in theirs.
        iou: from this intersection over union on.
    """
    pairs: list[tuple[int, int]] = []
    taken: set[int] = set()
    for i, person in enumerate(persons):
        for j, surface in enumerate(surfaces):
            if j not in taken and overlap(person, surface) >= iou:
                pairs.append((i, j))
                taken.add(j)
                break
    return pairs


def inside_any(box: Box, others: Sequence[Box]) -> bool:
    """Whether a box lies strictly inside one of others: the published test for faces that need no stand-in."""
    low, high = np.array(box[:2]), np.array(box[2:])
    return any(bool((low > other[:2]).all() and (high < other[2:]).all()) for other in others)
