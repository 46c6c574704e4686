"""Rows are read and written only where they can lie: nothing comes from before, behind or between them."""

from __future__ import annotations

import numpy as np
import pytest

from stream.gst_pixels import Layout, Pixels, tags_of

WIDTH, HEIGHT = 36, 20
ROW = WIDTH * 3
USUAL = Layout("RGB", WIDTH, HEIGHT, (0,), (ROW,), ROW * HEIGHT)
CONTENT = bytes(ROW * HEIGHT)


@pytest.mark.parametrize("stride", [0, 4, ROW - 1, -ROW])
def test_rows_that_overlap_or_run_backwards_are_refused(stride: int) -> None:
    other = Layout("RGB", WIDTH, HEIGHT, (0,), (stride,), ROW * HEIGHT)
    with pytest.raises(ValueError, match=f"rows of {ROW} bytes cannot begin every {stride} bytes"):
        Pixels(USUAL, tags_of(0, 0)).read(CONTENT, other)


def test_rows_that_begin_too_late_are_refused() -> None:
    other = Layout("RGB", WIDTH, HEIGHT, (1,), (ROW,), ROW * HEIGHT)
    with pytest.raises(ValueError, match="too short"):
        Pixels(USUAL, tags_of(0, 0)).read(CONTENT, other)


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH - 1), (HEIGHT - 1, WIDTH), (WIDTH, HEIGHT)])
def test_a_picture_of_another_size_is_not_written(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="is none of this stream"):
        Pixels(USUAL, tags_of(0, 0)).write(np.zeros((*size, 3), np.uint8))
