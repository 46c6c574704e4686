from __future__ import annotations

import numpy as np
import pytest

from tests.stream.evaluate.made import with_moments

pytest.importorskip("torchmetrics", reason="the distance is torchmetrics'")
from export.measures import frechet_distance


def test_normal_distributions_with_known_moments_have_the_distance_of_the_closed_form() -> None:
    # Covariances that commute: the trace is the sum of squared differences of standard deviations.
    first = with_moments([0, 0, 0], np.diag([1.0, 4.0, 9.0]).tolist(), 500, 1)
    second = with_moments([1, 2, -2], np.diag([4.0, 4.0, 1.0]).tolist(), 700, 2)
    expected = (1 + 4 + 4) + (1 - 2) ** 2 + (2 - 2) ** 2 + (3 - 1) ** 2
    assert frechet_distance(first, second) == pytest.approx(expected, abs=1e-6)


def test_covariances_that_do_not_commute_have_it_as_well() -> None:
    # For 2x2 matrices, the trace of a root is sqrt(trace + 2 sqrt(determinant)).
    one, other = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[3.0, 0.0], [0.0, 1.0]])
    product = one @ other
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = np.trace(one) + np.trace(other) - 2 * root
    found = frechet_distance(with_moments([5, 5], one.tolist(), 60, 3), with_moments([5, 5], other.tolist(), 50, 4))
    assert found == pytest.approx(expected, abs=1e-6)


def test_more_vectors_than_fit_one_update_count_all_the_same() -> None:
    first = with_moments([0, 0], np.eye(2).tolist(), 3000, 5).astype(np.float32)
    second = first + np.array([3, 4], np.float32)
    assert frechet_distance(first, second) == pytest.approx(25, abs=1e-3)


def test_the_same_features_are_at_no_distance_though_their_covariance_is_singular() -> None:
    few = np.random.default_rng(0).standard_normal((5, 40))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("first", "second"), [((1, 4), (3, 4)), ((3, 4), (3, 5)), ((3,), (3, 4))], ids=["one", "other", "flat"]
)
def test_features_that_do_not_fit_are_refused(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="feature"):
        frechet_distance(np.zeros(first), np.zeros(second))
