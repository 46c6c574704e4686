import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import resample
from stream.compose.crops import Cutting, cut_image, enlarge
from stream.outline import Box, PixelMask, intersection
from stream.resample import to_levels
from tests.compose import blob

SIZE = (36, 20)
CUTTINGS: tuple[Cutting, ...] = ("person", "face", "surface")

boxes = st.builds(
    lambda x, y, w, h: (x, y, x + w, y + h),
    st.integers(-60, 110),
    st.integers(-60, 90),
    st.integers(1, 160),
    st.integers(1, 160),
)


def noise(height: int = 80, width: int = 100, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@given(boxes, st.sampled_from(CUTTINGS))
@settings(deadline=None)
def test_a_crop_beyond_the_frame_is_that_of_a_frame_with_black_round_it(box: Box, cutting: Cutting) -> None:
    frame = noise()
    wide = np.zeros((80 + 600, 100 + 600, 3), np.uint8)
    wide[300:380, 300:400] = frame
    moved = (box[0] + 300, box[1] + 300, box[2] + 300, box[3] + 300)
    crop, shares = cut_image(frame, box, SIZE, cutting, None)
    expected, _ = cut_image(wide, moved, SIZE, cutting, None)
    # Sums in another order round differently once in a while.
    assert np.abs(crop.astype(int) - expected).max() <= 1
    assert shares is None


@given(boxes, st.sampled_from(CUTTINGS), st.integers(0, 60), st.integers(0, 40))
@settings(deadline=None)
def test_hidden_pixels_change_nothing_and_what_they_had_a_share_in_is_marked(
    box: Box, cutting: Cutting, x: int, y: int
) -> None:
    frame, hidden = noise(), blob(x, y, 40, 40)
    changed = frame.copy()
    mine = hidden.within((0, 0, 100, 80))
    changed[y : y + mine.pixels.shape[0], x : x + mine.pixels.shape[1]][mine.pixels] ^= 255
    crop, shares = cut_image(frame, box, SIZE, cutting, hidden)
    again, _ = cut_image(changed, box, SIZE, cutting, hidden)
    assert (crop == again).all()
    seen = [cut_image(picture, box, SIZE, cutting, None)[0].astype(int) for picture in (frame, changed)]
    moved = np.abs(seen[0] - seen[1]).max(axis=2)
    # Weights below the threshold leave 255 / 256 of a level for each of a few pixels.
    assert not (moved[~shares] > 16).any() if shares is not None else not moved.any()


def test_faces_shrink_by_means_of_areas() -> None:
    frame = noise(200, 200)
    crop, _ = cut_image(frame, (10, 20, 130, 140), (30, 30), "face", None)
    assert (crop == cv2.resize(frame[20:140, 10:130], (30, 30), interpolation=cv2.INTER_AREA)).all()


def test_persons_take_the_nearest_pixels_only_where_both_sides_are_enlarged() -> None:
    frame = noise(200, 200)
    enlarged, _ = cut_image(frame, (10, 20, 20, 38), SIZE, "person", None)
    assert (enlarged == frame[20:38, 10:20].repeat(2, axis=0).repeat(2, axis=1)).all()
    tall, _ = cut_image(frame, (10, 20, 20, 56), SIZE, "person", None)
    assert not (tall == frame[20:56, 10:20].repeat(2, axis=1)).all()
    same, _ = cut_image(frame, (10, 20, 30, 56), SIZE, "person", None)
    assert (same == frame[20:56, 10:30]).all()


@pytest.mark.parametrize("cutting", CUTTINGS)
def test_a_crop_outside_the_frame_is_black(cutting: Cutting) -> None:
    crop, shares = cut_image(noise(), (500, 500, 530, 550), SIZE, cutting, PixelMask.filled((0, 0, 9, 9)))
    assert not crop.any()
    assert shares is None


@given(boxes, st.sampled_from(("bicubic", "bilinear")))
def test_a_part_of_an_answer_is_the_part_of_the_whole(box: Box, filter_: resample.Filter) -> None:
    output = np.random.default_rng(1).random((*SIZE, 3)).astype(np.float32) * 255
    x0, y0, x1, y1 = intersection(box, (0, 0, 100, 80))
    if x0 < x1 and y0 < y1:
        whole = enlarge(output, box, box, filter_)[y0 - box[1] : y1 - box[1], x0 - box[0] : x1 - box[0]]
        assert np.abs(enlarge(output, box, (x0, y0, x1, y1), filter_).astype(int) - whole).max() <= 1


def test_levels_are_rounded_to_even_and_clipped() -> None:
    assert to_levels(np.array([-3.0, 0.5, 1.5, 254.6, 300.0], np.float32)).tolist() == [0, 0, 2, 255, 255]
