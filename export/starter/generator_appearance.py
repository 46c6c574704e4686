"""Teaches f_w what people look like, before the whole network learns to draw them.

What a place of somebody's surface looks like depends on z and the place alone, and so does w: a linear layer behind w
can be asked for its colour. That takes pixels by the ten thousand and no picture, so that in a few minutes f_w knows
where hair ends and clothes begin, which the whole network would take hours to find out. The layer is dropped then.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from export.models.layers import Linear
from export.models.surface import VertexMapping
from export.starter.crop_batches import padded
from export.starter.crops import CropSet
from export.starter.training import Progress, cosine

#: Crops and, of all their bodies, pixels that a step looks at.
CROPS, PIXELS = 96, 16_384
_LOG_EVERY = 100


def learn_appearance(
    f_w: VertexMapping,
    crops: CropSet,
    steps: int,
    *,
    rate: float = 0.01,
    seed: int = 0,
    progress: Progress | None = None,
) -> float:
    """Trains f_w in place.

    Args:
        f_w: of the network.
        crops: of people with their looks.
        steps: of Adam.
        rate: its learning rate, which goes down along half a cosine.
        seed: of the pixels and of the layer that is dropped.
        progress: is told what is being done.

    Returns:
        How far colours are from the truth in the last steps: the mean absolute difference in [-1, 1].
    """
    torch.manual_seed(seed)
    device = f_w.E.device
    colour = Linear(f_w.spec.w_channels, 3).to(device)
    torch.nn.init.normal_(colour.weight)
    torch.nn.init.zeros_(colour.bias)
    optimiser = torch.optim.Adam([*f_w.parameters(), *colour.parameters()], lr=rate, betas=(0.9, 0.99))
    recent: list[float] = []
    for step, (z, person, vertex, wanted) in enumerate(_places(crops, f_w.spec.z_channels, steps, seed)):
        for group in optimiser.param_groups:
            group["lr"] = rate * cosine(step / steps)
        latent = f_w.latent(z.to(device))[person]
        w = f_w.combine(torch.cat([functional.embedding(vertex.to(device), f_w.surface()), latent], dim=1))
        loss = (colour(w) - wanted.to(device)).abs().mean()
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
        recent = [*recent[1 - _LOG_EVERY :], loss.item()]
        if progress is not None and (step + 1) % _LOG_EVERY == 0:
            progress(f"appearance, step {step + 1} of {steps}: {np.mean(recent):.4g}")
    return float(np.mean(recent)) if recent else float("nan")


def _places(crops: CropSet, channels: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """For every step: z (N, channels), and of its pixels (P,) the number of their z, their vertex and their colour."""
    for step in range(steps):
        draw = np.random.default_rng((seed, step))
        chosen = draw.integers(0, len(crops), CROPS)
        labels: NDArray[np.int16] = np.stack([crops.labels[i] for i in chosen])
        places = np.flatnonzero(labels >= 0)
        places = draw.choice(places, min(PIXELS, len(places)), replace=False, shuffle=False)
        images = np.stack([crops.images[i] for i in chosen]).reshape(-1, 3)
        z = padded(np.stack([crops.looks[i] for i in chosen]), channels, draw)
        yield (
            torch.from_numpy(z),
            torch.from_numpy(places // labels[0].size),
            torch.from_numpy(labels.reshape(-1)[places].astype(np.int64)),
            torch.from_numpy(images[places]).float() / 127.5 - 1,
        )
