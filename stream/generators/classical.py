"""Classical anonymizers: fill a region from nothing but itself, without a network.

Each takes a region's pixels, uint8 RGB (h, w, 3) with h, w >= 1, and returns new ones of the same shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np

from stream.frame import Image

Method = Literal["blur", "pixelate", "mask"]
Fill = Callable[[Image], Image]

#: A cell never gets smaller than this many pixels: eight cells across an eight pixel face would change nothing.
_SMALLEST_CELL = 4
#: Blurring starts from at most this many samples across: what is finer is gone at any useful radius.
_BLUR_SAMPLES = 32


def mask_out(colour: tuple[int, int, int]) -> Fill:
    """Flat colour: nothing of the region is left. DeepPrivacy2 calls it mask-out.

    Args:
        colour: RGB, 0 to 255.
    """

    def fill(region: Image) -> Image:
        return np.broadcast_to(np.array(colour, np.uint8), region.shape).copy()

    return fill


def pixelate(cells: int) -> Fill:
    """Reduce the region to cells x cells mean colours (the papers' pixelation 8x8 and 16x16).

    The number of cells is of the region, not of pixels, so that a large face shows no more than a small one.

    Args:
        cells: across and down, 8 or 16 in the papers; fewer where cells would be under 4 pixels.
    """

    def fill(region: Image) -> Image:
        height, width = region.shape[:2]
        across = max(1, min(cells, width // _SMALLEST_CELL))
        down = max(1, min(cells, height // _SMALLEST_CELL))
        small = cv2.resize(region, (across, down), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)

    return fill


def blur(radius: float) -> Fill:
    """Gaussian blur whose standard deviation is `radius` times the region's longer side.

    Args:
        radius: 0.25 leaves a few soft blobs of any face, however large.
    """

    def fill(region: Image) -> Image:
        height, width = region.shape[:2]
        longer = max(height, width)
        scale = min(1.0, _BLUR_SAMPLES / longer)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(region, size, interpolation=cv2.INTER_AREA)
        sigma = max(radius * max(size), 1.0)
        # OpenCV would cut the kernel at three sigma rounded; an explicit odd size keeps tiny regions valid.
        kernel = 2 * math.ceil(3 * sigma) + 1
        soft = cv2.GaussianBlur(small, (kernel, kernel), sigma, borderType=cv2.BORDER_REPLICATE)
        return np.asarray(cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)

    return fill
