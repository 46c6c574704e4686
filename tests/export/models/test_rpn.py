"""Proposals against the published code, and the bounds that exported graphs need."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from export.detector_parity import match_boxes
from export.models.boxes import NO_SCORE
from export.models.rpn import ProposalNetwork, ProposalSpec, cell_anchors
from tests.export.detector_cases import all_cases, assert_close, loaded
from tests.parity import ParityCase


@pytest.mark.parametrize("case", all_cases("out/proposal_boxes_top100"), ids=lambda case: case.name)
def test_proposals_are_the_published_ones(case: ParityCase) -> None:
    made = loaded(case)
    found, logits = made.detector.proposal_generator(made.features, made.size)
    published = made.arrays["out/proposal_boxes_top100"]
    assert_close(logits[0, : len(published)], made.arrays["out/proposal_logits_top100"])
    partner = match_boxes(found[0, : len(published) + 10].numpy(), published)
    assert (partner >= 0).mean() >= 0.98
    same = partner >= 0
    assert np.abs(found[0].numpy()[partner[same]] - published[same]).max() <= 0.1


def test_anchors_have_their_size_s_area_and_ratio() -> None:
    for (x0, y0, x1, y1), ratio in zip(cell_anchors((64.0,), (0.5, 1.0, 2.0)), (0.5, 1.0, 2.0), strict=True):
        assert (x1 - x0) * (y1 - y0) == pytest.approx(64.0**2)
        assert (y1 - y0) / (x1 - x0) == pytest.approx(ratio)
        assert (x0, y0) == (-x1, -y1)


def test_anchors_go_along_rows_first_with_those_of_a_place_together() -> None:
    network = ProposalNetwork(4, ProposalSpec())
    anchors = network.anchors(torch.zeros(1, 4, 2, 3), 1)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert anchors.shape == (18, 4)
    assert centres[::3].tolist() == [[0, 0], [8, 0], [16, 0], [0, 8], [8, 8], [16, 8]]


def small_network(**changes: int) -> ProposalNetwork:
    torch.manual_seed(0)
    network = ProposalNetwork(8, ProposalSpec(**{"level_candidates": 60, "proposals": 50, **changes}))  # type: ignore[arg-type]
    return network.eval().requires_grad_(requires_grad=False)


def pyramid(frames: int = 2) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(frames, 8, max(1, 16 >> i), max(1, 24 >> i)) for i in range(5)]


def test_a_small_picture_gives_as_many_rows_as_a_large_one() -> None:
    boxes, logits = small_network(proposals=200)(pyramid(), torch.tensor([[64, 96], [50, 40]]))
    assert boxes.shape == (2, 200, 4)
    assert logits.shape == (2, 200)
    left = logits > 0.5 * NO_SCORE
    assert (logits[:, :-1] >= logits[:, 1:]).all()
    assert left.any(dim=1).all()
    assert not left.all()


def test_proposals_lie_within_their_frame_without_its_padding() -> None:
    sizes = torch.tensor([[64, 96], [50, 40]])
    boxes, logits = small_network()(pyramid(), sizes)
    for frame, (height, width) in enumerate(sizes.tolist()):
        real = boxes[frame][logits[frame] > 0.5 * NO_SCORE]
        assert len(real)
        assert (real[:, :2] >= 0).all()
        assert (real[:, 2] <= width).all()
        assert (real[:, 3] <= height).all()
        assert (real[:, 2:] > real[:, :2]).all()


def test_a_frame_s_proposals_do_not_depend_on_the_others_in_the_batch() -> None:
    network, features, sizes = small_network(), pyramid(), torch.tensor([[64, 96], [50, 40]])
    together = network(features, sizes)
    alone = network([values[1:] for values in features], sizes[1:])
    torch.testing.assert_close(together[0][1:], alone[0])
    torch.testing.assert_close(together[1][1:], alone[1])
