"""The discriminator's side of a generator's training: what it learns, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from export.starter import generator_losses as losses
from export.starter.discriminator import Discriminator, DiscriminatorConfig
from export.starter.generator_losses import LossConfig
from export.starter.generator_network import draw_weights, prepared
from export.starter.training import State


class Shown(NamedTuple):
    """What a discriminator is told of generated crops, and what of true ones.

    Attributes:
        made: (N,3,H,W) in [-1,1], generated.
        image: (N,3,H,W), true.
        mask: (N,1,H,W), 1 where the pixel is known.
        body: (N,1,H,W).
        embedding: (N,D,H,W), of the surface, 0 outside the body.
    """

    made: Tensor
    image: Tensor
    mask: Tensor
    body: Tensor
    embedding: Tensor


class Adversary:
    """A discriminator in training.

    Args:
        config: what it looks like.
        terms: weights of what it learns and says.
        image_size: height and width of crops.
        channels: of the surface embedding.
        rate: of its optimiser, at the most.
        betas: of Adam.
        bfloat16: whether it computes in bfloat16 where that is safe.
        device: where to.
    """

    def __init__(
        self,
        config: DiscriminatorConfig,
        terms: LossConfig,
        image_size: tuple[int, int],
        channels: int,
        *,
        rate: float,
        betas: tuple[float, float],
        bfloat16: bool,
        device: torch.device | str,
    ) -> None:
        discriminator = Discriminator(config, image_size, channels)
        draw_weights(discriminator)
        self.network = prepared(discriminator, device)
        self._terms, self._device, self._bfloat16 = terms, torch.device(device), bfloat16
        # Adam is corrected for a penalty that only some steps have (Karras et al. 2020, appendix B).
        lazy = terms.r1_interval / (terms.r1_interval + 1) if terms.r1 else 1.0
        self._rate = rate * lazy
        self._optimiser = torch.optim.Adam(
            self.network.parameters(), lr=self._rate, betas=(betas[0] ** lazy, betas[1] ** lazy)
        )
        self._r1 = 0.0

    def state(self) -> State:
        """All that is needed to go on."""
        return {"discriminator": self.network.state_dict(), "optimiser": self._optimiser.state_dict(), "r1": self._r1}

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` gave."""
        self.network.load_state_dict(state["discriminator"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._r1 = state["r1"]

    def learn(self, crops: Shown, step: int, factor: float = 1.0) -> dict[str, Tensor]:
        """One step of the discriminator.

        Args:
            crops: what it learns from.
            step: its number, which decides whether true crops' gradients are punished.
            factor: of the learning rate.

        Returns:
            The figures `discriminator` (its loss), `score_gap` and the latest `r1`.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate * factor
        terms, known = self._terms, crops.image * crops.mask
        with self._autocast():
            real = self.network(crops.image, known, crops.mask)
            false = self.network(crops.made.detach(), known, crops.mask)
        loss = losses.discriminator_adversarial(real.score.float(), false.score.float())
        total = loss + terms.epsilon * losses.epsilon_penalty(real.score.float())
        if terms.surface:
            total = total + terms.surface * losses.surface_loss(real.embedding.float(), crops.embedding, crops.body)
        if terms.surface and terms.surface_of_made:
            told = losses.surface_loss(false.embedding.float(), crops.embedding, crops.body)
            total = total + terms.surface * terms.surface_of_made * told
        if terms.r1 and step % terms.r1_interval == 0:
            # In float32: it is a gradient of a gradient.
            image = crops.image.detach().requires_grad_()
            score = self.network(image, known, crops.mask).score
            penalty = losses.r1_penalty(image, score, crops.mask, masked=terms.r1_masked)
            total = total + terms.r1 * terms.r1_interval * penalty
            self._r1 = penalty.detach().item()
        descend(self._optimiser, total)
        gap = (real.score - false.score).mean()
        return {"discriminator": loss, "score_gap": gap, "r1": loss.new_tensor(self._r1)}

    def resting(self, like: Tensor) -> dict[str, Tensor]:
        """The figures of a step in which it does not learn."""
        return {name: like.new_zeros(()) for name in ("discriminator", "score_gap")} | {"r1": like.new_tensor(self._r1)}

    def says(self, crops: Shown) -> dict[str, Tensor]:
        """What the generator is to lower: `adversarial` and, where it counts, `surface`; each () with a graph."""
        self.network.requires_grad_(False)
        with self._autocast():
            judged = self.network(crops.made, crops.image * crops.mask, crops.mask)
        self.network.requires_grad_(True)
        figures = {"adversarial": losses.generator_adversarial(judged.score.float())}
        if self._terms.surface:
            figures["surface"] = losses.surface_loss(judged.embedding.float(), crops.embedding, crops.body)
        return figures

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16)


def descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of an optimiser against a loss."""
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    optimiser.step()
