"""Re-identification: rank-1 and mean average precision by Market1501's rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from stream.evaluate.figures import Figure
from stream.evaluate.market import Market, Shot
from stream.networks import Floats
from stream.verify.identity import search

Ints = npt.NDArray[np.int64]
#: Queries that are searched for together: of all of Market1501's, ranks would take gigabytes.
_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class Ranking:
    """What a search gave.

    Attributes:
        rank1: share of queries whose nearest entry of the gallery shows the same person.
        mean_ap: mean average precision.
        queries: how many there were, those left out that the gallery cannot answer.
    """

    rank1: float
    mean_ap: float
    queries: int


def rank(queries: Floats, gallery: Floats, people: tuple[Ints, Ints], cameras: tuple[Ints, Ints]) -> Ranking:
    """Looks for the people of queries in a gallery, by cosine similarity.

    Entries that show the person of a query and come from its camera do not count, as in Market1501 (Zheng et al. 2015);
    nor do queries who are then nowhere in the gallery. Junk must have been left out; distractors show nobody of the
    queries.

    Args:
        queries: (Q, C), of length 1.
        gallery: (G, C), of length 1.
        people: of queries (Q,) and gallery (G,).
        cameras: likewise.

    Raises:
        ValueError: no query can be answered.
    """
    hits, precisions, count = 0.0, 0.0, 0
    for start in range(0, len(queries), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        same = people[0][part, None] == people[1][None]
        ignored = same & (cameras[0][part, None] == cameras[1][None])
        wanted = same & ~ignored
        able = wanted.any(axis=1)
        if not able.any():
            continue
        similarity = np.where(ignored, -np.inf, queries[part] @ gallery.T).astype(np.float32)
        rank1, mean_ap = search(similarity[able], wanted[able])
        number = int(able.sum())
        hits, precisions, count = hits + rank1 * number, precisions + mean_ap * number, count + number
    if not count:
        raise ValueError("no query can be answered by the gallery")
    return Ranking(hits / count, precisions / count, count)


def figures(
    market: Market,
    queries: Floats,
    galleries: dict[str, Floats],
    network: str,
    resize: str,
    notes: tuple[str, ...] = (),
) -> dict[str, Figure]:
    """Rank-1 and mAP of queries in several galleries.

    Args:
        market: whose people and cameras they are.
        queries: (Q, C).
        galleries: (G, C) each, by what is appended to the measures' names.
        network: that gave the vectors, with its hash.
        resize: how pictures came to it.
        notes: what else must be known.
    """
    made = {}
    whom, where = _who(market.queries), _who(market.gallery)
    for suffix, gallery in galleries.items():
        found = rank(queries, gallery, (whom[0], where[0]), (whom[1], where[1]))
        for name, value in (("rank1", found.rank1), ("map", found.mean_ap)):
            made[name + suffix] = Figure(value, found.queries, "queries", network, resize, notes)
    return made


def _who(shots: tuple[Shot, ...]) -> tuple[Ints, Ints]:
    """People and cameras."""
    return np.array([shot.person for shot in shots], np.int64), np.array([shot.camera for shot in shots], np.int64)
