from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from tests.engines.importers.networks import answer, columns, fixed_answer, found, imported, ultralytics

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engines.importers.networks import Array

PERSON_FACE = ("person", "face")


def test_classes_that_are_not_wanted_crowd_nothing_out(tmp_path: Path) -> None:
    table = np.zeros((1, 6, 4000), np.float32)
    table[0, 0], table[0, 1], table[0, 2:4] = np.arange(4000) % 90 + 3, np.arange(4000) % 60 + 3, 4
    table[0, 4, :3999] = 0.9
    table[0, 5, 3999] = 0.3
    bundle = imported(fixed_answer({"o": table}, metadata=ultralytics(["cat", "face"])), tmp_path, "yolo", "face")
    result = answer(bundle)
    assert [score for _, score, _ in found(result)] == [0.3]
    assert result["floor"].tolist() == [0]


def test_floor_tells_that_candidates_were_lost(tmp_path: Path) -> None:
    table = np.zeros((1, 5, 4000), np.float32)
    table[0, 0], table[0, 1], table[0, 2:4] = np.arange(4000) % 90 + 3, np.arange(4000) % 60 + 3, 4
    table[0, 4] = np.linspace(0.9, 0.1, 4000)
    bundle = imported(fixed_answer({"o": table}, metadata=ultralytics(["face"])), tmp_path, "yolo")
    assert answer(bundle)["floor"][0] == pytest.approx(table[0, 4, 3799])


def test_overlap_drops_the_weaker_box_of_the_same_kind_only(tmp_path: Path) -> None:
    rows = [[30, 30, 20, 20, 0.9, 0], [31, 30, 20, 20, 0.8, 0], [30, 30, 20, 20, 0, 0.7], [60, 30, 20, 20, 0.6, 0]]
    model = fixed_answer({"o": columns(rows)}, metadata=ultralytics(PERSON_FACE))
    bundle = imported(model, tmp_path, "yolo")
    assert [(score, kind) for _, score, kind in found(answer(bundle))] == [(0.9, 0), (0.7, 1), (0.6, 0)]


def test_several_classes_can_be_one_kind(tmp_path: Path) -> None:
    rows = [[20, 30, 10, 20, 0.5, 0.6, 0.1], [60, 30, 8, 8, 0.3, 0.2, 0.9]]
    model = fixed_answer({"o": columns(rows)}, metadata=ultralytics(["rider", "walker", "dog"]))
    bundle = imported(model, tmp_path, "yolo", "rider=person,walker=person")
    assert bundle.manifest.kinds == ("person",)
    assert [score for _, score, _ in found(answer(bundle))] == [0.6, 0.3]


def test_what_lies_in_the_padding_is_dropped(tmp_path: Path) -> None:
    rows = [[20, 30, 10, 20, 0.9], [60, 30, 8, 8, 0.8], [20, 60, 8, 8, 0.7], [-20, 30, 30, 8, 0.6]]
    bundle = imported(fixed_answer({"o": columns(rows)}, metadata=ultralytics(["face"])), tmp_path, "yolo")
    assert [score for _, score, _ in found(answer(bundle, inside=(50, 55)))] == [0.9]
    assert [score for _, score, _ in found(answer(bundle))] == [0.9, 0.8, 0.7]


def test_a_box_without_area_becomes_one_pixel_wide(tmp_path: Path) -> None:
    bundle = imported(
        fixed_answer({"o": columns([[20, 30, 0, 4, 0.9]])}, metadata=ultralytics(["face"])), tmp_path, "yolo"
    )
    assert found(answer(bundle)) == [([19.5, 28, 20.5, 32], 0.9, 0)]


def test_rubbish_does_not_look_like_an_empty_picture(tmp_path: Path) -> None:
    rows = columns([[20, 30, 10, 20, 0.9]])
    bundle = imported(fixed_answer({"o": rows}, metadata=ultralytics(["face"])), tmp_path, "yolo")
    graph = onnx.load(bundle.file("detector.onnx"))
    broken = next(t for t in graph.graph.initializer if t.name == "net.answer.o")
    broken.CopyFrom(onnx.numpy_helper.from_array(np.full_like(rows, np.nan), broken.name))
    onnx.save(graph, bundle.path / "detector.onnx")
    result = answer(bundle)
    assert result["count"][0] > 0
    assert np.isnan(result["boxes"][0, 0]).any()


def test_a_full_list_of_the_network_says_so(tmp_path: Path) -> None:
    rows = np.zeros((1, 20, 6), np.float32)
    rows[0] = [30, 2, 41, 22, 0.7, 5]
    rows[0, :3] = [[1, 2, 11, 22, 0.9, 0], [2, 2, 11, 22, 0.8, 0], [30, 2, 41, 22, 0.4, 5]]
    bundle = imported(fixed_answer({"o": rows}), tmp_path, "yolo", "0=face")
    assert answer(bundle)["floor"][0] == pytest.approx(0.4)


def test_lists_that_reach_the_networks_limit_say_so(tmp_path: Path) -> None:
    outputs: dict[str, Array] = {
        "boxes": np.array([[1, 2, 11, 22], [30, 2, 41, 22]], np.float32),
        "labels": np.array([1, 2], np.int64),
        "scores": np.array([0.9, 0.8], np.float32),
    }
    shapes: dict[str, list[str | int]] = {"boxes": ["K", 4], "labels": ["K"], "scores": ["K"]}
    model = fixed_answer(outputs, shapes=shapes)
    bundle = imported(model, tmp_path, "boxes", "1=person", most=2)
    assert answer(bundle)["floor"][0] == pytest.approx(0.8)


def _stay(boxes: Array, limit: float) -> list[int]:
    """Greedy suppression of boxes in descending order of score, one pair at a time."""
    stay: list[int] = []
    for row, box in enumerate(boxes):
        ious = []
        for other in boxes[stay]:
            sides = np.maximum(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0)
            shared = sides[0] * sides[1]
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
            ious.append(shared / (sum(areas) - shared))
        if not ious or max(ious) <= limit:
            stay.append(row)
    return stay


@pytest.mark.parametrize("seed", range(4))
def test_what_is_returned_is_what_greedy_suppression_leaves(tmp_path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    centred = np.concatenate([draw.uniform(0, 1, (80, 2)) * [90, 60], draw.uniform(10, 30, (80, 2))], axis=1)
    scores = draw.uniform(0, 1, (80, 2)) ** 3
    table = np.concatenate([centred, scores], axis=1).astype(np.float32)
    bundle = imported(fixed_answer({"o": table.T[None].copy()}, metadata=ultralytics(PERSON_FACE)), tmp_path, "yolo")
    inside = (50, 80)
    expected = []
    for kind in (0, 1):
        order = np.argsort(-table[:, 4 + kind])
        order = order[(table[order, 4 + kind] > 0.02) & (table[order, :2] < [80, 50]).all(axis=1)]
        boxes = np.concatenate([table[:, :2] - table[:, 2:4] / 2, table[:, :2] + table[:, 2:4] / 2], axis=1)[order]
        expected += [(float(table[order[row], 4 + kind]), kind, boxes[row]) for row in _stay(boxes, 0.7)]
    result = found(answer(bundle, inside=inside))
    assert 10 < len(result) == len(expected) < 160
    for (box, score, kind), wanted in zip(result, sorted(expected, key=lambda item: -item[0]), strict=True):
        assert (score, kind) == (round(wanted[0], 4), wanted[1])
        np.testing.assert_allclose(box, wanted[2], atol=2e-3)
