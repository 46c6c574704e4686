"""The feature-pyramid discriminator of surface-guided GANs (Hukkelås et al. 2023, section 3.3).

It says how real a picture looks, and regresses the surface embedding of every pixel: its own task and, through L_CSE,
the generator's to make bodies whose surface can be told.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.models.epsilon import plus
from export.models.layers import Conv, Linear

#: Pictures whose deviation from each other the score may know (Karras et al. 2018, section 3).
_GROUP = 4


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Widths and depth.

    Attributes:
        widths: channels of each level, finest first; each level halves the size of the one before.
        pyramid: channels of the feature pyramid.
        conv_clamp: bound of the activations.
    """

    widths: tuple[int, ...] = (32, 64, 128, 192)
    pyramid: int = 48
    conv_clamp: float = 256.0


class Judged(NamedTuple):
    """What a discriminator says.

    Attributes:
        score: (N,1), above 0 where a picture looks real.
        embedding: (N, embedding_channels, H, W).
    """

    score: Tensor
    embedding: Tensor


class _Block(nn.Module):
    """Two convolutions and a 1x1 one beside them, which halve the size."""

    def __init__(self, inputs: int, outputs: int, clamp: float) -> None:
        super().__init__()
        gain = math.sqrt(0.5)
        self.conv0 = Conv(inputs, inputs, clamp=clamp)
        self.conv1 = Conv(inputs, outputs, down=2, gain=gain, clamp=clamp)
        self.skip = Conv(inputs, outputs, 1, down=2, activation="linear", bias=False, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / 2, W / 2)."""
        y: Tensor = self.skip(x) + self.conv1(self.conv0(x))
        return y


class Discriminator(nn.Module):
    """Judges pictures, knowing which of their pixels are known.

    Args:
        config: widths and depth.
        image_size: height and width, whole at every level.
        embedding_channels: of the surface embedding.

    Raises:
        ValueError: a side cannot be halved so often.
    """

    def __init__(self, config: DiscriminatorConfig, image_size: tuple[int, int], embedding_channels: int) -> None:
        super().__init__()
        widths, clamp = config.widths, config.conv_clamp
        halvings = len(widths) - 1
        if any(side % 2**halvings for side in image_size):
            raise ValueError(f"images of {image_size} cannot be halved {halvings} times; give fewer widths")
        # The picture, the known part of it and the mask.
        self.from_rgb = Conv(7, widths[0], 1, clamp=clamp)
        self.first = Conv(widths[0], widths[0], clamp=clamp)
        self.blocks = nn.ModuleList(_Block(a, b, clamp) for a, b in itertools.pairwise(widths))
        self.lateral = nn.ModuleList(Conv(width, config.pyramid, 1, activation="linear") for width in widths)
        self.to_embedding = Conv(config.pyramid, embedding_channels, 1, activation="linear")
        self.last = Conv(widths[-1] + 1, widths[-1], clamp=clamp)
        pixels = (image_size[0] >> halvings) * (image_size[1] >> halvings)
        self.hidden = Linear(widths[-1] * pixels, widths[-1], activation="lrelu")
        self.to_score = Linear(widths[-1], 1)

    def forward(self, image: Tensor, known: Tensor, mask: Tensor) -> Judged:
        """Judge pictures.

        Args:
            image: (N,3,H,W) in [-1,1], real or generated.
            known: (N,3,H,W), the real picture times the mask.
            mask: (N,1,H,W), 1 where the pixel is known.
        """
        x = self.first(self.from_rgb(torch.cat([image, known, mask], dim=1)))
        levels = [x]
        for block in self.blocks:
            x = block(x)
            levels.append(x)
        x = self.last(torch.cat([x, deviation_plane(x)], dim=1))
        score: Tensor = self.to_score(self.hidden(x.flatten(1)))
        return Judged(score, self._embedding(levels))

    def _embedding(self, levels: list[Tensor]) -> Tensor:
        """The pyramid from the coarsest level to the finest."""
        x: Tensor = self.lateral[-1](levels[-1])
        for lateral, level in zip(reversed(self.lateral[:-1]), reversed(levels[:-1]), strict=True):
            x = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            # Keeps the variance of a sum of two.
            x = (x + lateral(level)) * math.sqrt(0.5)
        embedding: Tensor = self.to_embedding(x)
        return embedding


def deviation_plane(x: Tensor) -> Tensor:
    """How much the pictures of a group differ, the same number everywhere: (N,C,H,W) -> (N,1,H,W).

    A batch that does not divide into groups of four is one group.
    """
    count, _, height, width = x.shape
    group = _GROUP if count % _GROUP == 0 else count
    grouped = x.reshape(group, count // group, *x.shape[1:])
    variance = (grouped - grouped.mean(dim=0)).square().mean(dim=0)
    deviation = plus(variance, 1e-8).sqrt().mean(dim=(1, 2, 3))
    return deviation.repeat(group).view(count, 1, 1, 1).expand(-1, -1, height, width)
