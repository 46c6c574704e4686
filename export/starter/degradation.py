"""What a camera makes of a scene: blur, noise, haze, odd colours, compression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def degrade(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``image``, uint8 RGB (H, W, 3), as a webcam, a phone or an old surveillance camera would give it."""
    picture = image.astype(np.float32) / 255
    picture = _blurred(rng, picture)
    picture = _recoloured(rng, picture)
    if rng.random() < 0.2:
        veil = rng.uniform(0.05, 0.4)
        picture = picture * (1 - veil) + veil * rng.uniform(0.4, 1.0)
    if rng.random() < 0.6:
        picture = picture + _noise(rng, picture.shape)
    done = np.asarray(np.clip(picture, 0, 1) * 255 + 0.5, np.uint8)
    return _compressed(rng, done) if rng.random() < 0.75 else done


def _blurred(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    chance = rng.random()
    if chance < 0.3:
        return np.asarray(cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.3)), np.float32)
    if chance < 0.4:
        length = int(rng.integers(2, 8))
        kernel = np.zeros((length, length), np.float32)
        cv2.line(kernel, (0, int(rng.integers(0, length))), (length - 1, int(rng.integers(0, length))), 1.0, 1)
        return np.asarray(cv2.filter2D(picture, -1, kernel / kernel.sum()), np.float32)
    if chance < 0.5:
        by = rng.uniform(0.35, 0.8)
        small = cv2.resize(picture, (max(8, int(width * by)), max(8, int(height * by))), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    if chance < 0.65:
        soft = cv2.GaussianBlur(picture, (0, 0), 1.0)
        return np.asarray(np.clip(picture + rng.uniform(0.2, 1.0) * (picture - soft), 0, 1), np.float32)
    return picture


def _recoloured(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    tint = np.clip(1 + rng.normal(0, 0.06, 3), 0.75, 1.25)
    picture = np.clip(picture, 0, 1) ** rng.uniform(0.7, 1.25) * rng.uniform(0.8, 1.2) * tint
    if rng.random() < 0.4:
        grey = picture.mean(axis=2, keepdims=True)
        picture = grey + (picture - grey) * (0.0 if rng.random() < 0.12 else rng.uniform(0.3, 1.3))
    if rng.random() < 0.3:
        height, width = picture.shape[:2]
        rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        picture = picture * (1 - rng.uniform(0.1, 0.4) * (rows**2 + columns**2) / 2)[..., None]
    return np.asarray(picture, np.float32)


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    strength = rng.uniform(0.004, 0.045)
    noise = rng.standard_normal(shape, np.float32) * np.float32(strength)
    if rng.random() < 0.4:
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), 0.7), np.float32) * 2
    return np.asarray(noise, np.float32)


def _compressed(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    quality = int(rng.uniform(28, 95))
    packed = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    unpacked = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(unpacked[..., ::-1])
