"""What is done to boxes between the layers of a detector: decode, clip, suppress, keep the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

#: A candidate that is none: below every logit, and a number, since infinities are delicate in half precision.
NO_SCORE: Final = -1e9
#: Of suppression; even. A thousand boxes round three centres are settled after twelve.
_ROUNDS: Final = 16
#: A box becomes at most this much wider or higher: from 16 pixels to 1000, as published.
_LARGEST_LOG_SCALE: Final = math.log(1000.0 / 16.0)


def apply_deltas(deltas: Tensor, boxes: Tensor, weights: Sequence[float]) -> Tensor:
    """Moves and scales boxes by what a network regressed (Girshick et al. 2014, appendix C).

    Args:
        deltas: (...,4), of centre x and y in sides, and of the logarithms of width and height.
        boxes: (...,4) `xyxy`.
        weights: what the four deltas are divided by.

    Returns:
        (...,4) `xyxy`.
    """
    sides = boxes[..., 2:] - boxes[..., :2]
    centres = boxes[..., :2] + 0.5 * sides
    shift = deltas[..., :2] / torch.tensor(weights[:2])
    scale = torch.clamp(deltas[..., 2:] / torch.tensor(weights[2:]), max=_LARGEST_LOG_SCALE)
    centres = shift * sides + centres
    half = 0.5 * (torch.exp(scale) * sides)
    return torch.cat([centres - half, centres + half], dim=-1)


def clip(boxes: Tensor, image_size: Tensor) -> Tensor:
    """Cuts boxes (N,K,4) at their frame: image_size (N,2) int64 is height and width in pixels."""
    height, width = image_size[:, 0].float(), image_size[:, 1].float()
    limit = torch.stack([width, height, width, height], dim=1)[:, None]
    return torch.minimum(torch.clamp(boxes, min=0.0), limit)


def take(values: Tensor, places: Tensor) -> Tensor:
    """Rows of (N,K,D) at (N,M) int64: (N,M,D)."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))


def suppress(boxes: Tensor, scores: Tensor, *, iou: float, classes: Tensor | None = None) -> Tensor:
    """Non-maximum suppression in each row of candidates by itself, in operations of constant shape.

    A box falls if it shares more than `iou` with a better one that stays. In each of a fixed number of rounds every box
    is judged anew by those that stayed in the round before. Whatever hangs on a chain of k boxes is settled for good
    after k rounds, and until then it is judged too mildly in the one round and too strictly in the next: after an even
    number of rounds nobody falls who should stay. Unlike with the operator NonMaxSuppression, no shape depends on the
    picture, so that a whole detector can be recorded as a CUDA graph.

    Args:
        boxes: (...,K,4) `xyxy`.
        scores: (...,K); `NO_SCORE` where there is no candidate. Of equal ones the first is better.
        iou: how much of both together two boxes may share.
        classes: (...,K) int64, if boxes of different classes leave each other alone.

    Returns:
        (...,K), 1 where a box stays, else 0.
    """
    x0, y0, x1, y1 = boxes.float().unbind(dim=-1)
    across, down = _shared(x0, x1), _shared(y0, y1)
    areas = (x1 - x0) * (y1 - y0)
    shared = across * down
    # Multiplied out: boxes without area share nothing, and nothing is divided by.
    over = shared > iou * (areas[..., :, None] + areas[..., None, :] - shared)
    better, worse = scores[..., :, None], scores[..., None, :]
    places = torch.arange(scores.shape[-1])
    over = over & ((better > worse) | ((better == worse) & (places[:, None] < places)))
    if classes is not None:
        over = over & (classes[..., :, None] == classes[..., None, :])
    candidates = (scores > 0.5 * NO_SCORE).float()
    fells = over.float()
    stays = candidates
    for _ in range(_ROUNDS):
        felled = (stays[..., None, :] @ fells)[..., 0, :]
        stays = torch.where(felled > 0.5, 0.0, candidates)
    return stays


def _shared(low: Tensor, high: Tensor) -> Tensor:
    """What every two of (...,K) stretches have in common: (...,K,K)."""
    ends = torch.minimum(high[..., :, None], high[..., None, :])
    return (ends - torch.maximum(low[..., :, None], low[..., None, :])).clamp(min=0.0)


def best(scores: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The best scores, descending, and their places, both (N,most): (N,K) is filled up with `NO_SCORE` before.

    So their number never depends on the picture's size. A place may be K or more where nothing was left.
    Delicate for TensorRT: TopK takes at most 3840.
    """
    filled = torch.cat([scores, torch.full_like(scores[:, :1], NO_SCORE).expand(-1, most)], dim=1)
    values, places = torch.topk(filled, most, dim=1)
    return values, places
