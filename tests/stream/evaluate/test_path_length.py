from __future__ import annotations

import numpy as np
import pytest

from stream.evaluate.path_length import EPSILON, path_length, step


def test_a_step_goes_an_epsilon_of_the_straight_way() -> None:
    z0, z1 = np.array([1, -2], np.float32), np.array([3, 2], np.float32)
    assert np.allclose(step(z0, z1, 0.25), [1.5, -1])
    assert np.array_equal(step(z0, z1, 0.0), z0)
    assert step(z0, z1).dtype == np.float32
    assert EPSILON == 1e-4


def test_distances_of_a_linear_picture_give_the_square_of_its_slope() -> None:
    # A picture that moves by 3 for a step of 1 moves by 3 epsilon, which a squared distance makes 9 epsilon^2.
    value, kept = path_length([9 * EPSILON**2] * 10)
    assert value == pytest.approx(9)
    assert kept == 10


def test_the_lowest_and_the_highest_hundredth_are_left_out() -> None:
    lengths = [0.0, *[1.0] * 298, 1e9]
    value, kept = path_length([length * 0.01**2 for length in lengths], 0.01)
    # Percentiles are taken as torch-fidelity takes them: the lower neighbour below, the higher one above.
    assert value == pytest.approx(1)
    assert kept == 298


def test_one_step_is_its_own_mean() -> None:
    assert path_length([4.0], 2.0) == (1.0, 1)
