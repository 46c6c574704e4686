"""A generator on some of its vertices says of these what it said before."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from export.starter.coarse_surface import nearest_of, on_vertices, spread_vertices
from export.starter.generator_network import new_network
from export.vertex_embeddings import check_surface_agrees
from tests.export.starter.made_people import NETWORK, VERTICES, surface


def test_vertices_are_spread() -> None:
    angles = np.sort(np.random.default_rng(0).uniform(0, 2 * np.pi, 500))
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    chosen = spread_vertices(embeddings, 16)
    assert len(set(chosen.tolist())) == 16
    assert (np.diff(chosen) > 0).all()
    gaps = np.diff(angles[chosen])
    assert gaps.min() > 2 * np.pi / 16 / 3
    assert gaps.max() < 2 * np.pi / 16 * 3


@pytest.mark.parametrize("count", [VERTICES, VERTICES + 5])
def test_all_vertices_stay_where_there_are_no_more(count: int) -> None:
    assert spread_vertices(surface().embeddings, count).tolist() == list(range(VERTICES))


def test_each_vertex_keeps_its_w() -> None:
    given = surface()
    torch.manual_seed(0)
    network = new_network(NETWORK, given.embeddings)
    with torch.no_grad():
        network.style_net.E_map.w_avg.normal_()
        first = network.style_net.E_map.get_submodule("fromE0")
        first.get_parameter("bias").normal_()
    chosen = spread_vertices(given.embeddings, 10)
    fewer = on_vertices(network, NETWORK, given.embeddings, chosen)
    check_surface_agrees(given.embeddings[chosen], fewer.style_net.E_map.E.numpy())
    z = torch.randn(1, NETWORK.z_channels)
    with torch.no_grad():
        before, after = network.style_net.E_map(z), fewer.style_net.E_map(z)
    assert torch.allclose(before[chosen], after, atol=1e-4)
    assert torch.equal(network.style_net.E_map.w_avg[chosen], fewer.style_net.E_map.w_avg)


def test_every_vertex_of_the_mesh_has_a_near_one() -> None:
    canonical = surface().canonical
    chosen = np.array([3, 20, 30])
    nearest = nearest_of(canonical, chosen)
    assert nearest[chosen].tolist() == [0, 1, 2]
    distances = np.linalg.norm(canonical[:, None] - canonical[chosen], axis=2)
    assert np.array_equal(np.linalg.norm(canonical - canonical[chosen[nearest]], axis=1), distances.min(axis=1))
