"""Regions that are the same person, made one."""

from __future__ import annotations

import numpy as np
import pytest

from stream.detectors.ensemble import unite
from stream.outline import BodySurface, Outline, PixelMask
from stream.regions import NO_TRACK, Kind, Origin, Regions
from stream.union import one_for_each_track, replaced_outlines, united_outline, with_partners
from tests.stream.outlines import person, pixels_of


def test_the_union_of_two_finds_has_the_pixels_of_both() -> None:
    one, other = person((0, 0, 10, 10), (2, 2, 6, 6)), person((1, 0, 11, 10), (4, 4, 9, 9))
    found = pixels_of(united_outline(one, 0, other, 0), 12, 12)
    expected = np.zeros((12, 12), bool)
    expected[2:6, 2:6] = expected[4:9, 4:9] = True
    np.testing.assert_array_equal(found, expected)


def test_a_find_without_a_mask_is_its_box() -> None:
    one, other = person((0, 0, 10, 10), (2, 2, 6, 6)), person((1, 0, 11, 10), None)
    for outline in (united_outline(one, 0, other, 0), united_outline(other, 0, one, 0)):
        found = pixels_of(outline, 12, 12)
        assert found[0:10, 1:11].all()
        assert found.sum() == 100
    assert united_outline(other, 0, other, 0) is None


def test_a_find_whose_mask_shows_nothing_is_its_box() -> None:
    blank = PixelMask(0, 0, np.zeros((10, 10), np.bool_))
    one, other = (
        person((0, 0, 10, 10), (2, 2, 6, 6)),
        Regions.of([(1, 0, 11, 10)], Kind.PERSON, outlines=[Outline(blank)]),
    )
    for outline in (united_outline(one, 0, other, 0), united_outline(other, 0, one, 0)):
        assert pixels_of(outline, 12, 12)[0:10, 1:11].all()


def test_a_find_without_a_mask_or_an_area_still_lies_on_a_pixel() -> None:
    outline = united_outline(person((0, 0, 3, 3), (0, 0, 2, 2)), 0, person((5, 6, 5, 6), None), 0)
    expected = np.zeros((8, 8), bool)
    expected[0:2, 0:2] = expected[6, 5] = True
    np.testing.assert_array_equal(pixels_of(outline, 8, 8), expected)


def test_regions_without_outlines_stay_without() -> None:
    plain = person((0, 0, 10, 10), None)
    assert replaced_outlines(plain, {}) is None
    assert unite([plain, plain]).outlines is None


def _track(track_id: int, box: tuple[int, int, int, int], **changes: object) -> Regions:
    return Regions.of([box], Kind.PERSON, track_ids=[track_id], **changes)  # type: ignore[arg-type]


def test_regions_of_one_track_become_one_that_covers_all_of_them() -> None:
    pose = BodySurface((0, 0, 10, 20), np.ones((112, 112), np.bool_), np.zeros((16, 112, 112), np.float32))
    regions = Regions.concatenate(
        [
            _track(4, (0, 0, 10, 20), scores=[0.3], outlines=[Outline(PixelMask.filled((2, 2, 8, 18)), pose)]),
            _track(7, (50, 0, 60, 20)),
            _track(4, (4, 0, 16, 20), scores=[0.8], outlines=[Outline(PixelMask.filled((6, 4, 14, 16)))]),
            _track(4, (0, 0, 5, 5), scores=[0.1], origin=Origin.LOOKED_AHEAD),
        ]
    )
    made = one_for_each_track(regions)
    assert made.track_ids.tolist() == [4, 7]
    assert made.boxes.tolist() == [[0, 0, 16, 20], [50, 0, 60, 20]]
    assert made.scores.tolist() == [np.float32(0.8), 1]
    outline = made.outline(0)
    assert outline is not None
    assert outline.surface is pose
    found = pixels_of(outline, 20, 20)
    for y0, y1, x0, x1 in ((2, 18, 2, 8), (4, 16, 6, 14), (0, 5, 0, 5)):
        assert found[y0:y1, x0:x1].all()
    assert made.outline(1) is None
    # What was given is not changed.
    assert regions.boxes[0].tolist() == [0, 0, 10, 20]


def test_regions_without_a_track_stay_by_themselves() -> None:
    regions = Regions.concatenate([_track(NO_TRACK, (0, 0, 10, 20)), _track(NO_TRACK, (0, 0, 12, 20))])
    assert one_for_each_track(regions) is regions
    assert len(one_for_each_track(Regions.empty())) == 0


def test_partners_are_one_region_in_the_place_of_the_first_and_others_follow() -> None:
    one = Regions.concatenate([person((0, 0, 10, 10), (2, 2, 6, 6)), person((20, 0, 30, 10), (21, 1, 29, 9))])
    other = Regions.concatenate([person((40, 0, 50, 10), (41, 1, 49, 9)), person((1, 0, 11, 12), (4, 4, 9, 12))])
    united = with_partners(one, other, [(0, 1)])
    assert united.boxes.tolist() == [[0, 0, 11, 12], [20, 0, 30, 10], [40, 0, 50, 10]]
    found = pixels_of(united.outline(0), 12, 12)
    assert found.sum() == 4 * 4 + 5 * 8 - 2 * 2
    assert with_partners(one, other, []).boxes.tolist() == [*one.boxes.tolist(), *other.boxes.tolist()]
    assert len(with_partners(Regions.empty(), other, [])) == 2
    assert len(with_partners(one, Regions.empty(), [])) == 2


@pytest.mark.parametrize("pairs", [[(0, 0), (0, 1)], [(0, 0), (1, 0)]])
def test_nobody_has_two_partners(pairs: list[tuple[int, int]]) -> None:
    two = Regions.concatenate([person((0, 0, 10, 10), (2, 2, 6, 6)), person((1, 0, 11, 10), (4, 4, 9, 9))])
    with pytest.raises(ValueError, match="one partner at most"):
        with_partners(two, two, pairs)
