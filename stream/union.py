"""Regions that are the same person or thing, made one: nothing that any of them covers gets smaller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeGuard

import numpy as np
import numpy.typing as npt

from stream import geometry
from stream.outline import Outline, PixelMask
from stream.regions import NO_TRACK, Regions


def one_for_each_track(regions: Regions) -> Regions:
    """Regions of the same track as one each; those without a track stay by themselves.

    A track may have several in a frame, where it was held and looked ahead for, and only one stand-in.

    Args:
        regions: of one frame.
    """
    rows: dict[int, list[int]] = {}
    for row, track_id in enumerate(regions.track_ids.tolist()):
        rows.setdefault(track_id, []).append(row)
    boxes, scores, changes = regions.boxes.copy(), regions.scores.copy(), dict[int, Outline | None]()
    left = np.ones(len(regions), np.bool_)
    for track_id, (first, *others) in rows.items():
        if track_id == NO_TRACK:
            continue
        for other in others:
            grown = replace(regions, boxes=boxes, outlines=replaced_outlines(regions, changes))
            changes[first] = united_outline(grown, first, regions, other)
            boxes[first] = geometry.union_box(boxes[first], boxes[other])[0]
            scores[first] = max(scores[first], scores[other])
            left[other] = False
    if left.all():
        return regions
    return replace(regions, boxes=boxes, scores=scores, outlines=replaced_outlines(regions, changes))[left]


def with_partners(one: Regions, other: Regions, pairs: Sequence[tuple[int, int]]) -> Regions:
    """All regions of both, of which some pairs are the same: each pair is one region, in its place in the first.

    Its box holds both boxes, its mask both masks, and its score is the higher one.

    Args:
        one: regions that come first.
        other: what has no partner follows.
        pairs: row in `one` and row in `other`, each in one pair at most.

    Raises:
        ValueError: a row is in two pairs: one of its partners would be covered by nothing.
    """
    if any(len(set(rows)) < len(pairs) for rows in zip(*pairs, strict=True)):
        raise ValueError(f"a region has one partner at most, got {list(pairs)}")
    boxes, scores, changes = one.boxes.copy(), one.scores.copy(), dict[int, Outline | None]()
    left = np.ones(len(other), np.bool_)
    for first, second in pairs:
        boxes[first] = geometry.union_box(boxes[first], other.boxes[second])[0]
        scores[first] = max(scores[first], other.scores[second])
        changes[first] = united_outline(one, first, other, second)
        left[second] = False
    grown = replace(one, boxes=boxes, scores=scores, outlines=replaced_outlines(one, changes))
    return Regions.concatenate([grown, other[left]])


def united_outline(one: Regions, first: int, other: Regions, second: int) -> Outline | None:
    """The outline of two finds of the same region: all pixels of both, a box's where no mask shows any.

    Args:
        one: regions with the first find.
        first: its index.
        other: regions with the second.
        second: its index.

    Returns:
        None where neither has an outline: the region is the box then.
    """
    outlines = one.outline(first), other.outline(second)
    if outlines == (None, None):
        return None
    boxes = one.boxes[first], other.boxes[second]
    masks = [
        outline.mask if outline is not None and _shows(outline.mask) else PixelMask.filled(geometry.whole(box))
        for outline, box in zip(outlines, boxes, strict=True)
    ]
    surfaces = [outline.surface for outline in outlines if outline is not None and outline.surface is not None]
    return Outline(masks[0].union(masks[1]), surfaces[0] if surfaces else None)


def _shows(mask: PixelMask | None) -> TypeGuard[PixelMask]:
    """Whether a mask has a pixel: a region without one counts as its box."""
    return mask is not None and bool(mask.pixels.any())


def replaced_outlines(regions: Regions, changes: dict[int, Outline | None]) -> npt.NDArray[np.object_] | None:
    """The outlines of regions with some of them replaced, as `Regions` holds them."""
    found = [changes.get(index, regions.outline(index)) for index in range(len(regions))]
    if all(outline is None for outline in found):
        return None
    array = np.empty(len(found), np.object_)
    array[:] = found
    return array
