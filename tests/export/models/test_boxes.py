from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from torch import Tensor, nn

from engines.manifest import Graph
from engines.manifest import Tensor as Declared
from engines.plan_build import data_dependent
from engines.runtime_onnx import OnnxRuntime
from export.graphs import GraphPlan
from export.models import boxes as module
from export.models.boxes import NO_SCORE, apply_deltas, best, clip, suppress
from export.tensorrt_checks import check_onnx
from export.to_onnx import write_onnx

Floats = npt.NDArray[np.float32]


def test_deltas_move_and_scale_and_are_bounded() -> None:
    box = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    moved = apply_deltas(torch.tensor([[0.5, -0.25, 0.0, 0.0]]), box, (1, 1, 1, 1))
    assert moved.tolist() == [[20.0, 10.0, 40.0, 50.0]]
    weighted = apply_deltas(torch.tensor([[5.0, -2.5, 0.0, 0.0]]), box, (10, 10, 5, 5))
    torch.testing.assert_close(weighted, moved)
    huge = apply_deltas(torch.tensor([[0.0, 0.0, 100.0, 100.0]]), box, (1, 1, 1, 1))
    assert (huge[0, 2] - huge[0, 0]).item() == pytest.approx(20 * 1000 / 16, rel=1e-4)


def test_clipping_knows_height_from_width() -> None:
    clipped = clip(torch.tensor([[[-5.0, -6.0, 500.0, 600.0]]]), torch.tensor([[30, 40]]))
    assert clipped.tolist() == [[[0, 0, 40, 30]]]


def test_the_best_are_filled_up_to_a_constant_number() -> None:
    values, places = best(torch.tensor([[0.5, 0.7]]), 4)
    assert values.tolist() == [pytest.approx([0.7, 0.5, NO_SCORE, NO_SCORE])]
    assert places[0, :2].tolist() == [1, 0]


def test_a_box_falls_only_to_a_better_one_that_shares_more_than_the_limit() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 5], [0, 0, 10, 9.5]]])
    scores = torch.tensor([[0.9, 0.8, 0.7, NO_SCORE]])
    assert suppress(boxes, scores, iou=0.5).tolist() == [[1, 0, 1, 0]]
    apart = suppress(boxes, scores, iou=0.5, classes=torch.tensor([[0, 1, 0, 0]]))
    assert apart.tolist() == [[1, 1, 1, 0]]


def test_rows_do_not_know_of_each_other() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]]).expand(2, 3, 2, 4)
    scores = torch.tensor([[[0.9, 0.8], [0.8, 0.9], [NO_SCORE, 0.1]], [[NO_SCORE, NO_SCORE], [0.5, 0.5], [0.1, 0.2]]])
    stays = suppress(boxes, scores, iou=0.5)
    # Of equal ones the first is better.
    assert stays.tolist() == [[[1, 0], [0, 1], [0, 1]], [[0, 0], [1, 0], [0, 1]]]


def test_boxes_without_area_stay_and_fell_nobody() -> None:
    boxes = torch.tensor([[5.0, 5, 5, 5], [5, 5, 5, 5], [0, 0, 10, 10]])
    assert suppress(boxes, torch.tensor([0.9, 0.8, 0.7]), iou=0.0).tolist() == [1, 1, 1]


def crowd(seed: int, count: int, places: int) -> tuple[Floats, Floats]:
    """Boxes round a few places, (count,4), and scores, some of them equal and some of nobody."""
    draw = np.random.default_rng(seed)
    centres = draw.uniform(0, 500, (places, 2))[draw.integers(0, places, count)] + draw.normal(0, 8, (count, 2))
    sides = draw.uniform(20, 80, (count, 2))
    scores = np.round(draw.uniform(0, 1, count), 2).astype(np.float32)
    scores[draw.random(count) < 0.1] = NO_SCORE
    return np.concatenate([centres - sides / 2, centres + sides / 2], axis=1).astype(np.float32), scores


def greedy(boxes: Floats, scores: Floats, iou: float) -> list[float]:
    """As it is usually done: the best one stays, those that share too much with it fall, and so on."""
    stays = np.zeros(len(boxes), np.float32)
    left = [int(i) for i in np.argsort(-scores, kind="stable") if scores[i] > 0.5 * NO_SCORE]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while left:
        first, *others = left
        stays[first] = 1
        sides = np.minimum(boxes[first, 2:], boxes[others, 2:]) - np.maximum(boxes[first, :2], boxes[others, :2])
        shared = np.maximum(sides, 0).prod(axis=1)
        falls = shared > np.float32(iou) * (areas[first] + areas[others] - shared)
        left = [other for other, fell in zip(others, falls, strict=True) if not fell]
    return [float(value) for value in stays]


@pytest.mark.parametrize("iou", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("places", [2, 5, 40])
def test_what_stays_is_what_greedy_suppression_leaves(iou: float, places: int) -> None:
    for seed in range(5):
        boxes, scores = crowd(seed, 300, places)
        stays = suppress(torch.from_numpy(boxes), torch.from_numpy(scores), iou=iou)
        assert stays.tolist() == greedy(boxes, scores, iou)


def chain(length: int) -> tuple[Tensor, Tensor]:
    """Each box shares too much with the one before and with no other: every second one stays."""
    starts = torch.arange(length) * 4.0
    boxes = torch.stack([starts, torch.zeros(length), starts + 10, torch.full((length,), 10.0)], dim=1)
    return boxes, torch.linspace(1, 0.5, length)


def test_a_chain_that_is_too_long_to_be_settled_drops_nobody_who_should_stay() -> None:
    for length in (2, 9, module._ROUNDS, module._ROUNDS + 1):
        boxes, scores = chain(length)
        expected = greedy(boxes.numpy(), scores.numpy(), 0.4)
        assert expected == [float(i % 2 == 0) for i in range(length)]
        assert suppress(boxes, scores, iou=0.4).tolist() == expected
    boxes, scores = chain(3 * module._ROUNDS)
    should = torch.tensor(greedy(boxes.numpy(), scores.numpy(), 0.4))
    stays = suppress(boxes, scores, iou=0.4)
    assert (stays >= should).all()
    assert stays.sum() > should.sum()


def test_control_an_odd_number_of_rounds_would_drop_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROUNDS", 5)
    boxes, scores = chain(20)
    should = torch.tensor(greedy(boxes.numpy(), scores.numpy(), 0.4))
    assert not (suppress(boxes, scores, iou=0.4) >= should).all()


class Suppressing(nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> Tensor:
        return suppress(boxes, scores, iou=0.5, classes=classes)


def test_an_exported_graph_gives_the_same_and_no_shape_in_it_depends_on_data(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    inputs = (
        Declared(name="boxes", dtype="float32", shape=("N", 60, 4), meaning=""),
        Declared(name="scores", dtype="float32", shape=("N", 60), meaning=""),
        Declared(name="classes", dtype="int64", shape=("N", 60), meaning=""),
    )
    outputs = (Declared(name="stays", dtype="float32", shape=("N", 60), meaning=""),)

    def feeds(count: int, seed: int) -> dict[str, npt.NDArray[Any]]:
        rows = [crowd(seed + row, 60, 3) for row in range(count)]
        classes = np.random.default_rng(seed).integers(0, 2, (count, 60))
        return {"boxes": np.stack([b for b, _ in rows]), "scores": np.stack([s for _, s in rows]), "classes": classes}

    plan = GraphPlan("detector", "d.onnx", Suppressing(), inputs, outputs, feeds(2, 0))
    write_onnx(plan, tmp_path / "d.onnx")
    assert data_dependent(tmp_path / "d.onnx") == ()
    assert check_onnx(onnx.load(tmp_path / "d.onnx")) == []
    graph = Graph(file="d.onnx", inputs=inputs, outputs=outputs)
    with OnnxRuntime(tmp_path / "d.onnx", graph, device="cpu") as runtime:
        for count, seed in ((1, 5), (3, 9)):
            given = feeds(count, seed)
            expected = Suppressing()(*(torch.from_numpy(values) for values in given.values()))
            np.testing.assert_array_equal(runtime.run(given)["stays"], expected.numpy())
            assert 0 < expected.mean() < 0.9
