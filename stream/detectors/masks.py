"""Masks that detectors give beside their boxes, as pixels of the frame."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from stream import geometry
from stream.detectors.view import Shown
from stream.outline import Outline, PixelMask

#: Of 255: from here on, a pixel is more likely the region's than not.
_HALF = 128


def outlines_of(
    masks: npt.NDArray[np.uint8],
    boxes: npt.NDArray[np.float32],
    shown: Shown,
    size: tuple[int, int],
    width: int,
    height: int,
) -> list[Outline | None]:
    """What the `masks` of a detector bundle say about each box.

    Args:
        masks: (N, mh, mw), 255 times the probability, over the whole of the picture with its padding.
        boxes: (N, 4) in frame pixels; what is outside the box is not the region's.
        shown: how large the detector saw the frame.
        size: height and width of the picture with its padding.
        width: of the frame, in pixels.
        height: of the frame, in pixels.

    Returns:
        For each box its pixels; None where the mask has none, so that the box counts.
    """
    pixels = geometry.to_pixels(boxes, width, height)
    scale = shown.scale_y / size[0], shown.scale_x / size[1]
    return [_outline(mask, box, scale) for mask, box in zip(masks, pixels, strict=True)]


def _outline(mask: npt.NDArray[np.uint8], box: npt.NDArray[np.int64], scale: tuple[float, float]) -> Outline | None:
    x0, y0, x1, y1 = (int(v) for v in box)
    if x1 <= x0 or y1 <= y0:
        return None
    # From the centre of a frame pixel to the same place in the mask's cells.
    down, across = (side * of for side, of in zip(mask.shape, scale, strict=True))
    place = np.array([[across, 0, (x0 + 0.5) * across - 0.5], [0, down, (y0 + 0.5) * down - 0.5]])
    smooth = cv2.warpAffine(
        mask,
        place,
        (x1 - x0, y1 - y0),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    inside = np.asarray(smooth) >= _HALF
    return Outline(PixelMask(x0, y0, inside)) if inside.any() else None


def pasted(mask: npt.NDArray[np.float32], box: npt.NDArray[np.float32], width: int, height: int) -> PixelMask:
    """A box's own mask in the pixels of the frame, as Mask R-CNN's are published.

    Sampled at the middle of each pixel (bilinear, 0 outside the mask); a half counts.

    Args:
        mask: (s, s), probability over the box.
        box: (4,) in pixels of the frame, with area.
        width: of the frame, in pixels.
        height: of the frame, in pixels.
    """
    x0, y0 = (max(0, math.floor(edge) - 1) for edge in box[:2])
    x1, y1 = (min(limit, math.ceil(edge) + 1) for edge, limit in zip(box[2:], (width, height), strict=True))
    rows = _between(y0, y1, float(box[1]), float(box[3]), mask.shape[0])
    columns = _between(x0, x1, float(box[0]), float(box[2]), mask.shape[1])
    return PixelMask(x0, y0, np.asarray(rows @ mask @ columns.T >= 0.5))


def _between(first: int, last: int, low: float, high: float, cells: int) -> npt.NDArray[np.float32]:
    """Weights of the cells of an axis from `low` to `high` at the middle of each pixel, (last - first, cells)."""
    place = (np.arange(first, last) + 0.5 - low) / (high - low) * cells - 0.5
    return np.asarray(np.maximum(1 - np.abs(place[:, None] - np.arange(cells)), 0), np.float32)
