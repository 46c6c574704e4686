"""What the generator and its discriminator are trained with (Hukkelås et al. 2023, section 3.3 and appendix).

All losses are means over the batch of what each picture gives by itself, so that pictures with small bodies count as
much as those with large ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights; 0 switches a term off.

    Attributes:
        adversarial: of the generator's non-saturating loss; 0 trains without a discriminator.
        adversarial_after: pictures that are seen before the discriminator joins in.
        surface: lambda of L_CSE (equation 3), for both networks.
        surface_of_made: how much of it the discriminator also learns from generated pictures; published 0.
        r1: gamma of the gradient penalty.
        r1_masked: whether it leaves known pixels out, and weighs the others up for it.
        r1_interval: discriminator steps from one to the next; its weight grows by as much (lazy regularisation).
        epsilon: of the squared score of real pictures, which keeps scores near 0.
        reconstruction: of the mean absolute difference, where z tells what the person looks like.
        gradient: of the same between neighbouring pixels, which keeps edges.
    """

    adversarial: float = 1.0
    adversarial_after: int = 0
    surface: float = 0.1
    surface_of_made: float = 0.0
    r1: float = 5.0
    r1_masked: bool = True
    r1_interval: int = 16
    epsilon: float = 0.001
    reconstruction: float = 20.0
    gradient: float = 10.0


def generator_adversarial(made_score: Tensor) -> Tensor:
    """Non-saturating loss of the generator (Goodfellow et al. 2014): -log sigmoid(score), (N, 1) -> ()."""
    return functional.softplus(-made_score).mean()


def discriminator_adversarial(real_score: Tensor, made_score: Tensor) -> Tensor:
    """The discriminator's side of it: -log sigmoid(real) - log(1 - sigmoid(made)), (N, 1) each -> ()."""
    return (functional.softplus(-real_score) + functional.softplus(made_score)).mean()


def surface_loss(found: Tensor, embedding: Tensor, body: Tensor) -> Tensor:
    """L_CSE (equation 3): how far the discriminator's embedding is from the true one, on the body.

    Args:
        found: (N,C,H,W), what the discriminator regressed.
        embedding: (N,C,H,W), of each pixel's vertex.
        body: (N,1,H,W), 1 on the body; a picture without any counts as 0.

    Returns:
        Smooth L1 distance, summed over channels, mean over body pixels and pictures: ().
    """
    distance = functional.smooth_l1_loss(found * body, embedding * body, reduction="none").sum(dim=(1, 2, 3))
    return (distance / body.sum(dim=(1, 2, 3)).clamp(min=1)).mean()


def epsilon_penalty(real_score: Tensor) -> Tensor:
    """Mean squared score of real pictures (Karras et al. 2018, appendix A.1): (N, 1) -> ()."""
    return real_score.square().mean()


def r1_penalty(image: Tensor, score: Tensor, mask: Tensor, *, masked: bool = True) -> Tensor:
    """Half the squared gradient of real scores by pixels (Mescheder et al. 2018).

    Known pixels are the same in real and generated pictures, so they tell nothing about how far those are apart:
    masked, the gradient there is left out, and the rest weighed up to the whole picture.

    Args:
        image: (N,3,H,W), requires gradients.
        score: (N,1), computed from it.
        mask: (N,1,H,W), 1 where the pixel is known.
        masked: whether known pixels are left out.

    Returns:
        () with a graph, so that it can be minimised.
    """
    (gradient,) = torch.autograd.grad(score.sum(), image, create_graph=True)
    if not masked:
        return gradient.square().sum(dim=(1, 2, 3)).mean() / 2
    unknown = 1 - mask
    squares = (gradient * unknown).square().sum(dim=(1, 2, 3))
    share = unknown.mean(dim=(1, 2, 3)).clamp(min=1 / unknown[0].numel())
    return (squares / share).mean() / 2


def reconstruction_loss(made: Tensor, image: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference over what is to be reconstructed.

    Args:
        made: (N,3,H,W).
        image: (N,3,H,W), the truth.
        wanted: (N,1,H,W), 1 where it counts; a picture without any counts as 0.
    """
    return _mean_over((made - image).abs(), wanted)


def gradient_loss(made: Tensor, image: Tensor, wanted: Tensor) -> Tensor:
    """As `reconstruction_loss`, of the differences between neighbours to the right and below, both of which count."""
    error = made - image
    across = _mean_over((error[..., 1:] - error[..., :-1]).abs(), wanted[..., 1:] * wanted[..., :-1])
    down = _mean_over((error[..., 1:, :] - error[..., :-1, :]).abs(), wanted[..., 1:, :] * wanted[..., :-1, :])
    return across + down


def generator_total(figures: Mapping[str, Tensor], weights: LossConfig) -> Tensor:
    """What the generator lowers: its terms, by their weights."""
    return (
        weights.reconstruction * figures["reconstruction"]
        + weights.gradient * figures["gradient"]
        + weights.adversarial * (figures["adversarial"] + weights.surface * figures["surface"])
    )


def _mean_over(values: Tensor, where: Tensor) -> Tensor:
    total = (values * where).sum(dim=(1, 2, 3))
    return (total / (values.shape[1] * where.sum(dim=(1, 2, 3)).clamp(min=1))).mean()
