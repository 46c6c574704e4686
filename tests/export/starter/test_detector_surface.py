from __future__ import annotations

import numpy as np
import torch

from export.starter.detector_surface import Anchors, mirrored_vertices, smooth_table, spread_anchors, vertex_embeddings
from tests.export.starter.tiny_people import COLUMNS, ROWS, canonical, faces, template

#: Two sheets, 10 cm apart, joined at the bottom only: the distance along them is long.
_FOLDED = np.array([[0, 0, 2], [0, 0, 1], [0, 0, 0], [0.1, 0, 0], [0.1, 0, 1], [0.1, 0, 2]], np.float32)
_STRIP = np.array([[0, 1, 1], [1, 2, 2], [2, 3, 3], [3, 4, 4], [4, 5, 5]], np.int32)


def test_anchors_lie_far_apart_and_every_vertex_is_a_blend_of_near_ones() -> None:
    points = canonical()
    anchors = spread_anchors(points, faces(), 12)
    assert len(set(anchors.vertices.tolist())) == 12
    apart = np.linalg.norm(points[anchors.vertices][:, None] - points[anchors.vertices], axis=2)
    assert apart[~np.eye(12, dtype=bool)].min() > 0.2
    np.testing.assert_allclose(anchors.weights.sum(axis=1), 1, rtol=1e-5)
    blended = (points[anchors.vertices][anchors.nearest] * anchors.weights[..., None]).sum(axis=1)
    assert np.linalg.norm(blended - points, axis=1).max() < 0.25
    # An anchor is itself.
    np.testing.assert_array_equal(anchors.nearest[anchors.vertices, 0], np.arange(12))
    assert anchors.weights[anchors.vertices, 0].min() > 0.99


def test_near_is_along_the_surface_not_through_the_air() -> None:
    anchors = spread_anchors(_FOLDED, _STRIP, 6)
    first = anchors.vertices[anchors.nearest[0, :3]]
    assert set(first.tolist()) == {0, 1, 2}


def test_a_part_that_no_anchor_is_on_takes_the_nearest_through_the_air() -> None:
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 0.01, 0.01]], np.float32)
    anchors = spread_anchors(points, np.array([[0, 1, 1]], np.int32), 2)
    assert anchors.vertices.tolist() == [0, 1]
    assert anchors.nearest[2, 0] == 0


def test_more_anchors_than_vertices_are_as_many_as_there_are() -> None:
    anchors = spread_anchors(canonical(), faces(), 1000)
    assert len(anchors.vertices) == ROWS * COLUMNS


def test_mirroring_swaps_sides_and_nothing_else() -> None:
    rows = mirrored_vertices(canonical()).reshape(ROWS, COLUMNS)
    np.testing.assert_array_equal(rows, np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)[:, ::-1])


def test_vertex_embeddings_have_unit_norm_and_anchors_keep_their_own() -> None:
    anchors = spread_anchors(canonical(), faces(), 12)
    table = 3 * torch.randn(12, 16, generator=torch.Generator().manual_seed(0))
    made = vertex_embeddings(table, anchors)
    assert made.dtype == np.float32
    assert made.shape == (ROWS * COLUMNS, 16)
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, rtol=1e-5)
    unit = torch.nn.functional.normalize(table, dim=1).numpy()
    assert ((made[anchors.vertices] * unit).sum(axis=1) > 0.99).all()


def test_a_blend_of_opposites_is_its_nearest_anchor() -> None:
    anchors = Anchors(np.array([0, 1]), np.array([[0, 1]]), np.array([[0.5, 0.5]], np.float32))
    made = vertex_embeddings(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), anchors)
    np.testing.assert_allclose(made, [[1, 0]])


def test_anchors_go_into_a_checkpoint_and_come_back() -> None:
    anchors = spread_anchors(canonical(), faces(), 5)
    back = Anchors.of(anchors.state())
    for name in ("vertices", "nearest", "weights"):
        np.testing.assert_array_equal(getattr(back, name), getattr(anchors, name))


def test_embeddings_are_alike_where_the_surface_is_near() -> None:
    surface = template()
    anchors = spread_anchors(surface.canonical, surface.faces, 30)
    table = smooth_table(surface, anchors, 12)
    assert table.shape == (30, 12)
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1, rtol=1e-5)
    places = surface.canonical[anchors.vertices]
    apart = np.linalg.norm(places[:, None] - places, axis=2)
    alike = table @ table.T
    assert np.corrcoef(np.exp(-(apart**2) / (2 * 0.25**2)).ravel(), alike.ravel())[0, 1] > 0.95
    # More channels than anchors: what is left over says nothing.
    few = smooth_table(surface, spread_anchors(surface.canonical, surface.faces, 5), 12)
    assert few.shape == (5, 12)
    assert not few[:, 5:].any()
