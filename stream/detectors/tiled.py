"""Looks closer: at a whole frame, and at overlapping parts of it, each of which is one more picture for the detector.

A detector sees a frame at a few hundred pixels, so that whoever is far from a camera with many of them is lost. In a
part of the frame, which is shrunk less, the same person is larger (Akyon et al. 2022, "Slicing aided hyper inference",
https://arxiv.org/abs/2202.06934).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from stream import geometry
from stream.detectors.base import Detector
from stream.detectors.ensemble import Ensemble, unite
from stream.detectors.poses import mask_of, with_masks
from stream.detectors.second_look import longer_sides
from stream.frame import Frame
from stream.outline import Box, Outline, PixelMask, shared
from stream.regions import Regions
from stream.union import replaced_outlines, with_partners

#: Neighbours share this part of a tile: who is smaller is whole in one of them.
_OVERLAP: Final = 0.25
#: Smaller tiles show nobody better, in pixels.
_SMALLEST: Final = 32
#: A box that ends within this part of the tile's side from where the tile cuts the frame is cut.
_TOUCHES: Final = 0.02
#: Two finds are the same person's if they share this part of the smaller one, where one of them is a part,
_SAME: Final = 0.5
#: and if the other has this part of the part's longer side: an adult whom a tile cuts is no part of the child before.
_LONG_ENOUGH: Final = 0.5


class TiledDetector:
    """Runs a detector on whole frames and on tiles, and unites what it finds; is a `Detector` itself.

    Nothing that was found in any look gets smaller. What a tile cuts off belongs to whoever has most of it in another
    look, if anybody has half; else it is a region of its own.

    Args:
        detector: runs once for the frame and once for each tile, one after the other.
        count: N, tiles in each direction; a frame is looked at 1 + N x N times.

    Raises:
        ValueError: that is less than two.
    """

    def __init__(self, detector: Detector, count: int) -> None:
        if count < 2:
            raise ValueError(f"tiles are at least two in each direction, got {count}")
        self._detector, self._count = detector, count

    def detect(self, frame: Frame) -> Regions:
        """All regions of the frame, in its pixels, whichever look found them.

        Raises:
            DetectionError: the answer to one of the looks cannot be trusted.
        """
        whole = self._detector.detect(frame)
        return combined(whole, [self._look(frame, tile) for tile in tiles(frame.width, frame.height, self._count)])

    def reset(self) -> None:
        """Forget earlier frames."""
        self._detector.reset()

    def prepare(self, width: int, height: int, parallel: int) -> None:
        """Get ready for frames and tiles of this size.

        Raises:
            StandinError: the engine cannot run on such frames.
        """
        self._detector.prepare(width, height, parallel)
        for x0, y0, x1, y1 in tiles(width, height, self._count)[:1]:
            self._detector.prepare(x1 - x0, y1 - y0, parallel)

    def close(self) -> None:
        """Release what the detector holds."""
        self._detector.close()

    def _look(self, frame: Frame, tile: Box) -> Look:
        x0, y0, x1, y1 = tile
        part = np.ascontiguousarray(frame.image[y0:y1, x0:x1])
        found = moved(self._detector.detect(replace(frame, image=part)), x0, y0)
        return Look(tile, found, touching(found.boxes, tile, frame.width, frame.height), (frame.width, frame.height))


def together(detectors: Sequence[Detector], count: int) -> Detector:
    """Several detectors as one, which looks at ``count`` tiles in each direction as well where that is over one."""
    detector: Detector = Ensemble(detectors) if len(detectors) > 1 else detectors[0]
    return TiledDetector(detector, count) if count > 1 else detector


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What one tile shows.

    Attributes:
        tile: `xyxy` in pixels of the frame.
        found: in pixels of the frame.
        cut: (N,), which of them end where the tile does and the frame goes on.
        frame: width and height in pixels.
    """

    tile: Box
    found: Regions
    cut: npt.NDArray[np.bool_]
    frame: tuple[int, int]


def tiles(width: int, height: int, count: int) -> list[Box]:
    """Tiles of one size that cover a frame, row by row; none where they would be too small to show anybody.

    Args:
        width: of the frame, in pixels.
        height: likewise.
        count: in each direction.
    """
    columns, rows = (_spans(side, count) for side in (width, height))
    if min(columns[0][1], rows[0][1]) < _SMALLEST:
        return []
    return [(x0, y0, x1, y1) for y0, y1 in rows for x0, x1 in columns]


def _spans(side: int, count: int) -> list[tuple[int, int]]:
    length = min(side, -int(-side // (count - (count - 1) * _OVERLAP)))
    return [(start, start + length) for start in (round(i * (side - length) / (count - 1)) for i in range(count))]


def touching(boxes: npt.NDArray[np.float32], tile: Box, width: int, height: int) -> npt.NDArray[np.bool_]:
    """Which boxes (N, 4) end where the tile cuts the frame, (N,); at the frame's own edges nothing is cut."""
    x0, y0, x1, y1 = tile
    near = _TOUCHES * np.array([x1 - x0, y1 - y0], np.float32)
    begins = (boxes[:, :2] <= np.array([x0, y0]) + near) & (np.array([x0, y0]) > 0)
    ends = (boxes[:, 2:] >= np.array([x1, y1]) - near) & (np.array([x1, y1]) < np.array([width, height]))
    return np.asarray((begins | ends).any(axis=1), np.bool_)


def moved(regions: Regions, x: int, y: int) -> Regions:
    """The same regions, so many pixels further to the right and down."""
    changes: dict[int, Outline | None] = {}
    for index in range(len(regions)):
        if (outline := regions.outline(index)) is not None:
            mask, surface = outline.mask, outline.surface
            changes[index] = Outline(
                None if mask is None else PixelMask(mask.x0 + x, mask.y0 + y, mask.pixels),
                None if surface is None else surface.moved(x, y),
            )
    boxes = np.asarray(regions.boxes + np.array([x, y, x, y], np.float32), np.float32)
    return replace(regions, boxes=boxes, outlines=replaced_outlines(regions, changes))


def combined(whole: Regions, looks: Sequence[Look]) -> Regions:
    """What the look at the frame and those at its tiles found together.

    Finds of two looks that overlap enough are one (`stream.detectors.ensemble.unite`). A find that can only be a part,
    since its tile cuts it, or cuts the one whose mask has most of it, is added to the one who shares most of it.

    Args:
        whole: of the frame.
        looks: at tiles.
    """
    whole = with_masks(whole)
    entire, parts = list[Regions](), list[Regions]()
    for look in looks:
        found = with_masks(look.found)
        partial = look.cut | _of_somebody_cut(found, whole[_beyond(whole.boxes, look)])
        entire.append(found[~partial])
        parts.append(found[partial])
    # Whoever comes first brings the surface: in a tile it is known more exactly.
    united = with_masks(unite([*entire, whole]))
    for row in (part[[index]] for part in parts for index in range(len(part))):
        owner = _owner(row, united)
        united = with_partners(united, row, [] if owner is None else [(owner, 0)])
    return united


def _beyond(boxes: npt.NDArray[np.float32], look: Look) -> npt.NDArray[np.bool_]:
    """Which boxes of the frame (N, 4) reach beyond a tile, (N,)."""
    # A box may end a little outside the frame, and nobody is there.
    inside = np.clip(boxes, 0, np.array([*look.frame, *look.frame]))
    x0, y0, x1, y1 = look.tile
    return np.asarray(((inside[:, :2] < np.array([x0, y0])) | (inside[:, 2:] > np.array([x1, y1]))).any(axis=1))


def _of_somebody_cut(found: Regions, beyond: Regions) -> npt.NDArray[np.bool_]:
    """Which finds of a tile, (N,), show a part of somebody who reaches beyond it.

    Only masks tell: a box in the box of somebody near may be somebody far away.
    """
    rows = [index for index in range(len(beyond)) if mask_of(beyond, index) is not None]
    larger = beyond[np.array(rows, np.intp)]
    return np.array(
        [mask_of(found, row) is not None and _owner(found[[row]], larger) is not None for row in range(len(found))],
        np.bool_,
    )


def _owner(part: Regions, others: Regions) -> int | None:
    """The row of who shares most with the one region of `part`, and at least half of the smaller; None for nobody."""
    shares = [_share(part, others, row) for row in range(len(others))]
    best = int(np.argmax(shares)) if shares else 0
    return best if shares and shares[best] >= _SAME else None


def _share(part: Regions, others: Regions, row: int) -> float:
    if part.kinds[0] != others.kinds[row]:
        return 0.0
    if longer_sides(others.boxes[[row]])[0] < _LONG_ENOUGH * longer_sides(part.boxes)[0]:
        return 0.0
    mask, other = mask_of(part, 0), mask_of(others, row)
    if mask is not None and other is not None:
        return shared(mask, other)
    # A part without a mask is known by its box alone: most of what is smaller has to lie in the other one.
    smaller = float(min(geometry.area(part.boxes)[0], geometry.area(others.boxes[[row]])[0]))
    sides = np.minimum(part.boxes[0, 2:], others.boxes[row, 2:]) - np.maximum(part.boxes[0, :2], others.boxes[row, :2])
    return float(np.maximum(sides, 0).prod()) / smaller if smaller else 0.0
