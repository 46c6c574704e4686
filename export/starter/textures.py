"""Surfaces for procedural backgrounds: noise, tiles, planks, bricks, shelves, walls with windows. Float32 RGB, 0..1."""

from __future__ import annotations

import cv2
import numpy as np

SIZE = 256
Image = np.ndarray


def muted(rng: np.random.Generator) -> Image:
    """A colour as walls and floors have it, (3,)."""
    grey = rng.uniform(0.15, 0.95)
    return np.clip(grey * (1 + rng.normal(0, 0.08, 3)) + rng.normal(0, 0.02, 3), 0.01, 1)


def vivid(rng: np.random.Generator) -> Image:
    """Any colour, (3,)."""
    hue_saturation_value = np.array([[[rng.uniform(0, 360), rng.uniform(0.2, 1), rng.uniform(0.1, 1)]]], np.float32)
    return np.asarray(cv2.cvtColor(hue_saturation_value, cv2.COLOR_HSV2RGB)[0, 0], np.float64)


def any_colour(rng: np.random.Generator) -> Image:
    """Mostly a muted colour, (3,)."""
    return muted(rng) if rng.random() < 0.7 else vivid(rng)


def fractal(rng: np.random.Generator, height: int, width: int) -> Image:
    """Noise of several scales with mean 0 and deviation 1, (height, width)."""
    total = np.zeros((height, width), np.float32)
    strength, falls, cells = 1.0, rng.uniform(0.45, 0.85), int(rng.integers(1, 5))
    stretch = float(np.exp(rng.normal(0, 0.5)))
    while cells < min(height, width):
        grid = rng.normal(0, 1, (max(2, cells), max(2, int(cells * stretch)))).astype(np.float32)
        total += strength * cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
        strength *= falls
        cells *= 2
    return np.asarray(total / (total.std() + 1e-6), np.float32)


def surface(rng: np.random.Generator, size: int = SIZE) -> Image:
    """A floor or a wall without things on it."""
    kind = rng.choice(
        ("plain", "tiles", "planks", "bricks", "speckled", "stripes"), p=(0.36, 0.2, 0.14, 0.1, 0.14, 0.06)
    )
    noise = fractal(rng, size, size)[..., None]
    picture = muted(rng).astype(np.float32) * (1 + np.float32(rng.uniform(0.01, 0.16)) * noise)
    if kind == "tiles":
        _joints(rng, picture, int(rng.integers(2, 14)), int(rng.integers(2, 14)), shifted=False)
    elif kind == "planks":
        _joints(rng, picture, int(rng.integers(6, 20)), int(rng.integers(1, 4)), shifted=True)
        if rng.random() < 0.6:
            picture *= np.array([1.15, 0.9, 0.68], np.float32) * np.float32(rng.uniform(0.7, 1.1))
    elif kind == "bricks":
        _joints(rng, picture, int(rng.integers(10, 26)), int(rng.integers(4, 10)), shifted=True)
        if rng.random() < 0.5:
            picture *= np.array([1.15, 0.7, 0.6], np.float32)
    elif kind == "speckled":
        picture += (rng.standard_normal(picture.shape[:2], np.float32) * np.float32(rng.uniform(0.02, 0.12)))[..., None]
    elif kind == "stripes":
        band = int(rng.integers(4, 60))
        picture[(np.arange(size) // band) % 2 == 0] *= rng.uniform(0.6, 0.95)
    return np.asarray(np.clip(picture, 0, 1), np.float32)


def _joints(rng: np.random.Generator, picture: Image, rows: int, columns: int, *, shifted: bool) -> None:
    """Divides ``picture`` into stones of differing shades with joints between them."""
    size = len(picture)
    vary, joint, wide = rng.uniform(0, 0.16), rng.uniform(0.5, 1.1), int(rng.integers(1, 4))
    for row in range(rows):
        top, bottom = row * size // rows, (row + 1) * size // rows
        offset = int(rng.integers(0, size)) if shifted else 0
        band = np.ones((bottom - top, size, 1), np.float32)
        for column in range(columns):
            left, right = column * size // columns, (column + 1) * size // columns
            band[:, left:right] = 1 + rng.normal(0, vary)
            band[:, left : left + wide] *= joint
        band[:wide] = joint
        picture[top:bottom] *= np.roll(band, offset, axis=1)


def shelf(rng: np.random.Generator, size: int = SIZE) -> Image:
    """A shelf full of boxes, bottles and books, seen from the front."""
    picture = surface(rng, size) * 0.5
    main, row_count = any_colour(rng), int(rng.integers(2, 8))
    for row in range(row_count):
        floor, left = (row + 1) * size // row_count, 0
        while left < size:
            wide = int(rng.uniform(6, 40))
            tall = int(rng.uniform(0.3, 0.93) * size / row_count)
            near = np.clip(main * rng.uniform(0.6, 1.3) + rng.normal(0, 0.06, 3), 0, 1)
            colour = near if rng.random() < 0.7 else vivid(rng)
            _packet(rng, picture, (left, floor - tall, left + wide - 1, floor - 2), colour)
            left += wide + int(rng.integers(0, 6))
        cv2.line(picture, (0, floor - 1), (size, floor - 1), muted(rng).tolist(), int(rng.integers(2, 6)))
    return picture


def _packet(rng: np.random.Generator, picture: Image, box: tuple[int, int, int, int], colour: Image) -> None:
    left, top, right, bottom = box
    light = np.clip(colour * 1.3 + 0.05, 0, 1)
    if rng.random() < 0.7:
        cv2.rectangle(picture, (left, top), (right, bottom), colour.tolist(), -1)
        cv2.rectangle(picture, (left, top), (left + (right - left) // 4, bottom), light.tolist(), -1)
        label = vivid(rng) if rng.random() < 0.4 else light
        third = (bottom - top) // 3
        cv2.rectangle(picture, (left + 1, top + third), (right - 1, top + 2 * third), label.tolist(), -1)
    else:
        middle, half = (
            ((left + right) // 2, (top + bottom) // 2),
            (max(1, (right - left) // 2), max(1, (bottom - top) // 2)),
        )
        cv2.ellipse(picture, middle, half, 0, 0, 360, colour.tolist(), -1)
        cv2.ellipse(
            picture,
            (middle[0] - half[0] // 3, middle[1] - half[1] // 3),
            (half[0] // 3 + 1, half[1] // 3 + 1),
            0,
            0,
            360,
            light.tolist(),
            -1,
        )


def wall(rng: np.random.Generator, size: int = SIZE) -> Image:
    """A wall with what hangs on it or leads through it: windows, doors, pictures, pipes, writing."""
    if rng.random() < 0.15:
        return shelf(rng, size)
    picture = surface(rng, size)
    for _ in range(int(rng.choice((0, 1, 2, 3, 5, 8)))):
        wide, tall = int(np.exp(rng.uniform(2.5, 5))), int(np.exp(rng.uniform(2.5, 5.2)))
        left, top = int(rng.integers(-10, size - 10)), int(rng.integers(-10, size - 10))
        _hang(rng, picture, (max(0, left), max(0, top), min(size, left + wide), min(size, top + tall)))
    for _ in range(int(rng.choice((0, 0, 1, 3)))):
        start = (int(rng.integers(0, size)), int(rng.integers(0, size)))
        end = (start[0], size) if rng.random() < 0.5 else (size, start[1])
        cv2.line(picture, start, end, any_colour(rng).tolist(), int(rng.integers(1, 8)))
    return picture


def _hang(rng: np.random.Generator, picture: Image, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    if right - left < 6 or bottom - top < 6:
        return
    kind = rng.choice(("window", "picture", "panel", "writing", "shelf"), p=(0.25, 0.2, 0.25, 0.15, 0.15))
    size = (right - left, bottom - top)
    if kind == "window":
        glow = np.linspace(rng.uniform(0.6, 1.1), rng.uniform(0.5, 1), size[1])[:, None, None] * muted(rng)
        inside = np.clip(glow + rng.uniform(0, 0.5), 0, 1) * np.ones((size[1], size[0], 1))
    elif kind == "shelf":
        inside = cv2.resize(shelf(rng), size, interpolation=cv2.INTER_AREA)
    elif kind == "picture":
        low, high = any_colour(rng), any_colour(rng)
        share = np.clip(0.5 + 0.4 * fractal(rng, size[1], size[0]), 0, 1)[..., None]
        inside = low * share + high * (1 - share)
    else:
        inside = np.ones((size[1], size[0], 1)) * any_colour(rng)
    inside = np.ascontiguousarray(inside, np.float32)
    if kind == "writing":
        for row in range(3, size[1] - 2, max(4, size[1] // 6)):
            for start in range(3, size[0] - 4, 7):
                if rng.random() < 0.75:
                    cv2.line(inside, (start, row), (start + int(rng.integers(2, 6)), row), muted(rng).tolist(), 2)
    picture[top:bottom, left:right] = inside
    if rng.random() < 0.7:
        cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), muted(rng).tolist(), int(rng.integers(1, 5)))
