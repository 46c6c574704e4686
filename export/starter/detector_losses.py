"""What the detector's outputs cost, by target; see `detector_targets`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  everyone calls it that

from export.starter.detector import by_kind, edges, ways

#: Probabilities are kept this far from 0 and 1 under logarithms.
_SURE: Final = 1e-4
#: Added to both sides of a Dice fraction, in places: pictures without people cost little.
_DICE_SOFT: Final = 20.0
#: A way's error counts in people's sides, which are far below 1; this brings it near the other losses.
_WAY_SCALE: Final = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """How much each part counts."""

    heat: float = 1.0
    edges: float = 1.5
    body: float = 2.0
    dice: float = 0.7
    way: float = 1.0
    surface: float = 0.6


def heat_loss(logits: Tensor, heat: Tensor, known: Tensor) -> Tensor:
    """The focal loss of centres (Law and Deng 2018, equation 1), per centre; all of one shape."""
    likely = torch.sigmoid(logits).clamp(_SURE, 1 - _SURE)
    centre = (heat == 1).float()
    right = (1 - likely) ** 2 * likely.log() * centre
    wrong = (1 - heat) ** 4 * likely**2 * (1 - likely).log() * (1 - centre)
    return -((right + wrong) * known).sum() / centre.sum().clamp(min=1)


def edges_loss(found: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """One less the generalised IoU (Rezatofighi et al. 2019) of boxes round the same place.

    Args:
        found: (N,4,h,w), positive distances to the left, top, right and bottom edge.
        wanted: the same.
        weight: (N,h,w).
    """
    inner, outer = torch.minimum(found, wanted), torch.maximum(found, wanted)
    shared, hull = _area(inner), _area(outer)
    union = _area(found) + _area(wanted) - shared
    cost = 2 - shared / union - union / hull
    return (cost * weight).sum() / weight.sum().clamp(min=1)


def _area(distances: Tensor) -> Tensor:
    return (distances[:, 0] + distances[:, 2]) * (distances[:, 1] + distances[:, 3])


def dice_loss(logits: Tensor, body: Tensor) -> Tensor:
    """One less the Dice fraction of each picture (N,h,w), averaged: small bodies count as much as large ones."""
    likely = torch.sigmoid(logits)
    both = (likely * body).sum(dim=(1, 2))
    either = (likely + body).sum(dim=(1, 2))
    return (1 - (2 * both + _DICE_SOFT) / (either + _DICE_SOFT)).mean()


def way_loss(found: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """How far people's centres are missed, in their sides: ways (N,2,h,w) in pixels, `weight` (N,h,w) is 1 / side."""
    count = (weight > 0).sum().clamp(min=1)
    return _WAY_SCALE * ((found - wanted).abs().sum(dim=1) * weight).sum() / count


class SurfaceLoss(torch.nn.Module):
    """Cross-entropy over anchors of the surface, with an embedding for each that is learnt as well.

    The logit of an anchor is the cosine of its embedding and the place's, times a learnt factor: whoever reads
    embeddings looks for the nearest one of unit norm.

    Args:
        nearest: (K,3) int64, the anchors that each vertex is a blend of.
        weights: (K,3).
        table: (A,D), the anchors' embeddings to begin with.
        most: places that are looked at in a batch, drawn at random.
    """

    nearest: Tensor
    weights: Tensor

    def __init__(self, nearest: Tensor, weights: Tensor, table: Tensor, *, most: int = 6000) -> None:
        super().__init__()
        self.most = most
        self.table = torch.nn.Parameter(table)
        self.sharpness = torch.nn.Parameter(torch.tensor(2.3))
        # They belong to the surface, not to what is learnt.
        self.register_buffer("nearest", nearest, persistent=False)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, embedding: Tensor, vertex: Tensor) -> Tensor:
        """(N,D,h,w), and int64 (N,h,w), -1 where there is none, to a number."""
        places = (vertex >= 0).nonzero()
        if len(places) > self.most:
            places = places[torch.randperm(len(places))[: self.most].to(places.device)]
        if not len(places):
            return 0 * (embedding.sum() + self.table.sum() + self.sharpness)
        n, y, x = places.unbind(dim=1)
        cosines = F.normalize(embedding[n, :, y, x], dim=1) @ F.normalize(self.table, dim=1).T
        logs = F.log_softmax(cosines * self.sharpness.exp(), dim=1)
        shown = vertex[n, y, x]
        return -(logs.gather(1, self.nearest[shown]) * self.weights[shown]).sum(dim=1).mean()


def losses(coarse: Tensor, fine: Tensor, wanted: Mapping[str, Tensor], surface: SurfaceLoss) -> dict[str, Tensor]:
    """Every part by its name in `LossWeights`, not weighted.

    Args:
        coarse: as `PersonNetwork` gives it.
        fine: likewise.
        wanted: as `make_targets` gives it, stacked.
        surface: with what it has learnt.
    """
    # In half precision the small differences of boxes and logarithms would be lost.
    coarse, fine = by_kind(coarse.float()), fine.float()
    return {
        "heat": heat_loss(coarse[:, :, 0], wanted["heat"], wanted["heat_known"]),
        "edges": edges_loss(
            edges(coarse).flatten(0, 1),
            wanted["edges"].flatten(0, 1).clamp(min=1e-3),
            wanted["edges_weight"].flatten(0, 1),
        ),
        "body": F.binary_cross_entropy_with_logits(fine[:, 0], wanted["body"]),
        "dice": dice_loss(fine[:, 0], wanted["body"]),
        "way": way_loss(ways(fine), wanted["way"], wanted["way_weight"]),
        "surface": surface(fine[:, 3:], wanted["vertex"]),
    }


def total(parts: Mapping[str, Tensor], weights: LossWeights) -> Tensor:
    """The weighted sum."""
    return torch.stack([getattr(weights, name) * value for name, value in parts.items()]).sum()
