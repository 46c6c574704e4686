"""Scenes of people who are two-coloured ellipses, on a surface of a few dozen vertices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.starter.crop_batches import AugmentConfig
from export.starter.crops import CropSet, open_crops, write_crops
from export.starter.discriminator import DiscriminatorConfig
from export.starter.generator_losses import LossConfig
from export.starter.generator_network import NetworkConfig
from export.starter.generator_training import BodySurface, TrainingConfig
from export.starter.samples import Scene

ROWS, COLUMNS = 9, 4
VERTICES = ROWS * COLUMNS
CHANNELS = 6
LOOK = 6
SIZE = (32, 16)

NETWORK = NetworkConfig(
    image_size=SIZE, z_channels=8, w_channels=8, hidden_channels=16, widths=(6, 8, 12), middle_blocks=1
)
CONFIG = TrainingConfig(
    network=NETWORK,
    discriminator=DiscriminatorConfig(widths=(6, 8, 12), pyramid=6),
    losses=LossConfig(r1_interval=2),
    augment=AugmentConfig(),
    batch=4,
    half_life=20,
    average_draws=4,
    workers=0,
)


def surface() -> BodySurface:
    """A sheet with unit embeddings that change smoothly over it."""
    v, u = np.meshgrid(np.linspace(0, 1.7, ROWS), np.linspace(-0.3, 0.3, COLUMNS), indexing="ij")
    canonical = np.stack([u, np.zeros_like(u), 1.7 - v], axis=-1).reshape(VERTICES, 3)
    waves = np.stack([np.sin(v), np.cos(v), np.sin(4 * u), np.cos(4 * u), np.sin(3 * v), np.cos(3 * v)], axis=-1)
    waves = waves.reshape(VERTICES, CHANNELS)
    unit = waves / np.linalg.norm(waves, axis=1, keepdims=True)
    return BodySurface(canonical.astype(np.float32), unit.astype(np.float32))


def person(
    scene: tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int32]],
    number: int,
    middle: tuple[float, float],
    radii: tuple[float, float],
    look: NDArray[np.float32],
) -> None:
    """Draws one person over what is there: the upper half of one colour, the lower of another."""
    image, instances, vertices = scene
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    v, u = (y - middle[0]) / radii[0], (x - middle[1]) / radii[1]
    body = v**2 + u**2 <= 1
    row, column = ((v + 1) / 2 * ROWS).astype(int), ((u + 1) / 2 * COLUMNS).astype(int)
    index = np.clip(row, 0, ROWS - 1) * COLUMNS + np.clip(column, 0, COLUMNS - 1)
    colours = np.rint(127.5 + 120 * np.tanh(look.reshape(2, 3))).astype(np.uint8)
    image[body] = np.where((v < 0)[..., None], colours[0], colours[1])[body]
    instances[body] = number
    vertices[body] = index[body]


def scene(seed: int, *, people: int = 2, size: tuple[int, int] = (96, 128)) -> Scene:
    """A picture of people beside and before each other."""
    draw = np.random.default_rng(seed)
    image = np.asarray(draw.integers(90, 130, (*size, 3)), np.uint8)
    drawn = image, np.zeros(size, np.uint8), np.full(size, -1, np.int32)
    looks = draw.standard_normal((people, LOOK)).astype(np.float32)
    for number, look in enumerate(looks, start=1):
        middle = size[0] * draw.uniform(0.4, 0.6), size[1] * draw.uniform(0.2, 0.8)
        person(drawn, number, middle, (draw.uniform(28, 36), draw.uniform(11, 14)), look)
    return Scene(*drawn, looks)


def crops(folder: Path, count: int = 12, *, size: tuple[int, int] = SIZE) -> CropSet:
    """The people of some scenes, cut."""
    write_crops(folder, (scene(seed) for seed in range(count)), size)
    return open_crops(folder)
