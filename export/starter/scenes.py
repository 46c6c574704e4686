"""Scenes from seeds: who stands where, seen from where, before what, and what the camera made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from export.starter.backgrounds import draw_background
from export.starter.body import Part
from export.starter.cameras import draw_camera, draw_light
from export.starter.degradation import degrade
from export.starter.looks import LOOK_SIZE, draw_look
from export.starter.poses import draw_pose, forward, rotation
from export.starter.render import Figure, Renderer, make_figure
from export.starter.samples import Scene
from export.starter.things import chair_at, draw_furniture, draw_held, draw_occluder
from export.starter.wardrobe import Wardrobe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from export.starter.body import Body
    from export.starter.cameras import Camera
    from export.starter.looks import Look
    from export.starter.render import Thing

_UP = np.array([0.0, 0.0, 1.0])
_CLOSEST_THING = 1.8
#: How often something stands before somebody, where that is not 0.18.
_OCCLUDED = {"webcam": 0.0, "top": 0.0, "portrait": 0.05}


@dataclass(frozen=True, slots=True)
class SceneSettings:
    """What scenes to make.

    Attributes:
        width, height: of the pictures, in pixels.
        supersample: how many times finer they are drawn before they are scaled down.
        people: shares of scenes with 0, 1, 2 ... people.
        views: kinds of cameras to draw from, of ``cameras.VIEWS``; none for all, as often as they are put up.
        degraded: whether the camera's faults are added.
        photographs: person-free pictures, uint8 RGB, to use as backgrounds.
    """

    width: int = 512
    height: int = 288
    supersample: int = 2
    people: tuple[float, ...] = (0.12, 0.34, 0.24, 0.14, 0.08, 0.05, 0.03)
    views: tuple[str, ...] = ()
    degraded: bool = True
    photographs: list[NDArray[np.uint8]] = field(default_factory=list)


class SceneMaker:
    """Makes scenes of one size with one body."""

    def __init__(self, body: Body, settings: SceneSettings) -> None:
        """Opens the renderer.

        Raises:
            ExportError: there is no OpenGL here.
        """
        self.settings = settings
        self._body = body
        self._wardrobe = Wardrobe(body)
        self._renderer = Renderer(self._wardrobe, settings.width, settings.height, supersample=settings.supersample)

    def scenes(self, seed: int, count: int, *, first: int = 0) -> Iterator[Scene]:
        """``count`` scenes from number ``first`` on; scene i depends on ``seed`` and i alone."""
        for number in range(first, first + count):
            yield self.scene(np.random.default_rng((seed, number)))

    def scene(self, rng: np.random.Generator) -> Scene:
        """One scene drawn from ``rng``."""
        settings = self.settings
        view = settings.views[rng.integers(len(settings.views))] if settings.views else None
        # OpenCV's own threads would fight with those of other processes, one a core.
        cv2.setNumThreads(1)
        camera = draw_camera(rng, settings.width / settings.height, view)
        light = draw_light(rng)
        looks: list[Look] = []
        figures: list[Figure] = []
        things: list[Thing] = []
        for spot in _spots(rng, camera, _how_many(rng, settings, camera)):
            look = draw_look(rng)
            figure, around = self._stand(rng, camera, look, spot)
            looks.append(look)
            figures.append(figure)
            things += around
        for _ in range(int(rng.choice((0, 1, 2, 4, 8), p=(0.15, 0.2, 0.25, 0.25, 0.15)))):
            x, y = _somewhere(rng, camera)
            # Nothing stands so close that it fills the picture, and in portraits all is behind somebody.
            closest = camera.farthest + 0.7 if camera.view == "portrait" else _CLOSEST_THING
            things += draw_furniture(rng, x, max(y, closest), outside=camera.view in ("street", "overhead"))
        behind = draw_background(rng, camera, settings.width, settings.height, settings.photographs)
        image, instances, vertices = self._renderer.draw(camera, light, behind, things, figures)
        if settings.degraded:
            image = degrade(rng, image)
        latents = np.stack([look.latent for look in looks]) if looks else np.zeros((0, LOOK_SIZE), np.float32)
        return Scene(image, instances, vertices, latents)

    def _stand(
        self, rng: np.random.Generator, camera: Camera, look: Look, spot: tuple[float, float]
    ) -> tuple[Figure, list[Thing]]:
        """A person with ``look`` on the ground at ``spot``, in metres, and the things with them."""
        at_rest, joints = self._body.at_rest(self._body.draw_shape(rng))
        rotations, posture = draw_pose(rng, joints)
        transforms = forward(rotations, joints)
        figure = make_figure(self._wardrobe, look, at_rest, transforms)
        turn = rng.normal(0, 0.45) if camera.view == "webcam" and rng.random() < 0.85 else rng.uniform(0, 2 * math.pi)
        place = np.eye(4, dtype=np.float32)
        place[:3, :3] = rotation(_UP, turn)
        seat = rng.uniform(0.38, 0.5)
        hips = float((transforms[0] @ np.append(joints[0], 1))[2])
        # Sitting people's feet may hang: their seat, not their lowest vertex, is where they are held up.
        ground = min(figure.lowest(), hips - seat - 0.12) if posture == "sit" else figure.lowest()
        place[:3, 3] = (*spot, -ground)
        if camera.view == "webcam":
            place[2, 3] += self._to_eye_level(rng, camera, figure, spot[1], -ground)
        things = self._beside(rng, camera, posture, spot, turn, place[2, 3] + hips - 0.12)
        moved = figure.moved(place)
        if rng.random() < 0.15:
            hand = (self._body.parts == Part.HAND) & (self._body.canonical[:, 0] * rng.choice((-1, 1)) > 0)
            things += draw_held(rng, moved.pieces[0][1][hand].mean(axis=0))
        return moved, things

    def _to_eye_level(
        self, rng: np.random.Generator, camera: Camera, figure: Figure, distance: float, lift: float
    ) -> float:
        """How far somebody at a webcam is higher, so that the head is near the picture's middle: they sit or stoop."""
        eyes = float(figure.pieces[0][1][self._body.parts == Part.EYE, 2].mean()) + lift
        wanted = camera.height + distance * (
            math.tan(camera.field / 2) * rng.uniform(-0.25, 0.6) - math.tan(camera.pitch)
        )
        return wanted - eyes

    def _beside(
        self,
        rng: np.random.Generator,
        camera: Camera,
        posture: str,
        spot: tuple[float, float],
        turn: float,
        seat: float,
    ) -> list[Thing]:
        """A chair under somebody who sits, and sometimes something before anybody."""
        things = []
        x, y = spot
        if posture == "sit" and seat > 0.1 and rng.random() < 0.85:
            things += chair_at(rng, x, y, seat, turn)
        if rng.random() < _OCCLUDED.get(camera.view, 0.18):
            nearer = rng.uniform(0.5, 0.85)
            things += draw_occluder(rng, x * nearer, y * nearer)
        return things


def _how_many(rng: np.random.Generator, settings: SceneSettings, camera: Camera) -> int:
    shares = np.array(settings.people)
    count = int(rng.choice(len(shares), p=shares / shares.sum()))
    return min(max(count, 1), 2) if camera.view == "portrait" else count


def _spots(rng: np.random.Generator, camera: Camera, count: int) -> list[tuple[float, float]]:
    """Where ``count`` people stand, in metres: apart, in a group, some cut off by the picture's edge."""
    spots: list[tuple[float, float]] = []
    for _ in range(count):
        if spots and rng.random() < 0.4:
            near = spots[rng.integers(len(spots))]
            spot = (near[0] + rng.normal(0, 0.6), max(camera.nearest, near[1] + rng.normal(0, 0.6)))
        else:
            spot = _somewhere(rng, camera)
        if all(math.dist(spot, other) > 0.45 for other in spots):
            spots.append(spot)
    return spots


def _somewhere(rng: np.random.Generator, camera: Camera) -> tuple[float, float]:
    """A place on the ground that the camera sees, or just beside it; the far is as likely as the near."""
    near = max(camera.nearest, 0.3)
    distance = (
        near * (camera.farthest / near) ** rng.random()
        if camera.nearest > 0.3
        else rng.uniform(camera.nearest, camera.farthest)
    )
    along = distance * math.cos(camera.pitch) + camera.height * math.sin(camera.pitch)
    half = math.tan(camera.field / 2) * camera.aspect * max(along, 0.5)
    sideways = 0.35 if camera.view == "portrait" else 0.95
    return float(rng.uniform(-1, 1) * half * sideways), float(distance)


def contact_sheet(scenes: list[Scene], body: Body, columns: int = 4) -> NDArray[np.uint8]:
    """Images, instances and vertices of ``scenes`` below each other, ``columns`` scenes in a row, uint8 RGB."""
    low, high = body.canonical.min(axis=0), body.canonical.max(axis=0)
    of_vertices = ((body.canonical - low) / (high - low) * 205 + 50).astype(np.uint8)
    of_people = np.random.default_rng(5).integers(60, 255, (256, 3)).astype(np.uint8)
    of_people[0] = 0
    rows = []
    for first in range(0, len(scenes) - len(scenes) % columns, columns):
        some = scenes[first : first + columns]
        rows.append(np.hstack([scene.image for scene in some]))
        rows.append(np.hstack([of_people[scene.instances] for scene in some]))
        surfaces = [np.where(scene.vertices[..., None] >= 0, of_vertices[scene.vertices], 0) for scene in some]
        rows.append(np.hstack(surfaces).astype(np.uint8))
    return np.vstack(rows)
