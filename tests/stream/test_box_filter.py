"""The filters, against the matrices that they stand for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from stream.box_filter import BoxFilter

Floats = npt.NDArray[np.float64]

#: State: x, its speed, y, its speed, width, height.
STEP = np.array(
    [[1, 1, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0], [0] * 4 + [1, 0], [0] * 5 + [1]]
)
LOOK = np.eye(6)[[0, 2, 4, 5]]
#: What a change of speed by 1 from frame to frame, evenly, does to place and speed.
CHANGE = np.array([[0.25, 0.5], [0.5, 1]])


class Textbook:
    """One box, with the whole of the matrices; all that is not certain is a share of its size."""

    def __init__(self, box: Floats) -> None:
        self.state = LOOK.T @ self.measured(box)
        place, speed = (0.05 * self.scale) ** 2, (0.05 * self.scale) ** 2
        self.doubt = np.diag([place, speed, place, speed, place, place])

    @property
    def scale(self) -> float:
        return max(1.0, float(self.state[4:].mean()))

    @staticmethod
    def measured(box: Floats) -> Floats:
        x0, y0, x1, y1 = box
        return np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])

    def predict(self) -> None:
        noise = np.zeros((6, 6))
        noise[:2, :2] = noise[2:4, 2:4] = (0.005 * self.scale) ** 2 * CHANGE
        noise[4, 4] = noise[5, 5] = (0.02 * self.scale) ** 2
        self.state = STEP @ self.state
        self.doubt = STEP @ self.doubt @ STEP.T + noise

    def correct(self, box: Floats) -> None:
        gain = self.doubt @ LOOK.T @ np.linalg.inv(LOOK @ self.doubt @ LOOK.T + (0.05 * self.scale) ** 2 * np.eye(4))
        self.state = self.state + gain @ (self.measured(box) - LOOK @ self.state)
        self.doubt = (np.eye(6) - gain @ LOOK) @ self.doubt

    @property
    def box(self) -> Floats:
        x, y, width, height = LOOK @ self.state
        return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def some_boxes(rng: np.random.Generator, count: int) -> Floats:
    corners = rng.uniform(0, 900, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(5, 200, (count, 2))], axis=1)


@pytest.mark.parametrize("seed", range(5))
def test_each_is_the_filter_of_the_textbook_whoever_else_is_there(seed: int) -> None:
    rng = np.random.default_rng(seed)
    filters, expected = BoxFilter(), list[Textbook]()
    for _ in range(60):
        filters.predict()
        for one in expected:
            one.predict()
        seen = np.flatnonzero(rng.random(len(expected)) < 0.6)
        rng.shuffle(seen)
        boxes = filters.boxes[seen] + rng.normal(0, 6, (len(seen), 4))
        filters.correct(seen, boxes)
        for row, box in zip(seen, boxes, strict=True):
            expected[row].correct(box)
        fresh = some_boxes(rng, int(rng.integers(0, 3)))
        filters.add(fresh)
        expected += [Textbook(box) for box in fresh]
        kept = rng.random(len(expected)) < 0.9
        filters.keep(kept)
        expected = [one for one, stays in zip(expected, kept, strict=True) if stays]
        assert len(filters) == len(expected)
        assert np.allclose(filters.boxes, np.array([one.box for one in expected]).reshape(-1, 4), rtol=1e-9, atol=1e-9)


def test_boxes_twice_as_large_move_twice_as_far() -> None:
    rng = np.random.default_rng(1)
    small, large = BoxFilter(), BoxFilter()
    seen = some_boxes(rng, 4)
    small.add(seen)
    large.add(2 * seen)
    for _ in range(20):
        seen = seen + rng.normal(0, 4, seen.shape)
        for filters, boxes in ((small, seen), (large, 2 * seen)):
            filters.predict()
            filters.correct(np.arange(4), boxes)
    assert np.allclose(2 * small.boxes, large.boxes)


def test_the_speed_of_what_walks_is_found_and_kept_where_it_is_not_seen() -> None:
    filters, start = BoxFilter(), np.array([[100.0, 100, 140, 200]])
    filters.add(start)
    for frame in range(1, 31):
        filters.predict()
        filters.correct(np.array([0]), start + 5 * frame)
    for _ in range(4):
        filters.predict()
    assert np.abs(filters.boxes - (start + 5 * 34)).max() < 0.5


def test_nothing_is_too_certain_of_a_box_without_area() -> None:
    filters = BoxFilter()
    filters.add(np.array([[50.0, 50, 50, 50]]))
    filters.predict()
    filters.correct(np.array([0]), np.array([[52.0, 50, 52, 50]]))
    assert np.isfinite(filters.boxes).all()
    assert 50 < filters.boxes[0, 0] < 52


def test_without_boxes_there_is_nothing_to_do() -> None:
    filters = BoxFilter()
    filters.predict()
    filters.correct(np.empty(0, np.intp), np.empty((0, 4)))
    filters.add(np.empty((0, 4)))
    filters.keep(np.empty(0, np.bool_))
    assert filters.boxes.shape == (0, 4)
