from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import DetectionError, TensorError
from stream.surface import Embeddings, Indices, Surface

Floats = npt.NDArray[np.floating]
CHANNELS = 16


def unit(rows: Floats) -> Embeddings:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def random_points(count: int, seed: int, channels: int = CHANNELS) -> Embeddings:
    return unit(np.random.default_rng(seed).normal(size=(count, channels)))


def smooth_points(count: int, seed: int, channels: int = CHANNELS) -> Embeddings:
    """Points of one curved sheet: places drawn from `seed`, the sheet always the same one."""
    places = np.random.default_rng(seed).uniform(-1, 1, (count, 2))
    rng = np.random.default_rng(77)
    waves = np.cos(places @ (1.5 * rng.normal(size=(2, channels))) + rng.uniform(0, 6, channels))
    return unit(waves + 0.01)


def squared(queries: Embeddings, surface: Embeddings) -> npt.NDArray[np.float64]:
    """All squared distances (Q, K) in float64, from differences: nothing cancels."""
    q, v = queries.astype(np.float64), surface.astype(np.float64)
    return np.asarray(((q[:, None] - v[None]) ** 2).sum(axis=2))


def assert_nearest(found: Indices, queries: Embeddings, surface: Embeddings) -> None:
    distances = squared(queries, surface)
    assert found.dtype == np.int64
    assert found.shape == (len(queries),)
    taken, least = distances[np.arange(len(found)), found], distances.min(axis=1)
    # Rounding of float64 at the size of what cancels.
    assert (taken - least <= 1e-13 * (1 + (queries.astype(np.float64) ** 2).sum(axis=1) + least)).all()


@pytest.mark.parametrize("count", [1, 2, 107, 160, 600, 3000])
@pytest.mark.parametrize("points", [random_points, smooth_points])
@pytest.mark.parametrize("asked", [1, 15, 700])
def test_the_nearest_vertex_is_the_one_that_comparing_with_all_finds(count: int, points: object, asked: int) -> None:
    assert callable(points)
    vertices, queries = points(count, 1), points(asked, 2)
    queries += np.float32(0.02) * np.random.default_rng(3).normal(size=queries.shape).astype(np.float32)
    assert_nearest(Surface(vertices).nearest(queries), queries, vertices)


@settings(deadline=None, max_examples=80)
@given(
    count=st.integers(1, 1500),
    asked=st.integers(0, 120),
    channels=st.integers(1, 20),
    seed=st.integers(0, 10_000),
    smooth=st.booleans(),
    spread=st.sampled_from([0.0, 1e-7, 1e-6, 1e-5, 1e-3, 0.3]),
    unit_of_length=st.sampled_from([1.0, 1e-12, 1e12]),
    noise=st.sampled_from([0.0, 1e-3, 0.1, 3.0]),
)
def test_the_search_is_exact_for_any_surface(
    count: int, asked: int, channels: int, seed: int, smooth: bool, spread: float, unit_of_length: float, noise: float
) -> None:
    rng = np.random.default_rng(seed)
    points = smooth_points if smooth else random_points
    vertices = (points(count, seed, channels) * (1 + spread * rng.normal(size=(count, 1)))).astype(np.float32)
    queries = points(asked, seed + 1, channels) * rng.uniform(0, 3, (asked, 1)) + noise * rng.normal(
        size=(asked, channels)
    )
    stretched = (vertices * np.float32(unit_of_length), (queries * unit_of_length).astype(np.float32))
    found = Surface(stretched[0]).nearest(stretched[1])
    back = [(array.astype(np.float64) / unit_of_length) for array in stretched]
    distances = ((back[1][:, None] - back[0][None]) ** 2).sum(axis=2)
    excess = distances[np.arange(asked), found] - distances.min(axis=1, initial=np.inf)
    assert (excess <= 1e-13 * (1 + (back[1] ** 2).sum(axis=1))).all()


def test_smooth_queries_are_searched_by_patches_and_random_ones_by_a_product() -> None:
    for points, way in ((smooth_points, "patches"), (random_points, "product")):
        vertices, queries = points(6000, 1), points(3000, 2)
        surface = Surface(vertices)
        assert surface.way(queries) == way
        assert_nearest(surface.nearest(queries[::5]), queries[::5], vertices)


def test_smooth_and_random_queries_may_be_mixed() -> None:
    vertices = smooth_points(4000, 1)
    queries = np.concatenate([smooth_points(2500, 2), random_points(600, 3)])[::4]
    surface = Surface(vertices)
    assert surface.way(queries) == "patches"
    assert_nearest(surface.nearest(queries), queries, vertices)


def test_vertices_of_unequal_norm_are_not_compared_by_direction() -> None:
    rng = np.random.default_rng(5)
    vertices = (smooth_points(900, 1) * rng.uniform(0.9, 1.1, (900, 1))).astype(np.float32)
    queries = (smooth_points(500, 2) * np.float32(0.8)).astype(np.float32)
    by_direction = (unit(queries) @ vertices.T).argmax(axis=1)
    distances = squared(queries, vertices)
    wrong = distances[np.arange(500), by_direction] > distances.min(axis=1) + 1e-6
    assert wrong.sum() > 50
    assert_nearest(Surface(vertices).nearest(queries), queries, vertices)


def test_differences_that_float32_products_cannot_tell_are_told() -> None:
    rng = np.random.default_rng(6)
    first = random_points(400, 1)
    # Pairs that are a few steps of float32 apart.
    second = (first.astype(np.float64) + rng.choice([-1.2e-7, 1.2e-7], size=first.shape)).astype(np.float32)
    vertices = np.concatenate([first, second])
    queries = unit(first + 0.05 * rng.normal(size=first.shape))
    plain = (queries @ vertices.T - (vertices**2).sum(axis=1) / 2).argmax(axis=1)
    distances = squared(queries, vertices)
    assert (distances[np.arange(400), plain] > distances.min(axis=1) + 1e-10).sum() > 20
    assert_nearest(Surface(vertices).nearest(queries), queries, vertices)


@pytest.mark.parametrize("points", [random_points, smooth_points])
def test_between_two_vertices_the_nearer_one_is_found_however_close_the_race(points: object) -> None:
    assert callable(points)
    vertices = points(3000, 1)
    distances = squared(vertices[:600], vertices)
    distances[np.arange(600), np.arange(600)] = np.inf
    # Half-way to the nearest other vertex; only the rounding of the query decides.
    queries = ((vertices[:600].astype(np.float64) + vertices[distances.argmin(axis=1)]) / 2).astype(np.float32)
    plain = (queries @ vertices.T - (vertices**2).sum(axis=1) / 2).argmax(axis=1)
    exact = squared(queries, vertices)
    assert (exact[np.arange(600), plain] > exact.min(axis=1) + 1e-11).sum() > 20
    assert_nearest(Surface(vertices).nearest(queries), queries, vertices)


def test_a_short_query_finds_the_shorter_vertex_where_norms_hardly_differ() -> None:
    rng = np.random.default_rng(9)
    vertices = (smooth_points(8000, 1) * rng.uniform(1, 1.0004, (8000, 1))).astype(np.float32)
    queries = (smooth_points(2500, 2) * np.float32(0.13)).astype(np.float32)
    surface = Surface(vertices)
    assert surface.way(queries) == "patches"
    by_direction = (queries @ unit(vertices).T).argmax(axis=1)
    found = surface.nearest(queries)
    assert (found != by_direction).mean() > 0.5
    assert_nearest(found[::5], queries[::5], vertices)


@pytest.mark.parametrize("points", [random_points, smooth_points])
def test_of_vertices_in_the_same_place_the_lowest_is_taken(points: object) -> None:
    assert callable(points)
    once = points(700, 1)
    queries = points(400, 2)
    alone = Surface(once).nearest(queries)
    doubled = Surface(np.concatenate([once, once, once])).nearest(queries)
    assert (doubled % 700 == alone).all()
    assert (doubled < 700).mean() > 0.95


@pytest.mark.parametrize("length", [0.0, 1e-44, 1e-30, 1e-3, 1e3, 1e30, 3e38])
@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_queries_of_any_length_are_answered(length: float, spread: float) -> None:
    rng = np.random.default_rng(8)
    vertices = (smooth_points(1200, 1) * (1 + spread * rng.normal(size=(1200, 1)))).astype(np.float32)
    queries = (smooth_points(60, 2).astype(np.float64) * length / 2).astype(np.float32)
    found = Surface(vertices).nearest(queries)
    # Without the query's own square, which would hide all else: half the squared distance, in units of the query.
    size = max(1.0, length)
    v = vertices.astype(np.float64)
    left = (v**2).sum(axis=1) / 2 / size - queries.astype(np.float64) / size @ v.T
    assert (left[np.arange(60), found] <= left.min(axis=1) + 1e-14).all()


@pytest.mark.parametrize("place", [0.0, 0.25])
def test_a_surface_of_one_place_gives_the_lowest_vertex(place: float) -> None:
    # Nothing is rounded with these queries.
    queries = np.concatenate([np.eye(CHANNELS), np.zeros((2, CHANNELS))]).astype(np.float32)
    assert not Surface(np.full((2000, CHANNELS), place, np.float32)).nearest(queries).any()


def test_queries_between_two_vertices_of_any_length_get_the_nearer_one() -> None:
    """The middle of two, rounded to float32, is nearer to one of them by a hair: float32 could not tell which."""
    draw = np.random.default_rng(1)
    for _ in range(2000):
        vertices = draw.standard_normal((2, 1)).astype(np.float32)
        query = vertices.mean(axis=0, dtype=np.float32)[None]
        far = np.abs(vertices.astype(np.float64) - query)[:, 0]
        assert far[Surface(vertices).nearest(query)[0]] == far.min()


def test_the_order_of_the_queries_changes_nothing_but_the_order() -> None:
    vertices = smooth_points(3000, 1)
    queries = smooth_points(9000, 2)
    surface = Surface(vertices)
    order = np.random.default_rng(1).permutation(9000)
    assert np.array_equal(surface.nearest(queries)[order], surface.nearest(queries[order]))


def test_no_query_gives_no_vertex() -> None:
    found = Surface(random_points(300, 1)).nearest(np.zeros((0, CHANNELS), np.float32))
    assert found.shape == (0,)
    assert found.dtype == np.int64


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_query_that_is_not_finite_is_refused(value: float) -> None:
    surface, queries = Surface(random_points(300, 1)), random_points(9, 2)
    surface.nearest(queries)
    queries[4, 3] = value
    with pytest.raises(DetectionError, match="not finite"):
        surface.nearest(queries)
    with pytest.raises(DetectionError, match="not finite"):
        surface.way(queries)


@pytest.mark.parametrize(
    "queries",
    [
        np.zeros((3, 15), np.float32),
        np.zeros((3, 16), np.float64),
        np.zeros((3, 4, 4), np.float32),
        np.zeros(16, np.float32),
        [[0.0] * 16],
    ],
)
def test_queries_of_another_shape_or_type_are_refused(queries: Embeddings) -> None:
    surface = Surface(random_points(300, 1))
    surface.nearest(np.ones((3, 16), np.float32))
    with pytest.raises(TensorError, match="queries"):
        surface.nearest(queries)


@pytest.mark.parametrize(
    "vertices",
    [
        np.zeros((0, 16), np.float32),
        np.zeros((4, 0), np.float32),
        np.zeros((4, 16), np.float64),
        np.zeros((4, 16, 1), np.float32),
        np.full((4, 16), np.nan, np.float32),
        np.full((4, 16), np.inf, np.float32),
    ],
)
def test_a_surface_that_is_none_is_refused(vertices: Embeddings) -> None:
    Surface(np.ones((4, 16), np.float32))
    with pytest.raises(TensorError, match="vertex embeddings"):
        Surface(vertices)


def scene(regions: int, seed: int = 3) -> tuple[Embeddings, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Regressed embeddings (N, 16, 12, 9), body and known masks with border pixels between them."""
    rng = np.random.default_rng(seed)
    embedding = unit(rng.normal(size=(regions * 108, CHANNELS))).reshape(regions, 12, 9, CHANNELS).transpose(0, 3, 1, 2)
    kind = rng.integers(0, 3, (regions, 12, 9))
    return np.ascontiguousarray(embedding), kind == 0, kind == 1


def test_body_pixels_get_their_vertex_known_and_border_pixels_their_own_index() -> None:
    vertices = random_points(500, 1)
    surface = Surface(vertices)
    embedding, body, known = scene(3)
    found = surface.vertices(embedding, body, known)
    assert found.shape == (3, 12, 9)
    assert found.dtype == np.int64
    assert (surface.known, surface.border) == (500, 501)
    assert (found[known] == 500).all()
    assert (found[~known & ~body] == 501).all()
    assert_nearest(found[body], np.ascontiguousarray(embedding.transpose(0, 2, 3, 1)[body]), vertices)


def test_a_pixel_that_is_body_and_known_counts_as_body() -> None:
    surface = Surface(random_points(500, 1))
    embedding, body, _ = scene(2)
    everywhere = np.ones_like(body)
    found = surface.vertices(embedding, body, everywhere)
    assert (found[body] < 500).all()
    assert (found[~body] == 500).all()


def test_regions_together_give_what_each_gives_alone() -> None:
    surface = Surface(random_points(500, 1))
    embedding, body, known = scene(4)
    together = surface.vertices(embedding, body, known)
    for index in range(4):
        one = slice(index, index + 1)
        assert np.array_equal(surface.vertices(embedding[one], body[one], known[one]), together[one])


def test_no_region_and_no_body_give_maps_without_vertices() -> None:
    surface = Surface(random_points(500, 1))
    embedding, body, known = scene(0)
    assert surface.vertices(embedding, body, known).shape == (0, 12, 9)
    assert surface.embeddings(np.zeros((0, 12, 9), np.int64)).shape == (0, 16, 12, 9)
    embedding, body, known = scene(2)
    found = surface.vertices(embedding, np.zeros_like(body), known)
    assert set(np.unique(found)) == {500, 501}
    assert not surface.embeddings(found).any()


def test_only_body_pixels_are_read() -> None:
    surface = Surface(random_points(500, 1))
    embedding, body, known = scene(2)
    found = surface.vertices(embedding, body, known)
    changed = embedding.copy()
    changed.transpose(0, 2, 3, 1)[~body] = np.nan
    assert np.array_equal(surface.vertices(changed, body, known), found)
    changed.transpose(0, 2, 3, 1)[body] = np.nan
    with pytest.raises(DetectionError):
        surface.vertices(changed, body, known)


@pytest.mark.parametrize("spoiled", ["embedding", "body", "known"])
@pytest.mark.parametrize("how", ["shape", "type", "dimensions"])
def test_maps_of_another_shape_or_type_are_refused(spoiled: str, how: str) -> None:
    surface = Surface(random_points(500, 1))
    embedding, body, known = scene(2)
    maps: dict[str, npt.NDArray[np.generic]] = {"embedding": embedding, "body": body, "known": known}
    array = maps[spoiled]
    maps[spoiled] = {"shape": array[..., :-1], "type": array.astype(np.float64), "dimensions": array[0]}[how]
    with pytest.raises(TensorError):
        surface.vertices(**maps)  # type: ignore[arg-type]


def test_another_number_of_channels_is_refused() -> None:
    embedding, body, known = scene(2)
    with pytest.raises(TensorError, match="15 channels"):
        Surface(random_points(500, 1)).vertices(embedding[:, :15], body, known)


def test_the_regressed_embedding_is_replaced_by_the_vertex_embedding() -> None:
    vertices = random_points(500, 1)
    surface = Surface(vertices)
    embedding, body, known = scene(3)
    found = surface.vertices(embedding, body, known)
    fed = surface.embeddings(found)
    assert fed.shape == embedding.shape
    assert fed.dtype == np.float32
    assert fed.flags.c_contiguous
    pixels = fed.transpose(0, 2, 3, 1)
    assert np.array_equal(pixels[body], vertices[found[body]])
    assert not pixels[~body].any()


@pytest.mark.parametrize("index", [-1, 502])
def test_an_index_that_is_no_vertex_is_refused(index: int) -> None:
    surface = Surface(random_points(500, 1))
    vertices = np.full((1, 4, 4), 501, np.int64)
    assert not surface.embeddings(vertices).any()
    vertices[0, 2, 2] = index
    with pytest.raises(TensorError, match=r"expected 0 \.\. 501"):
        surface.embeddings(vertices)
    with pytest.raises(TensorError, match="int64"):
        surface.embeddings(np.zeros((1, 4, 4), np.int32))


def test_several_threads_may_ask_at_once_and_nothing_given_is_changed() -> None:
    vertices = smooth_points(2000, 1)
    queries = [smooth_points(5000, seed) for seed in range(8)]
    kept = vertices.copy(), [array.copy() for array in queries]
    surface = Surface(vertices)
    alone = [surface.nearest(array) for array in queries]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(surface.nearest, queries))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
    assert np.array_equal(vertices, kept[0])
    assert all(np.array_equal(a, b) for a, b in zip(queries, kept[1], strict=True))


def test_the_surface_keeps_its_own_copy() -> None:
    vertices = random_points(500, 1)
    queries = random_points(50, 2)
    surface = Surface(vertices)
    before = surface.nearest(queries)
    fed = surface.embeddings(before.reshape(1, 5, 10))
    vertices[:] = 0
    assert np.array_equal(surface.nearest(queries), before)
    assert np.array_equal(surface.embeddings(before.reshape(1, 5, 10)), fed)


def test_the_vertices_embeddings_can_be_had_as_given_and_not_be_changed() -> None:
    vertices = random_points(500, 1)
    surface = Surface(vertices)
    given = surface.vertex_embeddings
    np.testing.assert_array_equal(given, vertices)
    given[:] = 0
    np.testing.assert_array_equal(surface.vertex_embeddings, vertices)


@pytest.mark.parametrize("shape", [(8, 6), (7, 6)])
def test_a_sparse_surface_is_looked_up_for_pixels_together(shape: tuple[int, int]) -> None:
    draw = np.random.default_rng(0)
    given = draw.standard_normal((20, 4)).astype(np.float32)
    embedding = draw.standard_normal((*shape, 4)).astype(np.float32)
    body = draw.random(shape) < 0.6
    planes = embedding.transpose(2, 0, 1)[None]
    exact = Surface(given).vertices(planes, body[None], ~body[None])[0]
    assert np.array_equal(exact == 20, ~body)
    sparse = Surface(given, sparse=True)
    found = sparse.vertices(planes, body[None], ~body[None])[0]
    assert np.array_equal(found == 20, ~body)
    if shape[0] % 2:
        assert np.array_equal(found, exact)
        return
    for y in range(0, shape[0], 2):
        for x in range(0, shape[1], 2):
            here = body[y : y + 2, x : x + 2]
            if here.any():
                first = exact[y : y + 2, x : x + 2][here][0]
                assert (found[y : y + 2, x : x + 2][here] == first).all()


def test_every_pixel_of_a_sparse_surface_must_be_finite() -> None:
    body = np.ones((1, 4, 4), np.bool_)
    embedding = np.ones((1, 4, 4, 4), np.float32)
    embedding[0, :, 3, 3] = np.nan
    with pytest.raises(DetectionError, match="not finite"):
        Surface(np.eye(4, dtype=np.float32), sparse=True).vertices(embedding, body, ~body)
