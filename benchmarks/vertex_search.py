"""Nearest-vertex search: one person's pixels against the published search over all vertices, alternately, in one run.

The surface is made up: low-frequency random functions on a sphere, mapped to 16 channels and normalised, as many
vertices as SMPL has. A smooth map is what a detector gives: 112x112 points that look at the sphere (in a band from
behind, so that the map has edges where one part of a body covers another), with noise, resized to the generator's size
(bilinear). Random queries and a random surface are the worst case: no two points have anything to do with each other.

Compared with: `published`, the squared distances of up to 10,000 pixels to all vertices as one float32 matrix, as in
the published code (detectron2, DensePose CSE); and `small_tiles`, the same arithmetic in tiles of 64 pixels, which stay
in the cache: no published code does that, it is the best that plain brute force can do.

    python benchmarks/vertex_search.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import save
from stream.surface import Embeddings, Indices, Surface

#: Vertices of the published SMPL surface, channels of the published embedding, side of the detector's map.
VERTICES, CHANNELS, MAP = 27_554, 16, 112
#: A person's crop, in pixels.
HEIGHT, WIDTH = 288, 160
PUBLISHED_TILE, SMALL_TILE = 10_000, 64


@dataclass(frozen=True)
class Case:
    """What is looked up: `noise` per channel of the detector's map (None: random queries, random surface)."""

    noise: float | None
    regions: int = 1
    share: float = 1.0


#: `share` is the part of the crop's rows that is body.
CASES = (
    Case(noise=0.01),
    Case(noise=0.01, share=0.4),
    Case(noise=0.01, regions=2),
    Case(noise=0.0),
    Case(noise=0.03),
    Case(noise=0.1),
    Case(noise=None),
    Case(noise=None, share=0.1),
    Case(noise=None, share=0.01),
)


def measure(
    cases: tuple[Case, ...] = CASES, *, rounds: int = 3, vertices: int = VERTICES, seed: int = 0
) -> list[dict[str, Any]]:
    """One row for each case: milliseconds for one call (median and best of the rounds), and how near the results are.

    `farther` is the largest amount by which our vertex is farther than the published search's, in squared distance in
    float64; not above 0 means that ours is never worse.
    """
    return [_row(case, rounds, vertices, seed) for case in cases]


def smooth_surface(vertices: int, seed: int) -> Embeddings:
    """(K, 16) float32 of unit norm: the made-up surface at evenly spread points of the sphere."""
    step = np.arange(vertices) + 0.5
    z, turn = 1 - 2 * step / vertices, step * np.pi * (3 - np.sqrt(5))
    across = np.sqrt(1 - z**2)
    return _embed(np.stack([across * np.cos(turn), across * np.sin(turn), z], axis=1), seed)


def smooth_map(noise: float, seed: int, region: int = 0) -> Embeddings:
    """(16, 288, 160) float32: what a detector would regress for a person on `smooth_surface`, norms about 1."""
    rng = np.random.default_rng([seed, 1, region])
    y, x = np.meshgrid(np.linspace(-0.98, 0.98, MAP), np.linspace(-0.98, 0.98, MAP), indexing="ij")
    across, down = x * np.sqrt(1 - y**2 / 2), y * np.sqrt(1 - x**2 / 2)
    depth = np.sqrt(np.maximum(1 - across**2 - down**2, 0))
    depth = np.where(np.abs(x - 0.1 * np.sin(6 * y + region)) < 0.3, depth, -depth)
    seen = _embed(np.stack([across, down, depth], axis=-1).reshape(-1, 3), seed).reshape(MAP, MAP, CHANNELS)
    # A detector does not keep to the unit norm.
    regressed = seen * (1 + 0.2 * np.sin(3 * x + region))[..., None] + noise * rng.normal(size=seen.shape)
    planes = regressed.transpose(2, 0, 1).astype(np.float32)
    return np.stack([cv2.resize(plane, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR) for plane in planes])


def random_points(count: int, seed: int) -> Embeddings:
    """(count, 16) float32, unit norm, every direction alike."""
    return _unit(np.random.default_rng([seed, 2, count]).normal(size=(count, CHANNELS)))


def brute_force(queries: Embeddings, vertices: Embeddings, tile: int) -> Indices:
    """Nearest vertex of every query (Q,): a tile's squared distances to all vertices as one float32 matrix."""
    found = np.empty(len(queries), np.int64)
    lengths = (vertices * vertices).sum(axis=1)[None]
    for at in range(0, len(queries), tile):
        part = queries[at : at + tile]
        distances = (-2 * part) @ vertices.T
        distances += (part * part).sum(axis=1, keepdims=True) + lengths
        found[at : at + tile] = distances.argmin(axis=1)
    return found


def _row(case: Case, rounds: int, count: int, seed: int) -> dict[str, Any]:
    vertices = random_points(count, seed) if case.noise is None else smooth_surface(count, seed)
    queries = _queries(case, seed)
    began = time.perf_counter()
    surface = Surface(vertices)
    build = time.perf_counter() - began
    ways: dict[str, Callable[[], Indices]] = {
        "published": lambda: brute_force(queries, vertices, PUBLISHED_TILE),
        "small_tiles": lambda: brute_force(queries, vertices, SMALL_TILE),
        "ours": lambda: surface.nearest(queries),
    }
    found = {name: way() for name, way in ways.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            taken[name].append(1000 * (time.perf_counter() - began))
    middle = {name: statistics.median(times) for name, times in taken.items()}
    return {
        "queries": "random" if case.noise is None else "smooth",
        "noise": case.noise,
        "pixels": len(queries),
        "vertices": count,
        "rounds": rounds,
        "build_ms": round(1000 * build, 1),
        **{f"{name}_ms": round(time_, 2) for name, time_ in middle.items()},
        **{f"{name}_best_ms": round(min(times), 2) for name, times in taken.items()},
        "times_published": round(middle["published"] / middle["ours"], 1),
        "times_small_tiles": round(middle["small_tiles"] / middle["ours"], 1),
        "way": surface.way(queries),
        "farther": float((_far(queries, vertices, found["ours"]) - _far(queries, vertices, found["published"])).max()),
    }


def _queries(case: Case, seed: int) -> Embeddings:
    rows = max(1, round(HEIGHT * case.share))
    if case.noise is None:
        return random_points(case.regions * rows * WIDTH, seed + 1)
    maps = np.stack([smooth_map(case.noise, seed, region) for region in range(case.regions)])
    first = (HEIGHT - rows) // 2
    body = maps[:, :, first : first + rows].transpose(0, 2, 3, 1)
    return np.ascontiguousarray(body.reshape(-1, CHANNELS))


def _embed(points: npt.NDArray[np.floating], seed: int) -> Embeddings:
    """Six cosine waves along random directions for every channel, at the points (P, 3) of the sphere."""
    rng = np.random.default_rng([seed, 0])
    directions = 1.2 * rng.normal(size=(CHANNELS, 6, 3))
    phases, sizes = rng.uniform(0, 2 * np.pi, (CHANNELS, 6)), rng.normal(size=(CHANNELS, 6))
    waves = np.cos(np.einsum("dtc,pc->pdt", directions, points) + phases)
    return _unit((waves * sizes).sum(axis=2))


def _unit(rows: npt.NDArray[np.floating]) -> Embeddings:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def _far(queries: Embeddings, vertices: Embeddings, found: Indices) -> npt.NDArray[np.float64]:
    return np.asarray(((queries.astype(np.float64) - vertices[found]) ** 2).sum(axis=1), np.float64)


def main() -> None:
    """Measure and write `results/vertex_search.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rows = measure(rounds=parser.parse_args().rounds)
    shown = ("queries", "noise", "pixels", "published_ms", "small_tiles_ms", "ours_ms", "times_published", "way")
    table = Table(*shown)
    for row in rows:
        table.add_row(*(str(row[name]) for name in shown))
    Console().print(table)
    print(save("vertex_search", {"rows": rows}))


if __name__ == "__main__":
    main()
