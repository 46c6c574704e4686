"""The surface of a bundle: a few of the body's vertices, spread evenly.

Networks are trained with every vertex of the mesh, since renderers give these. At run time each pixel's nearest vertex
is looked for, and each track has a table with a row for every vertex: both cost as much as there are vertices, and a
crop of 144 pixels shows no two thousand of them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from engines.bundle import Bundle
from export.models.layers import Linear
from export.models.surface import SurfaceUnet
from export.starter.generator_network import NetworkConfig
from export.vertex_embeddings import standardise

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

#: Vertices of a bundle's surface: about five centimetres apart.
VERTICES: Final = 2048
#: The array of a bundle that says which they are.
ARRAY: Final = "body_vertices"
MEANING: Final = "for each vertex, its number in the mesh of the body that the networks were trained with"


def spread_vertices(embeddings: Floats, count: int = VERTICES) -> Ints:
    """Vertices that are far from each other by their embeddings, sorted: (count,), or all where there are no more.

    Each next one is the farthest from those before (Gonzalez 1985), so that the same embeddings give the same vertices.

    Args:
        embeddings: (K, D) of unit norm.
        count: how many.
    """
    if count >= len(embeddings):
        return np.arange(len(embeddings))
    chosen = np.zeros(count, np.int64)
    nearest = np.full(len(embeddings), np.inf, np.float32)
    for place in range(1, count):
        latest = embeddings[chosen[place - 1]]
        nearest = np.minimum(nearest, np.square(embeddings - latest).sum(axis=1))
        chosen[place] = nearest.argmax()
    return np.sort(chosen)


def vertices_of(bundle: Bundle) -> Ints:
    """Which vertices of the mesh a bundle's are, (k,); all where it does not say."""
    if ARRAY in bundle.manifest.arrays:
        return np.asarray(bundle.array(ARRAY), np.int64)
    return np.arange(len(np.asarray(bundle.array("vertex_embeddings"))))


def fits(bundle: Bundle, vertices: int) -> bool:
    """Whether a bundle may have been made for a mesh of so many vertices."""
    numbers = vertices_of(bundle)
    return bool(numbers.max() < vertices) if ARRAY in bundle.manifest.arrays else len(numbers) == vertices


def nearest_of(canonical: Floats, vertices: Ints) -> Ints:
    """For every vertex of the mesh, which of the few is nearest on the body at rest: (K,) below k.

    Args:
        canonical: (K, 3) in metres.
        vertices: (k,) numbers of the few.
    """
    return np.asarray(cKDTree(canonical[vertices]).query(canonical)[1], np.int64)


@torch.no_grad()
def on_vertices(network: SurfaceUnet, config: NetworkConfig, embeddings: Floats, vertices: Ints) -> SurfaceUnet:
    """The same generator on some of its vertices: each has the w that it had.

    Args:
        network: on a surface of K vertices.
        config: of the network.
        embeddings: (K, D) that it was trained with.
        vertices: (k,) numbers of those that stay.
    """
    full = network.style_net.E_map.E
    fewer = torch.from_numpy(standardise(embeddings[vertices]))
    made = SurfaceUnet(config.spec(len(vertices), embeddings.shape[1])).eval().requires_grad_(False)
    state = network.state_dict()
    state["style_net.E_map.E"] = fewer
    state["style_net.E_map.w_avg"] = network.style_net.E_map.w_avg[vertices]
    made.load_state_dict(state)
    # Both maps are standardised over their own vertices. What one has of the other is undone in the layer behind it.
    scale, shift = _between(fewer.double(), full[vertices].double())
    first = made.style_net.E_map.get_submodule("fromE0")
    assert isinstance(first, Linear)  # noqa: S101
    weight = first.weight.double()
    first.bias.add_((weight @ shift * (first.weight_gain / first.bias_gain)).float())
    first.weight.copy_((weight * scale).float())
    return made


def _between(given: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift of each column so that `given` times the one plus the other is `wanted`: (D,) each."""
    spread = given.std(dim=0, unbiased=False)
    scale = torch.where(
        spread > 0, wanted.std(dim=0, unbiased=False) / spread.clamp(min=1e-12), torch.ones_like(spread)
    )
    return scale, wanted.mean(dim=0) - given.mean(dim=0) * scale
