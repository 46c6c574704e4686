"""Figures: a measure's value with all that must be known to read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

#: Which way a measure is better, or neither.
Better = Literal["less", "more", ""]


@dataclass(frozen=True, slots=True)
class Measure:
    """What a column of a table means.

    Attributes:
        title: its head.
        better: which way.
        about: in a sentence.
        places: decimals that are shown.
    """

    title: str
    better: Better
    about: str
    places: int = 2


#: In the order of columns.
MEASURES: Final[Mapping[str, Measure]] = {
    "fid": Measure("FID", "less", "Fréchet distance of features of anonymized and original crops"),
    "lpips": Measure("LPIPS", "", "perceptual distance of anonymized crops from the original ones", 3),
    "diversity": Measure("diversity", "more", "perceptual distance of two stand-ins for the same crop (LPIPS)", 3),
    "ppl": Measure("PPL", "less", "perceptual path length over z, of pictures in 8 bits as published", 1),
    "ppl_float": Measure("PPL (float)", "less", "the same of what the generator gives, not rounded to levels", 1),
    "ap": Measure("AP", "more", "a detector's average precision on the anonymized pictures (COCO: IoU 0.5 to 0.95)", 3),
    "ap50": Measure("AP50", "more", "the same at IoU 0.5", 3),
    "covered": Measure(
        "covered", "more", "share of annotated people at whose place something was covered (IoU 0.5)", 3
    ),
    "rank1": Measure("rank-1", "less", "anonymized queries found first in the original gallery (re-identification)", 3),
    "map": Measure("mAP", "less", "mean average precision of the same search", 3),
    "rank1_both": Measure("rank-1 both", "", "the same where the gallery is anonymized as well", 3),
    "map_both": Measure("mAP both", "", "mean average precision of that search", 3),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value.

    Attributes:
        value: of the measure.
        count: of how many.
        of: what was counted: crops, pictures, queries.
        network: what looked, with its hash; None where nothing did.
        resize: how pictures came to the network's size; None where there was no network.
        notes: what else must be known.
    """

    value: float
    count: int
    of: str
    network: str | None = None
    resize: str | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain containers."""
        return asdict(self) | {"notes": list(self.notes)}


def shown(name: str, figure: Figure | None) -> str:
    """A figure in a table's cell; small ones with three decimals."""
    if figure is None:
        return "-"
    places = MEASURES[name].places if figure.value >= 1 else 3
    return f"{figure.value:,.{places}f}"


def head(name: str) -> str:
    """A column's head, with an arrow to where it is better."""
    arrow = {"less": " ↓", "more": " ↑", "": ""}[MEASURES[name].better]
    return MEASURES[name].title + arrow
