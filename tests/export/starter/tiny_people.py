"""People as ellipses in front of a dark wall, whose colour says where on the body's surface a pixel lies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.starter.detector import DetectorSpec
from export.starter.detector_data import PackedScenes, pack_scenes
from export.starter.detector_surface import Template
from export.starter.samples import Scene, write_scenes

ROWS, COLUMNS = 10, 6
SIZE = (64, 96)
SPEC = DetectorSpec(widths=(8, 12, 16, 24, 32), blocks=(0, 1, 1, 0), expansion=2, pyramid=16, fine=16)


def canonical() -> npt.NDArray[np.float32]:
    """The body: a flat sheet of 0.5 by 1.8 metres; vertices by rows from its feet, from its right to its left."""
    z, x = np.meshgrid(np.linspace(0, 1.8, ROWS), np.linspace(-0.25, 0.25, COLUMNS), indexing="ij")
    return np.stack([x.ravel(), np.zeros(x.size), z.ravel()], axis=1).astype(np.float32)


def faces() -> npt.NDArray[np.int32]:
    """Two triangles for each square of the sheet."""
    corner = (np.arange(ROWS - 1)[:, None] * COLUMNS + np.arange(COLUMNS - 1)).ravel()
    first = np.stack([corner, corner + 1, corner + COLUMNS], axis=1)
    second = np.stack([corner + 1, corner + COLUMNS + 1, corner + COLUMNS], axis=1)
    return np.concatenate([first, second]).astype(np.int32)


def template() -> Template:
    """Its surface; the upper three rows are the head."""
    return Template(canonical(), faces(), np.arange(ROWS * COLUMNS) >= (ROWS - 3) * COLUMNS)


def make_scene(boxes: Sequence[tuple[int, int, int, int]], seed: int, size: tuple[int, int] = SIZE) -> Scene:
    """Somebody in each box (x0, y0, x1, y1), later ones in front."""
    draw = np.random.default_rng(seed)
    image = draw.integers(0, 60, (*size, 3)).astype(np.uint8)
    instances, vertices = np.zeros(size, np.uint8), np.full(size, -1, np.int32)
    for number, (x0, y0, x1, y1) in enumerate(boxes, start=1):
        y, x = np.mgrid[0 : size[0], 0 : size[1]]
        across, down = (x + 0.5 - x0) / (x1 - x0), (y + 0.5 - y0) / (y1 - y0)
        there = (across - 0.5) ** 2 + (down - 0.5) ** 2 < 0.25
        # Who looks at the camera has the left side on the picture's right.
        column = np.clip((across * COLUMNS).astype(int), 0, COLUMNS - 1)
        row = np.clip(((1 - down) * ROWS).astype(int), 0, ROWS - 1)
        instances[there] = number
        vertices[there] = (row * COLUMNS + column)[there]
        colour = np.stack([80 + 170 * across, 80 + 170 * down, np.full(size, 120 + 20 * number)], axis=2)
        image[there] = np.clip(colour, 0, 255).astype(np.uint8)[there]
    return Scene(image, instances, vertices, np.zeros((len(boxes), 3), np.float32))


def make_scenes(count: int, seed: int = 0) -> list[Scene]:
    """Scenes of none to two people."""
    draw = np.random.default_rng(seed)
    scenes = []
    for index in range(count):
        boxes = []
        for person in range(index % 3):
            width, height = int(draw.integers(14, 26)), int(draw.integers(28, 56))
            x0, y0 = 48 * person + int(draw.integers(0, 48 - width)), int(draw.integers(0, SIZE[0] - height))
            boxes.append((x0, y0, x0 + width, y0 + height))
        scenes.append(make_scene(boxes, seed + index))
    return scenes


def packed(folder: Path, scenes: Sequence[Scene]) -> PackedScenes:
    """Scenes as the training reads them."""
    write_scenes(folder / "scenes", scenes)
    return pack_scenes(folder / "scenes", folder / "packed")
