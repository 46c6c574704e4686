"""The Fréchet distance of features; the arithmetic is torchmetrics', which `export.measures` brings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from engines.errors import UsageError
from stream.evaluate.figures import Figure
from stream.networks import Floats
from stream.perception import VectorNetwork

#: Fewer have no covariance.
FEWEST = 2


class Arithmetic(Protocol):
    """Gives the distance; where it comes from is not this package's concern."""

    def __call__(self, real: Any, made: Any) -> float:
        """The squared Fréchet distance of the normal distributions of (N, D) and (M, D)."""


#: Gives the arithmetic, or says what must be installed.
LoadArithmetic = Callable[[], Arithmetic]


def frechet_figure(
    real: Sequence[Floats],
    made: Sequence[Floats],
    network: VectorNetwork,
    arithmetic: Arithmetic,
    of: str,
    notes: Sequence[str] = (),
) -> Figure:
    """FID by a network of the user's.

    Args:
        real: features of originals, (D,) each.
        made: of what was made of them, or of others.
        network: that gave them.
        arithmetic: the distance.
        of: what the pictures are: crops, pictures.
        notes: what else must be known.

    Raises:
        UsageError: there are too few for a covariance.
    """
    fewest = min(len(real), len(made))
    if fewest < FEWEST:
        raise UsageError(f"FID needs at least {FEWEST} {of} on both sides, got {len(real)} and {len(made)}; give more")
    channels = len(real[0])
    known = list(notes)
    if fewest <= channels:
        known.append(
            f"only {fewest} {of} for {channels} features: the covariance has not full rank, and the value is biased; "
            f"compare it with none that has another number of {of}"
        )
    value = arithmetic(np.stack(real), np.stack(made))
    # What is left of rounding where both are the same.
    return Figure(max(0.0, value), len(made), of, network.name, network.resize, tuple(known))
