from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import geometry
from stream.frame import Image
from stream.generators.classical import Fill, blur, mask_out, pixelate
from stream.regions import Kind, Origin, Regions
from stream.stitch import Shape, covered_boxes, draw_regions, paste, stitch
from tests.fakes import BLACK, FILLS, Box, noise

sizes = st.tuples(st.integers(1, 90), st.integers(1, 70))
coordinate = st.floats(-150, 200, width=32)
side = st.floats(0, 250, width=32)
boxes = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), coordinate, coordinate, side, side)
margins = st.sampled_from([0.0, 0.05, 0.2, 0.5, 2.0])
shapes: st.SearchStrategy[Shape] = st.sampled_from(["box", "ellipse"])


def regions_of(*given_boxes: Box) -> Regions:
    return Regions.of(np.array(given_boxes, np.float32).reshape(-1, 4), Kind.FACE)


def inside(box: geometry.Floats, width: int, height: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    mask = np.zeros((height, width), bool)
    x0, y0, x1, y1 = geometry.to_pixels(box, width, height)[0]
    mask[y0:y1, x0:x1] = True
    return mask


def test_no_region_gives_an_equal_copy() -> None:
    image = noise(1)[0]
    out = stitch(image, Regions.empty(), FILLS)
    assert np.array_equal(out, image)
    assert not np.shares_memory(out, image)


@settings(max_examples=300, deadline=None)
@given(sizes, boxes, margins)
def test_every_pixel_of_the_grown_box_is_covered_and_no_other_changes(
    size: tuple[int, int], box: Box, margin: float
) -> None:
    image = noise(1, *size)[0]
    before = image.copy()
    out = stitch(image, regions_of(box), FILLS, margin=margin)
    grown = inside(geometry.grow(box, margin), *size)
    assert np.array_equal((out == 0).all(axis=2), grown)
    assert np.array_equal(out[~grown], image[~grown])
    assert np.array_equal(image, before)


@settings(max_examples=300, deadline=None)
@given(sizes, boxes, margins)
def test_the_ellipse_covers_every_pixel_of_the_region_itself_and_none_outside_its_grown_box(
    size: tuple[int, int], box: Box, margin: float
) -> None:
    image = noise(1, *size)[0]
    regions = regions_of(box)
    covered = (stitch(image, regions, FILLS, margin=margin, shape="ellipse") == 0).all(axis=2)
    assert covered[inside(regions.boxes, *size)].all()
    assert not covered[~inside(covered_boxes(regions, margin, "ellipse"), *size)].any()


@settings(max_examples=100, deadline=None)
@given(sizes, st.lists(boxes, max_size=6), margins, shapes)
def test_pixels_under_the_regions_do_not_reach_the_output(
    size: tuple[int, int], several: list[Box], margin: float, shape: Shape
) -> None:
    image = noise(1, *size)[0]
    regions = regions_of(*several)
    out = stitch(image, regions, FILLS, margin=margin, shape=shape)
    changed = image.copy()
    changed[(out == 0).all(axis=2)] = 255
    assert np.array_equal(stitch(changed, regions, FILLS, margin=margin, shape=shape), out)


@settings(max_examples=100, deadline=None)
@given(sizes, st.lists(boxes, max_size=4), shapes, st.sampled_from([blur(0.25), pixelate(8), pixelate(16)]))
def test_every_method_takes_every_region(size: tuple[int, int], several: list[Box], shape: Shape, fill: Fill) -> None:
    image = noise(1, *size)[0]
    regions = regions_of(*several)
    out = stitch(image, regions, {Kind.FACE: fill}, shape=shape)
    outside = np.ones(image.shape[:2], bool)
    for box in covered_boxes(regions, 0.0, shape):
        outside &= ~inside(box, *size)
    assert np.array_equal(out[outside], image[outside])


def test_a_larger_region_does_not_bring_back_what_a_smaller_one_hid() -> None:
    image = noise(1)[0]
    small, large = (20, 20, 30, 30), (0, 0, 64, 48)
    seen: list[Image] = []

    def recording(region: Image) -> Image:
        seen.append(region.copy())
        return region.copy()

    regions = Regions.concatenate([Regions.of(large, Kind.PERSON), Regions.of(small, Kind.FACE)])
    out = stitch(image, regions, {Kind.FACE: mask_out(BLACK), Kind.PERSON: recording})
    assert (seen[0][20:30, 20:30] == 0).all()
    assert (out[20:30, 20:30] == 0).all()


def test_a_kind_without_anonymizer_is_an_error() -> None:
    with pytest.raises(KeyError):
        stitch(noise(1)[0], Regions.of((0, 0, 5, 5), Kind.PLATE), {Kind.FACE: mask_out(BLACK)})


def test_a_kind_without_anonymizer_is_an_error_even_outside_the_frame() -> None:
    with pytest.raises(KeyError):
        stitch(noise(1)[0], Regions.of((100, 100, 105, 105), Kind.PLATE), {Kind.FACE: mask_out(BLACK)})


@pytest.mark.parametrize(
    "result",
    [
        np.zeros((1, 1, 3), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((10, 10), np.uint8),
        None,
    ],
)
def test_an_anonymizer_must_return_pixels_like_those_that_it_was_given(result: Image) -> None:
    with pytest.raises(ValueError, match=r"must return uint8 pixels of shape \(10, 10, 3\)"):
        stitch(noise(1)[0], regions_of((0, 0, 10, 10)), {Kind.FACE: lambda _: result})


def test_draw_regions_marks_each_origin_and_takes_none() -> None:
    image = np.full((120, 160, 3), 90, np.uint8)
    assert np.array_equal(draw_regions(image, Regions.empty()), image)
    parts = [Regions.of((40 * o + 5, 40, 40 * o + 30, 80), Kind.FACE, origin=o) for o in Origin]
    drawn = draw_regions(image, Regions.concatenate(parts), margin=0.1)
    colours = {tuple(int(v) for v in drawn[60, x]) for x in range(160)} - {(90, 90, 90)}
    assert len(colours) >= len(Origin)
    assert (image == 90).all()


def test_draw_regions_takes_regions_outside_the_frame() -> None:
    image = np.full((50, 50, 3), 90, np.uint8)
    assert np.array_equal(draw_regions(image, regions_of((60, 60, 70, 70))), image)


def test_paste_writes_where_it_may_and_nowhere_else() -> None:
    out = np.zeros((6, 8, 3), np.uint8)
    where = np.array([[True, False], [False, True]])
    paste(out, (3, 2, 5, 4), np.full((2, 2, 3), 9, np.uint8), where)
    assert np.argwhere(out.any(axis=2)).tolist() == [[2, 3], [3, 4]]


@pytest.mark.parametrize("box", [(-1, 0, 1, 2), (7, 0, 9, 2), (0, 5, 2, 7), (0, 0, 3, 2)])
def test_paste_refuses_what_does_not_fit(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="box"):
        paste(np.zeros((6, 8, 3), np.uint8), box, np.zeros((2, 2, 3), np.uint8), np.ones((2, 2), np.bool_))
