from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from export.starter.detector_evaluation import Found, evaluate
from export.starter.detector_targets import visible
from export.starter.samples import Scene
from tests.export.starter.tiny_people import COLUMNS, canonical, make_scene

SCENES = [make_scene([(4, 2, 24, 63), (40, 10, 60, 50), (70, 30, 82, 48)], 0), make_scene([(10, 4, 30, 60)], 1)]


def finder(change: Callable[[Found], list[Found]]) -> Callable[[np.ndarray], list[Found]]:
    """Somebody who knows the scenes, and changes what it says."""
    known = {scene.image.tobytes(): scene for scene in SCENES}

    def find(image: np.ndarray) -> list[Found]:
        scene = known[image.tobytes()]
        return [one for person in visible(scene.instances) for one in change(truth(scene, person.number))]

    return find


def truth(scene: Scene, number: int) -> Found:
    mask = scene.instances == number
    box = next(person.box for person in visible(scene.instances) if person.number == number)
    return Found(np.array(box, np.float32), 0.9, mask, np.where(mask, scene.vertices, -1).astype(np.int64))


def test_the_truth_has_no_faults() -> None:
    made = evaluate(finder(lambda found: [found]), SCENES, canonical())
    assert [(counted.lowest, counted.people, counted.found) for counted in made.heights] == [
        (0, 1, 1),
        (24, 2, 2),
        (60, 1, 1),
    ]
    assert (made.recall, made.precision, made.mask_iou) == (1, 1, 1)
    assert (made.surface_median, made.surface_within) == (0, (1, 1))


def test_who_is_missed_lowers_the_recall_of_that_height() -> None:
    tall = finder(lambda found: [found] if found.box[3] - found.box[1] >= 60 else [])
    made = evaluate(tall, SCENES, canonical())
    assert [counted.recall for counted in made.heights] == [0, 0, 1]
    assert made.recall == 0.25
    assert made.precision == 1


def test_boxes_of_nobody_and_second_ones_lower_the_precision() -> None:
    twice = evaluate(finder(lambda found: [found, found]), SCENES, canonical())
    assert (twice.right, twice.wrong, twice.precision) == (4, 4, 0.5)
    beside = finder(lambda found: [Found(found.box + 30, found.score, found.mask, found.vertices)])
    made = evaluate(beside, SCENES, canonical())
    assert (made.right, made.wrong, made.recall) == (0, 4, 0)
    assert math.isnan(made.mask_iou)
    assert math.isnan(made.surface_median)


def test_masks_and_surfaces_are_measured() -> None:
    def half(found: Found) -> list[Found]:
        rows = np.arange(found.mask.shape[0])[:, None]
        mask = found.mask & (rows < found.box[[1, 3]].mean())
        # The next row of the body is 20 cm higher.
        return [Found(found.box, found.score, mask, (found.vertices + COLUMNS) % (10 * COLUMNS))]

    made = evaluate(finder(half), [SCENES[1]], canonical())
    assert made.mask_iou == pytest.approx(0.5, abs=0.03)
    assert made.surface_median == pytest.approx(20, abs=1e-3)
    assert made.surface_within[0] == 0


def test_who_is_too_small_to_count_is_neither_missed_nor_wrong() -> None:
    scene = make_scene([(10, 10, 15, 16)], 0)
    mask = scene.instances == 1
    found = Found(np.array([10, 10, 15, 16], np.float32), 0.9, mask, np.zeros(mask.shape, np.int64))
    for answer in ([found], []):
        made = evaluate(lambda _, answer=answer: answer, [scene], canonical())  # type: ignore[misc]
        assert (made.right, made.wrong, sum(counted.people for counted in made.heights)) == (0, 0, 0)
        assert math.isnan(made.recall)
        assert math.isnan(made.precision)
