"""Resampling as two small matrix products: antialiased bicubic and bilinear (as Pillow's), bilinear, mean, nearest.

OpenCV has no antialiased bicubic. Every output row is a weighted sum of a few input rows next to each other; rows are
taken together in blocks, each of which is one small dense product with the input rows that it needs. Pixels outside the
given part of an axis count as zero, so that padding is never built.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

Filter = Literal["bicubic", "bilinear", "linear", "area"]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Range = tuple[int, int]

#: Half the width of a filter, in pixels of the coarser grid.
_SUPPORT: dict[str, float] = {"bicubic": 2.0, "bilinear": 1.0}
#: Multiplications in one product. Above 2^18 the BLAS library shares a product among threads, and waking and waiting
#: for them takes longer than products as small as these: many times longer where other threads want the cores.
_PRODUCT = 2**18
#: OpenCV turns pictures of so many channels.
_CHANNELS: Final = 4
#: Input rows that a block should span, about: few blocks, and few weights that are zero.
_SPAN = 48


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Output rows `rows` from input rows `taken`."""

    rows: Range
    taken: Range
    weights: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """How one axis is resampled.

    Attributes:
        given: length before.
        wanted: length after.
        blocks: of the matrix (wanted, given), in the order of rows.
    """

    given: int
    wanted: int
    blocks: tuple[_Block, ...]

    def dense(self) -> Floats:
        """The whole matrix, (wanted, given)."""
        matrix = np.zeros((self.wanted, self.given), np.float32)
        for block in self.blocks:
            matrix[slice(*block.rows), slice(*block.taken)] = block.weights
        return matrix

    def apply(
        self, rows: npt.NDArray[Any], *, start: int = 0, part: Range | None = None, sizes: bool = False
    ) -> Floats:
        """Resample the first axis.

        Args:
            rows: (n, ...) of numbers; the rows `start` to `start + n` of the input, all others are zero.
            start: may be negative or beyond the end.
            part: which output rows are wanted, None for all.
            sizes: use the weights' sizes, without their signs: what is not 0 then depends on what is not 0 in `rows`.

        Returns:
            float32 (wanted, ...) or (part, ...).
        """
        first, last = part or (0, self.wanted)
        flat = np.ascontiguousarray(rows).reshape(len(rows), math.prod(rows.shape[1:]))
        out = np.zeros((last - first, flat.shape[1]), np.float32)
        for block in self.blocks:
            low, high = max(block.rows[0], first), min(block.rows[1], last)
            begin, end = max(block.taken[0], start), min(block.taken[1], start + len(flat))
            if low >= high or begin >= end:
                continue
            weights = block.weights[low - block.rows[0] : high - block.rows[0]]
            weights = weights[:, begin - block.taken[0] : end - block.taken[0]]
            taken = flat[begin - start : end - start].astype(np.float32, copy=False)
            weights, target = np.abs(weights) if sizes else weights, out[low - first : high - first]
            step = max(16, _PRODUCT // weights.size)
            for at in range(0, flat.shape[1], step):
                np.matmul(weights, taken[:, at : at + step], out=target[:, at : at + step])
        return out.reshape(last - first, *rows.shape[1:])


@lru_cache(maxsize=128)
def axis(filter_: Filter, given: int, wanted: int) -> Axis:
    """The weights for one axis; `bicubic` and `bilinear` are antialiased, `linear` is not, `area` means what it covers.

    Args:
        filter_: name.
        given: length before, at least 1.
        wanted: length after, at least 1.

    Raises:
        ValueError: a length is below 1, or `area` is to make it longer.
    """
    if given < 1 or wanted < 1:
        raise ValueError(f"cannot resample {given} to {wanted} pixels; expected at least 1")
    if filter_ == "area":
        if wanted > given:
            raise ValueError(f"cannot resample {given} to {wanted} pixels by area; expected at most {given}")
        first, taps = _area(given, wanted)
    else:
        first, taps = _linear(given, wanted) if filter_ == "linear" else _antialiased(filter_, given, wanted)
    return Axis(given, wanted, tuple(_blocks(first, taps, given)))


def _antialiased(filter_: str, given: int, wanted: int) -> tuple[Ints, Floats]:
    """First input row (wanted,) and weights (wanted, taps) of every output row.

    Rounded to float32 where the published code's resampling does, since what is exactly 0 decides about masks.
    """
    scale = np.float32(given) / np.float32(wanted)
    stretch = max(float(scale), 1.0)
    support = np.float32(_SUPPORT[filter_] * stretch)
    centre = (float(scale) * (np.arange(wanted) + 0.5)).astype(np.float32)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + support + 0.5).astype(np.int64), given) - first
    steps = np.arange(int(count.max()))
    away = (first[:, None] + steps).astype(np.float32) - centre[:, None]
    x = np.abs(((away.astype(np.float64) + 0.5) * float(np.float32(1 / stretch))).astype(np.float32))
    if filter_ == "bilinear":
        taps = np.maximum(1 - x, 0)
    else:
        # Keys' cubic with a = -1/2.
        near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
        taps = np.where(x < 1, near, np.where(x < 2, far, 0))
    taps = np.where(steps < count[:, None], taps, 0).astype(np.float32)
    return first, np.asarray(taps / taps.sum(axis=1, keepdims=True), np.float32)


def _linear(given: int, wanted: int) -> tuple[Ints, Floats]:
    """As `_antialiased`, for the two nearest input rows."""
    scale = np.float32(given) / np.float32(wanted)
    place = np.maximum(scale * (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5), 0)
    first = np.minimum(place.astype(np.int64), given - 1)
    share = (place - first.astype(np.float32)) * (first < given - 1)
    return first, np.stack([1 - share, share], axis=1).astype(np.float32)


def _area(given: int, wanted: int) -> tuple[Ints, Floats]:
    """As `_antialiased`: of each input row as much as the output row covers of it, as OpenCV's INTER_AREA."""
    scale = given / wanted
    low = np.arange(wanted) * scale
    first = np.minimum(low.astype(np.int64), given - 1)
    steps = first[:, None] + np.arange(int(np.ceil(scale)) + 1)
    covered = np.minimum(steps + 1, (low + scale)[:, None]) - np.maximum(steps, low[:, None])
    taps = np.where(steps < given, np.maximum(covered, 0), 0)
    return first, np.asarray(taps / taps.sum(axis=1, keepdims=True), np.float32)


def _blocks(first: Ints, taps: Floats, given: int) -> list[_Block]:
    """The rows in groups whose inputs lie close together."""
    blocks: list[_Block] = []
    reach = np.minimum(first + taps.shape[1], given)
    span = max(_SPAN, 2 * taps.shape[1])
    low = 0
    while low < len(first):
        high = max(low + 1, int(np.searchsorted(reach, first[low] + span, side="right")))
        begin, end = int(first[low]), int(reach[high - 1])
        weights = np.zeros((high - low, end - begin + taps.shape[1]), np.float32)
        columns = (first[low:high] - begin)[:, None] + np.arange(taps.shape[1])
        np.put_along_axis(weights, columns, taps[low:high], axis=1)
        blocks.append(_Block((low, high), (begin, end), np.ascontiguousarray(weights[:, : end - begin])))
        low = high
    return blocks


def resize(
    values: npt.NDArray[Any],
    rows: Axis,
    columns: Axis,
    *,
    start: tuple[int, int] = (0, 0),
    part: tuple[Range, Range] | None = None,
    sizes: bool = False,
) -> Floats:
    """Resample the first two axes of a picture.

    Args:
        values: (h, w, ...) of numbers, the part of the input that is not zero.
        rows: for the first axis.
        columns: for the second.
        start: where `values` begins in the input, (y, x).
        part: which output rows and columns are wanted, None for all.
        sizes: see `Axis.apply`.

    Returns:
        float32 (rows, columns, ...).
    """
    down, across = part or (None, None)
    half = rows.apply(values, start=start[0], part=down, sizes=sizes)
    return _turned(columns.apply(_turned(half), start=start[1], part=across, sizes=sizes))


def _turned(values: Floats) -> Floats:
    """Rows as columns: float32 (h, w, ...) to a new (w, h, ...)."""
    if values.ndim > 3 or not values.size or values.shape[2:] > (_CHANNELS,):
        return np.ascontiguousarray(values.swapaxes(0, 1))
    # Four times as fast as NumPy's copy.
    return np.asarray(cv2.transpose(values), np.float32).reshape(values.shape[1], values.shape[0], *values.shape[2:])


def to_levels(values: Floats) -> npt.NDArray[np.uint8]:
    """Pixels 0 to 255, rounded; overwrites what it is given."""
    np.rint(values, out=values)
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


def nearest(given: int, wanted: int) -> Ints:
    """The input pixel that each output pixel takes, (wanted,), rounded as the published code's resampling rounds."""
    scale = np.float32(given) / np.float32(wanted)
    places = np.floor(np.arange(wanted, dtype=np.float32) * scale).astype(np.int64)
    return np.asarray(np.minimum(places, given - 1))
