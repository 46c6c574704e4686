"""The box that is cut for a generator, round a region: DeepPrivacy2's rules and SG-GAN's.

Boxes are `xyxy` in whole pixels and may come out larger than the frame. They are the published rules to the pixel,
float32 where the published code rounds so, since generators were trained on what these boxes show.
"""

from __future__ import annotations

import math

import numpy as np

from stream.outline import Box

#: How much a side grows at least, and the share of the box that is background at least.
_GROWTH = 0.1
_BACKGROUND = 0.3
#: A face's box, relative to the longer side of the face.
_FACE = 0.4

Span = tuple[int, int]


def stretch(start: int, end: int, wanted: int, limit: int) -> Span:
    """A span of another length about the same middle, moved inside 0 .. `limit` as far as it fits.

    Args:
        start: of the span.
        end: exclusive.
        wanted: its new length.
        limit: of the frame along this axis; a longer span reaches outside.
    """
    half = (wanted - (end - start)) // 2
    start, end = start - half, end + half
    end += wanted - (end - start)
    if start < 0 and end > limit:
        return start, end
    if start < 0 and end < limit:
        move = min(-start, limit - end)
        start, end = start + move, end + move
    if end > limit and start > 0:
        move = min(end - limit, start)
        start, end = start - move, end - move
    return start, end


def to_ratio(box: Box, frame: tuple[int, int], ratio: float) -> Box:
    """The box with its shorter side grown until height is `ratio` times width.

    Args:
        box: with area.
        frame: height and width.
        ratio: of the generator's picture.
    """
    x0, y0, x1, y1 = box
    height, width = y1 - y0, x1 - x0
    if height / width < ratio:
        y0, y1 = stretch(y0, y1, int(width * ratio), frame[0])
    elif height / width > ratio:
        x0, x1 = stretch(x0, x1, int(height / ratio), frame[1])
    return x0, y0, x1, y1


def person_box(tight: Box, area: int, frame: tuple[int, int], size: tuple[int, int]) -> Box:
    """DeepPrivacy2's box for a person.

    Both sides grow by a tenth of the mean side, the shorter one to the generator's ratio, and then both until 30 % is
    background.

    Args:
        tight: round the mask, and round the CSE box where there is one; inside the frame, with area.
        area: pixels of the mask.
        frame: height and width.
        size: height and width of the generator's picture.
    """
    x0, y0, x1, y1 = tight
    height, width = y1 - y0, x1 - x0
    more = int(((height * width) ** 0.5) * _GROWTH)
    x0, x1 = stretch(x0, x1, min(width + more, frame[1]), frame[1])
    y0, y1 = stretch(y0, y1, min(height + more, frame[0]), frame[0])
    x0, y0, x1, y1 = to_ratio((x0, y0, x1, y1), frame, size[0] / size[1])
    height, width = y1 - y0, x1 - x0
    pixels = np.float32(area)
    if np.float32(1) - pixels / np.float32(height * width) > np.float32(_BACKGROUND):
        return x0, y0, x1, y1
    scale = np.sqrt(pixels / np.float32(1 - _BACKGROUND) / np.float32(height * width))
    x0, x1 = stretch(x0, x1, math.ceil(scale * np.float32(width)), frame[1])
    y0, y1 = stretch(y0, y1, math.ceil(scale * np.float32(height)), frame[0])
    return x0, y0, x1, y1


def surface_box(tight: Box, share: float, cse: Box, frame: tuple[int, int], size: tuple[int, int]) -> Box:
    """SG-GAN's box: each side grows by a tenth of itself, the shorter one to the ratio, then 30 % background.

    Args:
        tight: as `surface_tight` gives it.
        share: of the CSE box's pixels that are body, 0 to 1.
        cse: the CSE box.
        frame: height and width.
        size: height and width of the generator's picture.
    """
    x0, y0, x1, y1 = tight
    x0, x1 = stretch(x0, x1, min(int((x1 - x0) * (1 + _GROWTH)), frame[1]), frame[1])
    y0, y1 = stretch(y0, y1, min(int((y1 - y0) * (1 + _GROWTH)), frame[0]), frame[0])
    x0, y0, x1, y1 = to_ratio((x0, y0, x1, y1), frame, size[0] / size[1])
    height, width = y1 - y0, x1 - x0
    wanted = int(int((cse[2] - cse[0]) * (cse[3] - cse[1]) * share) / (1 - _BACKGROUND))
    if height * width >= wanted:
        return x0, y0, x1, y1
    scale = math.sqrt(wanted / (height * width))
    x0, x1 = stretch(x0, x1, int(scale * width), frame[1])
    y0, y1 = stretch(y0, y1, int(scale * height), frame[0])
    return x0, y0, x1, y1


def surface_tight(tight: Box, limit: Box) -> Box:
    """SG-GAN's box round a mask: one pixel more to the right and below, within the CSE box."""
    return tight[0], tight[1], min(tight[2] + 1, limit[2]), min(tight[3] + 1, limit[3])


def face_box(face: Box) -> Box:
    """DeepPrivacy2's box for a face: a square of 1.4 times the longer side."""
    x0, y0, x1, y1 = face
    width, height = x1 - x0, y1 - y0
    half = int((max(width, height) * (1 + _FACE)) // 2)
    x, y = x0 + width // 2, y0 + height // 2
    return x - half, y - half, x + half, y + half


def dilated_box(box: Box, unknown: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> Box:
    """The box round the unknown pixels of a crop, in the frame, (0, 0, 0, 0)-sized where there is none.

    Args:
        box: of the crop.
        unknown: bool (H, W).
    """
    rows, columns = np.flatnonzero(unknown.any(axis=1)), np.flatnonzero(unknown.any(axis=0))
    if not len(rows):
        return box[0], box[1], box[0], box[1]
    high, wide = np.float32(box[3] - box[1]), np.float32(box[2] - box[0])
    y = [int(box[1] + edge * high / np.float32(len(unknown))) for edge in (rows[0], rows[-1] + 1)]
    x = [int(box[0] + edge * wide / np.float32(unknown.shape[1])) for edge in (columns[0], columns[-1] + 1)]
    return x[0], y[0], x[1], y[1]
