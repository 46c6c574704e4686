from __future__ import annotations

import numpy as np
import pytest

from stream.orientation import Orientation
from tests.media import display_matrix, noise, stored_picture


@pytest.mark.parametrize("exif", range(1, 9))
def test_apply_makes_a_stored_picture_upright_and_undo_stores_it_again(exif: int) -> None:
    upright = noise(1, 7, 5)[0]
    stored = stored_picture(upright, exif)
    orientation = Orientation.from_matrix(display_matrix(exif))
    assert np.array_equal(orientation.apply(stored), upright)
    assert np.array_equal(orientation.undo(upright), stored)
    assert orientation.apply(stored).flags.c_contiguous
    assert orientation.undo(upright).flags.c_contiguous


@pytest.mark.parametrize("exif", range(1, 9))
def test_a_matrix_moves_stored_points_where_apply_puts_their_pixels(exif: int) -> None:
    """By the definition in ISO/IEC 14496-12: (p, q) is shown at (a p + c q, b p + d q), moved into the picture."""
    a, b, _, c, d = (value >> 16 for value in display_matrix(exif)[:5])
    stored = np.arange(12).reshape(3, 4)
    points = {(a * p + c * q, b * p + d * q): stored[q, p] for q in range(3) for p in range(4)}
    left, top = min(x for x, _ in points), min(y for _, y in points)
    shown = Orientation.from_matrix(display_matrix(exif)).apply(stored)
    assert {(x - left, y - top): value for (x, y), value in points.items()} == {
        (x, y): shown[y, x] for y in range(shown.shape[0]) for x in range(shown.shape[1])
    }


def test_an_upright_picture_is_not_copied() -> None:
    image = noise(1)[0]
    orientation = Orientation.from_matrix(display_matrix(1))
    assert orientation.upright
    assert orientation.apply(image) is image
    assert orientation.undo(image) is image


def test_a_slightly_turned_matrix_counts_as_the_nearest_orientation() -> None:
    quarter = list(display_matrix(6))
    quarter[0], quarter[4] = 2000, -2000
    assert Orientation.from_matrix(quarter) == Orientation.from_matrix(display_matrix(6))


def test_a_scaled_matrix_and_an_empty_one_are_read() -> None:
    assert Orientation.from_matrix([2 * value for value in display_matrix(8)]) == Orientation.from_matrix(
        display_matrix(8)
    )
    assert Orientation.from_matrix([0] * 9).upright
