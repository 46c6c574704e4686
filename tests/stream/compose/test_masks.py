import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.compose import masks
from stream.outline import Box, PixelMask
from tests.compose import blob

SIZE = (36, 20)

crops = st.builds(
    lambda x, y, w, h: (x, y, x + w, y + h),
    st.integers(-40, 60),
    st.integers(-40, 60),
    st.integers(1, 150),
    st.integers(1, 150),
)


@given(crops, st.integers(-20, 50), st.integers(-20, 50), st.integers(1, 90), st.integers(1, 90))
def test_every_pixel_of_a_mask_in_the_crop_comes_back(box: Box, x: int, y: int, width: int, height: int) -> None:
    mask = blob(x, y, width, height)
    crop = masks.cut(mask, box, SIZE) | masks.touched(mask, box, SIZE)
    written = PixelMask(box[0], box[1], masks.back(crop, box, box))
    inside, there = mask.within(box), written.within(mask.box)
    assert not (inside.pixels & ~there.pixels).any()


@given(crops, crops)
def test_a_part_of_a_mask_in_the_frame_is_the_part_of_the_whole(box: Box, other: Box) -> None:
    crop = np.random.default_rng(0).random(SIZE) < 0.4
    inside = PixelMask.filled(box).within(other).box
    if inside[0] < inside[2] and inside[1] < inside[3]:
        for back in (masks.back, masks.back_any):
            whole = PixelMask(box[0], box[1], back(crop, box, box))
            assert (back(crop, box, inside) == whole.within(inside).pixels).all()


def test_a_mask_may_lie_outside_the_crop() -> None:
    far = blob(500, 500, 10, 10)
    assert not masks.cut(far, (0, 0, 40, 40), SIZE).any()
    assert not masks.touched(far, (0, 0, 40, 40), SIZE).any()


def test_a_line_that_nearest_misses_is_touched() -> None:
    line = np.zeros((360, 200), np.bool_)
    line[:, 101] = True
    mask = PixelMask(0, 0, line)
    assert not masks.cut(mask, (0, 0, 200, 360), SIZE).any()
    assert masks.touched(mask, (0, 0, 200, 360), SIZE)[:, 10].all()


def test_dilation_is_by_a_disk() -> None:
    spot = np.zeros((21, 21), np.bool_)
    spot[10, 10] = True
    y, x = np.mgrid[-10:11, -10:11]
    for radius in (1, 4, 7):
        assert (masks.dilate(spot, radius) == (x**2 + y**2 <= radius**2)).all()


def test_dilation_into_the_padding_is_taken_away() -> None:
    mask = np.zeros((288, 160), np.bool_)
    mask[40:80, 30:60] = True
    free = masks.dilate_person(mask, (0, 0, 160, 288), (400, 400))
    assert free[36:84, 45].all()
    assert free[60, 26]
    # 40 pixels of padding above and 28 on the left.
    cut = masks.dilate_person(mask, (-28, -40, 132, 248), (400, 400))
    assert not cut[:40].any()
    assert not cut[:, :28].any()
    assert (cut[40:, 28:] == free[40:, 28:]).all()
    beyond = masks.dilate_person(mask, (0, 0, 160, 288), (75, 55))
    assert not beyond[75:].any()
    assert not beyond[:, 55:].any()
    assert beyond[60, 54]


@pytest.mark.parametrize(("side", "radius"), [(4, 1), (128, 4), (200, 7)])
def test_a_larger_body_gets_a_wider_border(side: int, radius: int) -> None:
    mask = np.zeros((288, 288), np.bool_)
    mask[20 : 20 + side, 20 : 20 + side] = True
    grown = masks.dilate_body(mask)
    assert grown[20 - radius, 20 + side // 2]
    assert not grown[20 - radius - 1].any()


def test_a_face_is_its_own_box() -> None:
    found = masks.face_mask((20, 30, 40, 50), (10, 20, 50, 60), (80, 80))
    expected = np.zeros((80, 80), np.bool_)
    expected[20:60, 20:60] = True
    assert (found == expected).all()


def test_a_box_is_covered_only_whole() -> None:
    full = np.ones(SIZE, np.bool_)
    left, right = (full, (0, 0, 20, 36)), (full, (20, 0, 40, 36))
    assert masks.covers([left, right], (5, 5, 35, 30))
    assert not masks.covers([left], (5, 5, 35, 30))
    assert not masks.covers([], (5, 5, 35, 30))
    hole = full.copy()
    hole[10, 10] = False
    assert not masks.covers([(hole, (0, 0, 20, 36))], (5, 5, 15, 30))
    assert masks.covers([(hole, (0, 0, 20, 36)), left], (5, 5, 15, 30))
