"""Generators that are exported within seconds, as checkpoints: of the published kinds, but two levels deep."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.configs import SurfaceConfig, UnetConfig
from export.models.surface import SurfaceSpec, SurfaceUnet
from export.models.unet import StyleUnet, UnetSpec
from export.vertex_embeddings import PERSON_MESH, read_surface, standardise
from tests.export.networks import seeded

_SIZE, _Z, _W, _VERTICES = (16, 16), 8, 6, 12
_LEVELS = ((4, 4), (4, 4))
_DECLARED: dict[str, Any] = {
    "image_size": _SIZE,
    "levels": len(_LEVELS),
    "z_channels": _Z,
    "licence": "seeded numbers",
    "homepage": "https://example.org",
}
FACE = UnetConfig(name="tiny-face", export="dp2-face", kinds=("face",), **_DECLARED)
BODY = SurfaceConfig(name="tiny-body", export="sg-gan", kinds=("person",), embedding_channels=16, **_DECLARED)


def face_network() -> StyleUnet:
    return seeded(StyleUnet(UnetSpec(_SIZE, 3, _Z, _W, 1, 0, _LEVELS, _LEVELS, 0, True, 256.0)))


def body_network() -> SurfaceUnet:
    return seeded(SurfaceUnet(SurfaceSpec(_SIZE, 3, _Z, _W, 5, _VERTICES, 16, 1, 1, 2, _LEVELS, _LEVELS, 0, 256.0)))


def face_checkpoint(path: Path, **changes: Tensor) -> Path:
    """The weights of `face_network`, with other tensors for some names."""
    torch.save({"EMA_generator": face_network().state_dict() | changes}, path)
    return path


def body_checkpoint(path: Path, surface: Path) -> Path:
    """The weights of `body_network`, as if it had been trained with the surface."""
    own = torch.from_numpy(standardise(read_surface(surface)))
    torch.save({"EMA_generator": body_network().state_dict() | {"style_net.E_map.E": own}}, path)
    return path


def cse_checkpoint(path: Path, *, vertices: int = _VERTICES, seed: int = 0) -> Path:
    """What of a dense pose detector's checkpoint tells the vertex embeddings."""
    draw = np.random.default_rng(seed)
    at = f"roi_heads.embedder.embedder_{PERSON_MESH}"
    state: dict[str, NDArray[np.float32]] = {
        f"{at}.features": draw.standard_normal((vertices, 32)).astype(np.float32),
        f"{at}.embeddings": draw.standard_normal((32, 16)).astype(np.float32),
    }
    path.write_bytes(pickle.dumps({"model": state, "__author__": "someone"}))
    return path
