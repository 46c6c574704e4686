from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.frame import Image
from stream.generators.classical import Fill, blur, mask_out, pixelate
from tests.fakes import noise

ALL: dict[str, Fill] = {
    "mask": mask_out((1, 2, 3)),
    "pixelate 8": pixelate(8),
    "pixelate 16": pixelate(16),
    "light blur": blur(0.1),
    "blur": blur(0.25),
    "heavy blur": blur(2.0),
}
sizes = st.tuples(st.integers(1, 200), st.integers(1, 200))


def portrait(size: int) -> Image:
    """The same picture at any size: smooth, with a few sharp features."""
    y, x = np.mgrid[0:960, 0:960] / 960
    base = np.stack([60 + 120 * x, 80 + 100 * y, 100 + 80 * np.sin(9 * x + 5 * y)], axis=2)
    for cx, cy in ((0.35, 0.4), (0.65, 0.4), (0.5, 0.7)):
        base[(x - cx) ** 2 + (y - cy) ** 2 < 0.006] = 10
    return np.asarray(cv2.resize(base.astype(np.uint8), (size, size), interpolation=cv2.INTER_AREA), np.uint8)


@pytest.mark.parametrize("fill", ALL.values(), ids=ALL.keys())
@settings(max_examples=40, deadline=None)
@given(size=sizes)
def test_a_fill_returns_pixels_of_the_same_shape_and_leaves_its_input_alone(fill: Fill, size: tuple[int, int]) -> None:
    region = noise(1, *size)[0]
    before = region.copy()
    out = fill(region)
    assert out.shape == region.shape
    assert out.dtype == np.uint8
    assert np.array_equal(region, before)


@pytest.mark.parametrize("fill", ALL.values(), ids=ALL.keys())
def test_a_fill_does_not_return_what_it_was_given(fill: Fill) -> None:
    for size in ((2, 2), (3, 5), (8, 8), (40, 60), (300, 2)):
        region = noise(1, *size)[0]
        assert not np.array_equal(fill(region), region)


def test_mask_leaves_nothing_but_its_colour() -> None:
    assert (mask_out((1, 2, 3))(noise(1)[0]) == (1, 2, 3)).all()


@settings(max_examples=150, deadline=None)
@given(size=sizes, cells=st.sampled_from([8, 16]))
def test_pixelate_leaves_few_cells_of_four_pixels_or_more(size: tuple[int, int], cells: int) -> None:
    out = pixelate(cells)(noise(1, *size)[0])
    for line in (out[0], out[:, 0]):
        changes = np.flatnonzero((np.diff(line.astype(int), axis=0) != 0).any(axis=1)) + 1
        lengths = np.diff([0, *changes, len(line)])
        assert len(lengths) <= cells
        assert len(line) < 4 or lengths.min() >= 4
    assert len(np.unique(out.reshape(-1, 3), axis=0)) <= cells * cells


@pytest.mark.parametrize(
    ("size", "cells", "across"), [(3, 8, 1), (7, 8, 1), (8, 8, 2), (32, 8, 8), (33, 16, 8), (320, 16, 16)]
)
def test_the_number_of_cells_falls_where_they_would_get_too_small(size: int, cells: int, across: int) -> None:
    out = pixelate(cells)(noise(1, size, 400)[0])
    assert len(np.unique(out[0].reshape(-1, 3), axis=0)) == across


def test_a_cell_has_the_mean_colour_of_its_pixels() -> None:
    region = noise(1, 64, 64)[0]
    expected = region.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3))
    out = pixelate(8)(region)[::8, ::8]
    assert np.abs(out.astype(float) - expected).max() <= 0.51


@pytest.mark.parametrize("radius", [0.1, 0.25, 0.5])
def test_blur_is_as_strong_on_a_large_face_as_on_a_small_one(radius: float) -> None:
    small = blur(radius)(portrait(60)).astype(float)
    large = cv2.resize(blur(radius)(portrait(480)), (60, 60), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(small - large).mean() < 2.5
    # The comparison can tell: the pictures themselves differ from what is left of them by far more.
    assert np.abs(small - portrait(60)).mean() > 10


@pytest.mark.parametrize("size", [24, 60, 300, 1200])
def test_the_default_blur_leaves_no_detail_at_any_size(size: int) -> None:
    step = size // 24
    rough, soft = portrait(size).astype(float), blur(0.25)(portrait(size)).astype(float)
    assert np.abs(rough[:, step:] - rough[:, :-step]).max() > 40
    assert np.abs(soft[:, step:] - soft[:, :-step]).max() < 10


def test_blur_with_a_larger_radius_leaves_less() -> None:
    spreads = [float(blur(radius)(portrait(120)).std(axis=(0, 1)).mean()) for radius in (0.1, 0.25, 0.5, 1.0)]
    assert spreads == sorted(spreads, reverse=True)
