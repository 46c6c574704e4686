"""Outlines that tests make, and look at pixel by pixel."""

from __future__ import annotations

import numpy as np

from stream.outline import Box, Outline, PixelMask
from stream.regions import Kind, Regions


def pixels_of(outline: Outline | None, width: int, height: int) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """What an outline's mask covers of a frame."""
    assert outline is not None
    assert outline.mask is not None
    whole = PixelMask.filled((0, 0, width, height))
    whole.pixels[...] = False
    outline.mask.paint(whole)
    return whole.pixels


def person(box: Box, mask: Box | None) -> Regions:
    """One, whose mask is a filled box."""
    outline = None if mask is None else Outline(PixelMask.filled(mask))
    return Regions.of([box], Kind.PERSON, outlines=None if outline is None else [outline])
