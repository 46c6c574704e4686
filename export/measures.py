"""Measures from torchmetrics, for features that somebody else's network gave. Nothing is downloaded."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

#: Feature vectors in one update.
_AT_ONCE: Final = 1024


class Given(nn.Module):
    """A feature network of torchmetrics' kind that is given the features themselves.

    Args:
        channels: of a feature vector.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_features = channels

    def forward(self, features: Tensor) -> Tensor:
        """The features, (N, D)."""
        return features


def frechet_distance(real: NDArray[np.floating[Any]], made: NDArray[np.floating[Any]]) -> float:
    """The squared Fréchet distance of two sets of features as normal distributions, as in FID.

    https://arxiv.org/abs/1706.08500, equation 6; covariances are unbiased, everything in float64.

    Args:
        real: (N, D), N at least 2.
        made: (M, D), M at least 2.

    Raises:
        ValueError: the arrays do not fit each other, or one has too few rows.
    """
    if real.ndim != 2 or made.ndim != 2 or real.shape[1:] != made.shape[1:]:
        raise ValueError(f"features are {real.shape} and {made.shape}; expected (N, D) and (M, D)")
    if min(len(real), len(made)) < 2:
        raise ValueError(f"there are {len(real)} and {len(made)} feature vectors; expected at least 2 of each")
    measure = FrechetInceptionDistance(feature=Given(real.shape[1]))
    for features, is_real in ((real, True), (made, False)):
        values = torch.from_numpy(np.ascontiguousarray(features, np.float64))
        for start in range(0, len(values), _AT_ONCE):
            measure.update(values[start : start + _AT_ONCE], real=is_real)
    return float(measure.compute())
