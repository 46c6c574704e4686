"""The region proposal network (Ren et al. 2015, section 3) over a pyramid, with detectron2's parameter names."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  everyone calls it that

from export.models.boxes import NO_SCORE, apply_deltas, best, clip, suppress, take

#: The finest level has a value for every four pixels.
_FINEST_STRIDE = 4


@dataclass(frozen=True, kw_only=True)
class ProposalSpec:
    """What proposals are made of.

    Attributes:
        anchor_sizes: For each level the sides of its square anchors in pixels.
        aspect_ratios: Height by width, the same for all levels.
        anchor_offset: Of the first anchor's centre, in strides.
        level_candidates: The best of each level that are considered.
        proposals: The best of all levels that are kept.
        iou: Suppression within a level.
        delta_weights: What regressed deltas are divided by.
    """

    anchor_sizes: tuple[tuple[float, ...], ...] = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    anchor_offset: float = 0.0
    level_candidates: int = 1000
    proposals: int = 1000
    iou: float = 0.7
    delta_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)

    @property
    def anchors(self) -> int:
        """At each place of a level."""
        return len(self.anchor_sizes[0]) * len(self.aspect_ratios)


class ProposalHead(nn.Module):
    """Objectness and deltas for each anchor; one set of weights for all levels."""

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness_logits = nn.Conv2d(channels, anchors, 1)
        self.anchor_deltas = nn.Conv2d(channels, 4 * anchors, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(N,C,h,w) to logits (N,hwA) and deltas (N,hwA,4), rows first and anchors last."""
        hidden = F.relu(self.conv(features))
        logits = self.objectness_logits(hidden).permute(0, 2, 3, 1).flatten(1)
        deltas = self.anchor_deltas(hidden).permute(0, 2, 3, 1)
        return logits, deltas.reshape(deltas.shape[0], -1, 4)


def cell_anchors(sizes: tuple[float, ...], aspect_ratios: tuple[float, ...]) -> list[list[float]]:
    """Anchors round (0, 0) as `xyxy`: each has its size's area."""
    made = []
    for size in sizes:
        for ratio in aspect_ratios:
            width = math.sqrt(size * size / ratio)
            height = ratio * width
            made.append([-width / 2, -height / 2, width / 2, height / 2])
    return made


class ProposalNetwork(nn.Module):
    """From a pyramid to a bounded number of class-agnostic boxes a frame."""

    def __init__(self, channels: int, spec: ProposalSpec) -> None:
        super().__init__()
        self.spec = spec
        self.rpn_head = ProposalHead(channels, spec.anchors)

    def anchors(self, features: Tensor, level: int) -> Tensor:
        """All anchors of a level as `xyxy` in pixels, (hwA,4); only the features' size is looked at."""
        stride = float(_FINEST_STRIDE * 2**level)
        start = self.spec.anchor_offset * stride
        y = torch.arange(features.shape[2], dtype=torch.float32) * stride + start
        x = torch.arange(features.shape[3], dtype=torch.float32) * stride + start
        cell = torch.tensor(cell_anchors(self.spec.anchor_sizes[level], self.spec.aspect_ratios))
        columns = x[:, None, None] + cell[:, 0::2]
        rows = y[:, None, None] + cell[:, 1::2]
        shape = (y.shape[0], x.shape[0], len(cell), 2)
        pairs = torch.stack([columns[None].expand(shape), rows[:, None].expand(shape)], dim=-1)
        return pairs.reshape(-1, 4)

    def forward(self, features: list[Tensor], image_size: Tensor) -> tuple[Tensor, Tensor]:
        """The best boxes.

        Args:
            features: p2 ... p6 of (N,C,...).
            image_size: (N,2) int64, height and width in pixels before padding.

        Returns:
            Boxes (N,P,4) `xyxy` in pixels, and logits (N,P), descending; where a frame has fewer, `NO_SCORE`.
        """
        spec, logits, boxes = self.spec, [], []
        for level, values in enumerate(features):
            all_logits, all_deltas = self.rpn_head(values)
            found, places = best(all_logits, spec.level_candidates)
            places = places.clamp(max=all_logits.shape[1] - 1)
            anchors = self.anchors(values, level)[places]
            logits.append(found)
            boxes.append(apply_deltas(take(all_deltas, places), anchors, spec.delta_weights))
        corners = clip(torch.cat(boxes, dim=1), image_size)
        # Runtimes refuse to sample boxes that are not a number; that they were there shows in the features' sum.
        corners = torch.where(corners >= 0, corners, 0.0)
        # Nothing of a box that lies in the padding is left.
        empty = (corners[..., 2:] <= corners[..., :2]).any(dim=2)
        scores = torch.where(empty, NO_SCORE, torch.cat(logits, dim=1))
        # Each level by itself.
        levels = (corners.shape[0], len(features), spec.level_candidates)
        stays = suppress(corners.reshape(*levels, 4), scores.reshape(levels), iou=spec.iou).flatten(1)
        scores, places = torch.topk(torch.where(stays > 0, scores, NO_SCORE), spec.proposals, dim=1)
        return take(corners, places), scores
