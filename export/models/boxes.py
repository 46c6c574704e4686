"""What is done to boxes between the layers of a detector: decode, clip, suppress, keep the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: The operator that exported graphs hold for `suppress` until `export.detector_onnx` spells it out.
SUPPRESS: Final = "standin::Suppress"
#: A candidate that is none: below every logit, and a number, since infinities are delicate in half precision.
NO_SCORE: Final = -1e9
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


def suppress(boxes: Tensor, scores: Tensor, group: Tensor, groups: int, *, iou: float, most: int) -> Tensor:
    """Non-maximum suppression in each frame and group by itself.

    Published code moves each group's boxes far away from the others' and suppresses once. Here a group is what the
    operator NonMaxSuppression calls a class, which gives the same without large coordinates.

    Args:
        boxes: (N,K,4) `xyxy`.
        scores: (N,K); `NO_SCORE` where there is no candidate.
        group: (K,) int64, below `groups`.
        groups: how many there are.
        iou: a box falls if it shares more than this with a better one.
        most: at most so many stay in each group.

    Returns:
        (N,K), 1 where a box stays, else 0.
    """
    by_group = torch.where(group == torch.arange(groups)[:, None], scores[:, None], NO_SCORE)
    if torch.compiler.is_exporting():
        made: Tensor = torch.onnx.ops.symbolic(
            SUPPRESS,
            (boxes, by_group, torch.tensor([most]), torch.tensor([iou]), torch.tensor([0.5 * NO_SCORE])),
            dtype=scores.dtype,
            shape=scores.shape,
            version=1,
        )
        return made
    flags = np.zeros(tuple(scores.shape), np.float32)
    corners = boxes.detach().numpy()
    for n, frame in enumerate(by_group.detach().numpy()):
        for values in frame:
            places = np.flatnonzero(values > 0.5 * NO_SCORE)
            places = places[np.argsort(-values[places], kind="stable")]
            flags[n, places[_greedy(corners[n, places], iou)[:most]]] = 1
    return torch.from_numpy(flags)


def _greedy(boxes: NDArray[np.float32], iou: float) -> NDArray[np.intp]:
    """Which of the boxes (K,4), best first, share at most `iou` with all better ones that stay."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    stays = np.ones(len(boxes), bool)
    for i in range(len(boxes)):
        if stays[i]:
            later = boxes[i + 1 :]
            sides = np.minimum(boxes[i, 2:], later[:, 2:]) - np.maximum(boxes[i, :2], later[:, :2])
            shared = np.maximum(sides, 0).prod(axis=1)
            union = areas[i] + areas[i + 1 :] - shared
            # Multiplied out: boxes without area share nothing, and nothing is divided by.
            stays[i + 1 :] &= shared <= iou * union
    return np.flatnonzero(stays)


def best(scores: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The best scores, descending, and their places, both (N,most): (N,K) is filled up with `NO_SCORE` before.

    So their number never depends on the picture's size. A place may be K or more where nothing was left.
    Delicate for TensorRT: TopK takes at most 3840.
    """
    filled = torch.cat([scores, torch.full_like(scores[:, :1], NO_SCORE).expand(-1, most)], dim=1)
    values, places = torch.topk(filled, most, dim=1)
    return values, places
