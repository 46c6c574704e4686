from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stream.evaluate.average_precision import Precision, average_precision, entries
from stream.evaluate.coco import CocoSet
from stream.regions import Kind, Regions

pytest.importorskip("pycocotools", reason="average precision is pycocotools'")

FIRST, SECOND = (10.0, 10.0, 50.0, 90.0), (100.0, 20.0, 140.0, 100.0)
NOBODY = (200.0, 100.0, 240.0, 180.0)


def truth(*boxes: tuple[float, float, float, float], images: int = 1, crowd: bool = False) -> CocoSet:
    annotations = tuple(
        {
            "id": number, "image_id": 1, "category_id": 3, "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": (x1 - x0) * (y1 - y0), "iscrowd": int(crowd and number == len(boxes)),
        }
        for number, (x0, y0, x1, y1) in enumerate(boxes, start=1)
    )  # fmt: skip
    names = {number: f"{number}.png" for number in range(1, images + 1)}
    return CocoSet(Path(), names, annotations, (3, "person"), dict.fromkeys(names, (320, 240)))


def people(*boxes: tuple[float, float, float, float], scores: tuple[float, ...] | None = None) -> Regions:
    return Regions.of(np.array(boxes, np.float32).reshape(-1, 4), Kind.PERSON, scores=scores)


def test_a_false_alarm_between_two_right_boxes_costs_what_can_be_computed_by_hand(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = entries(people(FIRST, NOBODY, SECOND, scores=(0.9, 0.8, 0.7)), 1, 3)
    # Precision is 1 up to a recall of 1/2 (51 of COCO's 101 points), then 2/3.
    expected = (51 + 50 * 2 / 3) / 101
    assert average_precision(truth(FIRST, SECOND), found, [1]) == pytest.approx((expected, expected))
    assert capsys.readouterr().out == ""


def test_a_box_that_is_a_little_off_counts_at_low_overlaps_only() -> None:
    # IoU 0.75: three quarters of the width. Of the ten thresholds 0.5, 0.55 ... 0.95, six are reached.
    off = (FIRST[0], FIRST[1], FIRST[0] + 30, FIRST[3])
    ap, ap50 = average_precision(truth(FIRST), entries(people(off), 1, 3), [1])
    assert ap == pytest.approx(0.6)
    assert ap50 == pytest.approx(1)


def test_nothing_found_is_nothing_and_crowds_do_not_count() -> None:
    assert average_precision(truth(FIRST), [], [1]) == (0, 0)
    both = entries(people(FIRST, SECOND, scores=(0.5, 0.9)), 1, 3)
    assert average_precision(truth(FIRST, SECOND, crowd=True), both, [1])[0] == pytest.approx(1)
    # The control: if the second box were nobody's, it would cost half.
    assert average_precision(truth(FIRST), both, [1])[0] == pytest.approx(0.5)


def test_pictures_that_were_not_looked_at_do_not_count() -> None:
    both = truth(FIRST, images=2)
    assert average_precision(both, entries(people(FIRST), 1, 3), [1])[0] == pytest.approx(1)
    assert average_precision(both, entries(people(FIRST), 2, 3), [1, 2])[0] == 0


def test_only_the_best_hundred_of_a_picture_are_kept() -> None:
    many = people(*[FIRST] * 120, scores=tuple(i / 120 for i in range(120)))
    found = entries(many, 1, 3)
    assert len(found) == 100
    assert found[0]["score"] == pytest.approx(119 / 120)
    assert min(entry["score"] for entry in found) == pytest.approx(20 / 120)


def test_figures_tell_how_many_and_who_was_covered() -> None:
    precision = Precision(truth(FIRST, SECOND, images=2), "judge (sha256 0)", "none", ("a note",))
    precision.add(1, people(FIRST), people(FIRST, NOBODY))
    precision.add(2, people(), people())
    figures = precision.figures()
    assert (figures["ap"].count, figures["ap"].of, figures["ap"].network) == (2, "pictures", "judge (sha256 0)")
    # One of two right boxes is found, without a false alarm: 51 of 101 points.
    assert figures["ap50"].value == pytest.approx(51 / 101)
    assert (figures["covered"].value, figures["covered"].count) == (0.5, 2)
    assert figures["ap"].notes == ("a note",)
