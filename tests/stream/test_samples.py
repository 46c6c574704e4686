from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.regions import Kind
from stream.samples import Bools, Region, cut_out, expanded_box, filled, masked, render_sheet
from tests.fakes import noise
from tests.generator_bundles import HEIGHT, VERTICES, WIDTH

SIZE = (HEIGHT, WIDTH)
PERSON, FACE = Kind.PERSON, Kind.FACE


def hole(height: int, width: int, x0: int, y0: int, x1: int, y1: int) -> Bools:
    unknown = np.zeros((height, width), np.bool_)
    unknown[y0:y1, x0:x1] = True
    return unknown


def region(unknown: Bools, *, seed: int = 0, surface: bool = False) -> Region:
    height, width = unknown.shape
    vertices = np.where(unknown, np.arange(width)[None] % VERTICES, -1).astype(np.int64) if surface else None
    return Region(noise(1, width, height, seed)[0], unknown, vertices)


@pytest.mark.parametrize(
    ("unknown", "size", "kind", "expected"),
    [
        # 20 x 20 grows by 2 on every side, then to 9:5 (44 x 24), which is 62 % background.
        (hole(200, 200, 90, 90, 110, 110), (288, 160), PERSON, (88, 78, 112, 122)),
        # 20 x 36 does not need more than that: 720 of 1056 pixels leave 32 % background.
        (hole(200, 200, 90, 82, 110, 118), (288, 160), PERSON, (88, 78, 112, 122)),
        (hole(400, 400, 100, 100, 200, 280), (288, 160), PERSON, (87, 76, 213, 303)),
        # 5 x 9 is too small to move out, and grows until 30 % is background.
        (hole(200, 200, 100, 100, 105, 109), (288, 160), PERSON, (100, 99, 106, 110)),
        # At the edge the box moves inside; larger than the photo it reaches out on both sides.
        (hole(200, 200, 0, 0, 20, 20), (288, 160), PERSON, (0, 0, 24, 44)),
        (hole(200, 200, 180, 180, 200, 200), (288, 160), PERSON, (176, 156, 200, 200)),
        (hole(30, 200, 90, 5, 110, 25), (288, 160), PERSON, (88, -7, 112, 37)),
        # Faces: a square of 1.4 times the longer side.
        (hole(200, 200, 90, 90, 110, 100), (256, 256), FACE, (86, 81, 114, 109)),
        (hole(200, 200, 90, 90, 91, 91), (256, 256), FACE, (90, 90, 92, 92)),
    ],
)
def test_the_box_holds_the_region_and_background(
    unknown: Bools, size: tuple[int, int], kind: Kind, expected: tuple[int, int, int, int]
) -> None:
    assert expanded_box(unknown, size, kind) == expected


@given(
    height=st.integers(2, 120),
    width=st.integers(2, 120),
    corners=st.lists(st.integers(0, 119), min_size=4, max_size=4),
    face=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_any_box_holds_the_region_whole_in_the_right_aspect(
    height: int, width: int, corners: list[int], face: bool
) -> None:
    x0, y0 = corners[0] % width, corners[1] % height
    unknown = hole(height, width, x0, y0, x0 + 1 + corners[2] % (width - x0), y0 + 1 + corners[3] % (height - y0))
    size = (256, 256) if face else (288, 160)
    left, top, right, bottom = expanded_box(unknown, size, FACE if face else PERSON)
    ys, xs = np.nonzero(unknown)
    assert left <= xs.min() < xs.max() + 1 <= right
    assert top <= ys.min() < ys.max() + 1 <= bottom
    # Rounded up to whole pixels.
    across, down = right - left, bottom - top
    aspect = size[0] / size[1]
    assert (across - 1) * aspect < down + 1
    assert (down - 1) / aspect < across + 1
    assert unknown.sum() <= 0.7 * across * down + 1e-6
    if across <= width:
        assert 0 <= left < right <= width
    if down <= height:
        assert 0 <= top < bottom <= height


def test_a_region_of_the_generators_size_is_cut_as_it_is() -> None:
    # 8 x 12 with 20 pixels round it is just what 24 x 16 holds at 30 %.
    shown = region(hole(100, 100, 40, 40, 54, 59), surface=True)
    left, top, right, bottom = expanded_box(shown.unknown, SIZE, PERSON)
    crop = cut_out(shown, (bottom - top, right - left), PERSON)
    part = np.s_[top:bottom, left:right]
    unknown = shown.unknown[part]
    assert np.array_equal(crop.known[0], ~unknown)
    assert np.array_equal(crop.images[0][~unknown], shown.image[part][~unknown])
    assert shown.vertices is not None
    assert crop.vertices is not None
    assert crop.body is not None
    assert np.array_equal(crop.vertices[0], shown.vertices[part])
    assert np.array_equal(crop.body[0], unknown)


PLACES = {
    "inside, shrunk": hole(300, 200, 60, 60, 140, 200),
    "inside, enlarged": hole(60, 50, 20, 20, 26, 30),
    "in a corner": hole(100, 80, 0, 0, 30, 70),
    "larger than the photo": hole(20, 200, 80, 0, 160, 20),
    "at all edges but one": hole(40, 30, 0, 0, 30, 39),
}


@pytest.mark.parametrize("kind", [PERSON, FACE])
@pytest.mark.parametrize("place", PLACES)
def test_nothing_from_under_the_mask_is_in_the_crop(place: str, kind: Kind) -> None:
    shown = region(PLACES[place], surface=True)
    before = cut_out(shown, SIZE, kind)
    assert not before.known.all()
    assert before.known.any()
    for level in (0, 255):
        changed = replace(shown, image=np.where(shown.unknown[..., None], np.uint8(level), shown.image))
        after = cut_out(changed, SIZE, kind)
        for name in ("images", "known", "body", "vertices"):
            assert np.array_equal(getattr(after, name), getattr(before, name))
    # Control: what stays is there.
    other = cut_out(replace(shown, image=np.where(shown.unknown[..., None], shown.image, 0)), SIZE, kind)
    assert not np.array_equal(other.images, before.images)
    assert not other.images[other.known].any()


def test_what_is_unknown_at_the_edge_stays_unknown_beyond_it() -> None:
    shown = region(hole(20, 200, 80, 0, 160, 20), surface=True)
    _, top, _, bottom = expanded_box(shown.unknown, SIZE, PERSON)
    assert top < 0
    assert bottom > 20
    crop = cut_out(shown, SIZE, PERSON)
    middle = WIDTH // 2
    assert not crop.known[0, :, middle].any()
    # No body stands there: it is border.
    assert crop.body is not None
    assert not crop.body[0, [0, -1]].any()
    assert crop.body[0, HEIGHT // 2, middle]


def test_masks_too_thin_for_the_crop_are_refused() -> None:
    thin = hole(2000, 2000, 10, 999, 1990, 1000)
    with pytest.raises(ValueError, match="too thin"):
        cut_out(region(thin), SIZE, PERSON)


def test_a_surface_without_body_under_the_mask_is_refused() -> None:
    shown = region(hole(100, 100, 40, 40, 60, 60))
    nobody = replace(shown, vertices=np.where(shown.unknown, -1, 3))
    with pytest.raises(ValueError, match="no pixel under the mask has a vertex"):
        cut_out(nobody, SIZE, PERSON)


def test_the_masked_crop_is_flat_where_something_is_replaced_and_the_filled_one_shows_that() -> None:
    shown = region(hole(100, 100, 40, 40, 60, 70))
    crop = cut_out(shown, SIZE, PERSON)
    generated = noise(1, WIDTH, HEIGHT, seed=3)[0]
    known = crop.known[0]
    assert (masked(crop)[~known] == 128).all()
    assert np.array_equal(masked(crop)[known], crop.images[0][known])
    assert np.array_equal(filled(crop, generated)[~known], generated[~known])
    assert np.array_equal(filled(crop, generated)[known], crop.images[0][known])


@pytest.mark.parametrize(("size", "scale"), [((24, 16), 8), ((256, 256), 1), ((288, 160), 1), ((10, 119), 2)])
def test_the_sheet_shows_all_cells_and_captions(size: tuple[int, int], scale: int) -> None:
    height, width = size
    pictures = noise(7, width, height)
    sheet = render_sheet("a title", pictures[0], [("one", pictures[1:4]), ("two", pictures[4:7])])
    for row in range(2):
        top = 26 + row * (scale * height + 26)
        cells = [pictures[0], *pictures[1 + 3 * row : 4 + 3 * row]]
        for column, cell in enumerate(cells):
            left = 6 + column * (scale * width + 6)
            shown = sheet[top : top + scale * height, left : left + scale * width]
            assert np.array_equal(shown[::scale, ::scale], cell)
            caption = sheet[top + scale * height : top + scale * height + 20, left : left + scale * width]
            assert caption.min() < 120
    assert sheet[:20].min() < 120
    assert sheet.shape == (26 + 2 * (scale * height + 26), 4 * (scale * width + 6) + 6, 3)
