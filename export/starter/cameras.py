"""Cameras and lights: where a scene is seen from and how it is lit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NEAR, _FAR = 0.08, 80.0
#: Kinds of views. The last one is for the generator's training alone: one or two people fill the picture.
VIEWS = ("webcam", "room", "street", "overhead", "top", "portrait")
#: How often each of them is put up.
SHARES = (0.14, 0.30, 0.24, 0.26, 0.06, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """A pinhole camera above the ground z = 0, looking along +y and down by ``pitch``.

    Attributes:
        view: the kind, one of ``VIEWS``.
        height: in metres.
        pitch, roll: in radians; positive pitch looks down.
        field: the vertical field of view in radians.
        aspect: width by height.
        nearest, farthest: distances along the ground, in metres, between which people stand.
    """

    view: str
    height: float
    pitch: float
    roll: float
    field: float
    aspect: float
    nearest: float
    farthest: float

    @property
    def position(self) -> NDArray[np.float64]:
        """Where the camera is, (3,)."""
        return np.array([0.0, 0.0, self.height])

    def axes(self) -> NDArray[np.float64]:
        """The camera's right, up and forward directions as rows, (3, 3)."""
        forward = np.array([0.0, math.cos(self.pitch), -math.sin(self.pitch)])
        right = np.array([1.0, 0.0, 0.0])
        up = np.cross(right, forward)
        cosine, sine = math.cos(self.roll), math.sin(self.roll)
        return np.stack([right * cosine + up * sine, up * cosine - right * sine, forward])

    def matrix(self) -> NDArray[np.float32]:
        """From the world to clip space, (4, 4), with the picture's first row at the bottom of OpenGL's window."""
        right, up, forward = self.axes()
        to_camera = np.eye(4)
        to_camera[:3, :3] = np.stack([right, up, -forward])
        to_camera[:3, 3] = -to_camera[:3, :3] @ self.position
        focal = 1.0 / math.tan(self.field / 2)
        depth = (_FAR + _NEAR) / (_NEAR - _FAR), 2 * _FAR * _NEAR / (_NEAR - _FAR)
        project = np.array(
            [[focal / self.aspect, 0, 0, 0], [0, -focal, 0, 0], [0, 0, depth[0], depth[1]], [0, 0, -1, 0]]
        )
        return (project @ to_camera).astype(np.float32)

    def rays(self, width: int, height: int) -> NDArray[np.float32]:
        """The direction that each pixel looks in, (height, width, 3), with 1 along the camera's axis."""
        right, up, forward = self.axes()
        slope = math.tan(self.field / 2)
        across = ((np.arange(width) + 0.5) / width * 2 - 1) * slope * self.aspect
        down = (1 - (np.arange(height) + 0.5) / height * 2) * slope
        rays = forward + across[None, :, None] * right + down[:, None, None] * up
        return np.asarray(rays, np.float32)

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where ``points`` (N, 3) are in the picture: (N, 3), x and y in 0..1 and the distance along the axis."""
        clip = np.column_stack([points, np.ones(len(points))]) @ self.matrix().T.astype(np.float64)
        depth = np.where(np.abs(clip[:, 3]) < 1e-6, 1e-6, clip[:, 3])
        return np.column_stack([clip[:, :2] / depth[:, None] * 0.5 + 0.5, clip[:, 3]])


@dataclass(frozen=True, slots=True, eq=False)
class Light:
    """Light in linear colour. ``sun`` is the direction towards it; colours and places are (3,)."""

    sun: NDArray[np.float64]
    sun_colour: NDArray[np.float64]
    sky_colour: NDArray[np.float64]
    ground_colour: NDArray[np.float64]
    lamp: NDArray[np.float64]
    lamp_colour: NDArray[np.float64]
    shadow: float


def draw_camera(rng: np.random.Generator, aspect: float, view: str | None = None) -> Camera:
    """A camera as people put them up: on a desk, in a room, over a street, under a ceiling."""
    view = view or str(rng.choice(VIEWS, p=SHARES))
    field = math.radians(rng.uniform(42, 70) if view == "webcam" else rng.uniform(28, 68))
    # height, pitch, nearest, farthest
    if view == "webcam":
        height, pitch, near, far = rng.uniform(1.0, 1.6), rng.normal(0, 0.1), 0.55, 1.9
    elif view == "room":
        height, pitch, near, far = rng.uniform(0.9, 2.2), rng.normal(0.08, 0.09), 1.6, 7.0
    elif view == "street":
        height, pitch, near, far = rng.uniform(1.4, 4.5), rng.uniform(0.0, 0.3), 3.0, 16.0
    elif view == "overhead":
        height, pitch = rng.uniform(2.2, 5.0), rng.uniform(0.25, 0.9)
        near, far = _ground_span(height, pitch, field, 11.0)
    elif view == "portrait":
        near = rng.uniform(0.75, 1.3) * 1.9 / (2 * math.tan(field / 2))
        height, far = rng.uniform(0.8, 2.6), near * 1.2
        pitch = math.atan((height - rng.uniform(0.8, 1.1)) / near)
    else:
        height, pitch = rng.uniform(2.8, 6.0), rng.uniform(1.0, 1.5)
        near, far = _ground_span(height, pitch, field, 6.0)
    return Camera(view, height, pitch, rng.normal(0, 0.03), field, aspect, near, far)


def _ground_span(height: float, pitch: float, field: float, limit: float) -> tuple[float, float]:
    """The distances between which a standing person is seen by a camera that looks down."""
    near = (height - 1.0) / math.tan(min(pitch + field * 0.5, math.pi - 0.1))
    highest = pitch - field * 0.35
    far = (height - 0.5) / math.tan(highest) if highest > 0.05 else limit
    return near, float(np.clip(far, near + 1.0, limit))


def draw_light(rng: np.random.Generator) -> Light:
    """Light of a day outside, of a room or of a dim one, with a tint."""
    sun = rng.normal(0, 1, 3)
    sun[2] = abs(sun[2]) + 0.7
    sun /= np.linalg.norm(sun)
    strength = rng.uniform(0.6, 1.6)
    hard = rng.uniform(0.05, 0.75)
    tint = np.clip(1 + rng.normal(0, 0.09) * np.array([1.0, 0.15, -1.0]) + rng.normal(0, 0.02, 3), 0.6, 1.4)
    sky = strength * (1.15 - 0.75 * hard) * np.clip(1 + rng.normal(0, 0.05, 3), 0.7, 1.3)
    lamp = np.array([rng.uniform(-3, 3), rng.uniform(-1, 6), rng.uniform(1.5, 3.5)])
    lamp_strength = rng.uniform(0, 1.6) if rng.random() < 0.4 else 0.0
    return Light(
        sun=sun,
        sun_colour=strength * hard * 1.5 * tint,
        sky_colour=sky,
        ground_colour=sky * rng.uniform(0.25, 0.7) * np.clip(1 + rng.normal(0, 0.08, 3), 0.6, 1.4),
        lamp=lamp,
        lamp_colour=lamp_strength * np.clip(1 + rng.normal(0, 0.12, 3), 0.5, 1.5),
        shadow=float(np.clip(hard + rng.normal(0.05, 0.1), 0.05, 0.75)),
    )
