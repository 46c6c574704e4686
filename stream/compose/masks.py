"""Masks in the pixels of a crop: cut, dilated, and back into the frame."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from stream import resample
from stream.outline import Bools, Box, PixelMask, intersection

#: Radius of the dilation, relative to the mean side of the crop (DeepPrivacy2) ...
_DILATION = 0.02
#: ... and in pixels of a body of 256 x 256 (SG-GAN).
_BODY_RADIUS, _BODY_PIXELS = 8, 256**2


def cut(mask: PixelMask, box: Box, size: tuple[int, int]) -> Bools:
    """The part of a mask in a box, resized (nearest).

    Args:
        mask: in the frame.
        box: of the crop, with area; may reach outside the frame.
        size: height and width of the crop.

    Returns:
        bool (H, W).
    """
    x0, y0, x1, y1 = box
    rows = resample.nearest(y1 - y0, size[0]) + y0 - mask.y0
    columns = resample.nearest(x1 - x0, size[1]) + x0 - mask.x0
    height, width = mask.pixels.shape
    out = np.zeros(size, np.bool_)
    down, across = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    if down.any() and across.any():
        out[np.ix_(down, across)] = mask.pixels[rows[down][:, None], columns[across]]
    return out


def touched(mask: PixelMask, box: Box, size: tuple[int, int]) -> Bools:
    """The pixels of a crop from which at least one pixel of the mask is written, bool (H, W).

    `cut` may miss what is thinner than a pixel of the crop. With these as well, `back` writes every pixel of the mask
    that lies in the box.

    Args:
        mask: in the frame.
        box: of the crop, with area.
        size: height and width of the crop.
    """
    inside = mask.within(box)
    out = np.zeros(size, np.bool_)
    if not inside.pixels.any():
        return out
    down = resample.nearest(size[0], box[3] - box[1])[inside.y0 - box[1] :][: inside.pixels.shape[0]]
    across = resample.nearest(size[1], box[2] - box[0])[inside.x0 - box[0] :][: inside.pixels.shape[1]]
    rows = np.flatnonzero(np.diff(down, prepend=-1))
    columns = np.flatnonzero(np.diff(across, prepend=-1))
    small = np.logical_or.reduceat(inside.pixels, rows, axis=0)
    out[np.ix_(down[rows], across[columns])] = np.logical_or.reduceat(small, columns, axis=1)
    return out


def back(crop: Bools, box: Box, inside: Box) -> Bools:
    """A crop's mask in the pixels of the frame, resized (nearest).

    Args:
        crop: bool (H, W).
        box: of the crop.
        inside: the part that is wanted, within `box`.

    Returns:
        bool, as large as `inside`.
    """
    rows = resample.nearest(crop.shape[0], box[3] - box[1])[inside[1] - box[1] : inside[3] - box[1]]
    columns = resample.nearest(crop.shape[1], box[2] - box[0])[inside[0] - box[0] : inside[2] - box[0]]
    return np.asarray(crop[rows][:, columns])


def back_any(crop: Bools, box: Box, inside: Box) -> Bools:
    """As `back`, but a pixel counts if any pixel of the crop has a share in it (SG-GAN, antialiased bilinear > 0)."""
    moved = resample.resize(
        crop.astype(np.float32),
        resample.axis("bilinear", crop.shape[0], box[3] - box[1]),
        resample.axis("bilinear", crop.shape[1], box[2] - box[0]),
        part=((inside[1] - box[1], inside[3] - box[1]), (inside[0] - box[0], inside[2] - box[0])),
    )
    return np.asarray(moved > 0)


@lru_cache(maxsize=64)
def _disk(radius: int) -> npt.NDArray[np.uint8]:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(x**2 + y**2 <= radius**2, np.uint8)


def dilate(mask: Bools, radius: int) -> Bools:
    """The pixels within a disk of any pixel of a mask, bool (H, W)."""
    return np.asarray(cv2.dilate(mask.view(np.uint8), _disk(radius)) > 0)


def dilate_person(mask: Bools, box: Box, frame: tuple[int, int]) -> Bools:
    """DeepPrivacy2's dilation; what falls into the padding outside the frame is taken away again.

    Args:
        mask: bool (H, W), True on the person.
        box: of the crop in the frame.
        frame: height and width.
    """
    height, width = mask.shape
    grown = dilate(mask, int((height * width) ** 0.5 * _DILATION))
    # The published rule uses the vertical ratio for both axes.
    ratio = np.float32(height) / np.float32(box[3] - box[1])
    left, top, right, bottom = (
        int(np.float32(max(0, pad)) * ratio) for pad in (-box[0], -box[1], box[2] - frame[1], box[3] - frame[0])
    )
    grown[:top] = False
    grown[:, :left] = False
    grown[max(0, height - bottom) :] = False
    grown[:, max(0, width - right) :] = False
    return grown


def dilate_body(mask: Bools) -> Bools:
    """SG-GAN's dilation: the larger the body, the more."""
    pixels = int(np.count_nonzero(mask))
    return dilate(mask, max(1, math.ceil(_BODY_RADIUS * math.sqrt(pixels / _BODY_PIXELS))))


def face_mask(face: Box, box: Box, size: tuple[int, int]) -> Bools:
    """The pixels of a face crop that belong to the face's own box, bool (H, W).

    Args:
        face: in the frame.
        box: of the crop.
        size: height and width of the crop.
    """
    factor = size[0] / (box[2] - box[0])
    x0, y0, x1, y1 = (int(max(0, edge - box[i % 2]) * factor) for i, edge in enumerate(face))
    out = np.zeros(size, np.bool_)
    out[y0:y1, x0:x1] = True
    return out


def covers(parts: list[tuple[Bools, Box]], box: Box) -> bool:
    """Whether every pixel of a box will be replaced by one of several crops.

    Args:
        parts: of each its unknown pixels (H, W) and its box.
        box: in the frame.
    """
    left = np.ones((max(0, box[3] - box[1]), max(0, box[2] - box[0])), np.bool_)
    for unknown, where in parts:
        shared = intersection(where, box)
        if shared[0] < shared[2] and shared[1] < shared[3]:
            x0, y0, x1, y1 = shared
            left[y0 - box[1] : y1 - box[1], x0 - box[0] : x1 - box[0]] &= ~back(unknown, where, shared)
    return not left.any()
