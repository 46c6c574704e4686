"""Crops as the generator of a bundle takes them: on the few vertices of its surface, with the tables of any z."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.bundle import Bundle
from engines.errors import CheckpointError
from engines.runtime import open_runtime
from export.models.surface import SurfaceSpec
from export.models.tables import plan_tables
from export.starter.coarse_surface import nearest_of, vertices_of
from export.starter.crop_batches import Batch

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


class BundleInputs:
    """What a bundle makes of crops and z, on one thread.

    Args:
        bundle: of a V-SAM generator with a surface.
        spec: of its network.
        canonical: (K, 3), the body at rest in metres, of the people in the crops.

    Raises:
        CheckpointError: the bundle has several tables for each track, or is for another body.
    """

    def __init__(self, bundle: Bundle, spec: SurfaceSpec, canonical: Floats) -> None:
        if len(plan_tables(spec).widths) != 1:
            raise CheckpointError(f"{bundle.path} has several tables for each track; only one with a single one fits")
        numbers = vertices_of(bundle)
        if numbers.max() >= len(canonical):
            raise CheckpointError(f"{bundle.path} is for another body; give the one that it was trained with")
        self._vertices = spec.vertices
        self._embeddings = np.asarray(bundle.array("vertex_embeddings"), np.float32)
        self._vertex = nearest_of(canonical, numbers)
        self._mapping = open_runtime(bundle, "mapping", threads=1)

    def tables(self, z: Floats, truncation: Floats) -> Floats:
        """(N, z_channels) and (N,) -> (N, k + 2, w_channels), for k vertices, known and border pixels."""
        runs = (self._mapping.run({"z": a[None], "truncation": b[None]}) for a, b in zip(z, truncation, strict=True))
        return np.stack([run["table_0"] for run in runs])

    def vertex(self, crops: Batch) -> Ints:
        """The nearest of its vertices at every pixel, (N,H,W); any outside the body."""
        return np.asarray(self._vertex[crops.vertices.numpy()], np.int64)

    def embedding(self, body: Bools, vertex: Ints) -> Floats:
        """Of the surface at every pixel: two of (N,H,W) -> (N,D,H,W), 0 outside the body."""
        at = np.where(body[..., None], self._embeddings[vertex], np.float32(0))
        return np.ascontiguousarray(at.transpose(0, 3, 1, 2))

    def rows(self, body: Bools, known: Bools, vertex: Ints) -> Ints:
        """Which row of its table every pixel takes: three of (N,H,W) -> (N,H,W)."""
        return np.where(body, vertex, np.where(known, self._vertices, self._vertices + 1))

    def close(self) -> None:
        """Releases the runtime."""
        self._mapping.close()


def gathered(tables: Floats, rows: Ints) -> Floats:
    """What stands in each pixel's row of its crop's table: (N, k + 2, W) and (N,h,w) -> (N,W,h,w)."""
    return np.ascontiguousarray(tables[np.arange(len(rows))[:, None, None], rows].transpose(0, 3, 1, 2))
