from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from stream.evaluate.reidentification import rank


def at(*cosines: float) -> npt.NDArray[np.float32]:
    """Vectors of length 1 with these cosines to (1, 0)."""
    return np.array([(c, np.sqrt(1 - c * c)) for c in cosines], np.float32)


def ints(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


def test_entries_of_the_same_person_and_camera_are_left_out_and_distractors_are_not() -> None:
    # Identical but from the query's camera; a distractor; somebody else; twice the person, by other cameras.
    gallery, people, cameras = at(1.0, 0.95, 0.9, 0.8, 0.7), ints(1, 0, 2, 1, 1), ints(1, 1, 2, 2, 3)
    found = rank(at(1.0), gallery, (ints(1), people), (ints(1), cameras))
    assert found.rank1 == 0
    assert found.mean_ap == pytest.approx((1 / 3 + 2 / 4) / 2)
    # The control: from any other camera, the identical entry is found first.
    control = rank(at(1.0), gallery, (ints(1), people), (ints(9), cameras))
    assert control.rank1 == 1
    assert control.mean_ap == pytest.approx((1 + 2 / 4 + 3 / 5) / 3)


def test_somebody_else_from_the_same_camera_counts() -> None:
    found = rank(at(1.0), at(0.9, 0.5), (ints(1), ints(2, 1)), (ints(1), ints(1, 2)))
    assert found.rank1 == 0
    assert found.mean_ap == pytest.approx(0.5)


def test_queries_that_the_gallery_cannot_answer_do_not_count() -> None:
    # The second person is there from the same camera only, the third one not at all.
    found = rank(at(1.0, 1.0, 1.0), at(0.9, 0.8), (ints(1, 2, 3), ints(1, 2)), (ints(1, 2, 1), ints(2, 2)))
    assert (found.rank1, found.mean_ap, found.queries) == (1, 1, 1)
    with pytest.raises(ValueError, match="no query"):
        rank(at(1.0), at(0.9), (ints(1), ints(1)), (ints(1), ints(1)))


def test_many_queries_give_the_mean_of_all_of_them() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((700, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    people, cameras = draw.integers(1, 7, 700), draw.integers(1, 4, 700)
    halves = (people[:600], people[600:]), (cameras[:600], cameras[600:])
    together = rank(vectors[:600], vectors[600:], *halves)
    each = [
        rank(vectors[i : i + 1], vectors[600:], (people[i : i + 1], people[600:]), (cameras[i : i + 1], cameras[600:]))
        for i in range(600)
    ]
    assert together.queries == 600
    assert together.rank1 == pytest.approx(np.mean([one.rank1 for one in each]))
    assert together.mean_ap == pytest.approx(np.mean([one.mean_ap for one in each]))
