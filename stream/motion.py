"""How the outline of a detection is carried to another frame: moved and grown as far as its box is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream import geometry
from stream.outline import Box, Outline, intersection, is_empty

BoxFloats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """Where a region may be in a frame in which it was not detected, all boxes (4,).

    Attributes:
        seen: where it was detected, in another frame.
        expected: where it most likely is.
        places: all places where it may be, in one box.
        region: these grown, what is covered where nothing but the box is known.
    """

    seen: BoxFloats
    expected: BoxFloats
    places: BoxFloats
    region: BoxFloats

    def reach(self) -> Box:
        """How far each pixel may be from where it was seen: smallest moves right and down, and largest, in pixels.

        A pixel that lies a share u across the box moves by (1 - u) times the move of one side and u times that of the
        other, whether the box is moved, scaled or both. So the moves of the two sides bound it. To them comes what the
        region is grown by.
        """
        seen, places, region = (box.astype(np.float64) for box in (self.seen, self.places, self.region))
        sides = np.stack([(places - seen)[:2], (places - seen)[2:]])
        low = sides.min(axis=0) - (places - region)[:2]
        high = sides.max(axis=0) + (region - places)[2:]
        return math.floor(low[0]), math.floor(low[1]), math.ceil(high[0]), math.ceil(high[1])


def carry(outline: Outline | None, move: Move, width: int, height: int) -> tuple[BoxFloats, Outline | None]:
    """A region's box and outline in a frame in which it was not detected.

    The mask is taken at every place within the reach of its box, not at the likely ones alone: a long move leaves no
    gap, whichever way it goes, and one operation does for moving, scaling and growing. It covers more than a mask that
    is moved along a line, and never more than the box.

    Args:
        outline: as detected, as `Outline.kept` gives it; None where there is only a box.
        move: of its box.
        width: of the frame, in pixels.
        height: of the frame, in pixels.

    Returns:
        The box (4,) is the move's `region`, larger only where the detection's mask was not inside its box. The mask is
        inside box and frame. The outline is None where the box counts.
    """
    if outline is None or outline.mask is None:
        return move.region, None
    mask, seen, frame = outline.mask, geometry.whole(move.seen), (0, 0, width, height)
    box, limit = move.region, geometry.whole(move.region)
    if intersection(mask.box, seen) != mask.box:
        low = (min(0, mask.box[i] - seen[i]) for i in (0, 1))
        high = (max(0, mask.box[i] - seen[i]) for i in (2, 3))
        over = (*low, *high)
        limit = limit[0] + over[0], limit[1] + over[1], limit[2] + over[2], limit[3] + over[3]
        box = np.asarray(geometry.union_box(box, limit)[0], np.float32)
    reach = move.reach()
    carried = mask.spread(reach, intersection(limit, frame))
    for band in _beyond_the_edges(seen, reach, width, height):
        carried.within(band).pixels[...] = True
    if not carried.pixels.any():
        return box, None
    surface = outline.surface
    if surface is not None:
        x, y = geometry.shift(move.seen, move.expected)[:2].tolist()
        surface = surface.moved(round(x), round(y))
        if is_empty(intersection(surface.box, frame)):
            surface = None
    return box, Outline(carried, surface)


def carry_between(
    near: tuple[BoxFloats, Outline | None],
    far: tuple[BoxFloats, Outline | None],
    place: BoxFloats,
    region: BoxFloats,
    frame: tuple[int, int],
) -> tuple[BoxFloats, Outline | None]:
    """As `carry`, from two detections to a frame between them: the pixels of both, and the nearer one's surface.

    Args:
        near: box (4,) and outline of the detection that is nearer in time.
        far: of the other one. If either has no outline, the box counts, since it may hold more than a mask.
        place: (4,) where the region is taken to be.
        region: (4,) this grown.
        frame: width and height, in pixels.
    """
    (box, first), (other, second) = (
        carry(outline, Move(seen, place, place, region), *frame) for seen, outline in (near, far)
    )
    box = np.asarray(geometry.union_box(box, other)[0], np.float32)
    if first is None or second is None or first.mask is None or second.mask is None:
        return box, None
    return box, Outline(first.mask.union(second.mask), first.surface or second.surface)


def _beyond_the_edges(seen: Box, reach: Box, width: int, height: int) -> list[Box]:
    """What may come into the frame from beyond the edges that a detection touched: no mask shows it, so all of it."""
    x0, y0 = seen[0] + reach[0], seen[1] + reach[1]
    x1, y1 = seen[2] + reach[2], seen[3] + reach[3]
    bands = []
    if seen[0] <= 0:
        bands.append((0, y0, reach[2], y1))
    if seen[1] <= 0:
        bands.append((x0, 0, x1, reach[3]))
    if seen[2] >= width:
        bands.append((width + reach[0], y0, width, y1))
    if seen[3] >= height:
        bands.append((x0, height + reach[1], x1, height))
    return bands
