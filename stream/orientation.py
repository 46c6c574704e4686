"""Orientation: from the picture as it is stored to the upright one and back (display matrices)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Orientation:
    """One of the eight ways to lay a picture: transpose first, then mirror.

    Attributes:
        transpose: rows become columns.
        mirror_x: left and right are swapped, after transposing.
        mirror_y: top and bottom are swapped, after transposing.
    """

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @property
    def upright(self) -> bool:
        """Whether the stored picture is upright already."""
        return not (self.transpose or self.mirror_x or self.mirror_y)

    @classmethod
    def from_matrix(cls, matrix: Sequence[int]) -> Orientation:
        """The nearest orientation to a display matrix.

        Args:
            matrix: nine integers as in ISO/IEC 14496-12, 8.3.2 (`a b u c d v x y w`, 16.16 fixed point): a stored
                point (p, q) is shown at (a p + c q + x, b p + d q + y).
        """
        a, b, _, c, d = (int(value) for value in matrix[:5])
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(transpose=True, mirror_x=c < 0, mirror_y=b < 0)
        return cls(transpose=False, mirror_x=a < 0, mirror_y=d < 0)

    def apply(self, image: np.ndarray[tuple[int, ...], np.dtype[T]]) -> np.ndarray[tuple[int, ...], np.dtype[T]]:
        """The upright picture of a stored one, (h, w, ...), contiguous."""
        if self.upright:
            return image
        out = image.swapaxes(0, 1) if self.transpose else image
        return np.ascontiguousarray(out[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1])

    def undo(self, image: np.ndarray[tuple[int, ...], np.dtype[T]]) -> np.ndarray[tuple[int, ...], np.dtype[T]]:
        """The stored picture of an upright one, (h, w, ...), contiguous."""
        if self.upright:
            return image
        out = image[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]
        return np.ascontiguousarray(out.swapaxes(0, 1) if self.transpose else out)
