"""The surface that a generator knows: one embedding per vertex, from a dense pose (CSE) checkpoint of detectron2."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engines.errors import CheckpointError
from export.checkpoint import read_checkpoint, shown

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

#: The mesh of people in detectron2's checkpoints, with 27554 vertices.
PERSON_MESH = "smpl_27554"
#: detectron2 divides by no smaller norm; an embedding below it would not have unit norm.
_SMALLEST_NORM = 1e-6
#: In units of a channel's standard deviation. The same map differs by rounding (up to 0.004 where TF32 was on in
#: training); another one by 1 and more.
_AGREES = 0.02

_NAME = re.compile(r"(?:.*\.)?embedder\.embedder_(\w+)\.(features|embeddings)")


def read_surface(path: Path, embedding_channels: int = 16) -> NDArray[np.float32]:
    """Reads the vertex embeddings of a person's surface.

    A vertex's embedding is its features times a learnt matrix, divided by the norm (Neverova et al. 2020, section 3);
    detectron2 also has checkpoints with the embeddings themselves.

    Args:
        path: a CSE checkpoint, .pkl or .pth.
        embedding_channels: D, as in the generator.

    Returns:
        (K, D) float32, unit norm.

    Raises:
        CheckpointError: It cannot be read, is no CSE checkpoint of people, or its embeddings are not usable.
    """
    checkpoint = read_checkpoint(path)
    inner = checkpoint.get("model", checkpoint)
    meshes = _meshes(inner if isinstance(inner, Mapping) else checkpoint)
    if not meshes:
        raise CheckpointError(
            f"{path} has no vertex embeddings (roi_heads.embedder.*); give the dense pose CSE checkpoint of detectron2"
        )
    people = [name for name in meshes if name.startswith("smpl")]
    mesh = PERSON_MESH if PERSON_MESH in meshes else people[0] if len(people) == 1 else ""
    if not mesh:
        raise CheckpointError(f"{path} has the surfaces {shown(*meshes)}, expected {PERSON_MESH}; give one of people")
    try:
        return unit_surface(_product(meshes[mesh], mesh), embedding_channels, mesh)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _meshes(state: Mapping[Any, Any]) -> dict[str, dict[str, NDArray[Any]]]:
    """Arrays by mesh and kind, `features` or `embeddings`."""
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for name, value in state.items():
        match = _NAME.fullmatch(name) if isinstance(name, str) else None
        if match is None:
            continue
        if isinstance(value, torch.Tensor) and not value.is_complex() and not value.is_quantized:
            # Through float32: numpy has no bfloat16.
            found.setdefault(match[1], {})[match[2]] = value.float().numpy()
        elif isinstance(value, np.ndarray):
            found.setdefault(match[1], {})[match[2]] = value
    return found


def _product(parts: Mapping[str, NDArray[Any]], mesh: str) -> NDArray[np.float64]:
    for kind, values in parts.items():
        if values.ndim != 2 or not values.size:
            raise CheckpointError(f"{kind} of {mesh} is {values.shape}, expected two dimensions; download it again")
    if "embeddings" not in parts:
        raise CheckpointError(f"the surface {mesh} lacks its embeddings; it is incomplete: download it again")
    embeddings = parts["embeddings"].astype(np.float64)
    if "features" not in parts:
        return embeddings
    features = parts["features"].astype(np.float64)
    if features.shape[1] != len(embeddings):
        raise CheckpointError(f"features of {mesh} are {features.shape}, its embeddings {embeddings.shape}: no product")
    # Not finite shows in the product, and is looked for there.
    with np.errstate(all="ignore"):
        return features @ embeddings


def unit_surface(raw: NDArray[Any], channels: int, mesh: str) -> NDArray[np.float32]:
    """Vertex embeddings with unit norm, once they have been found usable.

    Args:
        raw: (K, D).
        channels: D, as in the generator.
        mesh: what it is called in messages.

    Raises:
        CheckpointError: It has other channels, or embeddings that are not finite or 0.
    """
    if raw.shape[1] != channels:
        raise CheckpointError(
            f"{mesh} has {raw.shape[1]} channels a vertex, expected {channels}; give the CSE checkpoint"
        )
    norms = np.linalg.norm(raw, axis=1, keepdims=True)
    if not np.isfinite(norms).all():
        raise CheckpointError(f"{mesh} has embeddings that are not finite; the file is damaged: download it again")
    if norms.min() < _SMALLEST_NORM:
        raise CheckpointError(
            f"{mesh} has {int((norms < _SMALLEST_NORM).sum())} embeddings that are 0; it is not trained"
        )
    unit: NDArray[np.float32] = (raw / norms).astype(np.float32)
    return unit


def standardise(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean 0 and variance 1 of each channel over the vertices, which is how SG-GAN keeps its map.

    Args:
        embeddings: (K, D).
    """
    centred = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    scaled: NDArray[np.float32] = (centred / np.sqrt(np.square(centred).mean(axis=0) + 1e-8)).astype(np.float32)
    return scaled


def check_surface_agrees(raw: NDArray[np.float32], standardised: NDArray[np.float32]) -> None:
    """Makes sure that SG-GAN was trained with this surface: each vertex must mean the same place on the body.

    Args:
        raw: (K, D) from `read_surface`.
        standardised: (K, D), `style_net.E_map.E` of the generator.

    Raises:
        CheckpointError: It is another surface.
    """
    if raw.shape != standardised.shape:
        raise CheckpointError(
            f"the surface has {raw.shape[0]} vertices of {raw.shape[1]} channels, the generator's own "
            f"{standardised.shape[0]} of {standardised.shape[1]}; give the CSE checkpoint that it was trained with"
        )
    furthest = float(np.abs(standardise(raw) - standardised).max())
    # Written so that a map which is not finite does not agree.
    if not furthest <= _AGREES:
        raise CheckpointError(
            f"the surface is not the one in the generator: they differ by {furthest:.3g} standard deviations, "
            f"expected at most {_AGREES}; give the CSE checkpoint that it was trained with"
        )
