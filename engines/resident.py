"""Arrays that stay where a graph runs, so that they do not travel with every run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Array = NDArray[Any]
    #: What runs take: by name, arrays of the host and others.
    Feeds = Mapping[str, "Array | Resident"]


class Resident(Protocol):
    """An array that a runtime holds, or kept of a run. Runtimes of the same device take it; others take a copy."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As of a numpy array."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """As of a numpy array."""

    def numpy(self) -> Array:
        """Its values on the host; not to be written to."""


@dataclass(frozen=True, slots=True, eq=False)
class HostArray:
    """An array of a runtime that has no memory but the host's.

    Attributes:
        values: it.
    """

    values: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """As of a numpy array."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """As of a numpy array."""
        return self.values.dtype

    def numpy(self) -> Array:
        """It, without a copy."""
        return self.values


def outline(array: Array | Resident) -> Array:
    """What is compared with declarations: an array of that shape and dtype, which takes no memory of its own."""
    if isinstance(array, HostArray):
        return array.values
    if isinstance(array, np.ndarray) or not (hasattr(array, "shape") and hasattr(array, "dtype")):
        # What is no array at all is refused in the declaration's words.
        return array  # type: ignore[return-value]
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)


def as_numpy(array: Array | Resident) -> Array:
    """An array on the host; a copy of what lies elsewhere."""
    return array if isinstance(array, np.ndarray) else array.numpy()


def on_host(feeds: Feeds) -> dict[str, Array]:
    """All inputs as numpy arrays; what lies elsewhere is copied."""
    return {name: as_numpy(array) for name, array in feeds.items()}
