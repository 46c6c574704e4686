from __future__ import annotations

import math

import pytest
import torch

from export.starter.detector_losses import (
    LossWeights,
    SurfaceLoss,
    dice_loss,
    edges_loss,
    heat_loss,
    losses,
    total,
    way_loss,
)
from export.starter.detector_targets import make_targets
from tests.export.starter.tiny_people import make_scene, template


def surface(anchors: int = 3, most: int = 100) -> SurfaceLoss:
    torch.manual_seed(0)
    nearest = torch.tensor([[0, 1], [1, 2], [2, 0]])
    weights = torch.tensor([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]])
    return SurfaceLoss(nearest, weights, torch.randn(anchors, 4), most=most)


def test_sure_and_right_costs_little_sure_and_wrong_much() -> None:
    heat = torch.zeros(1, 4, 4)
    heat[0, 1, 1] = 1
    known = torch.ones_like(heat)
    right = 12 * (2 * heat - 1)
    assert heat_loss(right, heat, known) < 1e-3
    assert heat_loss(-right, heat, known) > 50
    assert heat_loss(-right, heat, 0 * known) == 0
    # Near a centre a high value is hardly wrong.
    near = heat.clone()
    near[0, 1, 2] = 0.9
    wrong = -10 * torch.ones_like(heat)
    wrong[0, 1, 1:3] = 10
    assert heat_loss(wrong, near, known) < 0.01 * heat_loss(wrong, heat, known)


def test_edges_cost_one_less_the_generalised_iou() -> None:
    weight = torch.ones(1, 1, 1)
    one = torch.full((1, 4, 1, 1), 4.0)
    assert edges_loss(one, one, weight) == pytest.approx(0)
    # 16 of 64 shared, and the hull is the larger box.
    assert edges_loss(one / 2, one, weight) == pytest.approx(0.75)
    wide = torch.tensor([8.0, 2.0, 8.0, 2.0]).reshape(1, 4, 1, 1)
    union, shared, hull = 64 + 64 - 32, 32, 128
    assert edges_loss(wide, one, weight) == pytest.approx(1 - (shared / union - (hull - union) / hull))
    assert edges_loss(wide, one, 0 * weight) == 0


def test_dice_is_small_where_masks_agree_and_where_there_are_none() -> None:
    body = torch.zeros(1, 16, 16)
    body[0, 4:12, 4:12] = 1
    right = 20 * (2 * body - 1)
    assert dice_loss(right, body) < 1e-3
    assert dice_loss(-right, body) > 0.8
    assert dice_loss(torch.full_like(body, -20), 0 * body) < 1e-3


def test_a_way_counts_in_sides_of_the_person() -> None:
    found, wanted = torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 1, 2)
    found[0, 0, 0, 0] = 5
    weight = torch.tensor([[[0.1, 0.0]]])
    near = way_loss(found, wanted, weight)
    assert near == pytest.approx(4 * 5 * 0.1)
    assert way_loss(found, wanted, weight / 2) == pytest.approx(float(near) / 2)
    assert way_loss(found, wanted, 0 * weight) == 0


def test_the_surface_costs_least_at_the_vertexs_own_blend() -> None:
    loss = surface()
    loss.sharpness.data.fill_(math.log(50))
    vertex = torch.tensor([[[0]]])
    own, other = (loss.table[i].reshape(1, 4, 1, 1).detach() for i in (0, 1))
    assert loss(own, vertex) < 0.1 < 1 < loss(other, vertex)
    # Only the direction counts.
    torch.testing.assert_close(loss(5 * own, vertex), loss(own, vertex))
    # A vertex between two anchors has no cost below its own entropy.
    middle = torch.nn.functional.normalize(loss.table[1], dim=0) + torch.nn.functional.normalize(loss.table[2], dim=0)
    torch.testing.assert_close(
        loss(middle.reshape(1, 4, 1, 1), torch.tensor([[[1]]])), torch.tensor(math.log(2)), atol=0.01, rtol=0
    )


def test_places_without_a_surface_do_not_count() -> None:
    loss = surface()
    embedding = torch.randn(1, 4, 2, 2, requires_grad=True)
    nowhere = loss(embedding, torch.full((1, 2, 2), -1))
    assert nowhere == 0
    loss(embedding, torch.tensor([[[0, -1], [-1, -1]]])).backward()
    assert embedding.grad is not None
    assert embedding.grad.abs().sum(dim=1)[0].gt(0).tolist() == [[True, False], [False, False]]


def test_no_more_places_are_looked_at_than_asked_for() -> None:
    loss = surface(most=3)
    embedding = torch.randn(1, 4, 4, 4, requires_grad=True)
    loss(embedding, torch.zeros(1, 4, 4, dtype=torch.int64)).backward()
    assert embedding.grad is not None
    assert int((embedding.grad.abs().sum(dim=1) > 0).sum()) == 3


def test_all_parts_are_there_and_the_weighted_sum_has_gradients() -> None:
    scene = make_scene([(8, 8, 32, 60)], seed=0)
    targets = make_targets(scene.instances, scene.vertices, template().head)
    wanted = {name: torch.from_numpy(values)[None] for name, values in targets.items()}
    loss = SurfaceLoss(torch.zeros(60, 1, dtype=torch.int64), torch.ones(60, 1), torch.randn(2, 16))
    coarse = torch.zeros(1, 10, 8, 12, requires_grad=True)
    fine = (0.1 * torch.randn(1, 19, 16, 24)).requires_grad_()
    parts = losses(coarse, fine, wanted, loss)
    assert set(parts) == set(LossWeights.__slots__)
    assert all(value.item() > 0 for value in parts.values())
    cost = total(parts, LossWeights(heat=0, edges=0, body=0, dice=0, way=0, surface=2))
    torch.testing.assert_close(cost, 2 * parts["surface"])
    total(parts, LossWeights()).backward()  # type: ignore[no-untyped-call]
    assert coarse.grad is not None
    assert fine.grad is not None
    assert (coarse.grad.abs().sum(dim=(0, 2, 3)) > 0).all()
    assert (fine.grad.abs().sum(dim=(0, 2, 3)) > 0).all()
