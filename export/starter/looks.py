"""What somebody wears and looks like, as a function of a standard normal latent.

Nearly everything depends smoothly on the latent, so that a small network can learn what each of its numbers means, and
every latent that a run draws later is a look.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Z, the length of a look's latent.
LOOK_SIZE = 49


class Pattern(IntEnum):
    """What is on a piece of cloth."""

    PLAIN = 0
    STRIPES = 1
    PINSTRIPES = 2
    CHECKS = 3
    BLOTCHES = 4
    MELANGE = 5
    PRINT = 6
    BLOCKS = 7


class Hair(IntEnum):
    """What is on the head."""

    BALD = 0
    SHORT = 1
    MEDIUM = 2
    LONG = 3
    CAP = 4
    BEANIE = 5
    SCARF = 6


class Over(IntEnum):
    """What is worn over the top."""

    NOTHING = 0
    SAFETY_VEST = 1
    OPEN_JACKET = 2
    TIE = 3
    STRAPS = 4


#: Colours by name, the order in which ``Look.palette`` holds them.
COLOURS = ("skin", "hair", "top", "top_second", "bottom", "bottom_second", "shoes", "over", "headwear", "iris", "lips")

_SKIN = np.array([[0.96, 0.80, 0.70], [0.84, 0.62, 0.48], [0.60, 0.40, 0.28], [0.26, 0.16, 0.11]])
_HAIR = np.array([[0.03, 0.03, 0.03], [0.10, 0.06, 0.04], [0.26, 0.15, 0.08], [0.55, 0.40, 0.22], [0.62, 0.60, 0.58]])
_IRIS = np.array([[0.10, 0.05, 0.02], [0.28, 0.17, 0.08], [0.30, 0.36, 0.25], [0.28, 0.42, 0.56]])
_DENIM = np.array([0.16, 0.21, 0.33])
_SAFETY = np.array([[1.0, 0.42, 0.10], [0.80, 0.95, 0.20]])


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """One look. Lengths are in metres on the canonical body unless they are shares of a limb.

    Attributes:
        latent: float32, (LOOK_SIZE,), what the look was made of.
        palette: float32, (len(COLOURS), 3), sRGB in 0..1.
        top, bottom: patterns; ``top_scale`` and ``bottom_scale`` repeats a metre.
        sleeve, trousers: how far down the arm and the leg the cloth reaches.
        waist, neckline: heights, 0 low to 1 high.
        loose_top, loose_bottom: how far cloth stands off the body.
        skirt: how far down the leg a skirt or coat reaches, 0 for none; ``coat`` is whether it belongs to the top.
        over: what is worn over the top.
        hair: what is on the head; ``hair_thickness`` and ``hair_length`` in metres.
        glasses, mask, beard: 0 to 1, shown from 0.5 on (beard: how dense).
        brow, mouth: thickness of the brows and width of the mouth, 0 to 1.
        seed: moves the noise of folds and patterns.
    """

    latent: NDArray[np.float32]
    palette: NDArray[np.float32]
    top: Pattern
    bottom: Pattern
    top_scale: float
    bottom_scale: float
    sleeve: float
    trousers: float
    waist: float
    neckline: float
    loose_top: float
    loose_bottom: float
    skirt: float
    coat: bool
    over: Over
    hair: Hair
    hair_thickness: float
    hair_length: float
    glasses: float
    mask: float
    beard: float
    brow: float
    mouth: float
    seed: float


class _Numbers:
    """The latent's numbers, taken one after another."""

    def __init__(self, latent: NDArray[np.float32]) -> None:
        self._remaining = iter(latent.tolist())

    def normal(self) -> float:
        return float(next(self._remaining))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        share = 0.5 * (1.0 + math.erf(self.normal() / math.sqrt(2.0)))
        return low + (high - low) * share

    def choice(self, *shares: float) -> int:
        """The index that a uniform number falls on, where each takes its share of 0..1."""
        ends = np.cumsum(shares) / sum(shares)
        return min(int(np.searchsorted(ends, self.uniform(), side="right")), len(shares) - 1)

    def along(self, stops: NDArray[np.float64]) -> NDArray[np.float64]:
        """A colour between ``stops``, (N, 3)."""
        place = self.uniform(0, len(stops) - 1)
        return np.array([np.interp(place, range(len(stops)), channel) for channel in stops.T])

    def cloth(self) -> NDArray[np.float64]:
        """A cloth's colour from three numbers: lightness and two of chroma, most of them muted."""
        light = 0.04 + 0.9 * self.uniform() ** 1.2
        across, up = self.normal(), self.normal()
        radius, hue = math.hypot(across, up), math.atan2(up, across)
        strength = 0.75 * (1.0 - math.exp(-0.5 * radius**2)) ** 2.0 * math.sqrt(light * (1.05 - light)) * 1.6
        turns = np.array([0.0, 2.0 * math.pi / 3.0, -2.0 * math.pi / 3.0])
        colour: NDArray[np.float64] = np.clip(light + strength * 0.6 * np.cos(hue - turns), 0.01, 0.98)
        return colour


def draw_look(rng: np.random.Generator) -> Look:
    """The look of a latent drawn from ``rng``."""
    return look_of(rng.standard_normal(LOOK_SIZE).astype(np.float32))


def look_of(latent: NDArray[np.float32]) -> Look:
    """The look that ``latent``, float32 (LOOK_SIZE,), stands for.

    Raises:
        ValueError: the latent has another shape.
    """
    if latent.shape != (LOOK_SIZE,):
        raise ValueError(f"a look's latent has shape {latent.shape}; expected ({LOOK_SIZE},)")
    numbers = _Numbers(latent)
    palette = _palette(numbers)
    over = Over(numbers.choice(0.62, 0.09, 0.14, 0.06, 0.09))
    if over is Over.SAFETY_VEST:
        palette[COLOURS.index("over")] = _SAFETY[0] if palette[COLOURS.index("over"), 0] < 0.5 else _SAFETY[1]
    hair = Hair(numbers.choice(0.07, 0.33, 0.17, 0.24, 0.09, 0.05, 0.05))
    length = numbers.uniform(-2.6, 0.9)
    skirt = length if length > 0.25 else 0.0
    coat = numbers.uniform() < 0.5
    trousers = _stops(numbers.uniform(), (0.0, 0.10, 0.24, 0.30, 1.0), (0.15, 0.35, 0.55, 0.95, 1.0))
    if skirt and not coat:
        trousers = min(trousers, 0.3)
    return Look(
        latent=latent,
        palette=np.clip(palette, 0.0, 1.0).astype(np.float32),
        top=Pattern(numbers.choice(0.42, 0.12, 0.06, 0.10, 0.07, 0.08, 0.11, 0.04)),
        bottom=Pattern(numbers.choice(0.74, 0.02, 0.04, 0.06, 0.05, 0.09)),
        top_scale=numbers.uniform(8, 36),
        bottom_scale=numbers.uniform(8, 36),
        sleeve=_stops(numbers.uniform(), (0.0, 0.06, 0.10, 0.40, 0.52, 1.0), (-0.05, 0.0, 0.25, 0.38, 0.96, 0.99)),
        trousers=trousers,
        waist=numbers.uniform(),
        neckline=numbers.uniform(),
        loose_top=numbers.uniform(0.003, 0.04),
        loose_bottom=numbers.uniform(0.003, 0.034),
        skirt=skirt,
        coat=coat,
        over=over,
        hair=hair,
        hair_thickness=numbers.uniform(0.006, 0.03) + (0.012 if hair in (Hair.MEDIUM, Hair.LONG) else 0.0),
        hair_length=_hair_length(hair, numbers.uniform()),
        glasses=numbers.uniform(0, 0.65),
        mask=numbers.uniform(0, 0.54),
        beard=max(0.0, numbers.uniform(-1.6, 1.0)),
        brow=numbers.uniform(),
        mouth=numbers.uniform(),
        seed=numbers.uniform(0, 40),
    )


def _palette(numbers: _Numbers) -> NDArray[np.float64]:
    """The colours, (len(COLOURS), 3)."""
    skin = numbers.along(_SKIN) * (1.0 + 0.05 * np.array([numbers.normal(), 0.0, numbers.normal()]))
    hair = numbers.along(_HAIR) * np.array([1.0 + 0.3 * max(0.0, numbers.normal()), 1.0, 1.0])
    top, top_second = numbers.cloth(), numbers.cloth()
    bottom = numbers.cloth()
    denim = numbers.uniform()
    if denim < 0.35:
        bottom = _DENIM * (0.5 + 4.0 * denim)
    shade = numbers.uniform(0.4, 1.5)
    shoes, over, headwear = numbers.cloth(), numbers.cloth(), numbers.cloth()
    iris = numbers.along(_IRIS)
    lips = skin * np.array([0.92, 0.62, 0.60]) * numbers.uniform(0.8, 1.1)
    return np.stack([skin, hair, top, top_second, bottom, bottom * shade, shoes, over, headwear, iris, lips])


def _stops(share: float, places: tuple[float, ...], values: tuple[float, ...]) -> float:
    return float(np.interp(share, places, values))


def _hair_length(hair: Hair, share: float) -> float:
    low, high = {Hair.MEDIUM: (0.04, 0.12), Hair.LONG: (0.14, 0.45), Hair.SCARF: (0.12, 0.3)}.get(hair, (0.0, 0.0))
    return low + (high - low) * share
