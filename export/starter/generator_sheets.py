"""Sheets of samples: the same z along a row, the same pose down a column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from export.models.surface import SurfaceUnet
from export.starter.crop_batches import PLAIN, Batch, make_batch, nearest_vertices
from export.starter.crops import CropSet
from export.starter.generator_network import generate


def pick_poses(crops: CropSet, count: int, z_channels: int, *, seed: int = 0) -> Batch:
    """Crops for the columns of a sheet, masked as plainly as they come.

    Args:
        crops: where from, with at least one.
        count: of columns.
        z_channels: of the generator.
        seed: of the choice.
    """
    draw = np.random.default_rng(seed)
    chosen = draw.permutation(len(crops))[:count]
    itself = nearest_vertices(np.zeros((1, 3), np.float32), 1)
    return make_batch(crops, chosen, itself, PLAIN, z_channels, draw)


@torch.no_grad()
def draw_sheet(network: SurfaceUnet, embeddings: Tensor, poses: Batch, z: Tensor) -> NDArray[np.uint8]:
    """Every pose as every z.

    Args:
        network: not folded, on the CPU.
        embeddings: (K, D) of the vertices.
        poses: one for each of P columns.
        z: (R, z_channels), one for each row.

    Returns:
        uint8 RGB, ((R + 2) H, P W, 3): the true pictures, what the generator sees of them, and a row for each z.
    """
    known = poses.image * poses.mask
    rows = [poses.image, known]
    for one in z:
        made, _ = generate(network, one.expand(len(poses.image), -1), poses, embeddings)
        rows.append(made)
    lines = [torch.cat(list(row), dim=2) for row in rows]
    levels = ((torch.cat(lines, dim=1).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy())


def write_sheet(path: Path, sheet: NDArray[np.uint8]) -> None:
    """Writes a sheet as PNG."""
    Image.fromarray(sheet).save(path, format="PNG")
