"""Perceptual path length over z: how far a picture moves for a small step of its latent (StyleGAN, section 4.1).

As the papers measure it (torch-fidelity's way): an epsilon of the straight way from z0 to z1, the perceptual distance
of the two pictures in 64x64, divided by epsilon squared; the mean without the lowest and the highest hundredth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

EPSILON: Final = 1e-4
#: Pictures are compared at this size, where the network takes it.
SIDE: Final = 64
#: Percentiles outside of which steps are left out.
_LOWEST, _HIGHEST = 1, 99


def step(z0: Floats, z1: Floats, epsilon: float = EPSILON) -> Floats:
    """The latent that lies an epsilon of the straight way from one to another, float32 (Z,)."""
    return np.asarray(z0 + np.float32(epsilon) * (z1 - z0), np.float32)


def path_length(distances: Sequence[float], epsilon: float = EPSILON) -> tuple[float, int]:
    """The mean of steps' distances over epsilon squared, and how many steps count.

    Args:
        distances: perceptual, of each step; at least one.
        epsilon: the length of steps.
    """
    lengths = np.asarray(distances, np.float64) / epsilon**2
    low = np.percentile(lengths, _LOWEST, method="lower")
    high = np.percentile(lengths, _HIGHEST, method="higher")
    kept = lengths[(low <= lengths) & (lengths <= high)]
    return float(kept.mean()), len(kept)
