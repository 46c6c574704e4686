from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.errors import ExportError
from engines.runtime_onnx import OnnxRuntime
from export.quantize_compare import Limits, Tally, compare, found_again, judged, masks_of
from tests.detector_bundles import PERSONS, ellipse, write_two_stage


def answer(*boxes: tuple[float, ...], scores: tuple[float, ...] | None = None, label: int = 0) -> dict[str, Any]:
    count = len(boxes)
    given = np.array(boxes, np.float32).reshape(1, count, 4)
    return {
        "boxes": np.concatenate([given, np.zeros((1, 2, 4), np.float32)], axis=1),
        "scores": np.array([[*(scores or (0.9,) * count), 0, 0]], np.float32),
        "classes": np.full((1, count + 2), label, np.int64),
        "count": np.array([count]),
    }


def partners(there: dict[str, Any], here: dict[str, Any]) -> list[int]:
    which: NDArray[np.intp] = np.arange(int(there["count"][0]))
    return [int(row) for row in found_again(there, here, which, 0.3)]


ONE, BESIDE, FAR = (10, 10, 50, 90), (20, 10, 60, 90), (200, 10, 240, 90)


def test_partners_are_the_same_in_any_order() -> None:
    assert partners(answer(ONE, FAR), answer(FAR, ONE)) == [1, 0]


@pytest.mark.parametrize(
    "here",
    [answer(), answer(FAR), answer(ONE, scores=(0.29,)), answer(ONE, label=1), answer((10, 10, 50, 45))],
)
def test_another_place_class_or_score_is_no_partner(here: dict[str, Any]) -> None:
    assert partners(answer(ONE), here) == [-1]


def test_two_people_who_became_one_are_not_both_found() -> None:
    assert sorted(partners(answer(ONE, BESIDE), answer((15, 10, 55, 90)))) == [-1, 0]
    assert partners(answer(ONE, BESIDE), answer(BESIDE, ONE)) == [1, 0]


def test_of_nobody_nobody_is_found() -> None:
    assert partners(answer(), answer(ONE)) == []


def test_masks_of_a_detector_in_one_graph_are_bytes() -> None:
    given = answer(ONE, FAR) | {"masks": np.array([[[[127, 128]], [[255, 0]]]], np.uint8)}
    rows: NDArray[np.intp] = np.array([1, 0])
    found = masks_of(given, rows, {}, None)
    assert found is not None
    assert [mask.tolist() for mask in found] == [[[True, False]], [[False, True]]]
    assert masks_of(answer(ONE), rows[:1], {}, None) is None


@pytest.mark.parametrize("architecture", ["mask-rcnn", "cse"])
def test_masks_of_a_detector_in_two_graphs_are_its_heads(tmp_path: Path, architecture: str) -> None:
    bundle = write_two_stage(tmp_path / "tiny", architecture, PERSONS)
    feeds = {"image": np.zeros((1, 3, 64, 96), np.float32), "image_size": np.array([[64, 96]])}
    graphs = {name: bundle.graph(name) for name in ("detector", "heads")}
    with (
        OnnxRuntime(bundle.file("detector.onnx"), graphs["detector"], device="cpu") as detector,
        OnnxRuntime(bundle.file("heads.onnx"), graphs["heads"], device="cpu") as heads,
    ):
        given = detector.run(feeds)
        rows: NDArray[np.intp] = np.array([1])
        boxes = {name: given[name][0, rows] for name in ("boxes", "classes")}
        found = masks_of(given, rows, boxes, heads)
        none = masks_of(given, rows[:0], {}, heads)
    assert found is not None
    assert len(found) == 1
    assert np.array_equal(found[0], ellipse(found[0].shape[-1]))
    assert none == []


def test_a_graph_against_itself_keeps_all(tmp_path: Path) -> None:
    bundle = write_two_stage(tmp_path / "tiny", "cse", PERSONS)
    feeds = {"image": np.zeros((1, 3, 64, 96), np.float32), "image_size": np.array([[64, 96]])}
    tally = compare(bundle, bundle.file("detector.onnx"), [[lambda: feeds] * 2, [lambda: feeds]], Limits())
    assert (tally.pictures, tally.regions, tally.found) == (2, 6, 6)
    assert tally.masks == [1.0] * 6


def tally(**changes: Any) -> Tally:
    given: dict[str, Any] = {"pictures": 10, "regions": 100, "found": 100, "masks": [0.98] * 100}
    return Tally(**(given | changes))


def test_what_is_good_enough_says_what_was_measured() -> None:
    measured = judged(tally(), Limits())
    assert (measured.pictures, measured.regions, measured.found) == (10, 100, 1.0)
    assert measured.masks == pytest.approx(0.98)
    assert judged(tally(masks=None), Limits()).masks is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regions": 49, "found": 49}, "only 49 regions"),
        ({"found": 98, "lost": Counter({0: 1, 1: 1})}, r"lose 2 of 100 regions \(1 of class 0, 1 of class 1\)"),
        ({"masks": [0.9] * 100}, r"keep 90\.0 % of masks, less than the part of 0\.95"),
        # Found again, and covering nothing.
        ({"masks": []}, r"keep 0\.0 % of masks"),
    ],
)
def test_what_is_not_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        judged(tally(**changes), Limits())
