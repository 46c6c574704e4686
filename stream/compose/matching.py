"""Which detections are the same person, and which faces a person's stand-in covers already."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stream.outline import BodySurface, Box, Outline, PixelMask, overlap

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


def unite(
    persons: Sequence[PixelMask], surfaces: Sequence[BodySurface], *, iou: float = SAME_IOU
) -> tuple[list[Outline], list[tuple[int, int]]]:
    """One outline for each person: matched ones with the union of both masks, then the others of either detector.

    A dense pose without a person beside it is a person too; the published code loses it.

    Args:
        persons: of Mask R-CNN, in its order.
        surfaces: of CSE, in its order.
        iou: see `match`.

    Returns:
        The outlines, and for each the index of its person and of its dense pose, -1 where it has none.
    """
    pasted = [surface.nearest_mask() for surface in surfaces]
    pairs = match(persons, pasted, iou=iou)
    outlines = [Outline(persons[i].union(pasted[j]), surfaces[j]) for i, j in pairs]
    matched, used = {i for i, _ in pairs}, {j for _, j in pairs}
    for i, person in enumerate(persons):
        if i not in matched:
            outlines.append(Outline(person))
            pairs.append((i, -1))
    for j, surface in enumerate(surfaces):
        if j not in used:
            outlines.append(Outline(pasted[j], surface))
            pairs.append((-1, j))
    return outlines, pairs


def inside_any(box: Box, others: Sequence[Box]) -> bool:
    """Whether a box lies strictly inside one of others: the published test for faces that need no stand-in."""
    low, high = np.array(box[:2]), np.array(box[2:])
    return any(bool((low > other[:2]).all() and (high < other[2:]).all()) for other in others)
