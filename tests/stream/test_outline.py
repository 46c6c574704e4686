import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.outline import BodySurface, PixelMask, intersection, is_empty, overlap

FRAME = (0, 0, 30, 20)


def whole(mask: PixelMask) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """The mask on a canvas that reaches 20 pixels beyond the frame on every side."""
    canvas = np.zeros((60, 70), np.bool_)
    height, width = mask.pixels.shape
    canvas[mask.y0 + 20 : mask.y0 + 20 + height, mask.x0 + 20 : mask.x0 + 20 + width] = mask.pixels
    return canvas


masks = st.builds(
    lambda x, y, w, h, seed: PixelMask(x, y, np.random.default_rng(seed).random((h, w)) < 0.5),
    st.integers(-15, 30),
    st.integers(-15, 20),
    st.integers(0, 15),
    st.integers(0, 15),
    st.integers(0, 5),
)


@given(masks, masks)
def test_overlap_and_union_are_those_of_masks_of_the_whole_frame(first: PixelMask, second: PixelMask) -> None:
    a, b = whole(first), whole(second)
    assert (whole(first.union(second)) == (a | b)).all()
    expected = (a & b).sum() / (a | b).sum() if (a | b).any() else 0
    assert overlap(first, second) == pytest.approx(expected)


@given(masks)
def test_the_part_within_the_frame_loses_nothing_inside(mask: PixelMask) -> None:
    inside = whole(PixelMask.filled(FRAME))
    assert (whole(mask.within(FRAME)) == (whole(mask) & inside)).all()
    tight = mask.tight()
    assert (whole(tight) == whole(mask)).all()
    assert tight.area == mask.area
    assert not tight.pixels.size or (tight.pixels[0].any() and tight.pixels[:, -1].any())


@given(masks, masks)
def test_painting_stays_inside_the_target(mask: PixelMask, target: PixelMask) -> None:
    before, place = whole(target), whole(PixelMask.filled(target.box))
    mask.paint(target)
    assert (whole(target) == (before | (whole(mask) & place))).all()
    mask.paint(target, value=False)
    assert not (whole(target) & whole(mask)).any()


def test_boxes_that_share_nothing_share_an_empty_box() -> None:
    assert is_empty(intersection((0, 0, 5, 5), (7, 7, 9, 9)))
    assert intersection((0, 0, 5, 5), (3, -2, 9, 4)) == (3, 0, 5, 4)


def test_a_mask_must_be_of_booleans() -> None:
    with pytest.raises(ValueError, match="bool"):
        PixelMask(0, 0, np.zeros((2, 2), np.uint8))


def surface(**changes: object) -> BodySurface:
    fields = {
        "box": (3, 4, 60, 90),
        "segmentation": np.eye(112, dtype=np.bool_),
        "embedding": np.zeros((16, 112, 112), np.float32),
    }
    return BodySurface(**(fields | changes))  # type: ignore[arg-type]


def test_a_surface_is_pasted_into_its_box() -> None:
    found = surface(box=(3, 4, 227, 116), segmentation=np.eye(112, dtype=np.bool_))
    nearest, linear = found.nearest_mask(), found.linear_mask()
    assert nearest.box == linear.box == (3, 4, 227, 116)
    # Twice as wide: nearest doubles every point, linear reaches one pixel further on either side.
    assert nearest.pixels[10].nonzero()[0].tolist() == [20, 21]
    assert linear.pixels[10].nonzero()[0].tolist() == [19, 20, 21, 22]


def test_a_surface_must_fit_together() -> None:
    with pytest.raises(ValueError, match="area"):
        surface(box=(3, 4, 3, 90))
    with pytest.raises(ValueError, match="segmentation"):
        surface(segmentation=np.zeros((112, 112), np.uint8))
    with pytest.raises(ValueError, match="embedding"):
        surface(embedding=np.zeros((16, 56, 56), np.float32))
