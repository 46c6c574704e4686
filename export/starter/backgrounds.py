"""What is behind the people: rooms, streets and clutter made by rule, or the user's own person-free photographs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError

from engines.errors import SourceError
from export.starter.textures import SIZE, any_colour, fractal, muted, shelf, surface, wall

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from export.starter.cameras import Camera

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_LONGEST = 1280


def draw_background(
    rng: np.random.Generator, camera: Camera, width: int, height: int, photographs: list[NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """A picture without people, uint8 RGB (height, width, 3), from ``photographs`` about half of the time."""
    if photographs and rng.random() < 0.5:
        picture = _cut(rng, photographs[rng.integers(len(photographs))], width, height)
    elif rng.random() < 0.12:
        picture = _clutter(rng, width, height)
    elif camera.view in ("street", "overhead") and rng.random() < 0.6:
        picture = _street(rng, camera, width, height)
    else:
        picture = _room(rng, camera, width, height)
    return np.asarray(np.clip(picture, 0, 1) * 255, np.uint8)


def read_photographs(folder: Path) -> list[NDArray[np.uint8]]:
    """The pictures in ``folder``, uint8 RGB, at most 1280 pixels long. They must show no people: none are marked.

    Raises:
        SourceError: there is none, or one cannot be read.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise SourceError(f"{folder} has no photographs ({', '.join(_SUFFIXES)})")
    pictures = []
    for path in paths:
        try:
            with PillowImage.open(path) as opened:
                picture = ImageOps.exif_transpose(opened).convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise SourceError(f"{path} cannot be read as a picture: {error}") from error
        picture.thumbnail((_LONGEST, _LONGEST))
        pictures.append(np.asarray(picture, np.uint8))
    return pictures


def _cut(rng: np.random.Generator, photograph: NDArray[np.uint8], width: int, height: int) -> np.ndarray:
    """A part of a photograph, sometimes mirrored and recoloured."""
    rows, columns = photograph.shape[:2]
    largest = min(rows / height, columns / width)
    zoom = largest * rng.uniform(0.4, 1.0)
    tall, wide = max(1, int(height * zoom)), max(1, int(width * zoom))
    top, left = rng.integers(0, rows - tall + 1), rng.integers(0, columns - wide + 1)
    part = cv2.resize(photograph[top : top + tall, left : left + wide], (width, height), interpolation=cv2.INTER_AREA)
    part = part[:, ::-1] if rng.random() < 0.5 else part
    picture = part.astype(np.float32) / 255
    if rng.random() < 0.25:
        picture = picture[..., rng.permutation(3)]
    return picture * np.float32(rng.uniform(0.6, 1.25))


def _room(rng: np.random.Generator, camera: Camera, width: int, height: int) -> np.ndarray:
    """A box of a room around the camera: floor, three walls and a ceiling, each with its own surface."""
    depth = camera.farthest + rng.uniform(0.4, 6) if rng.random() < 0.8 else camera.farthest + rng.uniform(6, 25)
    # The walls stand about where the picture ends, so that most people are inside.
    half = math.tan(camera.field / 2) * camera.aspect * camera.farthest
    left, right = np.clip(half * rng.uniform(0.6, 1.7, 2), 2.0, 15.0)
    ceiling = camera.height + rng.uniform(0.4, 4)
    rays = camera.rays(width, height)
    planes = ((2, 0.0), (2, ceiling), (1, depth), (0, -left), (0, right))
    surfaces = (surface(rng), np.clip(surface(rng) * 0.3 + 0.6, 0, 1), wall(rng), wall(rng), wall(rng))
    shades = (1.0, rng.uniform(0.8, 1.2), rng.uniform(0.7, 1.15), rng.uniform(0.55, 1.1), rng.uniform(0.55, 1.1))
    return _cast(rng, camera, rays, planes, surfaces, shades)


def _street(rng: np.random.Generator, camera: Camera, width: int, height: int) -> np.ndarray:
    """Open ground up to a row of fronts, with the sky above."""
    depth = camera.farthest + rng.uniform(1, 30)
    rays = camera.rays(width, height)
    ground = surface(rng)
    for _ in range(int(rng.choice((0, 1, 2, 4)))):  # markings
        row, wide = int(rng.integers(0, SIZE)), int(rng.integers(2, 14))
        band = ground[row : row + wide] if rng.random() < 0.5 else ground[:, row : row + wide]
        band[:] = band * 0.3 + any_colour(rng).astype(np.float32) * 0.7
    low, high = np.array([0.75, 0.8, 0.85]) * rng.uniform(0.6, 1.2), np.array([0.45, 0.6, 0.85]) * rng.uniform(0.4, 1.1)
    share = np.clip(np.linspace(0, 1, SIZE)[:, None, None] + 0.1 * fractal(rng, SIZE, SIZE)[..., None], 0, 1)
    sky = np.asarray(high * (1 - share) + low * share, np.float32)
    planes = ((2, 0.0), (2, camera.height + 60.0), (1, depth), (0, -rng.uniform(4, 25)), (0, rng.uniform(4, 25)))
    surfaces = (ground, sky, wall(rng), wall(rng), wall(rng))
    shades = (1.0, 1.1, rng.uniform(0.6, 1.15), rng.uniform(0.5, 1.1), rng.uniform(0.5, 1.1))
    return _cast(rng, camera, rays, planes, surfaces, shades)


def _cast(
    rng: np.random.Generator,
    camera: Camera,
    rays: np.ndarray,
    planes: tuple[tuple[int, float], ...],
    surfaces: tuple[np.ndarray, ...],
    shades: tuple[float, ...],
) -> np.ndarray:
    """What the rays hit first of planes across an axis, (axis, where); each surface repeats every few metres."""
    picture = np.zeros(rays.shape, np.float32)
    nearest = np.full(rays.shape[:2], np.inf, np.float32)
    position = camera.position.astype(np.float32)
    for (axis, where), textured, shade in zip(planes, surfaces, shades, strict=True):
        with np.errstate(divide="ignore"):
            distance = np.float32(where - position[axis]) / rays[..., axis]
        hit = (distance > 0) & (distance < nearest)
        metres, shift = rng.uniform(3.5, 9) if axis != 2 else rng.uniform(1.5, 6), rng.uniform(0, 1, 2)
        shift[1] = shift[1] if axis == 2 else 0.0  # walls start at the floor
        fade = rng.uniform(0, 0.03)
        if not hit.any():
            continue
        across, up = ((1, 2), (0, 2), (0, 1))[axis]
        far, scale = distance[hit], np.float32(len(textured) / metres)
        places = [
            np.mod(sign * (position[side] + far * rays[..., side][hit]) * scale + offset * len(textured), len(textured))
            for sign, side, offset in ((1, across, shift[0]), (-1, up, shift[1]))
        ]
        columns, rows = (place.astype(np.float32)[None] for place in places)
        seen = _sample(textured, columns, rows)
        picture[hit] = seen * (shade / (1 + fade * np.minimum(far, 100.0)))[:, None]
        nearest[hit] = far
    return _lighten(rng, picture * np.float32(rng.uniform(0.85, 1.5)))


def _sample(textured: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The texture at places (1, N), as (N, 3). OpenCV takes no more than 32767 places in a row."""
    wide = 4096
    padding = -columns.shape[1] % wide
    grid = [np.pad(place, ((0, 0), (0, padding))).reshape(-1, wide) for place in (columns, rows)]
    seen = cv2.remap(textured, grid[0], grid[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return np.asarray(seen).reshape(-1, 3)[: columns.shape[1]]


def _lighten(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Uneven light over the whole picture, sometimes a lamp or a window that glows."""
    height, width = picture.shape[:2]
    uneven = cv2.resize(
        rng.uniform(0.7, 1.2, (3, 4)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    picture = picture * uneven[..., None]
    if rng.random() < 0.25:
        glow = np.zeros((height, width), np.float32)
        middle = (int(rng.uniform(0, width)), int(rng.uniform(-0.1, 0.6) * height))
        axes = (int(rng.uniform(0.02, 0.15) * width), int(rng.uniform(0.02, 0.2) * height))
        cv2.ellipse(glow, middle, axes, 0, 0, 360, 1.0, -1)
        soft = cv2.GaussianBlur(glow, (0, 0), rng.uniform(1, 0.1 * height))
        picture = picture + soft[..., None] * np.float32(rng.uniform(0.2, 0.8))
    return np.asarray(picture, np.float32)


def _clutter(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Surfaces and shelves laid over each other without any sense of space."""
    picture = cv2.resize(surface(rng), (width, height), interpolation=cv2.INTER_LINEAR)
    corners = np.array([(0, 0), (SIZE, 0), (SIZE, SIZE), (0, SIZE)], np.float32)
    for _ in range(int(rng.integers(1, 7))):
        textured = (shelf, surface, wall)[rng.integers(3)](rng)
        start = np.array([rng.uniform(-0.2, 0.8) * width, rng.uniform(-0.2, 0.8) * height])
        size = np.array([rng.uniform(0.1, 0.7) * width, rng.uniform(0.1, 0.8) * height])
        places = start + corners / SIZE * size + rng.normal(0, 0.15, (4, 2)) * size
        warp = cv2.getPerspectiveTransform(corners, places.astype(np.float32))
        over = cv2.warpPerspective(np.ones((SIZE, SIZE), np.float32), warp, (width, height))[..., None]
        picture = picture * (1 - over) + cv2.warpPerspective(textured, warp, (width, height)) * over
    for _ in range(int(rng.integers(0, 6))):
        start_, end = rng.integers(0, width, 2), rng.integers(0, height, 2)
        cv2.line(picture, (int(start_[0]), int(end[0])), (int(start_[1]), int(end[1])), muted(rng).tolist(), 2)
    return _lighten(rng, picture)
