"""Frame: one picture with its place in time, and what a detector must know to look at it rightly."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

#: Why frames are withheld while a live source is away; sinks and reports tell it from other reasons.
AWAY: Final = "the source is away"
#: What a withheld frame shows: the middle of the range, which compresses to nothing and hides nothing else.
WITHHELD_LEVEL = 128


class Transfer(Enum):
    """How code values relate to light, as far as a detector cares."""

    NORMAL = "normal"
    PQ = "pq"
    """SMPTE ST 2084 (HDR10)."""
    HLG = "hlg"
    """ARIB STD-B67."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of one source.

    Attributes:
        image: uint8 RGB, (height, width, 3), upright as a player would show it, in stored pixels.
        pts: presentation time in units of `time_base`.
        time_base: seconds per unit of `pts`.
        source: which camera or file it comes from; for folders, the path below the folder.
        duration: in units of `time_base`, 0 where unknown.
        pixel_aspect: width over height of one pixel of `image` (1 for square pixels).
        transfer: how code values relate to light.
        begin: `pts` at which its stream begins; hand-made regions count their time from there, as players do.
        damaged: why the picture could not be decoded; such a frame is always withheld.
        arrived: when a live source's packet came, in seconds of the monotonic clock; None for files.
    """

    image: Image
    pts: int = 0
    time_base: Fraction = Fraction(1, 1000)
    source: str = ""
    duration: int = 0
    pixel_aspect: Fraction = Fraction(1)
    transfer: Transfer = Transfer.NORMAL
    begin: int = 0
    damaged: str | None = field(default=None)
    arrived: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.image, np.ndarray) or self.image.dtype != np.uint8:
            raise ValueError(f"Frame.image must be a uint8 array, got {_describe(self.image)}")
        if self.image.ndim != 3 or self.image.shape[2] != 3 or 0 in self.image.shape:
            raise ValueError(f"Frame.image must be RGB (height, width, 3), got shape {self.image.shape}")
        if self.time_base <= 0:
            raise ValueError(f"Frame.time_base must be positive, got {self.time_base}")
        if self.pixel_aspect <= 0:
            raise ValueError(f"Frame.pixel_aspect must be positive, got {self.pixel_aspect}")

    @property
    def height(self) -> int:
        """Rows of the image."""
        return int(self.image.shape[0])

    @property
    def width(self) -> int:
        """Columns of the image."""
        return int(self.image.shape[1])

    @property
    def time(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)

    @property
    def elapsed(self) -> float:
        """Seconds since its stream began."""
        return float((self.pts - self.begin) * self.time_base)

    def with_image(self, image: Image) -> Frame:
        """The same frame with another picture of the same size.

        Raises:
            ValueError: the size differs.
        """
        if image.shape != self.image.shape:
            raise ValueError(f"the new image is {image.shape}, the frame {self.image.shape}")
        return replace(self, image=image)


def flat_image(shape: tuple[int, ...], level: int = WITHHELD_LEVEL) -> Image:
    """A picture of one grey level.

    Args:
        shape: (height, width, 3).
        level: 0 to 255.
    """
    return np.full(shape, level, np.uint8)


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return type(value).__name__
