"""A dense pose in the pixels of a crop: which pixels are body, and their embedding as regressed."""

from __future__ import annotations

import numpy as np

from stream import resample
from stream.outline import BodySurface, Bools, Box, intersection
from stream.resample import Floats


def _rounded(edge: int, start: int, length: int, wanted: int) -> int:
    """Where an edge of the frame lies in a crop, rounded as the published code does (float32, half to even)."""
    return int(np.rint(np.float32(edge - start) / np.float32(length) * np.float32(wanted)))


def place_whole(surface: BodySurface, box: Box, size: tuple[int, int]) -> tuple[Floats, Bools]:
    """DeepPrivacy2's way: the grid is resized straight to its place in the crop (antialiased bilinear).

    Args:
        surface: the dense pose; what of its box lies outside `box` is left out.
        box: of the crop in the frame.
        size: height and width of the crop.

    Returns:
        The embedding, float32 (H, W, 16), 0 outside the CSE box; and bool (H, W), True on the body.
    """
    channels = surface.embedding.shape[0]
    embedding, body = np.zeros((*size, channels), np.float32), np.zeros(size, np.bool_)
    width, height = box[2] - box[0], box[3] - box[1]
    x0, x1 = (_rounded(surface.box[i], box[0], width, size[1]) for i in (0, 2))
    y0, y1 = (_rounded(surface.box[i], box[1], height, size[0]) for i in (1, 3))
    left, top, right, bottom = intersection((x0, y0, x1, y1), (0, 0, size[1], size[0]))
    if right <= left or bottom <= top:
        return embedding, body
    given = surface.segmentation.shape
    rows = resample.axis("bilinear", given[0], y1 - y0)
    columns = resample.axis("bilinear", given[1], x1 - x0)
    part = (top - y0, bottom - y0), (left - x0, right - x0)
    embedding[top:bottom, left:right] = resample.resize(surface.embedding.transpose(1, 2, 0), rows, columns, part=part)
    body[top:bottom, left:right] = resample.resize(surface.segmentation.view(np.uint8), rows, columns, part=part) > 0
    return embedding, body


def place_in_frame(surface: BodySurface, box: Box, size: tuple[int, int]) -> Floats:
    """SG-GAN's way: the grid is enlarged to its box in the frame (bilinear), cut, and resized (antialiased bilinear).

    Each of the steps is linear, so that both matrices of an axis are multiplied first and the embedding is never as
    large as the box.

    Args:
        surface: the dense pose.
        box: of the crop in the frame.
        size: height and width of the crop.

    Returns:
        float32 (H, W, 16), 0 outside the CSE box.
    """
    rows, columns = (_enlarged_and_resized(surface, box, size, turn) for turn in (0, 1))
    channels, height, width = surface.embedding.shape
    half = (surface.embedding.reshape(-1, width) @ columns.T).reshape(channels, height, -1)
    return np.asarray((rows @ half).transpose(1, 2, 0), np.float32)


def _enlarged_and_resized(surface: BodySurface, box: Box, size: tuple[int, int], turn: int) -> Floats:
    """Both steps of an axis (0 are rows) as one matrix, (size, grid)."""
    low, high = surface.box[1 - turn], surface.box[3 - turn]
    start, end = box[1 - turn], box[3 - turn]
    enlarged = resample.axis("linear", surface.embedding.shape[1 + turn], high - low).dense()
    inside = enlarged[max(0, start - low) : max(0, end - low)]
    return resample.axis("bilinear", end - start, size[turn]).apply(inside, start=max(0, low - start))
