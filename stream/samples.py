"""Samples of a generator: one region of a photo, cut out for it, and what it made of that on one sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from stream.frame import Image, flat_image
from stream.generators.base import Crops
from stream.regions import Kind

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Box = tuple[int, int, int, int]

#: Of DeepPrivacy2: how far the sides of a person's box move out, how much of it must not be replaced, and how much
#: larger than the face its square is.
_MARGIN = 0.1
_BACKGROUND = 0.3
_FACE = 1.4

_GAP = 6
_CAPTION = 20
#: Crops are enlarged to this width, or nobody could read the captions.
_NARROWEST = 120
_PAPER, _INK = 245, (60, 60, 60)


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """One region of a photo.

    Attributes:
        image: uint8 RGB (height, width, 3).
        unknown: bool (height, width), True where the photo is to be replaced.
        vertices: int64 (height, width), -1 outside the body; None where no surface is needed.
    """

    image: Image
    unknown: Bools
    vertices: Ints | None = None


def expanded_box(unknown: Bools, size: tuple[int, int], kind: Kind) -> Box:
    """Where to cut, as x0, y0, x1, y1: round the unknown pixels, with background, in the generator's aspect ratio.

    DeepPrivacy2's rules in short: a person's box moves out by a tenth of its mean side and grows until 30 % of it is
    background; a face is cut as a square of 1.4 times its longer side. The box is moved into the photo where it fits.

    Args:
        unknown: bool (height, width) with at least one True.
        size: height and width of the generator's crops.
        kind: of region.
    """
    ys, xs = np.flatnonzero(unknown.any(axis=1)), np.flatnonzero(unknown.any(axis=0))
    y0, y1, x0, x1 = int(ys[0]), int(ys[-1]) + 1, int(xs[0]), int(xs[-1]) + 1
    height, width = float(y1 - y0), float(x1 - x0)
    if kind is Kind.FACE:
        height = width = _FACE * max(height, width)
    else:
        margin = 2 * int(_MARGIN * math.sqrt(height * width))
        height, width = height + margin, width + margin
    aspect = size[0] / size[1]
    height, width = max(height, width * aspect), max(width, height / aspect)
    grown = max(1.0, math.sqrt(unknown.sum() / (1 - _BACKGROUND) / (height * width)))
    rows, columns = math.ceil(height * grown), math.ceil(width * grown)
    top = _place((y0 + y1) / 2, rows, unknown.shape[0])
    left = _place((x0 + x1) / 2, columns, unknown.shape[1])
    return left, top, left + columns, top + rows


def _place(centre: float, length: int, limit: int) -> int:
    """Where a stretch begins: round its centre, moved inside; centred over the photo where it is the longer one."""
    if length > limit:
        return (limit - length) // 2
    return min(max(0, round(centre - length / 2)), limit - length)


def cut_out(region: Region, size: tuple[int, int], kind: Kind) -> Crops:
    """The region as one crop for a generator, of track 0.

    Where the box reaches outside the photo, the pixels at its edge are repeated, and unknown ones stay unknown. Colours
    are averaged over known pixels only: nothing from under the mask bleeds into what stays.

    Args:
        region: of the photo.
        size: height and width of the crop.
        kind: of region.

    Raises:
        ValueError: no unknown pixel is left at the crop's size, or no body pixel where there are vertices.
    """
    box = expanded_box(region.unknown, size, kind)
    rows, columns, inside = _inside(box, *region.unknown.shape)
    known = ~region.unknown[np.ix_(rows, columns)]
    near = np.ix_(_nearest(len(rows), size[0]), _nearest(len(columns), size[1]))
    image, weight = _average(region.image[np.ix_(rows, columns)], known, size)
    kept = known[near] & (weight > 0)
    if kept.all():
        raise ValueError("the mask is too thin: nothing of it is left at the size of the generator's crops")
    plain = Crops(image[None], kept[None], np.zeros(1, np.int64))
    if region.vertices is None:
        return plain
    vertices = np.where(inside, region.vertices[np.ix_(rows, columns)], -1)[near]
    body = (vertices >= 0) & ~kept
    if not body.any():
        raise ValueError("no pixel under the mask has a vertex")
    return replace(plain, body=body[None], vertices=vertices[None])


def _inside(box: Box, height: int, width: int) -> tuple[Ints, Ints, Bools]:
    """Rows and columns of the photo that a box shows, those outside replaced by the nearest; and which are inside."""
    ys, xs = np.arange(box[1], box[3]), np.arange(box[0], box[2])
    rows, columns = ys.clip(0, height - 1), xs.clip(0, width - 1)
    return rows, columns, np.asarray((rows == ys)[:, None] & (columns == xs)[None])


def _nearest(length: int, wanted: int) -> Ints:
    """Which of `length` pixels lies in the middle of each of `wanted` ones."""
    return np.asarray(((np.arange(wanted) + 0.5) * length / wanted).astype(np.int64))


def _average(image: Image, known: Bools, size: tuple[int, int]) -> tuple[Image, Floats]:
    """The known pixels' mean colour at another size, and how much of each pixel is known; flat where nothing is."""
    height, width = size
    shrinks = known.size > height * width
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    share = known.astype(np.float32)
    weight = cv2.resize(share, (width, height), interpolation=way)
    colours = cv2.resize(image.astype(np.float32) * share[..., None], (width, height), interpolation=way)
    mean = np.divide(colours, weight[..., None], out=np.zeros_like(colours), where=weight[..., None] > 1e-3)
    flat = flat_image((height, width, 3))
    seen = weight > 1e-3
    return np.where(seen[..., None], np.rint(mean).clip(0, 255), flat).astype(np.uint8), np.where(seen, weight, 0)


def masked(crops: Crops) -> Image:
    """The crop with everything that is to be replaced shown flat, uint8 RGB (H, W, 3)."""
    return np.where(crops.known[0, ..., None], crops.images[0], flat_image((*crops.size, 3)))


def filled(crops: Crops, generated: Image) -> Image:
    """The crop with its unknown pixels taken from what was generated, both uint8 RGB (H, W, 3)."""
    return np.where(crops.known[0, ..., None], crops.images[0], generated)


def render_sheet(title: str, first: Image, rows: Sequence[tuple[str, Sequence[Image]]]) -> Image:
    """One picture: a row for each entry, the first cell of each is the same, captions below the cells.

    Args:
        title: above everything.
        first: uint8 RGB (H, W, 3).
        rows: caption of the row, and its cells, all (H, W, 3).
    """
    scale = max(1, math.ceil(_NARROWEST / first.shape[1]))
    height, width = first.shape[0] * scale, first.shape[1] * scale
    across = 1 + max(len(cells) for _, cells in rows)
    row_height = height + _CAPTION + _GAP
    sheet = np.full((_GAP + _CAPTION + len(rows) * row_height, across * (width + _GAP) + _GAP, 3), _PAPER, np.uint8)
    _write(sheet, title, _GAP, _GAP + 12)
    for down, (caption, cells) in enumerate(rows):
        top = _GAP + _CAPTION + down * row_height
        captions = [caption, *(f"sample {number + 1}" for number in range(len(cells)))]
        for place, (cell, text) in enumerate(zip((first, *cells), captions, strict=True)):
            left = _GAP + place * (width + _GAP)
            sheet[top : top + height, left : left + width] = cell.repeat(scale, axis=0).repeat(scale, axis=1)
            _write(sheet, text, left + 1, top + height + 14)
    return sheet


def _write(sheet: Image, text: str, x: int, y: int) -> None:
    cv2.putText(sheet, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK, 1, cv2.LINE_AA)
