"""Small constants that keep numbers finite, as they survive the export."""

from __future__ import annotations

from torch import Tensor


def plus(x: Tensor, epsilon: float) -> Tensor:
    """X + epsilon, so that the exported graph has it too.

    The exporter's optimiser takes a scalar of at most 1e-8 for 0 and leaves the sum out; constants with a dimension it
    leaves alone. Without the sum, what is divided by a deviation of 0 would not be finite.

    Args:
        x: (..., n).
        epsilon: what is added to each element.
    """
    return x + x.new_full((1,), epsilon)
