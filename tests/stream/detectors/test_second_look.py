"""When a second look is worth it, and who is the same in both."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from engines.manifest import SecondLook
from stream.detectors.second_look import is_worth_it, with_near
from stream.outline import Outline, PixelMask
from stream.regions import Kind, Regions

Box = tuple[int, int, int, int]


def masked(*persons: tuple[Box, Box]) -> Regions:
    """Persons by their boxes, each with a mask that fills another box."""
    boxes = np.array([box for box, _ in persons], np.float32).reshape(-1, 4)
    outlines = [Outline(PixelMask.filled(mask)) for _, mask in persons]
    return Regions.of(boxes, Kind.PERSON, outlines=outlines)


def filled(*boxes: Box) -> Regions:
    return masked(*((box, box) for box in boxes))


def boxes(regions: Regions) -> set[Box]:
    return {tuple(int(edge) for edge in box) for box in regions.boxes}  # type: ignore[misc]


def pixels(*all_regions: Regions) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """What all masks cover together."""
    shown = np.zeros((400, 400), np.bool_)
    for regions in all_regions:
        for index in range(len(regions)):
            outline = regions.outline(index)
            if outline is not None and outline.mask is not None:
                x0, y0, x1, y1 = outline.mask.box
                shown[y0:y1, x0:x1] |= outline.mask.pixels
    return shown


@pytest.mark.parametrize(("side", "worth"), [(159, False), (161, True), (900, True)])
@pytest.mark.parametrize("across", [False, True])
def test_a_second_look_is_worth_it_from_two_thirds_on(side: int, worth: bool, across: bool) -> None:
    box = (10, 10, 10 + side, 40) if across else (10, 10, 40, 10 + side)
    found = np.array([(0, 0, 5, 5), box], np.float32)
    assert is_worth_it(found, SecondLook(from_size=240, scale=0.6)) == worth


def test_where_nothing_was_found_no_second_look_is_worth_it() -> None:
    assert not is_worth_it(np.zeros((0, 4), np.float32), SecondLook(from_size=240, scale=0.6))


PART, WHOLE = (100, 100, 200, 260), (110, 120, 220, 400)


def test_a_part_and_the_whole_are_one() -> None:
    fine, near = filled(PART), filled(WHOLE)
    united = with_near(fine, near)
    assert boxes(united) == {(100, 100, 220, 400)}
    np.testing.assert_array_equal(pixels(united), pixels(fine, near))


def test_a_part_of_less_than_half_the_length_stays() -> None:
    head = (100, 120, 200, 250)
    assert len(with_near(filled(head), filled(WHOLE))) == 2


def test_whoever_shares_little_stays() -> None:
    beside = (190, 100, 300, 380)
    assert boxes(with_near(filled(beside), filled(WHOLE))) == {beside, WHOLE}


@pytest.mark.parametrize(("fine", "near"), [(filled(), filled(WHOLE)), (filled(PART), filled()), (filled(), filled())])
def test_nothing_at_one_look_or_both(fine: Regions, near: Regions) -> None:
    assert boxes(with_near(fine, near)) == boxes(fine) | boxes(near)


def test_two_who_were_told_apart_are_not_joined_through_a_third() -> None:
    # Boxes that overlap by more than half, and bodies that do not.
    one, other = ((0, 0, 200, 300), (0, 0, 110, 300)), ((40, 0, 220, 300), (112, 0, 220, 300))
    fine, near = masked(one, other), masked(((0, 0, 200, 310), (0, 0, 110, 310)))
    united = with_near(fine, near)
    assert boxes(united) == {(0, 0, 200, 310), other[0]}
    np.testing.assert_array_equal(pixels(united), pixels(fine, near))


@pytest.mark.parametrize("order", list(itertools.permutations(range(2))))
def test_who_is_the_same_does_not_depend_on_the_order(order: tuple[int, int]) -> None:
    fine = filled((0, 0, 100, 160), (100, 0, 200, 260))
    several, one = (0, 0, 160, 300), (100, 0, 200, 300)
    near = filled(several, one)[list(order)]
    united = with_near(fine, near)
    assert boxes(united) == {(0, 0, 100, 160), one, several}
    np.testing.assert_array_equal(pixels(united), pixels(fine, near))


@pytest.mark.parametrize("order", list(itertools.permutations(range(2))))
def test_of_two_who_are_near_the_one_who_shares_more_takes_a_part(order: tuple[int, int]) -> None:
    part, fits, meets = (100, 0, 200, 200), (100, 0, 200, 300), (150, 0, 280, 300)
    united = with_near(filled(part), filled(fits, meets)[list(order)])
    assert boxes(united) == {fits, meets}


def test_faces_are_united_by_their_boxes() -> None:
    face = Regions.of(np.array([(110, 110, 190, 220)], np.float32), Kind.FACE)
    larger = Regions.of(np.array([(105, 110, 190, 230)], np.float32), Kind.FACE)
    united = with_near(Regions.concatenate([filled(PART), face]), Regions.concatenate([filled(WHOLE), larger]))
    assert boxes(united) == {(100, 100, 220, 400), (105, 110, 190, 230)}
    assert sorted(united.kinds.tolist()) == sorted([int(Kind.PERSON), int(Kind.FACE)])
