"""Dense poses joined to the persons that other detectors found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from stream import geometry
from stream.compose.matching import match
from stream.outline import Outline, PixelMask
from stream.regions import Kind, Regions
from stream.union import replaced_outlines, with_partners

Ints = npt.NDArray[np.intp]


def posed_rows(regions: Regions) -> npt.NDArray[np.bool_]:
    """Which regions come with a dense pose, (N,)."""
    outlines = [regions.outline(index) for index in range(len(regions))]
    return np.array([outline is not None and outline.surface is not None for outline in outlines], np.bool_)


def with_poses(regions: Regions, poses: Regions, iou: float) -> Regions:
    """Persons with the dense poses that are theirs; all others of both stay.

    Where both have masks these decide, as published (`stream.compose.matching.match`); a person without a mask is the
    pose's if their boxes overlap enough. A dense pose that is nobody's is a person of its own.

    Args:
        regions: of other detectors, of any kind.
        poses: persons with a `BodySurface` each.
        iou: from this overlap of boxes on, a person without a mask and a pose are one.
    """
    poses = with_masks(poses)
    pairs = _by_mask(regions, poses)
    free = np.setdiff1d(np.arange(len(poses)), [pose for _, pose in pairs])
    boxed = np.flatnonzero((regions.kinds == Kind.PERSON) & ~_masked(regions))
    pairs += _by_box(regions.boxes[boxed], poses.boxes[free], boxed, free, iou)
    return with_partners(regions, poses, pairs)


def with_masks(regions: Regions) -> Regions:
    """The regions, where each dense pose has a mask in the frame as well; it may have one already."""
    changes: dict[int, Outline | None] = {}
    for index in range(len(regions)):
        outline = regions.outline(index)
        if outline is not None and outline.surface is not None:
            own = outline.surface.nearest_mask()
            whole = own if outline.mask is None else own.union(outline.mask)
            # A pose on no body is a person all the same: the region counts as its box.
            changes[index] = Outline(whole if whole.pixels.any() else None, outline.surface)
    return replace(regions, outlines=replaced_outlines(regions, changes))


def mask_of(regions: Regions, index: int) -> PixelMask | None:
    """A region's mask, None where it has none."""
    outline = regions.outline(index)
    return None if outline is None else outline.mask


def persons_with_masks(regions: Regions) -> list[tuple[int, PixelMask]]:
    """Rows of persons that have a mask, with it."""
    rows = np.flatnonzero(regions.kinds == Kind.PERSON).tolist()
    return [(index, mask) for index in rows if (mask := mask_of(regions, index)) is not None]


def _masked(regions: Regions) -> npt.NDArray[np.bool_]:
    return np.array([mask_of(regions, index) is not None for index in range(len(regions))], np.bool_)


def _by_mask(regions: Regions, poses: Regions) -> list[tuple[int, int]]:
    persons = persons_with_masks(regions)
    found = [(index, mask) for index in range(len(poses)) if (mask := mask_of(poses, index)) is not None]
    pairs = match([mask for _, mask in persons], [mask for _, mask in found])
    return [(persons[i][0], found[j][0]) for i, j in pairs]


def _by_box(
    persons: npt.NDArray[np.float32], poses: npt.NDArray[np.float32], rows: Ints, columns: Ints, iou: float
) -> list[tuple[int, int]]:
    """Pairs by the overlap of boxes, the best first."""
    overlaps = geometry.iou(persons, poses)
    pairs: list[tuple[int, int]] = []
    while overlaps.size and overlaps.max() >= iou:
        i, j = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
        pairs.append((int(rows[i]), int(columns[j])))
        overlaps[i], overlaps[:, j] = 0, 0
    return pairs
