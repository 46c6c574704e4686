import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.outline import BodySurface, Outline, PixelMask, intersection, is_empty, overlap, shared

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


ranges = st.tuples(st.integers(-25, 25), st.integers(0, 20)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(masks, ranges, ranges)
def test_spreading_is_the_union_of_the_mask_at_every_move(
    mask: PixelMask, across: tuple[int, int], down: tuple[int, int]
) -> None:
    spread = mask.spread((across[0], down[0], across[1], down[1]), FRAME)
    expected = PixelMask.filled(FRAME)
    expected.pixels[...] = False
    for x in range(across[0], across[1] + 1):
        for y in range(down[0], down[1] + 1):
            PixelMask(mask.x0 + x, mask.y0 + y, mask.pixels).paint(expected)
    assert spread.box == FRAME
    assert (spread.pixels == expected.pixels).all()


def test_spreading_takes_no_more_than_the_window_however_far_it_goes() -> None:
    mask = PixelMask(5, 5, np.ones((3, 3), np.bool_))
    far = 2**40
    assert mask.spread((-far, -far, far, far), FRAME).area == 30 * 20
    assert mask.spread((-far, 0, -far, 0), FRAME).area == 0
    assert mask.spread((0, 0, 0, 0), (4, 4, 4, 9)).pixels.shape == (5, 0)


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


def test_a_surface_is_moved_with_its_box() -> None:
    found = surface()
    moved = found.moved(-10, 7)
    assert moved.box == (-7, 11, 50, 97)
    assert (moved.nearest_mask().pixels == found.nearest_mask().pixels).all()


def test_what_is_kept_of_an_outline_has_a_mask_and_arrays_of_its_own() -> None:
    frame = np.zeros((100, 100), np.bool_)
    frame[10:20, 30:35] = True
    batch = np.zeros((50, 16, 112, 112), np.float32)
    body = surface(embedding=batch[7])
    kept = Outline(PixelMask(0, 0, frame), body).kept()
    assert kept is not None
    assert kept.mask is not None
    assert kept.surface is not None
    assert (whole_frame(kept.mask) == (frame | whole_frame(body.nearest_mask()))).all()
    for array in (kept.mask.pixels, kept.surface.embedding, kept.surface.segmentation):
        assert array.base is None
    alone = Outline(PixelMask(0, 0, frame)).kept()
    assert alone is not None
    assert alone.mask is not None
    assert alone.mask.box == (30, 10, 35, 20)


def whole_frame(mask: PixelMask) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    target = PixelMask.filled((0, 0, 100, 100))
    target.pixels[...] = False
    mask.paint(target)
    return target.pixels


def test_a_dense_pose_without_a_mask_is_kept_with_its_own_pixels_and_nothing_is_kept_of_an_empty_one() -> None:
    body = surface()
    kept = Outline(None, body).kept()
    assert kept is not None
    assert kept.mask is not None
    assert (whole_frame(kept.mask) == whole_frame(body.nearest_mask())).all()
    nothing = PixelMask(3, 3, np.zeros((4, 4), np.bool_))
    assert Outline().kept() is None
    assert Outline(nothing).kept() is None
    assert Outline(nothing, body).kept() is None
    assert Outline(None, surface(segmentation=np.zeros((112, 112), np.bool_))).kept() is None


def test_what_is_shared_counts_against_the_smaller_mask() -> None:
    small, large, beside = (PixelMask.filled(box) for box in ((0, 0, 4, 4), (2, 0, 12, 10), (20, 0, 24, 4)))
    assert shared(small, large) == shared(large, small) == 0.5
    assert shared(small, small) == 1
    assert shared(small, beside) == 0
    assert shared(small, PixelMask(0, 0, np.zeros((4, 4), np.bool_))) == 0
