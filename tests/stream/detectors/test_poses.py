"""Dense poses joined to persons."""

from __future__ import annotations

import numpy as np
import pytest

from stream.detectors.ensemble import unite
from stream.detectors.poses import posed_rows, with_poses
from stream.outline import BodySurface, Box, Outline, PixelMask
from stream.regions import Kind, Regions


def surface(box: Box, *, empty: bool = False) -> BodySurface:
    """A body that fills its box, or none."""
    return BodySurface(box, np.full((112, 112), not empty), np.zeros((16, 112, 112), np.float32))


def poses(*boxes: Box, scores: list[float] | None = None, empty: bool = False) -> Regions:
    outlines = [Outline(surface=surface(box, empty=empty)) for box in boxes]
    return Regions.of(np.array(boxes, np.float32).reshape(-1, 4), Kind.PERSON, scores=scores, outlines=outlines)


def masked(*boxes: Box, scores: list[float] | None = None) -> Regions:
    outlines = [Outline(PixelMask.filled(box)) for box in boxes]
    return Regions.of(np.array(boxes, np.float32).reshape(-1, 4), Kind.PERSON, scores=scores, outlines=outlines)


def mask_of(regions: Regions, index: int) -> PixelMask:
    outline = regions.outline(index)
    assert outline is not None
    assert outline.mask is not None
    return outline.mask


def test_no_poses_and_no_persons_are_nothing() -> None:
    assert len(unite([poses(), masked()])) == 0
    assert len(with_poses(Regions.empty(), Regions.empty(), 0.5)) == 0


def test_a_pose_and_a_person_with_masks_in_the_same_place_are_one_person_with_both_masks() -> None:
    united = unite([masked((10, 10, 30, 50), scores=[0.4]), poses((12, 10, 34, 50), scores=[0.9])])
    assert len(united) == 1
    assert united.boxes.tolist() == [[10, 10, 34, 50]]
    assert united.scores.tolist() == pytest.approx([0.9])
    assert posed_rows(united).all()
    assert mask_of(united, 0).area == 24 * 40


def test_the_order_of_detectors_does_not_matter() -> None:
    one, other = masked((10, 10, 30, 50)), poses((12, 10, 34, 50))
    first, second = unite([one, other]), unite([other, one])
    assert first.boxes.tolist() == second.boxes.tolist()
    assert np.array_equal(mask_of(first, 0).pixels, mask_of(second, 0).pixels)


@pytest.mark.parametrize(("wide", "persons"), [(40, 1), (39, 2)])
def test_masks_that_share_two_fifths_are_one_person(wide: int, persons: int) -> None:
    """Of 100 columns, the person has all and the pose the first 40 or 39."""
    united = unite([masked((0, 0, 100, 10)), poses((0, 0, wide, 10))])
    assert len(united) == persons


def test_a_pose_without_a_person_beside_it_is_a_person() -> None:
    united = unite([masked((0, 0, 20, 40)), poses((100, 0, 120, 40))])
    assert len(united) == 2
    assert posed_rows(united).tolist() == [False, True]
    assert mask_of(united, 1).area == 20 * 40


def test_a_person_of_whom_only_the_box_is_known_takes_the_pose_in_it_and_stays_covered_whole() -> None:
    boxed = Regions.of([[0.0, 0.0, 20.0, 40.0]], Kind.PERSON)
    united = unite([boxed, poses((2, 2, 20, 40))])
    assert len(united) == 1
    assert posed_rows(united).all()
    assert mask_of(united, 0).area == 20 * 40


def test_each_person_takes_one_pose_and_the_best_pairs_go_first() -> None:
    boxed = Regions.of([[0.0, 0.0, 20.0, 40.0], [4.0, 0.0, 24.0, 40.0]], Kind.PERSON)
    united = unite([boxed, poses((4, 0, 24, 40), (1, 0, 21, 40))])
    assert len(united) == 2
    assert [
        outline.surface.box for outline in (united.outline(0), united.outline(1)) if outline and outline.surface
    ] == [
        (1, 0, 21, 40),
        (4, 0, 24, 40),
    ]


def test_faces_take_no_pose() -> None:
    face = Regions.of([[0.0, 0.0, 20.0, 40.0]], Kind.FACE)
    united = unite([face, poses((0, 0, 20, 40))])
    assert united.kinds.tolist() == [Kind.FACE, Kind.PERSON]
    assert posed_rows(united).tolist() == [False, True]


def test_a_pose_on_no_body_is_a_person_in_its_box() -> None:
    united = unite([poses((5, 5, 25, 45), empty=True)])
    outline = united.outline(0)
    assert outline is not None
    assert outline.mask is None
    assert united.boxes.tolist() == [[5, 5, 25, 45]]


def test_two_detectors_of_poses_are_united_too() -> None:
    united = unite([poses((0, 0, 20, 40)), poses((1, 0, 21, 40), (200, 0, 220, 40))])
    assert len(united) == 2
    assert posed_rows(united).all()
