import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from export.starter import generator_losses as losses


def test_the_generators_loss_is_minus_the_logarithm_of_how_real_it_looks() -> None:
    score = torch.tensor([[0.0], [2.0]])
    expected = (math.log(2) + math.log(1 + math.exp(-2))) / 2
    assert losses.generator_adversarial(score).item() == pytest.approx(expected)


def test_the_generators_loss_pushes_bad_pictures_harder_than_good_ones() -> None:
    """Non-saturating: what the discriminator sees through has the largest gradient, not the smallest."""
    score = torch.tensor([[-6.0], [6.0]], requires_grad=True)
    torch.autograd.backward(losses.generator_adversarial(score))
    assert score.grad is not None
    bad, good = (-score.grad).flatten().tolist()
    assert bad > 100 * good > 0


def test_the_discriminators_loss_is_the_cross_entropy_of_real_and_made() -> None:
    real, made = torch.tensor([[1.5], [-0.5]]), torch.tensor([[0.3], [-2.0]])
    ones, zeros = torch.ones_like(real), torch.zeros_like(made)
    expected = functional.binary_cross_entropy_with_logits(real, ones)
    expected = expected + functional.binary_cross_entropy_with_logits(made, zeros)
    torch.testing.assert_close(losses.discriminator_adversarial(real, made), expected)


def body_of(*shares: int) -> Tensor:
    """(N,1,2,4) with so many body pixels in each picture."""
    return torch.stack([(torch.arange(8) < share).float().view(1, 2, 4) for share in shares])


def test_the_surface_loss_is_a_mean_over_body_pixels_of_each_picture() -> None:
    body = body_of(2, 8)
    truth = torch.zeros(2, 3, 2, 4)
    found = truth.clone()
    # Smooth L1: half the square up to 1, then linear.
    found[0, 0, 0, 0], found[1, 1] = 3.0, 0.5
    expected = (2.5 / 2 + 0.125) / 2
    assert losses.surface_loss(found, truth, body).item() == pytest.approx(expected)


def test_the_surface_loss_does_not_look_beside_the_body() -> None:
    body, truth = body_of(3), torch.zeros(1, 2, 2, 4)
    found = torch.randn(1, 2, 2, 4, generator=torch.manual_seed(0), requires_grad=True)
    torch.autograd.backward(losses.surface_loss(found, truth, body))
    assert found.grad is not None
    assert (found.grad * (1 - body)).abs().max() == 0
    assert (found.grad * body).abs().sum() > 0


def test_a_picture_without_a_body_has_no_surface_loss() -> None:
    assert losses.surface_loss(torch.ones(1, 2, 2, 4), torch.zeros(1, 2, 2, 4), body_of(0)).item() == 0


def test_the_epsilon_penalty_is_the_mean_square_of_scores() -> None:
    assert losses.epsilon_penalty(torch.tensor([[3.0], [-1.0]])).item() == pytest.approx(5)


def linear_score(image: Tensor, weights: Tensor) -> Tensor:
    return (image * weights).sum(dim=(1, 2, 3))[:, None]


@pytest.mark.parametrize("masked", [True, False])
def test_the_gradient_penalty_by_value(masked: bool) -> None:
    """The gradient of a linear score is its weights; masked, a quarter of the pixels stands for the whole."""
    image = torch.zeros(1, 3, 2, 4, requires_grad=True)
    weights = torch.full((1, 3, 2, 4), 2.0)
    mask = 1 - body_of(2)
    found = losses.r1_penalty(image, linear_score(image, weights), mask, masked=masked)
    assert found.item() == pytest.approx(3 * 8 * 4 / 2)
    weights = weights * (1 - mask)
    found = losses.r1_penalty(image, linear_score(image, weights), mask, masked=masked)
    assert found.item() == pytest.approx(3 * (8 if masked else 2) * 4 / 2)


def test_the_masked_gradient_penalty_ignores_known_pixels() -> None:
    image = torch.zeros(1, 3, 2, 4, requires_grad=True)
    mask = 1 - body_of(5)
    weights = torch.randn(1, 3, 2, 4, generator=torch.manual_seed(1), requires_grad=True)
    elsewhere = (weights.detach() + 7 * mask).requires_grad_()
    found = [losses.r1_penalty(image, linear_score(image, w), mask) for w in (weights, elsewhere)]
    assert found[0].item() == found[1].item()
    control = [losses.r1_penalty(image, linear_score(image, w), mask, masked=False) for w in (weights, elsewhere)]
    assert control[1].item() > control[0].item() + 1


def test_the_gradient_penalty_can_be_minimised() -> None:
    image = torch.zeros(1, 3, 2, 4, requires_grad=True)
    weights = torch.ones(1, 3, 2, 4, requires_grad=True)
    torch.autograd.backward(losses.r1_penalty(image, linear_score(image, weights), 1 - body_of(8)))
    assert weights.grad is not None
    torch.testing.assert_close(weights.grad, torch.ones_like(weights))


def test_a_picture_that_is_all_known_has_a_finite_penalty() -> None:
    image = torch.zeros(1, 3, 2, 4, requires_grad=True)
    score = linear_score(image, torch.ones(1, 3, 2, 4))
    assert losses.r1_penalty(image, score, torch.ones(1, 1, 2, 4)).item() == 0


def test_the_reconstruction_loss_is_a_mean_over_what_is_wanted() -> None:
    wanted = body_of(2, 0)
    image = torch.zeros(2, 3, 2, 4)
    made = image + 5
    made[0, :, 0, :2] = torch.tensor([[0.3, 0.5], [0.0, 0.0], [0.1, 0.0]])
    assert losses.reconstruction_loss(made, image, wanted).item() == pytest.approx(0.9 / 6 / 2)


def test_the_gradient_loss_sees_edges_and_no_offset() -> None:
    wanted = torch.ones(1, 1, 2, 4)
    image = torch.randn(1, 3, 2, 4, generator=torch.manual_seed(2))
    assert losses.gradient_loss(image + 0.7, image, wanted).item() == pytest.approx(0, abs=1e-6)
    made = image.clone()
    made[..., 2:] += 1
    # One of three differences across is off by 1, none down.
    assert losses.gradient_loss(made, image, wanted).item() == pytest.approx(1 / 3, rel=1e-5)


def test_the_gradient_loss_leaves_out_pairs_of_which_one_is_not_wanted() -> None:
    wanted = body_of(2)
    image = torch.zeros(1, 3, 2, 4)
    made = image.clone()
    made[..., 2:], made[..., 1, :] = 9, 9
    assert losses.gradient_loss(made, image, wanted).item() == 0
    assert losses.gradient_loss(made, image, torch.ones(1, 1, 2, 4)).item() > 1
