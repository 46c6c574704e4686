"""The small arrays of a bundle: as its manifest declares them, and as files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engines.manifest import ArrayFile

#: By name, each with its meaning.
Arrays = Mapping[str, tuple[NDArray[Any], str]]

#: Of the array `vertex_embeddings`.
SURFACE_MEANING: Final = "embedding of each vertex of the surface, unit norm"


def declared_arrays(arrays: Arrays) -> dict[str, ArrayFile]:
    """What the manifest says of them."""
    return {
        name: ArrayFile(file=f"{name}.npy", dtype=str(values.dtype), shape=values.shape, meaning=meaning)
        for name, (values, meaning) in arrays.items()
    }


def array_files(arrays: Arrays) -> dict[str, bytes]:
    """Their files by name, nothing in which is run when they are read."""
    files = {}
    for name, (values, _) in arrays.items():
        content = io.BytesIO()
        np.save(content, values, allow_pickle=False)
        files[f"{name}.npy"] = content.getvalue()
    return files
