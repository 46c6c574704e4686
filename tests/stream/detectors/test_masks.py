"""Masks of detectors as pixels of the frame."""

from __future__ import annotations

import numpy as np
import pytest

from stream.detectors.ensemble import unite
from stream.detectors.masks import outlines_of
from stream.detectors.view import show_limited
from stream.frame import Frame
from stream.regions import Regions
from tests.stream.outlines import person, pixels_of


@pytest.mark.parametrize(
    ("size", "stretch"), [((96, 128), False), ((96, 128), True), (None, False)], ids=["pad", "stretch", "open"]
)
def test_a_mask_lies_in_the_frame_where_its_cells_lie_in_the_view(size: tuple[int, int] | None, stretch: bool) -> None:
    frame = Frame(np.zeros((150, 320, 3), np.uint8))
    shown = show_limited(frame, 128, size, stretch=stretch)
    # Padded to the size, or to multiples of 32.
    padded = size or (64, 128)
    mask = np.zeros((padded[0] // 4, padded[1] // 4), np.uint8)
    mask[4:8, 6:12] = 255
    corners = np.array([[6 * 4, 4 * 4, 12 * 4, 8 * 4]], np.float32)
    expected = np.rint(shown.to_frame(corners)[0]).astype(int)
    (outline,) = outlines_of(mask[None], np.array([[0, 0, 320, 150]], np.float32), shown, padded, 320, 150)
    found = pixels_of(outline, 320, 150)
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    tight = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    np.testing.assert_allclose(tight, expected, atol=2)
    inner = found[expected[1] + 3 : expected[3] - 3, expected[0] + 3 : expected[2] - 3]
    assert inner.size
    assert inner.all()


def test_nothing_outside_the_box_is_the_regions() -> None:
    shown = show_limited(Frame(np.zeros((64, 64, 3), np.uint8)), 64)
    boxes = np.array([[10.5, 20, 30, 40.2], [-20, -20, 5, 70]], np.float32)
    outlines = outlines_of(np.full((2, 16, 16), 255, np.uint8), boxes, shown, (64, 64), 64, 64)
    masks = [outline.mask for outline in outlines if outline is not None]
    assert [mask.box for mask in masks if mask is not None] == [(10, 20, 30, 41), (0, 0, 5, 64)]
    assert all(mask.pixels.all() for mask in masks if mask is not None)


def test_without_pixels_the_box_counts() -> None:
    shown = show_limited(Frame(np.zeros((64, 64, 3), np.uint8)), 64)
    boxes = np.array([[10, 20, 30, 40], [70, 0, 80, 9]], np.float32)
    masks = np.stack([np.full((16, 16), 127, np.uint8), np.full((16, 16), 255, np.uint8)])
    assert outlines_of(masks, boxes, shown, (64, 64), 64, 64) == [None, None]
    assert outlines_of(masks[:0], boxes[:0], shown, (64, 64), 64, 64) == []


def test_an_ensemble_unites_masks_and_keeps_the_others() -> None:
    one = Regions.concatenate([person((0, 0, 10, 10), (2, 2, 6, 6)), person((50, 0, 60, 10), (51, 1, 55, 5))])
    united = unite([one, person((1, 0, 11, 10), (4, 4, 9, 9))])
    assert len(united) == 2
    first, second = united.outline(0), united.outline(1)
    assert first is not None and first.mask is not None and first.mask.box == (2, 2, 9, 9)  # noqa: PT018
    assert second is one.outline(1)
