from __future__ import annotations

import numpy as np

from export.starter.detector_targets import make_targets, visible
from tests.export.starter.tiny_people import make_scene, template

HEAD = template().head


def blank() -> tuple[np.ndarray[tuple[int, int], np.dtype[np.uint8]], np.ndarray[tuple[int, int], np.dtype[np.int32]]]:
    return np.zeros((64, 96), np.uint8), np.full((64, 96), -1, np.int32)


def test_a_picture_without_people_wants_nothing() -> None:
    made = make_targets(*blank(), HEAD)
    assert made["heat_known"].all()
    for name in ("heat", "edges_weight", "body", "way_weight"):
        assert not made[name].any(), name
    assert (made["vertex"] == -1).all()


def test_the_centre_knows_the_box_and_others_fade() -> None:
    instances, vertices = blank()
    instances[10:50, 20:44], vertices[10:50, 20:44] = 1, 5
    made = make_targets(instances, vertices, HEAD)
    # The centre (32, 30) lies in the place of row 3 and column 4, whose middle is (36, 28).
    assert np.argwhere(made["heat"] == 1).tolist() == [[0, 3, 4]]
    np.testing.assert_allclose(made["edges"][0, :, 3, 4], [16, 18, 8, 22])
    assert made["edges_weight"][0, 3, 4] == 1
    assert 0 < made["heat"][0, 3, 5] < 1
    assert made["heat"].shape == (2, 8, 12)
    assert made["heat"][0, 7, 11] < 1e-3


def test_the_smaller_of_two_people_at_one_place_has_the_box() -> None:
    instances, vertices = blank()
    instances[2:62, 10:86] = 1
    instances[22:46, 40:60] = 2
    vertices[instances > 0] = 0
    made = make_targets(instances, vertices, HEAD)
    assert made["edges"][0, 0, 4, 6] == 52 - 40


def test_who_is_too_small_to_count_is_neither_wanted_nor_wrong() -> None:
    instances, vertices = blank()
    instances[16:22, 32:36], vertices[16:22, 32:36] = 1, 3
    made = make_targets(instances, vertices, HEAD)
    assert not made["heat"].any()
    assert np.argwhere(made["heat_known"] == 0).tolist() == [[0, 2, 4]]
    assert not made["way_weight"].any()
    # It is a body all the same.
    assert made["body"].sum() * 16 == 24
    assert (made["vertex"] == 3).any()


def test_ways_end_at_the_centre_of_the_own_box() -> None:
    scene = make_scene([(8, 8, 32, 60), (60, 12, 84, 56)], seed=0)
    made = make_targets(scene.instances, scene.vertices, HEAD)
    y, x = np.mgrid[0:16, 0:24] * 4 + 2
    for column, centre in ((slice(0, 11), (20, 34)), (slice(12, 24), (72, 34))):
        there = made["way_weight"][:, column] > 0
        assert there.any()
        np.testing.assert_allclose((x + made["way"][0])[:, column][there], centre[0])
        np.testing.assert_allclose((y + made["way"][1])[:, column][there], centre[1])
    np.testing.assert_allclose(made["way_weight"].max(), 1 / (44 + 16))


def test_the_body_is_the_part_of_a_place_and_thin_limbs_have_a_surface() -> None:
    instances, vertices = blank()
    instances[0:40, 9], vertices[0:40, 9] = 1, 7
    made = make_targets(instances, vertices, HEAD)
    np.testing.assert_allclose(made["body"][:10, 2], 0.25)
    assert (made["vertex"][:10, 2] == 7).all()
    assert (made["vertex"][:, 3] == -1).all()


def test_people_are_told_by_number_with_what_is_visible() -> None:
    instances, _ = blank()
    instances[10:20, 10:20] = 3
    instances[12:14, 12:14] = 1
    first, third = visible(instances)
    assert (first.number, first.box, first.area, first.counts) == (1, (12, 12, 14, 14), 4, False)
    assert (third.number, third.box, third.area, third.counts) == (3, (10, 10, 20, 20), 96, True)


def test_a_head_has_a_map_of_its_own() -> None:
    instances, vertices = blank()
    instances[8:56, 16:40], vertices[8:56, 16:40] = 1, 0
    vertices[8:24, 20:36] = 59
    made = make_targets(instances, vertices, HEAD)
    # The head's centre (28, 16) lies in the place of row 2 and column 3, whose middle is (28, 20).
    assert np.argwhere(made["heat"][1] == 1).tolist() == [[2, 3]]
    np.testing.assert_allclose(made["edges"][1, :, 2, 3], [8, 12, 8, 4])
    assert np.argwhere(made["heat"][0] == 1).tolist() == [[4, 3]]
    # Who turns the head out of the picture still is a person.
    vertices[8:24, 20:36] = 0
    without = make_targets(instances, vertices, HEAD)
    assert not without["heat"][1].any()
    assert without["heat"][0].any()
