"""Pure functions on boxes: (N, 4) arrays, `xyxy` in pixels, x1 and y1 exclusive."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def grow(boxes: npt.ArrayLike, margin: float) -> Floats:
    """Move every side outwards by `margin` times the box's width or height.

    Args:
        boxes: (N, 4).
        margin: 0.2 makes a box 1.4 times as wide and as high.
    """
    return grow_like(boxes, boxes, margin)


def grow_like(boxes: npt.ArrayLike, models: npt.ArrayLike, margin: float) -> Floats:
    """Move every side outwards by `margin` times the width or height of the model's box, (N, 4).

    Args:
        boxes: (N, 4).
        models: (N, 4), one for each box.
        margin: 0.2 makes a box wider by 0.4 times the model's width, and higher likewise.
    """
    array = np.asarray(boxes, np.float32).reshape(-1, 4)
    model = np.asarray(models, np.float32).reshape(-1, 4)
    sides = (model[:, 2:] - model[:, :2]) * np.float32(margin)
    return np.concatenate([array[:, :2] - sides, array[:, 2:] + sides], axis=1)


def shift(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> Floats:
    """How far the centre of one box (4,) lies from that of another, as (dx, dy, dx, dy) to be added to boxes."""
    moved = (second[:2] + second[2:] - first[:2] - first[2:]) / 2
    return np.asarray(np.concatenate([moved, moved]), np.float32)


def to_pixels(boxes: npt.ArrayLike, width: int, height: int) -> Ints:
    """The whole pixels that boxes touch, inside the frame.

    Rounds outwards, so that no pixel that a box touches is left out; a box without area still touches the pixel that
    it lies on. A box outside the frame comes back empty (x0 == x1 or y0 == y1).

    Args:
        boxes: (N, 4).
        width: of the frame, in pixels.
        height: of the frame, in pixels.
    """
    limits = np.array([width, height, width, height], np.float64)
    return np.clip(_outwards(boxes), 0, limits).astype(np.int64)


def whole(box: npt.ArrayLike) -> tuple[int, int, int, int]:
    """The whole pixels that one box (4,) touches, as `to_pixels` has them, but outside the frame as well."""
    x0, y0, x1, y1 = _outwards(box)[0].tolist()
    return int(x0), int(y0), int(x1), int(y1)


def _outwards(boxes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(boxes, np.float64).reshape(-1, 4)
    first = np.floor(array[:, :2])
    return np.concatenate([first, np.maximum(np.ceil(array[:, 2:]), first + 1)], axis=1)


def area(boxes: npt.ArrayLike) -> Floats:
    """Area of every box in square pixels, (N,)."""
    array = np.asarray(boxes, np.float32).reshape(-1, 4)
    sides = np.maximum(array[:, 2:] - array[:, :2], 0)
    return np.asarray(sides[:, 0] * sides[:, 1], np.float32)


def iou(first: npt.ArrayLike, second: npt.ArrayLike) -> Floats:
    """Intersection over union of every pair, (N, M); 0 where both are empty.

    In float64 on the way: areas of boxes of any float32 coordinates fit into it.
    """
    a = np.asarray(first, np.float64).reshape(-1, 4)
    b = np.asarray(second, np.float64).reshape(-1, 4)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.maximum(high - low, 0).prod(axis=2)
    mine, theirs = (np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1) for boxes in (a, b))
    union = mine[:, None] + theirs[None] - inter
    return np.asarray(np.divide(inter, union, out=np.zeros_like(inter), where=union > 0), np.float32)


def union_box(first: npt.ArrayLike, second: npt.ArrayLike) -> Floats:
    """The smallest boxes that hold both, pair by pair, (N, 4)."""
    a = np.asarray(first, np.float32).reshape(-1, 4)
    b = np.asarray(second, np.float32).reshape(-1, 4)
    return np.concatenate([np.minimum(a[:, :2], b[:, :2]), np.maximum(a[:, 2:], b[:, 2:])], axis=1)


def interpolate(first: npt.ArrayLike, second: npt.ArrayLike, fraction: float) -> Floats:
    """Boxes on the way from `first` (fraction 0) to `second` (fraction 1), (N, 4)."""
    a = np.asarray(first, np.float32).reshape(-1, 4)
    b = np.asarray(second, np.float32).reshape(-1, 4)
    return (a + (b - a) * np.float32(fraction)).astype(np.float32)


def outside(boxes: npt.ArrayLike, width: int, height: int) -> npt.NDArray[np.bool_]:
    """Which boxes touch no pixel of the frame, (N,)."""
    pixels = to_pixels(boxes, width, height)
    return np.asarray((pixels[:, 2] <= pixels[:, 0]) | (pixels[:, 3] <= pixels[:, 1]))
