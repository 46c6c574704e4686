"""A dense pose in the pixels of a crop: which pixels are body, and their embedding as regressed."""

from __future__ import annotations

import numpy as np

from stream import resample
from stream.generators.base import Ints
from stream.outline import BodySurface, Bools, Box, intersection
from stream.resample import Floats
from stream.surface import Surface


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
    values = surface.embedding.transpose(1, 2, 0)
    for turn in (0, 1):
        low, high = surface.box[1 - turn], surface.box[3 - turn]
        start, end = box[1 - turn], box[3 - turn]
        enlarged = resample.axis("linear", values.shape[turn], high - low).dense()
        both = resample.axis("bilinear", end - start, size[turn]).apply(
            enlarged[max(0, start - low) : max(0, end - low)], start=max(0, low - start)
        )
        values = np.tensordot(both, values, axes=(1, turn))
        if turn == 1:
            values = values.swapaxes(0, 1)
    return np.asarray(values, np.float32)


def vertex_map(surface: Surface, embedding: Floats, body: Bools) -> Ints:
    """The vertex of every pixel of a crop.

    Where the surface says that its vertices are far apart (`Surface.sparse`), 2x2 pixels take the vertex of the first
    of them that is on the body: a quarter of the search.

    Args:
        surface: the vertices.
        embedding: (H, W, D), of each pixel.
        body: (H, W), where it counts.

    Returns:
        (H, W) int64: below K on the body, K elsewhere.

    Raises:
        DetectionError: an embedding of a body pixel is not finite.
    """
    height, width = body.shape
    if not surface.sparse or height % 2 or width % 2:
        found: Ints = surface.vertices(embedding.transpose(2, 0, 1)[None], body[None], ~body[None])[0]
        return found
    blocks = body.reshape(height // 2, 2, width // 2, 2).transpose(0, 2, 1, 3).reshape(height // 2, width // 2, 4)
    first = blocks.argmax(axis=2)
    rows = 2 * np.arange(height // 2)[:, None] + first // 2
    columns = 2 * np.arange(width // 2) + first % 2
    shown = np.asarray(blocks.any(axis=2))[None]
    chosen = np.ascontiguousarray(embedding[rows, columns].transpose(2, 0, 1)[None])
    coarse = surface.vertices(chosen, shown, ~shown)[0]
    return np.where(body, coarse.repeat(2, axis=0).repeat(2, axis=1), np.int64(surface.known))
