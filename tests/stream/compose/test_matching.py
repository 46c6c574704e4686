from stream.compose.matching import inside_any, match
from stream.outline import PixelMask


def box(x0: int, y0: int, x1: int, y1: int) -> PixelMask:
    return PixelMask.filled((x0, y0, x1, y1))


def test_the_first_person_takes_the_first_pose_that_overlaps_enough_not_the_best() -> None:
    persons = [box(0, 0, 10, 10), box(0, 0, 10, 20)]
    poses = [box(0, 0, 10, 20), box(0, 0, 10, 11)]
    assert match(persons, poses) == [(0, 0), (1, 1)]
    assert match(persons[::-1], poses) == [(0, 0), (1, 1)]


def test_overlap_must_reach_the_threshold() -> None:
    assert match([box(0, 0, 10, 10)], [box(0, 0, 10, 25)]) == [(0, 0)]
    assert match([box(0, 0, 10, 10)], [box(0, 0, 10, 26)]) == []
    assert match([], []) == []


def test_a_face_must_lie_strictly_inside_one_box() -> None:
    assert inside_any((5, 5, 9, 9), [(0, 0, 4, 4), (4, 4, 10, 10)])
    assert not inside_any((5, 5, 9, 9), [(5, 0, 20, 20)])
    assert not inside_any((5, 5, 9, 9), [(0, 0, 7, 20), (6, 0, 20, 20)])
    assert not inside_any((5, 5, 9, 9), [])
