from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream import geometry

NONE = np.zeros((0, 4), np.float32)
coordinate = st.floats(-500, 500, width=32)
side = st.floats(0, 300, width=32)
boxes = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), coordinate, coordinate, side, side)


def test_every_function_takes_no_box_at_all() -> None:
    assert geometry.grow(NONE, 0.5).shape == (0, 4)
    assert geometry.grow_like(NONE, NONE, 0.5).shape == (0, 4)
    assert geometry.to_pixels(NONE, 10, 10).shape == (0, 4)
    assert geometry.area(NONE).shape == (0,)
    assert geometry.iou(NONE, NONE).shape == (0, 0)
    assert geometry.iou(NONE, [[0, 0, 1, 1]]).shape == (0, 1)
    assert geometry.union_box(NONE, NONE).shape == (0, 4)
    assert geometry.interpolate(NONE, NONE, 0.5).shape == (0, 4)
    assert geometry.outside(NONE, 10, 10).shape == (0,)


@pytest.mark.parametrize(
    ("box", "margin", "expected"),
    [
        ((0, 0, 10, 20), 0.0, (0, 0, 10, 20)),
        ((0, 0, 10, 20), 0.2, (-2, -4, 12, 24)),
        ((5, 5, 5, 5), 1.0, (5, 5, 5, 5)),
        ((-4, -4, 4, 4), 0.5, (-8, -8, 8, 8)),
    ],
)
def test_grow_moves_each_side_by_a_share_of_width_or_height(
    box: tuple[float, ...], margin: float, expected: tuple[float, ...]
) -> None:
    assert geometry.grow(box, margin)[0].tolist() == list(expected)


def test_grow_like_takes_the_share_of_another_box() -> None:
    assert geometry.grow_like((0, 0, 100, 100), (0, 0, 10, 20), 0.5)[0].tolist() == [-5, -10, 105, 110]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((2, 3, 5, 7), (2, 3, 5, 7)),
        ((2.1, 3.9, 4.1, 6.1), (2, 3, 5, 7)),
        ((-5, -5, 3, 3), (0, 0, 3, 3)),
        ((8, 4, 30, 30), (8, 4, 10, 8)),
        ((-5, -5, 30, 30), (0, 0, 10, 8)),
        # Without area, it still lies on a pixel.
        ((4, 4, 4, 4), (4, 4, 5, 5)),
        ((4.5, 4.5, 4.5, 4.5), (4, 4, 5, 5)),
        # Outside.
        ((10, 0, 12, 8), (10, 0, 10, 8)),
        ((-3, 0, 0, 8), (0, 0, 0, 8)),
        ((0, -9, 10, -2), (0, 0, 10, 0)),
    ],
)
def test_to_pixels_takes_every_pixel_that_the_box_touches_inside_the_frame(
    box: tuple[float, ...], expected: tuple[int, ...]
) -> None:
    assert geometry.to_pixels(box, 10, 8)[0].tolist() == list(expected)


@given(boxes, st.integers(1, 200), st.integers(1, 200))
def test_to_pixels_stays_inside_and_holds_every_touched_pixel(box: tuple[float, ...], width: int, height: int) -> None:
    x0, y0, x1, y1 = (int(v) for v in geometry.to_pixels(box, width, height)[0])
    assert 0 <= x0 <= x1 <= width
    assert 0 <= y0 <= y1 <= height
    for low, high, first, last, size in ((box[0], box[2], x0, x1, width), (box[1], box[3], y0, y1, height)):
        for pixel in range(size):
            if pixel < high and pixel + 1 > low:
                assert first <= pixel < last
            elif pixel >= high + 1 or pixel + 1 <= low - 1:
                assert not first <= pixel < last
    empty = x0 == x1 or y0 == y1
    assert empty == bool(geometry.outside(box, width, height)[0])


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((2.1, 3.9, 4.1, 6.1), (2, 3, 5, 7)),
        ((-5.5, -5, 30, 30.5), (-6, -5, 30, 31)),
        ((4, 4, 4, 4), (4, 4, 5, 5)),
        ((-3, -9, -3, -2), (-3, -9, -2, -2)),
    ],
)
def test_whole_takes_every_pixel_that_the_box_touches_outside_as_well(
    box: tuple[float, ...], expected: tuple[int, ...]
) -> None:
    assert geometry.whole(np.array(box, np.float32)) == expected


@given(boxes)
def test_whole_and_to_pixels_agree_inside_the_frame(box: tuple[float, ...]) -> None:
    x0, y0, x1, y1 = geometry.whole(box)
    inside = [min(max(x0, 0), 90), min(max(y0, 0), 60), min(max(x1, 0), 90), min(max(y1, 0), 60)]
    assert geometry.to_pixels(box, 90, 60)[0].tolist() == inside


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),
        ((0, 0, 4, 4), (1, 1, 3, 3), 0.25),
    ],
)
def test_iou_of_known_pairs(first: tuple[float, ...], second: tuple[float, ...], expected: float) -> None:
    assert geometry.iou(first, second)[0, 0] == pytest.approx(expected)


@given(boxes, boxes)
def test_iou_is_symmetric_and_between_zero_and_one(first: tuple[float, ...], second: tuple[float, ...]) -> None:
    value = float(geometry.iou(first, second)[0, 0])
    assert 0 <= value <= 1 + 1e-6
    assert value == pytest.approx(float(geometry.iou(second, first)[0, 0]), abs=1e-6)


@given(boxes, boxes)
def test_union_box_holds_both(first: tuple[float, ...], second: tuple[float, ...]) -> None:
    union = geometry.union_box(first, second)[0]
    for box in np.array([first, second], np.float32):
        assert (union[:2] <= box[:2]).all()
        assert (union[2:] >= box[2:]).all()


def test_interpolate_goes_from_the_first_to_the_second() -> None:
    first, second = (0, 0, 10, 10), (10, 20, 30, 40)
    assert geometry.interpolate(first, second, 0)[0].tolist() == list(first)
    assert geometry.interpolate(first, second, 1)[0].tolist() == list(second)
    assert geometry.interpolate(first, second, 0.5)[0].tolist() == [5, 10, 20, 25]


def test_shift_is_the_way_of_the_centre() -> None:
    first, second = np.array([0, 0, 10, 10], np.float32), np.array([4, 8, 16, 18], np.float32)
    assert geometry.shift(first, second).tolist() == [5, 8, 5, 8]


def test_boxes_of_any_size_have_an_overlap() -> None:
    largest = float(np.finfo(np.float32).max)
    boxes = np.array([[0, 0, largest, largest], [-largest, -largest, largest, largest], [0, 0, 1, 1]], np.float32)
    expected = np.array([[1, 0.25, 0], [0.25, 1, 0], [0, 0, 1]])
    assert np.allclose(geometry.iou(boxes, boxes), expected)
