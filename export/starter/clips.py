"""Clips of people who walk before a camera that does not move, for demonstrations and for what needs time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
import numpy as np

from export.starter.backgrounds import draw_background
from export.starter.cameras import Camera, draw_light
from export.starter.looks import draw_look
from export.starter.poses import draw_pose, forward, rotation
from export.starter.render import Renderer, make_figure
from export.starter.samples import Scene
from export.starter.wardrobe import Wardrobe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from export.starter.body import Body
    from export.starter.looks import Look
    from export.starter.render import Figure

_UP = np.array([0.0, 0.0, 1.0])
_STEPS_A_SECOND = 1.8


@dataclass(frozen=True, slots=True, eq=False)
class _Walker:
    """Somebody on the way from ``start`` (x, y) in metres in the direction ``heading`` in radians, for ever."""

    look: Look
    shape: NDArray[np.float32]
    start: tuple[float, float]
    heading: float
    speed: float
    seed: int


def walking_clip(
    body: Body, seed: int, frames: int, *, people: int = 2, size: tuple[int, int] = (640, 360), rate: float = 25.0
) -> Iterator[Scene]:
    """Frames of ``people`` who cross a room before a still camera, as scenes.

    Args:
        body: whom to draw.
        seed: of the whole clip.
        frames: how many.
        people: how many walk.
        size: width and height in pixels.
        rate: frames a second.

    Raises:
        ExportError: there is no OpenGL here.
    """
    rng = np.random.default_rng(seed)
    width, height = size
    camera = Camera("room", 1.6, 0.12, 0.0, math.radians(50), width / height, 2.5, 6.0)
    wardrobe = Wardrobe(body)
    renderer = Renderer(wardrobe, width, height)
    light = draw_light(rng)
    behind = draw_background(rng, camera, width, height, [])
    walkers = [_draw_walker(rng, body, frames / rate) for _ in range(people)]
    latents = np.stack([walker.look.latent for walker in walkers])
    for frame in range(frames):
        figures = [_at(walker, wardrobe, frame / rate) for walker in walkers]
        yield Scene(*renderer.draw(camera, light, behind, [], figures), latents)


def _draw_walker(rng: np.random.Generator, body: Body, seconds: float) -> _Walker:
    """Somebody who is before the camera's middle at some time of the clip."""
    speed, side = rng.uniform(0.6, 1.2), rng.choice((-1.0, 1.0))
    heading = side * math.pi / 2 + rng.normal(0, 0.25)
    distance = rng.uniform(3.0, 5.5)
    passed = rng.uniform(0.3, 0.7) * seconds * speed
    start = (-math.sin(heading) * passed, distance + math.cos(heading) * passed)
    return _Walker(draw_look(rng), body.draw_shape(rng), start, heading, speed, int(rng.integers(2**31)))


def _at(walker: _Walker, wardrobe: Wardrobe, seconds: float) -> Figure:
    """The walker after some seconds."""
    at_rest, joints = wardrobe.body.at_rest(walker.shape)
    # The same draws for every frame: all but the phase of the steps stays.
    rng = np.random.default_rng(walker.seed)
    rotations, _ = draw_pose(rng, joints, "walk", phase=seconds * _STEPS_A_SECOND * math.pi)
    figure = make_figure(wardrobe, walker.look, at_rest, forward(rotations, joints))
    place = np.eye(4, dtype=np.float32)
    place[:3, :3] = rotation(_UP, walker.heading)
    gone = walker.speed * seconds
    x, y = walker.start
    # The body faces -y; turned by the heading it faces (sin, -cos).
    place[:3, 3] = (x + math.sin(walker.heading) * gone, y - math.cos(walker.heading) * gone, -figure.lowest())
    return figure.moved(place)


def write_clip(
    path: Path, images: Iterable[NDArray[np.uint8]], *, size: tuple[int, int] = (640, 360), rate: int = 25
) -> None:
    """Writes ``images``, uint8 RGB (H, W, 3) of an even ``size`` (width, height), as H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
