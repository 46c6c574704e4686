"""Vertex maps: what generators are told of a body's surface, a vertex for each pixel, and the embeddings of these.

Of K vertices, 0 to K - 1 stand for themselves, K for a known pixel, and K + 1 for a border pixel (neither known nor on
the body): the three indicator planes of V-SAM are one-hot, so that each pixel is one of K + 2 cases.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def vertex_map(vertices: Ints, known: Bools, body: Bools, count: int) -> Ints:
    """The case of each pixel. A pixel that is both known and body counts as body.

    Args:
        vertices: int64 (..., H, W), 0 to K - 1 on the body; elsewhere it is not looked at.
        known: bool, same shape.
        body: bool, same shape.
        count: K, the vertices of the surface.
    """
    return np.asarray(np.where(body, vertices, np.where(known, count, count + 1)), np.int64)


def case_embeddings(embeddings: Floats) -> Floats:
    """The embedding of each case, float32 (K + 2, D): those of the vertices (K, D), and none for the last two."""
    return np.concatenate([embeddings, np.zeros((2, embeddings.shape[1]), np.float32)])


def pixel_embeddings(columns: Floats, cases: Ints) -> Floats:
    """The embedding of each pixel's case, float32 (N, D, H, W).

    Args:
        columns: float32 (D, K + 2), contiguous: `case_embeddings`, transposed.
        cases: int64 (N, H, W), all of them 0 to K + 1.
    """
    out = np.empty((len(cases), len(columns), *cases.shape[1:]), np.float32)
    for plane, index in zip(out, cases, strict=True):
        # All of them are columns; "clip" only spares a second buffered check.
        np.take(columns, index, axis=1, out=plane, mode="clip")
    return out
