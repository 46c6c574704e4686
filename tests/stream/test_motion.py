"""Whatever a box may do between two frames, the mask that is carried along covers the figure in it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import geometry
from stream.motion import Move, carry, carry_between
from stream.outline import BodySurface, Outline, PixelMask, intersection

WIDTH, HEIGHT = 90, 70
FRAME = (0, 0, WIDTH, HEIGHT)
Canvas = np.ndarray[tuple[int, int], np.dtype[np.bool_]]


def box(*edges: float) -> npt.NDArray[np.float32]:
    return np.array(edges, np.float32)


def on_frame(mask: PixelMask | None) -> Canvas:
    """The mask's pixels in a whole frame."""
    assert mask is not None
    whole = PixelMask(0, 0, np.zeros((HEIGHT, WIDTH), np.bool_))
    mask.paint(whole)
    return whole.pixels


def straight(seen: npt.ArrayLike, places: npt.ArrayLike, margin: float = 0.0) -> Move:
    """A move to `places`, which is also where the region is expected, grown by a share of the box."""
    first, then = np.asarray(seen, np.float32), np.asarray(places, np.float32)
    return Move(first, then, then, geometry.grow_like(then, first, margin)[0])


def scaled(mask: PixelMask, seen: npt.NDArray[np.float32], place: npt.NDArray[np.float32]) -> list[tuple[int, int]]:
    """The pixels of the frame that hold the centres of a mask's pixels when its box becomes another one."""
    rows, columns = np.nonzero(mask.pixels)
    factor = (place[2:] - place[:2]) / (seen[2:] - seen[:2])
    x = place[0] + (columns + mask.x0 + 0.5 - seen[0]) * factor[0]
    y = place[1] + (rows + mask.y0 + 0.5 - seen[1]) * factor[1]
    inside = (x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)
    return list(zip(np.floor(y[inside]).astype(int).tolist(), np.floor(x[inside]).astype(int).tolist(), strict=True))


@st.composite
def detections(draw: st.DrawFn) -> tuple[npt.NDArray[np.float32], Outline]:
    """A box in whole pixels, which may reach outside the frame, and a mask within."""
    x, y, w, h = (draw(st.integers(*span)) for span in ((-20, WIDTH), (-20, HEIGHT), (1, 40), (1, 40)))
    share, seed = draw(st.sampled_from([0.02, 0.3, 1.0])), draw(st.integers(0, 5))
    pixels = np.random.default_rng(seed).random((h, w)) < share
    pixels[draw(st.integers(0, h - 1)), draw(st.integers(0, w - 1))] = True
    return box(x, y, x + w, y + h), Outline(PixelMask(x, y, pixels))


# Parts of pixels that float32 adds without rounding.
shifts = st.integers(-480, 480).map(lambda eighths: eighths / 8)
margins = st.floats(0, 0.625, width=32)


@settings(max_examples=300, deadline=None)
@given(detections(), shifts, shifts, margins)
def test_a_carried_mask_covers_the_last_one_here_there_and_on_the_way(
    found: tuple[npt.NDArray[np.float32], Outline], x: float, y: float, margin: float
) -> None:
    seen, outline = found
    there = (seen + box(x, y, x, y)).astype(np.float32)
    places = geometry.union_box(seen, there)[0]
    region, carried = carry(outline, straight(seen, places, margin), WIDTH, HEIGHT)
    mask = outline.mask
    assert mask is not None
    if carried is None:
        # Then the box counts.
        pixels = PixelMask.filled(tuple(geometry.to_pixels(region, WIDTH, HEIGHT)[0].tolist()))
    else:
        assert carried.mask is not None
        pixels = carried.mask
    covered = on_frame(pixels)
    assert (region == geometry.grow_like(places, seen, margin)[0]).all()
    for share in (0.0, 0.25, 0.75, 1.0):
        for toward in (math.floor, math.ceil):
            moved = PixelMask(mask.x0 + toward(x * share), mask.y0 + toward(y * share), mask.pixels)
            assert not (on_frame(moved) & ~covered).any()
    assert covered.sum() >= on_frame(mask).sum()
    # It grew in every direction by as many pixels as the box.
    more = [math.floor(side * margin - 1e-3) for side in (seen[2:] - seen[:2]).tolist()]
    for right, down in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        grown = PixelMask(mask.x0 + right * more[0], mask.y0 + down * more[1], mask.pixels)
        assert min(more) < 0 or not (on_frame(grown) & ~covered).any()
    inside = tuple(geometry.to_pixels(region, WIDTH, HEIGHT)[0].tolist())
    assert intersection(pixels.box, inside) == pixels.box or not pixels.pixels.size


@settings(max_examples=200, deadline=None)
@given(detections(), shifts, shifts, st.floats(0.25, 3, width=32), st.floats(0.25, 3, width=32), margins)
def test_a_carried_mask_covers_a_figure_that_has_another_size(
    found: tuple[npt.NDArray[np.float32], Outline], x: float, y: float, wide: float, high: float, margin: float
) -> None:
    seen, outline = found
    size = (seen[2:] - seen[:2]) * np.array([wide, high], np.float32)
    corner = seen[:2] + np.array([x, y], np.float32)
    place = np.concatenate([corner, corner + size]).astype(np.float32)
    region, carried = carry(outline, straight(seen, place, margin), WIDTH, HEIGHT)
    assert outline.mask is not None
    at = scaled(outline.mask, seen, place)
    if carried is not None:
        covered = on_frame(carried.mask)
        assert all(covered[pixel] for pixel in at)
    else:
        x0, y0, x1, y1 = geometry.to_pixels(region, WIDTH, HEIGHT)[0].tolist()
        assert all(x0 <= column < x1 and y0 <= row < y1 for row, column in at)


def test_control_a_mask_that_is_not_moved_or_only_moved_misses_the_figure() -> None:
    seen, place = box(10, 10, 30, 40), box(40, 10, 80, 60)
    outline = Outline(PixelMask(10, 10, np.ones((30, 20), np.bool_)))
    assert outline.mask is not None
    _, stayed = carry(outline, straight(seen, seen), WIDTH, HEIGHT)
    assert stayed is not None
    for mask in (stayed.mask, PixelMask(40, 10, outline.mask.pixels)):
        covered = on_frame(mask)
        assert not all(covered[pixel] for pixel in scaled(outline.mask, seen, place))


def disk(radius: int) -> Canvas:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(x**2 + y**2 <= radius**2)


def test_a_mask_grows_as_its_box_does_and_no_further() -> None:
    seen = box(40, 30, 61, 51)
    places, region = box(36, 30, 61, 51), box(33, 28, 64, 53)
    _, carried = carry(Outline(PixelMask(40, 30, disk(10))), Move(seen, seen, places, region), WIDTH, HEIGHT)
    assert carried is not None
    assert carried.mask is not None
    assert carried.mask.tight().box == (33, 28, 64, 53)
    # The corners of the box are no part of it.
    assert not carried.mask.pixels[0, 0]
    assert not carried.mask.pixels[-1, -1]


def test_a_long_move_leaves_no_gap() -> None:
    outline = Outline(PixelMask(2, 2, disk(3)))
    _, carried = carry(outline, straight(box(2, 2, 9, 9), box(2, 2, 80, 9)), WIDTH, HEIGHT)
    assert carried is not None
    assert on_frame(carried.mask)[5, 2:80].all()


def test_what_comes_in_over_an_edge_of_the_frame_is_filled_since_no_mask_shows_it() -> None:
    pixels = np.zeros((30, 10), np.bool_)
    pixels[5, 0] = True
    seen = box(0, 10, 10, 40)
    region, carried = carry(Outline(PixelMask(0, 10, pixels)), straight(seen, box(0, 10, 22, 40)), WIDTH, HEIGHT)
    assert region.tolist() == [0, 10, 22, 40]
    assert carried is not None
    covered = on_frame(carried.mask)
    assert covered[10:40, :12].all()
    # Away from the edges the same mask stays what it is.
    _, carried = carry(
        Outline(PixelMask(30, 10, pixels)), straight(seen + box(30, 0, 30, 0), box(30, 10, 52, 40)), WIDTH, HEIGHT
    )
    assert carried is not None
    assert on_frame(carried.mask).sum() == 13


@pytest.mark.parametrize(
    ("seen", "places", "filled"),
    [
        ((80, 10, 90, 40), (70, 10, 90, 40), (80, 10, 90, 40)),
        ((40, 0, 60, 20), (40, 0, 60, 30), (40, 0, 60, 10)),
        ((40, 50, 60, 70), (40, 40, 60, 70), (40, 60, 60, 70)),
    ],
)
def test_every_edge_of_the_frame_counts(
    seen: tuple[int, int, int, int], places: tuple[int, int, int, int], filled: tuple[int, int, int, int]
) -> None:
    mask = PixelMask(seen[0] + 3, seen[1] + 3, np.ones((1, 1), np.bool_))
    _, carried = carry(Outline(mask), straight(seen, places), WIDTH, HEIGHT)
    assert carried is not None
    assert (on_frame(carried.mask) >= on_frame(PixelMask.filled(filled))).all()


def test_a_mask_outside_its_detections_box_is_carried_too_and_the_box_holds_it() -> None:
    mask = PixelMask(10, 10, np.ones((30, 30), np.bool_))
    seen = box(20, 20, 30, 30)
    region, carried = carry(Outline(mask), straight(seen, seen + box(5, 0, 5, 0)), WIDTH, HEIGHT)
    assert region.tolist() == [15, 10, 45, 40]
    assert carried is not None
    assert (on_frame(carried.mask) == on_frame(PixelMask.filled((15, 10, 45, 40)))).all()


def posed(*where: int) -> BodySurface:
    x0, y0, x1, y1 = where
    return BodySurface((x0, y0, x1, y1), np.ones((112, 112), np.bool_), np.zeros((16, 112, 112), np.float32))


def test_a_surface_goes_where_the_region_is_expected_and_is_given_up_outside_the_frame() -> None:
    outline = Outline(None, posed(10, 10, 30, 40)).kept()
    seen = box(10, 10, 30, 40)
    for x, expected in ((12.4, (22, 10, 42, 40)), (200, None)):
        there = (seen + box(x, 0, x, 0)).astype(np.float32)
        places = geometry.union_box(seen, there)[0]
        _, carried = carry(outline, Move(seen, there, places, places), WIDTH, HEIGHT)
        assert carried is not None
        assert carried.mask is not None
        assert (carried.surface and carried.surface.box) == expected


def test_without_an_outline_or_a_pixel_in_the_frame_the_box_counts() -> None:
    seen, places = box(-30, 10, 5, 40), box(-30, 10, 8, 40)
    thin = Outline(PixelMask(-30, 10, np.ones((30, 1), np.bool_)))
    assert carry(None, straight(seen, places), WIDTH, HEIGHT)[1] is None
    # At the frame's left edge what comes in is filled, so this one lies beyond the right edge.
    far = Outline(PixelMask(110, 10, thin.mask.pixels if thin.mask else np.ones((1, 1), np.bool_)))
    moved = straight(box(85, 10, 111, 40), box(85, 10, 111, 40))
    region, carried = carry(far, moved, WIDTH, HEIGHT)
    assert region.tolist() == [85, 10, 111, 40]
    assert carried is None


@settings(max_examples=100, deadline=None)
@given(detections(), detections(), st.floats(0, 1, width=32), margins)
def test_between_two_detections_the_figures_of_both_are_covered(
    near: tuple[npt.NDArray[np.float32], Outline],
    far: tuple[npt.NDArray[np.float32], Outline],
    fraction: float,
    margin: float,
) -> None:
    place = geometry.interpolate(near[0], far[0], fraction)[0]
    grown = geometry.grow(place, margin)[0]
    region, carried = carry_between(near, far, place, grown, (WIDTH, HEIGHT))
    assert (region == grown).all()
    if carried is None:
        return
    covered = on_frame(carried.mask)
    for seen, outline in (near, far):
        assert outline.mask is not None
        assert all(covered[pixel] for pixel in scaled(outline.mask, seen, place))


def test_between_two_detections_one_without_a_mask_makes_the_box_count() -> None:
    place = box(10, 10, 40, 40)
    masked = (place, Outline(PixelMask(10, 10, disk(10))))
    for near, far in ((masked, (place, None)), ((place, None), masked)):
        region, carried = carry_between(near, far, place, place, (WIDTH, HEIGHT))
        assert carried is None
        assert region.tolist() == place.tolist()


def test_between_two_detections_the_nearer_surface_counts_if_there_is_one() -> None:
    place = box(10, 10, 40, 40)
    one, other = Outline(None, posed(10, 10, 40, 40)).kept(), Outline(None, posed(12, 12, 40, 40)).kept()
    plain = Outline(PixelMask(10, 10, disk(10)))
    for near, far, expected in ((one, other, 10), (other, one, 12), (plain, other, 12)):
        _, carried = carry_between((place, near), (place, far), place, place, (WIDTH, HEIGHT))
        assert carried is not None
        assert carried.surface is not None
        assert carried.surface.box[0] == expected
