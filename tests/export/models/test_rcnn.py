"""Faster and Mask R-CNN against the published code, and what is not as published on purpose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from export.detector_parity import match_boxes
from export.models.boxes import NO_SCORE
from export.models.rcnn import BackboneSpec, BoxSpec, Detections, Detector, MaskHeads, MaskSpec
from export.models.rpn import ProposalSpec
from tests.export.detector_cases import MASK_RCNN, all_cases, assert_close, detector_cases, loaded
from tests.parity import ParityCase

TINY = BackboneSpec(blocks=(1, 1, 1, 1), stem_channels=4, res2_channels=8, width_per_group=4, channels=8)


@pytest.mark.parametrize("case", all_cases("out/fixed_cls_scores"), ids=lambda case: case.name)
def test_the_box_head_gives_the_published_numbers_for_given_boxes(case: ParityCase) -> None:
    made = loaded(case)
    logits, deltas = made.detector.roi_heads(made.features[:4], *made.fixed)
    published = made.arrays["out/fixed_box_deltas"]
    assert_close(logits, made.arrays["out/fixed_cls_scores"])
    assert_close(deltas[:, : published.shape[1]], published)


@pytest.mark.parametrize("case", detector_cases(MASK_RCNN, "out/fixed_mask_logits_class0"), ids=lambda case: case.name)
def test_the_mask_head_gives_the_published_numbers_for_given_boxes(case: ParityCase) -> None:
    made = loaded(case)
    assert isinstance(made.heads, MaskHeads)
    boxes, index = made.fixed
    logits = made.heads.roi_heads(made.features[:4], boxes, index)
    published = made.arrays["out/fixed_mask_logits_class0"]
    assert_close(logits[:, 0], published)
    masks = made.heads(*made.features[:4], boxes, index, torch.zeros_like(index))
    assert_close(masks, 1 / (1 + np.exp(-published)))


@pytest.mark.slow
@pytest.mark.parametrize("case", all_cases("out/fixed_cls_scores"), ids=lambda case: case.name)
def test_final_boxes_are_the_published_ones(case: ParityCase) -> None:
    made = loaded(case)
    boxes, scores, classes, count, *_ = made.detector(made.image, made.size)
    persons = made.arrays["out/classes"] == 0
    published = made.arrays["out/boxes"][persons]
    found = boxes[0, : int(count[0])].numpy()
    partner = match_boxes(found, published)
    same = partner >= 0
    assert same.mean() >= 0.98
    assert np.abs(found[partner[same]] - published[same]).max() <= 0.1
    assert np.abs(scores[0].numpy()[partner[same]] - made.arrays["out/scores"][persons][same]).max() <= 1e-3
    assert (classes == 0).all()


def tiny(**options: object) -> Detector:
    torch.manual_seed(0)
    settings: dict[str, object] = {"keep": (0,), "threshold": 0.1, "most": 5} | options
    spec = ProposalSpec(level_candidates=50, proposals=40)
    made = Detector(TINY, spec, BoxSpec(classes=3, width=16), **settings)  # type: ignore[arg-type]
    return made.eval().requires_grad_(requires_grad=False)


def decided(detector: Detector, logits: torch.Tensor) -> Detections:
    """Decides on boxes side by side, none of which shares anything with another."""
    rows = logits.shape[1]
    left = torch.arange(rows) * 20.0
    boxes = torch.stack([left, torch.zeros(rows), left + 10, torch.full((rows,), 10.0)], dim=1)[None]
    valid = torch.ones(1, rows, dtype=torch.bool)
    return detector.decide(boxes, valid, logits, torch.zeros(1, rows, 3, 4), torch.tensor([[100, 20 * rows]]))


def test_other_classes_do_not_crowd_persons_out() -> None:
    # Twenty sure things of class 1, and three persons who are less sure: the best five would be things.
    logits = torch.zeros(1, 23, 4)
    logits[0, :20, 1] = 9
    logits[0, 20:, 0] = 1
    persons = decided(tiny(), logits)
    assert persons.count.tolist() == [3]
    assert (persons.classes == 0).all()
    control = decided(tiny(keep=(0, 1)), logits)
    assert control.count.tolist() == [5]
    assert (control.classes == 1).all()


def test_floor_says_what_the_last_box_had_where_others_were_cut_and_else_nothing() -> None:
    logits = torch.zeros(1, 8, 4)
    logits[0, :, 0] = torch.linspace(3, 4, 8)
    cut = decided(tiny(), logits)
    assert cut.count.tolist() == [5]
    assert cut.floor.tolist() == [cut.scores[0, 4].item()]
    whole = decided(tiny(), logits[:, :5])
    assert whole.count.tolist() == [5]
    assert whole.floor.tolist() == [0]


def test_what_follows_the_count_is_0() -> None:
    logits = torch.zeros(1, 4, 4)
    logits[0, :, 3] = 9
    logits[0, 2, 0] = 10
    found = decided(tiny(), logits)
    assert found.count.tolist() == [1]
    assert found.boxes[0, 0].tolist() == [40, 0, 50, 10]
    assert not found.boxes[0, 1:].any()
    assert not found.scores[0, 1:].any()


def test_rows_that_are_no_proposals_are_no_detections() -> None:
    detector = tiny()
    logits = torch.zeros(1, 2, 4)
    logits[..., 0] = 9
    boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 0, 30, 10]]])
    found = detector.decide(
        boxes, torch.tensor([[True, False]]), logits, torch.zeros(1, 2, 3, 4), torch.tensor([[64, 64]])
    )
    assert found.count.tolist() == [1]


def test_boxes_for_all_classes_together_are_decided_on_too() -> None:
    torch.manual_seed(0)
    spec = BoxSpec(classes=3, width=16, class_agnostic=True)
    detector = Detector(TINY, ProposalSpec(level_candidates=50, proposals=40), spec, keep=(0, 2), threshold=0.0, most=9)
    boxes, scores, *_ = detector.eval().requires_grad_(requires_grad=False)(
        torch.randn(1, 3, 64, 64), torch.tensor([[64, 64]])
    )
    assert boxes.shape == (1, 9, 4)
    assert (scores > 0).any()


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_broken_network_does_not_look_like_an_empty_street(broken: float) -> None:
    detector = tiny()
    image, size = torch.randn(2, 3, 64, 64), torch.tensor([[64, 64], [64, 64]])
    fine = detector(image, size)
    assert fine[1].isfinite().all()
    image[1, 0, 5, 5] = broken
    _, scores, _, count, *_ = detector(image, size)
    assert scores[0].isfinite().all()
    assert scores[1].isnan().all()
    assert count[1] == scores.shape[1]


def test_masks_are_those_of_the_class_that_was_found() -> None:
    torch.manual_seed(0)
    heads = MaskHeads(8, MaskSpec(channels=8), classes=5, keep=(3, 1)).eval().requires_grad_(requires_grad=False)
    levels = [torch.randn(1, 8, 32 >> i, 32 >> i) for i in range(4)]
    boxes, index = torch.tensor([[0.0, 0, 60, 60], [10, 10, 90, 100]]), torch.zeros(2, dtype=torch.int64)
    logits = heads.roi_heads(levels, boxes, index)
    masks = heads(*levels, boxes, index, torch.tensor([0, 1]))
    torch.testing.assert_close(masks, torch.stack([logits[0, 3], logits[1, 1]]).sigmoid())
    agnostic = MaskHeads(8, replace(MaskSpec(channels=8), class_agnostic=True), classes=5).eval()
    assert agnostic(*levels, boxes, index, torch.tensor([0, 0])).shape == (2, 28, 28)


def test_no_score_is_below_all_that_a_network_gives() -> None:
    assert NO_SCORE < -1e6
