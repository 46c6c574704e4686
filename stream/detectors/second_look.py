"""A second look at what is near, at a smaller size: when it is worth one, and what both looks found together.

The features of a network reach over so many pixels of its picture. Of a person who is larger, it finds a part: the head
and the shoulders, or a trunk without them. In a smaller picture it finds the whole.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from engines.manifest import SecondLook
from stream.detectors.ensemble import unite
from stream.detectors.poses import persons_with_masks, with_masks
from stream.outline import shared
from stream.regions import Regions
from stream.union import with_partners

#: Of somebody who is near a part is found. A box of this share of the size is worth a look.
_WORTH: Final = 2 / 3
#: Masks of the two looks are the same person's if they share this part of the smaller one,
_SAME: Final = 0.5
#: and if the first look's box has this part of the other's longer side: a child before somebody is not a part of them.
_LONG_ENOUGH: Final = 0.5


def is_worth_it(boxes: npt.NDArray[np.float32], again: SecondLook) -> bool:
    """Whether the first look found something that may be near.

    Args:
        boxes: (N, 4) in the pixels of the first picture, however unlikely: the second look may be surer.
        again: as declared.
    """
    return bool((longer_sides(boxes) >= _WORTH * again.from_size).any())


def longer_sides(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Of boxes (N, 4), in their pixels."""
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0), np.float32)


def with_near(fine: Regions, near: Regions) -> Regions:
    """What both looks found: nothing that either found gets smaller.

    A person of the second look takes the one of the first who shares most of the smaller mask and is not much shorter,
    if there is one alone: the region has both masks, and the second look's surface. If there are several, the second
    look took them for one, and they stay as many as they are. Nobody is taken twice: whoever shares more comes first.
    For all who are left `stream.detectors.ensemble.unite` says what is the same.

    Args:
        fine: of the first look.
        near: of the second, as far as it counts.
    """
    fine, near = with_masks(fine), with_masks(near)
    pairs = _pairs(fine, near)
    rows, others = (np.array([pair[side] for pair in pairs], np.intp) for side in (0, 1))
    whole = with_partners(near[rows], fine[others], [(place, place) for place in range(len(pairs))])
    left = near[np.setdiff1d(np.arange(len(near)), rows)], fine[np.setdiff1d(np.arange(len(fine)), others)]
    return Regions.concatenate([whole, unite(left)])


def _pairs(fine: Regions, near: Regions) -> list[tuple[int, int]]:
    """Rows of the second look with the row of the first that each takes."""
    sides, least = longer_sides(fine.boxes), _LONG_ENOUGH * longer_sides(near.boxes)
    theirs = persons_with_masks(fine)
    found: list[tuple[float, int, int]] = []
    for row, mask in persons_with_masks(near):
        shares = [(shared(mask, other), row, place) for place, other in theirs if sides[place] >= least[row]]
        same = [share for share in shares if share[0] >= _SAME]
        if len(same) == 1:
            found += same
    pairs: list[tuple[int, int]] = []
    taken: set[int] = set()
    for _, row, place in sorted(found, reverse=True):
        if place not in taken:
            pairs.append((row, place))
            taken.add(place)
    return pairs
