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
#: Of a speed that changes evenly from frame to frame: what that does to place and speed.
CHANGE = 1.792e-4 * np.array([[0.25, 0.5], [0.5, 1]])


class Textbook:
    """One box, with the whole of the matrices."""

    def __init__(self, box: Floats) -> None:
        self.state = LOOK.T @ self.measured(box)
        self.doubt = np.diag([1000.0, 1.6, 1000, 1.6, 1000, 1000])
        self.noise = np.zeros((6, 6))
        self.noise[:2, :2] = self.noise[2:4, 2:4] = CHANGE
        self.noise[4, 4] = self.noise[5, 5] = 10

    @staticmethod
    def measured(box: Floats) -> Floats:
        x0, y0, x1, y1 = box
        return np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])

    def predict(self) -> None:
        self.state = STEP @ self.state
        self.doubt = STEP @ self.doubt @ STEP.T + self.noise

    def correct(self, box: Floats) -> None:
        gain = self.doubt @ LOOK.T @ np.linalg.inv(LOOK @ self.doubt @ LOOK.T + np.eye(4))
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


def test_the_speed_of_what_walks_is_found_and_kept_where_it_is_not_seen() -> None:
    filters, start = BoxFilter(), np.array([[100.0, 100, 140, 200]])
    filters.add(start)
    for frame in range(1, 31):
        filters.predict()
        filters.correct(np.array([0]), start + 5 * frame)
    for _ in range(4):
        filters.predict()
    assert np.abs(filters.boxes - (start + 5 * 34)).max() < 0.5


def test_without_boxes_there_is_nothing_to_do() -> None:
    filters = BoxFilter()
    filters.predict()
    filters.correct(np.empty(0, np.intp), np.empty((0, 4)))
    filters.add(np.empty((0, 4)))
    filters.keep(np.empty(0, np.bool_))
    assert filters.boxes.shape == (0, 4)
