"""RoIAlign (He et al. 2017, section 3) and its use over a pyramid, in PyTorch alone and as the ONNX operator.

Sampling is separable: a bin averages bilinear samples on a regular grid, so a box is a matrix product over rows and one
over columns. That is how it is computed here when PyTorch runs it; an exported graph has the operator RoiAlign.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn

from export.models.epsilon import plus

#: A box of this side, in pixels, belongs to p4 (Lin et al. 2017, equation 1).
_CANONICAL_SIDE: Final = 224.0
_CANONICAL_LEVEL: Final = 4
_FINEST_LEVEL: Final = 2


def roi_align(
    features: Tensor, boxes: Tensor, index: Tensor, size: int, *, scale: float, sampling: int, aligned: bool
) -> Tensor:
    """Samples boxes of a feature map.

    Args:
        features: (N,C,h,w).
        boxes: (R,4) `xyxy` in pixels of the image.
        index: (R,) int64, the frame of each box.
        size: bins on each side.
        scale: from pixels to cells of the feature map.
        sampling: samples in each direction in a bin; 0 for one per cell.
        aligned: whether half a cell is subtracted, so that a cell's value is at its middle. Without it, boxes are at
            least one cell large.

    Returns:
        (R,C,size,size).
    """
    if torch.compiler.is_exporting():
        # Delicate for TensorRT: RoiAlign is a layer of its own there, and knows these modes from version 8.6 on.
        made: Tensor = torch.onnx.ops.symbolic(
            "RoiAlign",
            (features, boxes, index),
            {
                "coordinate_transformation_mode": "half_pixel" if aligned else "output_half_pixel",
                "mode": "avg",
                "output_height": size,
                "output_width": size,
                "sampling_ratio": sampling,
                "spatial_scale": scale,
            },
            dtype=features.dtype,
            shape=(boxes.shape[0], features.shape[1], size, size),
        )
        return made
    pooled = features.new_zeros(len(boxes), features.shape[1], size, size)
    scaled = boxes * scale - (0.5 if aligned else 0.0)
    for i, (frame, box) in enumerate(zip(index.tolist(), scaled, strict=True)):
        rows = _weights(box[1], box[3], size, features.shape[2], sampling, aligned=aligned)
        columns = _weights(box[0], box[2], size, features.shape[3], sampling, aligned=aligned)
        if rows is not None and columns is not None:
            y, x = _reach(rows), _reach(columns)
            pooled[i] = rows[:, y] @ features[frame][:, y, x] @ columns[:, x].T
    return pooled


def _weights(start: Tensor, end: Tensor, bins: int, cells: int, sampling: int, *, aligned: bool) -> Tensor | None:
    """What each cell of one axis adds to each bin, (bins, cells); None where there is nothing to sample."""
    length = end - start if aligned else torch.clamp(end - start, min=1.0)
    bin_length = length / bins
    count = sampling if sampling > 0 else math.ceil(bin_length.item())
    if count <= 0:
        return None
    steps = torch.arange(count, dtype=start.dtype) + 0.5
    at = start + torch.arange(bins, dtype=start.dtype)[:, None] * bin_length + steps * bin_length / count
    # More than a cell outside adds nothing; what is nearer counts as on the edge.
    inside = (at >= -1.0) & (at <= cells)
    at = at.clamp(0, cells - 1)
    low = at.floor()
    high = (low + 1).clamp(max=cells - 1)
    part = at - low
    weights = start.new_zeros(bins, cells)
    weights.scatter_add_(1, low.long(), (1 - part) * inside)
    weights.scatter_add_(1, high.long(), part * inside)
    return weights / count


def _reach(weights: Tensor) -> slice:
    """The cells that any bin looks at: most boxes are small."""
    used = weights.any(dim=0).nonzero()
    return slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)


def pyramid_level(boxes: Tensor, levels: int) -> Tensor:
    """The level that a box's size belongs to: (R,4) to (R,) int64, 0 for p2 (Lin et al. 2017, equation 1)."""
    sides = boxes[:, 2:] - boxes[:, :2]
    side = (sides[:, 0] * sides[:, 1]).sqrt()
    level = _CANONICAL_LEVEL - _FINEST_LEVEL + torch.log2(plus(side / _CANONICAL_SIDE, 1e-8))
    # Rounds down: nothing is negative any more.
    return level.clamp(0, levels - 1).long()


class PyramidPooler(nn.Module):
    """Samples each box at the level of its size.

    Every level samples all boxes, those of other levels with no extent: an adaptive RoiAlign takes no sample of these,
    and all shapes are known before, where picking a level's boxes would make them depend on the data.

    Args:
        size: bins on each side.
        sampling: see `roi_align`.
        aligned: see `roi_align`.
    """

    def __init__(self, size: int, *, sampling: int, aligned: bool) -> None:
        super().__init__()
        self.size, self.sampling, self.aligned = size, sampling, aligned

    def forward(self, features: list[Tensor], boxes: Tensor, index: Tensor) -> Tensor:
        """Features p2, p3, ..., boxes (R,4) in pixels and their frames (R,) to (R,C,size,size)."""
        if len(features) == 1:
            return self._at(features[0], boxes, index, 0)
        level = pyramid_level(boxes, len(features))
        made = None
        for i, values in enumerate(features):
            here = level == i
            pooled = self._at(values, boxes * here[:, None], index, i)
            pooled = torch.where(here[:, None, None, None], pooled, 0.0)
            made = pooled if made is None else made + pooled
        assert made is not None  # noqa: S101  a pyramid has levels
        return made

    def _at(self, features: Tensor, boxes: Tensor, index: Tensor, level: int) -> Tensor:
        return roi_align(
            features, boxes, index, self.size, scale=0.25 * 0.5**level, sampling=self.sampling, aligned=self.aligned
        )
