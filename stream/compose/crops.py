"""Pictures for a generator cut from a frame, and its answer brought back to the frame's pixels."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from stream import resample
from stream.compose.resampler import HOST, Resampler
from stream.frame import Image
from stream.outline import Bools, Box, PixelMask, intersection, is_empty
from stream.resample import Floats

Cutting = Literal["person", "face", "surface"]

#: A pixel of a crop is unknown if hidden pixels have at least this share in it: half a level of 255 and a bit.
_SHARE = 1 / 256


def cut_image(
    frame: Image,
    box: Box,
    size: tuple[int, int],
    cutting: Cutting,
    hidden: PixelMask | None,
    resampler: Resampler = HOST,
) -> tuple[Image, Bools | None]:
    """What a generator sees of a frame: the box, black outside the frame, resized.

    Persons: antialiased bicubic, nearest where both sides are enlarged. Faces: bicubic where they are enlarged, else
    means of areas. Surfaces (SG-GAN): antialiased bilinear.

    Args:
        frame: uint8 RGB, as it is by now.
        box: to be cut, with area; may reach outside the frame.
        size: height and width of the crop.
        cutting: the way to resize.
        hidden: pixels of the frame that must not show; they are black before anything is resized, so that nothing of
            the crop depends on them.
        resampler: does what is antialiased.

    Returns:
        uint8 (H, W, 3); and bool (H, W), True where hidden pixels had a share in the crop, None where none are hidden.
    """
    height, width = frame.shape[:2]
    inside = intersection(box, (0, 0, width, height))
    if is_empty(inside):
        return np.zeros((*size, 3), np.uint8), None
    x0, y0, x1, y1 = inside
    patch = np.ascontiguousarray(frame[y0:y1, x0:x1])
    share: Bools | None = None
    if hidden is not None:
        visible = PixelMask.filled(inside)
        hidden.paint(visible, value=False)
        if not visible.pixels.all():
            patch = cv2.copyTo(patch, visible.pixels.view(np.uint8)).astype(np.uint8, copy=False)
            share = ~visible.pixels
    start = y0 - box[1], x0 - box[0]
    whole = box[3] - box[1], box[2] - box[0]
    crop = _resized(patch, start, whole, size, cutting, resampler)
    if share is None:
        return crop, None
    return crop, _shares(share, start, whole, size, cutting)


def _way(whole: tuple[int, int], size: tuple[int, int], cutting: Cutting) -> str:
    """Which filter takes a box of `whole` pixels to a crop of `size`."""
    if cutting == "surface":
        return "bilinear"
    if whole == size:
        return "nearest"
    if cutting == "face":
        return "bicubic" if whole[0] * whole[1] < size[0] * size[1] else "area"
    return "nearest" if whole[0] < size[0] and whole[1] < size[1] else "bicubic"


def _resized(
    patch: Image,
    start: tuple[int, int],
    whole: tuple[int, int],
    size: tuple[int, int],
    cutting: Cutting,
    resampler: Resampler,
) -> Image:
    way = _way(whole, size, cutting)
    if way in ("bicubic", "bilinear"):
        rows, columns = _axes(way, whole, size)
        return resampler.levels(patch, rows, columns, start=start)
    if way == "area":
        canvas = np.zeros((*whole, 3), np.uint8)
        canvas[start[0] : start[0] + len(patch), start[1] : start[1] + patch.shape[1]] = patch
        return np.asarray(cv2.resize(canvas, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    out = np.zeros((*size, 3), np.uint8)
    taken_rows, down = _taken(whole[0], size[0], start[0], len(patch))
    taken_columns, across = _taken(whole[1], size[1], start[1], patch.shape[1])
    out[np.ix_(down, across)] = patch[taken_rows[:, None], taken_columns]
    return out


def _shares(
    hidden: Bools, start: tuple[int, int], whole: tuple[int, int], size: tuple[int, int], cutting: Cutting
) -> Bools:
    """Where hidden pixels have a share in the crop, bool (H, W)."""
    way = _way(whole, size, cutting)
    if way == "nearest":
        out = np.zeros(size, np.bool_)
        rows, down = _taken(whole[0], size[0], start[0], hidden.shape[0])
        columns, across = _taken(whole[1], size[1], start[1], hidden.shape[1])
        out[np.ix_(down, across)] = hidden[rows[:, None], columns]
        return out
    # A mean over an area is narrower than the bilinear filter.
    rows_, columns_ = _axes("bilinear" if way == "area" else way, whole, size)
    part = resample.resize(hidden.view(np.uint8), rows_, columns_, start=start, sizes=True)
    return np.asarray(part > _SHARE)


def _axes(way: str, whole: tuple[int, int], size: tuple[int, int]) -> tuple[resample.Axis, resample.Axis]:
    filter_: resample.Filter = "bicubic" if way == "bicubic" else "bilinear"
    return resample.axis(filter_, whole[0], size[0]), resample.axis(filter_, whole[1], size[1])


def _taken(whole: int, wanted: int, start: int, count: int) -> tuple[resample.Ints, Bools]:
    """Rows of a patch that are taken, and by which rows of the crop, where the patch begins at `start` of the whole."""
    rows = resample.nearest(whole, wanted) - start
    there = np.asarray((rows >= 0) & (rows < count))
    return rows[there], there


def enlarge(output: Floats, box: Box, inside: Box, filter_: resample.Filter, resampler: Resampler = HOST) -> Image:
    """A generator's answer in the pixels of the frame (antialiased).

    Args:
        output: float32 (H, W, 3), 0 to 255.
        box: of the crop.
        inside: the part that is wanted, within `box`.
        filter_: `bicubic`, SG-GAN `bilinear`.
        resampler: does it.

    Returns:
        uint8, as large as `inside`.
    """
    return resampler.levels(
        output,
        resample.axis(filter_, output.shape[0], box[3] - box[1]),
        resample.axis(filter_, output.shape[1], box[2] - box[0]),
        part=((inside[1] - box[1], inside[3] - box[1]), (inside[0] - box[0], inside[2] - box[0])),
    )
