"""Caution: covers more of a person than was found, for detectors whose masks are small at the edges, or flicker.

Everything here adds to what is covered and takes nothing away. A surface stays as it was found: what grows is the mask,
that is, what is taken for unknown and replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from stream import geometry
from stream.outline import Box, Outline, PixelMask, intersection
from stream.regions import NO_TRACK, Kind, Origin, Regions
from stream.stitch import Shape, covered_boxes
from stream.union import one_for_each_track, replaced_outlines

BoxFloats = npt.NDArray[np.float32]

#: What was covered before counts as far from the person's box as this share of its longer side: an arm that is missed
#: is missed by the box as well.
_REACH = 0.25
#: Masks that move out by so many pixels and more are taken in cells: of two pixels, of three from twice as many on ...
_CELLS = 8
#: A face is looked for in this share of a person's box, from its top.
_UPPER = 0.5
#: A face is in a person if more than this share of its box is.
_MOSTLY = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """A track's own pixels in an earlier frame, the box (4,) that it had there, and how far it went since, (2,)."""

    frame: int
    box: BoxFloats
    mask: PixelMask
    went: BoxFloats


class Caution:
    """Covers more of the persons of one stream, frame by frame; knows what their masks were a few frames ago.

    Args:
        mask_margin: masks of persons move out by this share of the shorter side of the person's box, by a pixel at
            least; 0 leaves them.
        mask_frames: frames for which what a track's mask covered stays covered; until there are so many, gaps in it are
            covered (its convex hull).
        join_faces: whether faces in persons who will be replaced become part of them.
        margin: of classical anonymizers: a face that joins a person brings all that would have been covered of it.
        shape: likewise.
    """

    def __init__(
        self,
        *,
        mask_margin: float = 0.0,
        mask_frames: int = 0,
        join_faces: bool = False,
        margin: float = 0.0,
        shape: Shape = "box",
    ) -> None:
        self._mask_margin = mask_margin
        self._mask_frames = mask_frames
        self._join_faces = join_faces
        self._margin = margin
        self._shape: Shape = shape
        self._frame = 0
        self._seen: dict[int, list[_Seen]] = {}

    @property
    def remembered(self) -> int:
        """How many masks are kept."""
        return sum(map(len, self._seen.values()))

    def reset(self) -> None:
        """Forget the stream so far: another one counts its tracks anew."""
        self._seen.clear()

    def apply(self, regions: Regions, width: int, height: int) -> Regions:
        """The regions of the next frame with more in them: one for each track, larger masks, faces joined to persons.

        To be called once for each frame, in order.

        Args:
            regions: everything that has to be covered.
            width: of the frame, in pixels.
            height: of the frame, in pixels.
        """
        self._frame += 1
        regions = one_for_each_track(regions)
        masks = {}
        for row in np.flatnonzero(regions.kinds == Kind.PERSON).tolist():
            own = own_pixels(regions.outline(row), width, height)
            if own is not None:
                masks[row] = self._grown(own, regions.boxes[row], int(regions.track_ids[row]), width, height)
        self._forget()
        left = np.ones(len(regions), np.bool_)
        if self._join_faces:
            covered = geometry.to_pixels(covered_boxes(regions, self._margin, self._shape), width, height)
            masks, left = join_faces(regions, masks, covered)
        grown = with_masks(regions, masks)
        return grown if left.all() else grown[left]

    def _grown(self, own: PixelMask, box: BoxFloats, track_id: int, width: int, height: int) -> PixelMask:
        """A person's mask with what was covered of the track before, dilated and closed."""
        parts = [own]
        if self._mask_frames and track_id != NO_TRACK:
            # Only what was found is remembered, not what memory added to it: else it would never end.
            known = self._seen.get(track_id, [])
            step = step_of(known[-1].box, box) if known else np.zeros(2, np.float32)
            limit = intersection(reach_of(box), (0, 0, width, height))
            seen = [replace(s, went=s.went + step) for s in known if self._frame - s.frame <= self._mask_frames]
            if len(seen) < self._mask_frames:
                # No other mask says, or none that is new enough, whether a gap between a head and legs is one.
                parts = [hull(own)]
            for earlier in seen:
                parts += moved(earlier.mask, earlier.went, limit), scaled(earlier.mask, earlier.box, box, limit)
            mine = PixelMask(own.x0, own.y0, own.pixels.copy())
            seen.append(_Seen(self._frame, box.copy(), mine, np.zeros(2, np.float32)))
            self._seen[track_id] = seen[-self._mask_frames :]
        mask = united(parts)
        if self._mask_margin:
            sides = box[2:] - box[:2]
            mask = dilated(mask, max(1, round(self._mask_margin * float(sides.min()))), width, height)
        return mask

    def _forget(self) -> None:
        """Drop what no later frame will ask for."""
        for track_id in [t for t, seen in self._seen.items() if self._frame - seen[-1].frame >= self._mask_frames]:
            del self._seen[track_id]


def own_pixels(outline: Outline | None, width: int, height: int) -> PixelMask | None:
    """What an outline covers within the frame: its mask and its dense pose.

    Args:
        outline: of a person.
        width: of the frame, in pixels.
        height: of the frame, in pixels.

    Returns:
        None where there is no pixel of it, so that the region's box counts.
    """
    if outline is None:
        return None
    mask, surface, frame = outline.mask, outline.surface, (0, 0, width, height)
    if mask is not None and not mask.within(frame).pixels.any():
        # The box counts then, and a surface beside it must not make less of that.
        return None
    found = [] if mask is None else [mask]
    if surface is not None:
        # Either may be pasted, by whose rules the frame is composed.
        found += [surface.nearest_mask(), surface.linear_mask()]
    inside = united([part.within(frame) for part in found]).tight()
    return inside if inside.pixels.size else None


def united(masks: Sequence[PixelMask]) -> PixelMask:
    """The pixels of all of them; empty where there are none."""
    present = [mask for mask in masks if mask.pixels.size]
    if not present:
        return PixelMask.filled((0, 0, 0, 0))
    corners = np.array([mask.box for mask in present])
    (x0, y0), (x1, y1) = corners[:, :2].min(axis=0).tolist(), corners[:, 2:].max(axis=0).tolist()
    whole = PixelMask(x0, y0, np.zeros((y1 - y0, x1 - x0), np.bool_))
    for mask in present:
        pixels = whole.within(mask.box).pixels
        pixels |= mask.pixels
    return whole


def hull(mask: PixelMask) -> PixelMask:
    """The convex hull of a mask with a pixel at least: whatever lies between its parts is in."""
    rows = np.flatnonzero(mask.pixels.any(axis=1))
    inside = mask.pixels[rows]
    first, last = inside.argmax(axis=1), inside.shape[1] - 1 - inside[:, ::-1].argmax(axis=1)
    ends = np.concatenate([np.stack([first, rows], axis=1), np.stack([last, rows], axis=1)]).astype(np.int32)
    filled = np.zeros(mask.pixels.shape, np.uint8)
    cv2.fillConvexPoly(filled, cv2.convexHull(ends), 1)
    return PixelMask(mask.x0, mask.y0, filled.view(np.bool_) | mask.pixels)


def reach_of(box: BoxFloats) -> Box:
    """How far from a box (4,) what was covered before counts, in whole pixels."""
    side = np.float32(_REACH) * (box[2:] - box[:2]).max()
    return geometry.whole(np.concatenate([box[:2] - side, box[2:] + side]))


def step_of(before: BoxFloats, now: BoxFloats) -> BoxFloats:
    """How far a person went to the right and down, (2,), from one box (4,) to the next.

    As far as those sides went that moved less: what a detector misses pulls one side in, and the other still tells
    where the person went.
    """
    low, high = (now - before)[:2], (now - before)[2:]
    return np.asarray(np.where(np.abs(low) < np.abs(high), low, high), np.float32)


def moved(mask: PixelMask, went: BoxFloats, limit: Box) -> PixelMask:
    """A mask of an earlier frame as far away as its person went since (2,), inside a box."""
    x, y = np.rint(went).astype(int).tolist()
    return PixelMask(mask.x0 + x, mask.y0 + y, mask.pixels).within(limit)


def scaled(mask: PixelMask, before: BoxFloats, now: BoxFloats, limit: Box) -> PixelMask:
    """A mask of an earlier frame moved and scaled as its person's box was; the nearest pixel counts.

    Args:
        mask: pixels of an earlier frame.
        before: the box (4,) then.
        now: the box (4,) in this frame; the mask is taken as far as it goes.
        limit: nothing is outside of it.
    """
    x0, y0, x1, y1 = intersection(limit, geometry.whole(now))
    columns = _back(np.arange(x0, x1), before[0::2], now[0::2]) - mask.x0
    rows = _back(np.arange(y0, y1), before[1::2], now[1::2]) - mask.y0
    down = np.flatnonzero((rows >= 0) & (rows < mask.pixels.shape[0]))
    across = np.flatnonzero((columns >= 0) & (columns < mask.pixels.shape[1]))
    if not len(down) or not len(across):
        return PixelMask.filled((0, 0, 0, 0))
    found = mask.pixels.take(rows[down], axis=0).take(columns[across], axis=1)
    return PixelMask(x0 + int(across[0]), y0 + int(down[0]), found)


def _back(pixels: npt.NDArray[np.int64], before: BoxFloats, now: BoxFloats) -> npt.NDArray[np.int64]:
    """Where pixels of an axis were when the sides `now` were `before`: the pixel in which the middle of each was."""
    scale = (before[1] - before[0]) / max(now[1] - now[0], np.float32(1))
    return np.asarray(np.floor(before[0] + (pixels + 0.5 - now[0]) * scale), np.int64)


def dilated(mask: PixelMask, reach: int, width: int, height: int) -> PixelMask:
    """A mask moved out by so many pixels, and holes and gaps that are not wider than twice that closed.

    By distances to the nearest pixel, so that the cost does not depend on how far that is. Large masks are taken in
    cells of some pixels, of which one is enough: they move out by up to two cells more, and cost little more than small
    ones.

    Args:
        mask: with a pixel at least.
        reach: in pixels, 1 at least.
        width: of the frame, in pixels; nothing is outside of it.
        height: of the frame, in pixels.
    """
    cell = 1 + reach // _CELLS
    # A pixel may be at the far side of its cell.
    steps = -(-reach // cell) + (cell > 1)
    border = 2 * steps + 2
    away = _distance(~np.pad(_cells(mask.pixels, cell), border))
    # Closed: moved out once more, and back in. What was in after the first move stays in whatever rounding says.
    closed = _distance(away <= 2 * steps) > steps
    pixels = np.asarray((away <= steps) | closed).repeat(cell, axis=0).repeat(cell, axis=1)
    grown = PixelMask(mask.x0 - border * cell, mask.y0 - border * cell, pixels)
    return grown.within((0, 0, width, height)).tight()


def _cells(pixels: npt.NDArray[np.bool_], cell: int) -> npt.NDArray[np.bool_]:
    """Whether squares of so many pixels hold one that is set."""
    if cell == 1:
        return pixels
    padded = np.pad(pixels, [(0, -side % cell) for side in pixels.shape])
    rows = np.logical_or.reduce([padded[at::cell] for at in range(cell)])
    return np.asarray(np.logical_or.reduce([rows[:, at::cell] for at in range(cell)]))


def _distance(pixels: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Of every pixel that is set to the nearest one that is not, 0 elsewhere."""
    found = cv2.distanceTransform(pixels.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return np.asarray(found, np.float32)


def with_masks(regions: Regions, masks: Mapping[int, PixelMask]) -> Regions:
    """Regions some of which have other masks; their boxes grow to hold them, their surfaces stay.

    Args:
        regions: of one frame.
        masks: by row, of regions that have an outline.
    """
    if not masks:
        return regions
    boxes, changes = regions.boxes.copy(), dict[int, Outline | None]()
    for row, mask in masks.items():
        outline = regions.outline(row)
        changes[row] = Outline(mask, outline.surface if outline is not None else None)
        boxes[row] = geometry.union_box(boxes[row], np.array(mask.box, np.float32))[0]
    return replace(regions, boxes=boxes, outlines=replaced_outlines(regions, changes))


def join_faces(
    regions: Regions, masks: Mapping[int, PixelMask], covered: geometry.Ints
) -> tuple[dict[int, PixelMask], npt.NDArray[np.bool_]]:
    """Faces become part of the persons in whom they are: all that would be covered of them, and regions no more.

    Only persons who have a surface and a track take faces: they alone get a stand-in. Faces that were given by hand
    stay.

    Args:
        regions: of one frame, one for each track.
        masks: of persons, by row.
        covered: (N, 4), whole pixels inside the frame that a classical anonymizer would cover of each region.

    Returns:
        The masks with faces in them; and (N,), which regions are left.
    """
    changed, left = dict(masks), np.ones(len(regions), np.bool_)
    persons = [row for row in masks if regions.track_ids[row] != NO_TRACK and _posed(regions.outline(row))]
    faces = np.flatnonzero((regions.kinds == Kind.FACE) & (regions.origins != Origin.MANUAL)).tolist()
    for face in faces if persons else ():
        place = geometry.whole(regions.boxes[face])
        shares = {row: _share(place, masks[row], regions.boxes[row]) for row in persons}
        row = max(shares, key=lambda person: shares[person])
        x0, y0, x1, y1 = covered[face].tolist()
        if shares[row] > _MOSTLY:
            changed[row] = united([changed[row], PixelMask.filled((x0, y0, x1, y1))])
            left[face] = False
    return changed, left


def _posed(outline: Outline | None) -> bool:
    """Whether there is a dense pose that a generator can follow."""
    return outline is not None and outline.surface is not None and bool(outline.surface.segmentation.any())


def _share(face: Box, mask: PixelMask, person: BoxFloats) -> float:
    """How much of a face's box, in whole pixels (4,), is in a person: in the mask, or in the upper part of the box."""
    left, top, right, bottom = person.tolist()
    upper = geometry.whole(np.array([left, top, right, top + _UPPER * (bottom - top)], np.float32))
    shared = intersection(upper, face)
    within = (shared[2] - shared[0]) * (shared[3] - shared[1])
    return max(within, mask.within(face).area) / ((face[2] - face[0]) * (face[3] - face[1]))
