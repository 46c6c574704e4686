"""Cutting a face or person out of a frame, for networks that look at pictures of one."""

from __future__ import annotations

from typing import Final

import numpy as np

from stream.frame import Image
from stream.regions import Kind

#: A face is cut out as a square of so many times its longer side, as networks for faces expect it.
_FACE: Final = 1.2


def cut(image: Image, box: tuple[float, float, float, float], kind: Kind) -> Image:
    """The region, with what is outside the frame as its edge is; uint8 RGB (h, w, 3), two pixels a side at least.

    Args:
        image: uint8 RGB (height, width, 3).
        box: `xyxy` in its pixels.
        kind: a face is cut out as a square with a margin, a person as its box.
    """
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    if kind is Kind.FACE:
        width = height = _FACE * max(width, height)
    left, top = round((x0 + x1 - width) / 2), round((y0 + y1 - height) / 2)
    wide, high = max(2, round(width)), max(2, round(height))
    rows = np.clip(np.arange(top, top + high), 0, image.shape[0] - 1)
    columns = np.clip(np.arange(left, left + wide), 0, image.shape[1] - 1)
    return np.ascontiguousarray(image[rows[:, None], columns])
