"""Simple meshes for things that stand around: triangles with normals, in a unit box or so."""

from __future__ import annotations

import itertools

import numpy as np

#: Profiles of things that are round about the z axis: (height, radius) from the bottom up.
_PROFILES: dict[str, tuple[tuple[float, float], ...]] = {
    "cylinder": ((-1, 0), (-1, 1), (1, 1), (1, 0)),
    "sphere": tuple((float(np.sin(a)), float(np.cos(a))) for a in np.linspace(-np.pi / 2, np.pi / 2, 10)),
    "bottle": ((-1, 0), (-1, 1), (0.3, 1), (0.6, 0.35), (1, 0.35), (1, 0)),
    "cone": ((-1, 1), (-0.96, 1), (-0.96, 0.7), (1, 0.08), (1, 0)),
    "pawn": (
        (-1, 0.9),
        (-0.9, 0.9),
        (-0.4, 0.6),
        (0.35, 0.85),
        (0.5, 0.3),
        (0.58, 0.28),
        (0.7, 0.5),
        (0.85, 0.5),
        (1, 0),
    ),
    "vase": ((-1, 0.4), (-0.5, 1), (0.2, 0.8), (0.5, 0.35), (0.7, 0.5), (0.7, 0)),
}
_AROUND = 18
#: Names that ``mesh`` knows.
MESHES = ("box", *_PROFILES)


def mesh(name: str) -> np.ndarray:
    """Triangles of ``name``, float32 (3 T, 6): position and normal of each corner."""
    if name == "box":
        return _box()
    return _turned(_PROFILES[name])


def _box() -> np.ndarray:
    corners = []
    for axis in range(3):
        for side in (-1.0, 1.0):
            normal = np.roll([side, 0.0, 0.0], axis)
            first, second = np.roll([0.0, 1.0, 0.0], axis), np.roll([0.0, 0.0, 1.0], axis)
            square = [
                normal - first - second,
                normal + first - second,
                normal + first + second,
                normal - first + second,
            ]
            corners += [np.concatenate([square[index], normal]) for index in (0, 1, 2, 0, 2, 3)]
    return np.array(corners, np.float32)


def _turned(profile: tuple[tuple[float, float], ...]) -> np.ndarray:
    """The surface that ``profile`` draws when it turns about the z axis."""
    angles = np.linspace(0, 2 * np.pi, _AROUND + 1)
    corners = []
    for (low, wide), (high, narrow) in itertools.pairwise(profile):
        slope = np.array([high - low, wide - narrow]) / max(np.hypot(high - low, wide - narrow), 1e-9)
        for first, second in itertools.pairwise(angles):
            square = [(first, wide, low), (second, wide, low), (second, narrow, high), (first, narrow, high)]
            for index in (0, 1, 2, 0, 2, 3):
                angle, radius, height = square[index]
                around = np.array([np.cos(angle), np.sin(angle)])
                corners.append([*(around * radius), height, *(around * slope[0]), slope[1]])
    return np.array(corners, np.float32)
