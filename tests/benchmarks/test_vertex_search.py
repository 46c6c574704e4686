"""The vertex search's benchmark: its yardstick must be right and its queries what they are said to be."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.vertex_search import Case, brute_force, measure, random_points, smooth_map, smooth_surface


@pytest.mark.parametrize("tile", [1, 7, 64, 10_000])
def test_brute_force_finds_the_nearest_vertex_whatever_the_tile(tile: int) -> None:
    vertices, queries = random_points(300, 1), random_points(90, 2)
    distances = ((queries[:, None].astype(np.float64) - vertices[None]) ** 2).sum(axis=2)
    found = brute_force(queries, vertices, tile)
    assert (distances[np.arange(90), found] <= distances.min(axis=1) + 1e-6).all()


def test_the_smooth_surface_is_smooth_and_the_random_one_is_not() -> None:
    def nearest_other(vertices: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
        distances = ((vertices[:, None] - vertices[None]) ** 2).sum(axis=2)
        np.fill_diagonal(distances, np.inf)
        return float(np.sqrt(np.median(distances.min(axis=1))))

    smooth, random = smooth_surface(800, 0), random_points(800, 0)
    assert np.linalg.norm(smooth, axis=1) == pytest.approx(np.ones(800), abs=1e-6)
    assert nearest_other(smooth) < 0.2 < nearest_other(random)


def test_a_smooth_map_lies_near_the_surface_it_was_made_from() -> None:
    surface = smooth_surface(3000, 0)
    shown = smooth_map(0.0, 0)
    assert shown.shape == (16, 288, 160)
    queries = shown[:, ::16, ::16].reshape(16, -1).T
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    nearest = np.sqrt(((queries[:, None] - surface[None]) ** 2).sum(axis=2).min(axis=1))
    assert np.median(nearest) < 0.05
    assert np.abs(smooth_map(0.1, 0) - shown).std() > 0.02


def test_every_case_gives_a_row_and_ours_is_never_farther() -> None:
    cases = (Case(noise=0.01, share=0.05), Case(noise=None, share=0.05), Case(noise=0.01, share=0.02, regions=2))
    rows = measure(cases, rounds=1, vertices=8000)
    assert [row["queries"] for row in rows] == ["smooth", "random", "smooth"]
    assert [row["pixels"] for row in rows] == [14 * 160, 14 * 160, 2 * 6 * 160]
    assert [row["way"] for row in rows] == ["patches", "product", "patches"]
    for row in rows:
        assert row["farther"] <= 1e-12
        assert min(row["published_ms"], row["small_tiles_ms"], row["ours_ms"]) > 0
