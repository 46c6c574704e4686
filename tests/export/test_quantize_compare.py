from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.errors import ExportError
from engines.manifest import SecondLook
from engines.runtime_onnx import OnnxRuntime
from export.quantize_compare import Covered, Limits, Tally, compare, covered, found_again, judged, left
from tests.detector_bundles import PERSONS, write_two_stage


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


def test_masks_of_a_detector_in_one_graph_are_bytes_over_the_picture() -> None:
    masks = np.array([[[[127, 128]], [[255, 0]], [[0, 0]]]], np.uint8)
    given = answer(ONE, FAR, BESIDE) | {"masks": masks}
    rows: NDArray[np.intp] = np.array([1, 0, 2])
    found = covered(given, rows, None)
    assert found is not None
    # Whoever has no mask is covered as a box.
    assert [one.pixels.tolist() for one in found] == [[[True, False]], [[False, True]], [[True, True]]]
    assert covered(answer(ONE), rows[:1], None) is None


FEEDS = {"image": np.zeros((1, 3, 64, 96), np.float32), "image_size": np.array([[64, 96]])}


@pytest.mark.parametrize("architecture", ["mask-rcnn", "cse"])
@pytest.mark.parametrize("empty", [False, True])
def test_masks_of_a_detector_in_two_graphs_are_its_heads(
    tmp_path: Path, architecture: str, empty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.quantize_compare._MOST_BOXES", 1)
    bundle = write_two_stage(tmp_path / "tiny", architecture, PERSONS, empty_masks=empty)
    graphs = {name: bundle.graph(name) for name in ("detector", "heads")}
    with (
        OnnxRuntime(bundle.file("detector.onnx"), graphs["detector"], device="cpu") as detector,
        OnnxRuntime(bundle.file("heads.onnx"), graphs["heads"], device="cpu") as heads,
    ):
        given = detector.run(FEEDS)
        rows: NDArray[np.intp] = np.array([1, 0])
        found = covered(given, rows, heads)
        none = covered(given, rows[:0], heads)
    assert found is not None
    assert none == []
    for one, (x0, y0, x1, y1) in zip(found, np.rint(given["boxes"][0, rows]).astype(int).tolist(), strict=True):
        assert (one.x, one.y, one.pixels.shape) == (x0, y0, (y1 - y0, x1 - x0))
        assert one.pixels.all() == empty
        assert 0.6 < one.pixels.mean() <= 1
        middle = one.pixels[one.pixels.shape[0] // 2, one.pixels.shape[1] // 2]
        assert middle


def box(x: int, y: int, width: int, height: int) -> Covered:
    return Covered(x, y, np.ones((height, width), np.bool_))


@pytest.mark.parametrize(
    ("after", "part"),
    [
        (box(10, 20, 30, 40), 1.0),
        (box(0, 0, 99, 99), 1.0),
        # Half of the box is half of the person, whatever a mask says in it.
        (box(10, 20, 15, 40), 0.5),
        (box(25, 40, 30, 40), 0.25),
        (box(40, 20, 30, 40), 0.0),
        (box(90, 90, 3, 3), 0.0),
    ],
)
def test_what_is_left_is_measured_where_it_is(after: Covered, part: float) -> None:
    assert left(box(10, 20, 30, 40), after) == part


def test_a_graph_against_itself_keeps_all(tmp_path: Path) -> None:
    bundle = write_two_stage(tmp_path / "tiny", "cse", PERSONS)
    tally = compare(bundle, bundle.file("detector.onnx"), [[lambda: FEEDS] * 2, [lambda: FEEDS]], Limits())
    assert (tally.pictures, tally.regions, tally.found) == (2, 6, 6)
    assert tally.masks == [1.0] * 6


def test_of_faces_no_mask_counts(tmp_path: Path) -> None:
    bundle = write_two_stage(tmp_path / "tiny", "cse", PERSONS, kinds=("person", "face"), classes=[1, 0])
    tally = compare(bundle, bundle.file("detector.onnx"), [[lambda: FEEDS]], Limits())
    assert (tally.regions, len(tally.masks)) == (2, 1)


def test_at_a_second_look_only_those_count_who_are_near(tmp_path: Path) -> None:
    # 51 and 48 pixels high.
    again = SecondLook(from_size=100, scale=0.5)
    bundle = write_two_stage(tmp_path / "tiny", "cse", PERSONS, second_look=again)
    tally = compare(bundle, bundle.file("detector.onnx"), [[lambda: FEEDS] * 2], Limits())
    assert tally.regions == 2 + 1


def tally(**changes: Any) -> Tally:
    given: dict[str, Any] = {"pictures": 10, "regions": 100, "found": 100, "masks": [0.98] * 100}
    return Tally(**(given | changes))


def test_what_is_good_enough_says_what_was_measured() -> None:
    measured = judged(tally(), Limits())
    assert (measured.pictures, measured.regions, measured.found) == (10, 100, 1.0)
    assert measured.masks == pytest.approx(0.98)
    assert judged(tally(masks=[]), Limits()).masks is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regions": 49, "found": 49}, "only 49 regions"),
        ({"found": 98, "lost": Counter({0: 1, 1: 1})}, r"lose 2 of 100 regions \(1 of class 0, 1 of class 1\)"),
        ({"masks": [0.9] * 100}, r"keep 90\.0 % of masks, less than the part of 0\.95"),
    ],
)
def test_what_is_not_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        judged(tally(**changes), Limits())
