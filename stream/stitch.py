"""Stitch: writes the anonymized pixels of regions into a copy of the frame. The only place that writes pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from stream import geometry
from stream.frame import Image
from stream.generators.classical import Fill
from stream.regions import Kind, Regions

Shape = Literal["box", "ellipse"]


def covered_boxes(regions: Regions, margin: float, shape: Shape) -> geometry.Floats:
    """The boxes that are covered for these regions, (N, 4), before clipping to the frame.

    An ellipse is the one inside the grown box; where the margin alone would let the corners of the region's
    own box show, it grows until it runs through them (half axes times the square root of two).
    """
    if shape == "ellipse":
        margin = max(margin, (math.sqrt(2) - 1) / 2)
    return geometry.grow(regions.boxes, margin)


def stitch(
    image: Image,
    regions: Regions,
    fills: Mapping[Kind, Fill],
    *,
    margin: float = 0.0,
    shape: Shape = "box",
) -> Image:
    """A copy of `image` in which every region is covered.

    Regions are covered in ascending order of area, each from the picture as already stitched, so that a
    larger region never brings back what a smaller one hid.

    Args:
        image: uint8 RGB, (height, width, 3).
        regions: what to cover.
        fills: the anonymizer of each kind.
        margin: every side moves out by this share of the region's width or height.
        shape: the box, or the ellipse inside it.

    Raises:
        KeyError: a region's kind has no anonymizer.
        ValueError: an anonymizer did not return pixels like those that it was given.
    """
    out = image.copy()
    height, width = out.shape[:2]
    grown = covered_boxes(regions, margin, shape)
    pixels = geometry.to_pixels(grown, width, height)
    for index in np.argsort(geometry.area(grown), kind="stable"):
        cover(out, grown[index], pixels[index], fills[Kind(int(regions.kinds[index]))], shape)
    return out


def cover(out: Image, grown: geometry.Floats, pixels: geometry.Ints, fill: Fill, shape: Shape = "box") -> None:
    """Let a classical anonymizer write one region into a picture, in place.

    Args:
        out: uint8 RGB, (height, width, 3); the caller's own copy.
        grown: the covered box (4,), before clipping.
        pixels: the same in whole pixels inside the frame, (4,); nothing is done where it is empty.
        fill: the anonymizer.
        shape: the box, or the ellipse inside it.

    Raises:
        ValueError: the anonymizer did not return pixels like those that it was given.
    """
    x0, y0, x1, y1 = (int(v) for v in pixels)
    if x1 <= x0 or y1 <= y0:
        return
    patch = out[y0:y1, x0:x1]
    filled = fill(np.ascontiguousarray(patch))
    if not isinstance(filled, np.ndarray) or filled.shape != patch.shape or filled.dtype != np.uint8:
        # Otherwise numpy would broadcast or wrap around, and nobody would notice.
        raise ValueError(f"an anonymizer must return uint8 pixels of shape {patch.shape}")
    if shape == "ellipse":
        inside = _ellipse(grown, x0, y0, x1, y1)
        patch[inside] = filled[inside]
    else:
        patch[...] = filled


def paste(out: Image, box: tuple[int, int, int, int], pixels: Image, where: npt.NDArray[np.bool_]) -> None:
    """Write a stand-in's pixels into a picture, in place, and no others.

    Args:
        out: uint8 RGB, (height, width, 3); the caller's own copy.
        box: `xyxy`, inside the picture.
        pixels: uint8 (h, w, 3), as large as the box.
        where: bool (h, w), True where the picture is written.

    Raises:
        ValueError: the box is not inside the picture, or shapes disagree: numpy would wrap around or broadcast.
    """
    x0, y0, x1, y1 = box
    if not (0 <= x0 <= x1 <= out.shape[1] and 0 <= y0 <= y1 <= out.shape[0]):
        raise ValueError(f"box {box} is not inside a picture of {out.shape[1]}x{out.shape[0]}")
    if pixels.shape != (y1 - y0, x1 - x0, 3) or pixels.dtype != np.uint8 or where.shape != pixels.shape[:2]:
        raise ValueError(f"box {box} needs pixels of its size, got {pixels.dtype} {pixels.shape} and {where.shape}")
    np.copyto(out[y0:y1, x0:x1], pixels, where=where[..., None])


def _ellipse(
    box: geometry.Floats, x0: int, y0: int, x1: int, y1: int
) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Which pixels of the patch x0..x1, y0..y1 the ellipse inscribed in `box` covers, rounded outwards."""
    cx, cy = (float(box[0]) + float(box[2])) / 2, (float(box[1]) + float(box[3])) / 2
    # The centre of a pixel whose corner touches the ellipse is up to sqrt(0.5) pixels outside; a little more is taken.
    rx, ry = float(box[2] - box[0]) / 2 + 0.75, float(box[3] - box[1]) / 2 + 0.75
    xs = (np.arange(x0, x1) + 0.5 - cx) / rx
    ys = (np.arange(y0, y1) + 0.5 - cy) / ry
    return np.asarray(ys[:, None] ** 2 + xs[None] ** 2 <= 1.0)


def draw_regions(image: Image, regions: Regions, *, margin: float = 0.0, shape: Shape = "box") -> Image:
    """A copy of an **anonymized** picture with the covered regions drawn on it.

    Args:
        image: uint8 RGB, already stitched.
        regions: what was covered.
        margin: as given to `stitch`.
        shape: as given to `stitch`.
    """
    out = np.ascontiguousarray(image.copy())
    height, width = out.shape[:2]
    thickness = max(1, round(min(height, width) / 360))
    covered = covered_boxes(regions, margin, shape)
    for grown, box, kind, origin, score, track in zip(
        covered,
        geometry.to_pixels(covered, width, height),
        regions.kinds,
        regions.origins,
        regions.scores,
        regions.track_ids,
        strict=True,
    ):
        x0, y0, x1, y1 = (int(v) for v in box)
        if x1 <= x0 or y1 <= y0:
            continue
        colour = _ORIGIN_COLOURS[int(origin)]
        if shape == "ellipse":
            centre, size = (grown[:2] + grown[2:]) / 2, grown[2:] - grown[:2]
            cv2.ellipse(out, (centre.tolist(), size.tolist(), 0.0), colour, thickness)
        else:
            cv2.rectangle(out, (x0, y0), (x1 - 1, y1 - 1), colour, thickness)
        name = Kind(int(kind)).label + (f" {int(track)}" if track >= 0 else "")
        label = f"{name} {float(score):.2f}"
        cv2.putText(out, label, (x0, max(10, y0 - 4)), cv2.FONT_HERSHEY_SIMPLEX, 0.4 * thickness, colour, thickness)
    return out


#: Green detected, orange held, blue looked ahead, magenta by hand.
_ORIGIN_COLOURS = ((0, 220, 0), (255, 150, 0), (60, 130, 255), (255, 0, 255))
