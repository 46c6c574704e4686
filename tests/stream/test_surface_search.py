"""The search by one product, as it runs on a device: here on the processor, against the search by patches."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from engines.errors import DetectionError, RuntimeFailedError
from stream import surface_search
from stream.surface import Surface
from stream.surface_search import search_graph
from tests.engines.helpers import open_on_cpu

Floats = npt.NDArray[np.float32]


def vertices(count: int, *, unit: bool = True) -> Floats:
    """Points of a bent sheet in 16 dimensions."""
    draw = np.random.default_rng(count)
    flat = draw.uniform(-1, 1, (count, 2))
    bent = np.concatenate([np.cos(k * flat @ draw.normal(size=(2, 4))) for k in (1, 2, 3, 4)], axis=1)
    if unit:
        bent /= np.linalg.norm(bent, axis=1, keepdims=True)
    return bent.astype(np.float32)


def squared(queries: Floats, points: Floats) -> npt.NDArray[np.float64]:
    return np.asarray(((queries[:, None].astype(np.float64) - points[None]) ** 2).sum(axis=2))


@pytest.mark.parametrize("unit", [True, False], ids=["unit norm", "any norm"])
def test_it_finds_what_is_nearest_up_to_rounding(unit: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surface_search, "_CHUNK", 100)
    points = vertices(700, unit=unit)
    draw = np.random.default_rng(1)
    queries = (points[draw.integers(0, 700, 350)] + draw.normal(0, 0.1, (350, 16))).astype(np.float32)
    queries[7] = 0
    plain, there = Surface(points), Surface(points, runtime=open_on_cpu(search_graph()))
    expected, found = plain.nearest(queries), there.nearest(queries)
    assert found.dtype == np.int64
    assert (found != expected).mean() < 0.01
    apart = squared(queries, points)
    rows = np.arange(len(queries))
    assert (apart[rows, found] <= apart[rows, expected] * (1 + 1e-5) + 1e-5).all()
    assert found[7] == expected[7]
    there.close()


def test_of_equal_vertices_the_lowest_is_found() -> None:
    points = np.repeat(vertices(40), 2, axis=0)
    there = Surface(points, runtime=open_on_cpu(search_graph()))
    np.testing.assert_array_equal(there.nearest(points), np.arange(80) // 2 * 2)


def test_a_whole_vertex_map_is_the_same_but_for_rounding() -> None:
    points = vertices(500)
    draw = np.random.default_rng(3)
    embedding = points[draw.integers(0, 500, (2, 12, 10))].transpose(0, 3, 1, 2)
    embedding = np.ascontiguousarray(embedding + draw.normal(0, 0.02, embedding.shape), np.float32)
    body = draw.random((2, 12, 10)) < 0.6
    known = ~body & (draw.random((2, 12, 10)) < 0.5)
    there = Surface(points, runtime=open_on_cpu(search_graph()))
    there.prepare()
    np.testing.assert_array_equal(
        there.vertices(embedding, body, known), Surface(points).vertices(embedding, body, known)
    )


def test_nothing_is_asked_of_the_device_that_is_not_finite() -> None:
    there = Surface(vertices(50), runtime=open_on_cpu(search_graph()))
    with pytest.raises(DetectionError):
        there.nearest(np.full((3, 16), np.nan, np.float32))
    assert there.nearest(np.zeros((0, 16), np.float32)).shape == (0,)


def test_after_it_is_closed_it_says_so() -> None:
    there = Surface(vertices(50), runtime=open_on_cpu(search_graph()))
    there.close()
    there.close()
    with pytest.raises(RuntimeFailedError, match="closed"):
        there.nearest(np.ones((1, 16), np.float32))
    Surface(vertices(50)).close()
