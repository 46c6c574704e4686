"""The body's surface as the detector learns it: anchors spread over it, and vertices as blends of the nearest ones.

Regressing fixed coordinates of the surface fails (left and right are told apart by little); choosing among anchors with
an embedding each works, and learns several times faster if these are alike where the surface is near from the
beginning. A vertex between anchors is a blend of them, as a target and as an embedding alike, so
that the nearest vertex of an embedding is finer than the anchors are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree
from torch import Tensor

from export.starter.body import Body, Part

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

#: Anchors that a vertex is a blend of.
BLENDED: Final = 3
#: Metres along the surface over which embeddings become different.
_REACH: Final = 0.25
#: Metres; two points on surfaces that touch (thighs, arm and side) are not near each other.
_SAME_PLACE: Final = 1e-4
#: An embedding shorter than this, before its length is made 1, has no direction.
_NOTHING: Final = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """The surface that a detector learns: K vertices, F triangles.

    Attributes:
        canonical: float32 (K, 3) in metres, z up, x to the body's left.
        faces: int32 (F, 3).
        head: bool (K,), what belongs to it.
        mirrored: int64 (K,), for each vertex the one on the other side of the body.
    """

    canonical: Floats
    faces: npt.NDArray[np.int32]
    head: npt.NDArray[np.bool_]
    mirrored: Ints = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mirrored", mirrored_vertices(self.canonical))

    @classmethod
    def of(cls, body: Body) -> Template:
        """The surface of a body."""
        return cls(body.canonical, body.faces, (body.parts == Part.HEAD) | (body.parts == Part.EYE))


@dataclass(frozen=True, slots=True, eq=False)
class Anchors:
    """Anchors of a surface with K vertices.

    Attributes:
        vertices: int64 (A,), the vertex that each anchor is.
        nearest: int64 (K, 3), the anchors that a vertex is a blend of,
        weights: float32 (K, 3), and by how much; sums to 1.
    """

    vertices: Ints
    nearest: Ints
    weights: Floats

    def state(self) -> dict[str, Any]:
        """As tensors, for checkpoints."""
        return {name: torch.from_numpy(getattr(self, name)) for name in Anchors.__slots__}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Anchors:
        """From what `state` gave."""
        return cls(**{name: np.asarray(state[name].cpu().numpy()) for name in Anchors.__slots__})


def spread_anchors(canonical: Floats, faces: npt.NDArray[np.int32], count: int) -> Anchors:
    """Spreads anchors over a surface, each as far as possible from those before (Gonzalez 1985).

    Args:
        canonical: (K, 3) in metres.
        faces: (F, 3), triangles of vertices.
        count: A; fewer where there are fewer vertices.
    """
    points = canonical.astype(np.float64)
    chosen = [0]
    distance = np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    vertices = np.array(chosen, np.int64)
    blended = min(BLENDED, len(vertices))
    apart = _along_surface(points, faces, vertices)
    nearest = np.argsort(apart, axis=0, kind="stable")[:blended].T.astype(np.int64)
    distances = np.take_along_axis(apart.T, nearest, axis=1)
    weights = 1 / (distances + _SAME_PLACE)
    # What is unreachable has no weight.
    weights[~np.isfinite(distances)] = 0
    return Anchors(vertices, nearest, np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32))


def smooth_table(template: Template, anchors: Anchors, channels: int) -> Floats:
    """An embedding for each anchor, (A, channels) of unit norm, that is alike for anchors that are near each other.

    The leading components of the kernel exp(-d^2 / 2 reach^2) of distances along the surface (Schoelkopf et al. 1998):
    the cosine of two embeddings is about the kernel's value, so that left and right, and front and back, are far apart.

    Args:
        template: the surface.
        anchors: on it.
        channels: of an embedding; with fewer anchors than channels the rest is 0.
    """
    apart = _along_surface(template.canonical.astype(np.float64), template.faces, anchors.vertices)[:, anchors.vertices]
    kernel = np.exp(-(np.minimum(apart, apart.T) ** 2) / (2 * _REACH**2))
    values, vectors = np.linalg.eigh(kernel)
    table = np.zeros((len(kernel), channels))
    used = min(channels, len(kernel))
    # Distances along a surface give no kernel in the strict sense: what is below 0 is left out.
    table[:, :used] = vectors[:, -used:] * np.sqrt(np.maximum(values[-used:], 0))
    # A loose part of a mesh may have no share in any of them.
    table[np.linalg.norm(table, axis=1) < _NOTHING, 0] = 1
    return np.asarray(table / np.linalg.norm(table, axis=1, keepdims=True), np.float32)


def _along_surface(
    points: npt.NDArray[np.float64], faces: npt.NDArray[np.int32], vertices: Ints
) -> npt.NDArray[np.float64]:
    """Distances (A, K) along edges; through the air to parts of the mesh that no anchor is on."""
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    # Each edge once: a sum over both triangles would double its length.
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    lengths = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    graph = coo_array((lengths + 1e-9, (pairs[:, 0], pairs[:, 1])), shape=(len(points),) * 2).tocsr()
    apart = np.asarray(dijkstra(graph, directed=False, indices=vertices))
    loose = ~np.isfinite(apart).any(axis=0)
    apart[:, loose] = np.linalg.norm(points[vertices][:, None] - points[loose][None], axis=2)
    return apart


def mirrored_vertices(canonical: Floats) -> Ints:
    """For each vertex the one on the other side of the body, (K,) int64; x points to the body's left."""
    _, nearest = cKDTree(canonical).query(canonical * np.array([-1, 1, 1], np.float32))
    return np.asarray(nearest, np.int64)


def vertex_embeddings(table: Tensor, anchors: Anchors) -> Floats:
    """The embedding of each vertex from those of the anchors (A,D): (K,D) float32 of unit norm."""
    unit = torch.nn.functional.normalize(table.detach().double().cpu(), dim=1).numpy()
    blended = (unit[anchors.nearest] * anchors.weights[..., None]).sum(axis=1)
    # Blends of near anchors are never short once trained; before that a vertex is at least its nearest anchor.
    lengths = np.linalg.norm(blended, axis=1, keepdims=True)
    blended = np.where(lengths > 1e-3, blended, unit[anchors.nearest[:, 0]])
    return np.asarray(blended / np.linalg.norm(blended, axis=1, keepdims=True), np.float32)
