"""Draws people and things without a GPU: OpenGL through EGL, which Mesa computes on the processor where it must."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from engines.errors import ExportError
from export.starter import shaders
from export.starter.body import BONE, coarser, normals, skin
from export.starter.meshes import MESHES, mesh

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from export.starter.body import Body
    from export.starter.cameras import Camera, Light
    from export.starter.looks import Look
    from export.starter.wardrobe import Piece, Wardrobe

_FLOATS_OF_LOOK = (
    "top_scale",
    "bottom_scale",
    "sleeve",
    "trousers",
    "glasses",
    "mask",
    "beard",
    "brow",
    "mouth",
    "seed",
)
#: The order that the shader knows the pieces by.
_PIECES = ("body", "hair", "skirt")
_INTS_OF_LOOK = ("top", "bottom", "over", "hair")


#: A body drawn with few triangles has them of about this size in metres; that is done where it is under so many pixels.
_COARSE = 0.025
_FINE = 1.3


@dataclass(frozen=True, slots=True)
class _Arrays:
    """A piece's buffer of moving vertices and what draws it: near, far, and its shadow. ``whole``: never cut short."""

    moving: Any
    drawn: Any
    far: Any
    cast: Any
    whole: bool


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """Something that is no person: a mesh of ``meshes`` at ``place`` (4, 4), in two colours and a ``looks.Pattern``."""

    mesh: str
    place: NDArray[np.float32]
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    pattern: int
    scale: float
    seed: float


@dataclass(frozen=True, slots=True, eq=False)
class Figure:
    """A dressed person in the world: pieces with posed vertices (N, 3) and how many faces of each show."""

    look: Look
    pieces: list[tuple[Piece, NDArray[np.float32], int]]

    def lowest(self) -> float:
        """The height of the lowest vertex, in metres."""
        return min(float(vertices[:, 2].min()) for _, vertices, _ in self.pieces)

    def distance(self) -> float:
        """How far along the ground, from under the camera, the nearest vertex is, in metres."""
        return min(float(vertices[:, 1].min()) for _, vertices, _ in self.pieces)

    def moved(self, place: NDArray[np.float32]) -> Figure:
        """The same figure, moved by ``place`` (4, 4)."""
        moved = [(piece, vertices @ place[:3, :3].T + place[:3, 3], count) for piece, vertices, count in self.pieces]
        return Figure(self.look, moved)


def make_figure(
    wardrobe: Wardrobe, look: Look, at_rest: NDArray[np.float32], transforms: NDArray[np.float32]
) -> Figure:
    """The body ``at_rest`` (K, 3), dressed, then posed by the bones' ``transforms`` (J, 4, 4)."""
    worn = wardrobe.dress(look, at_rest)
    return Figure(look, [(piece, skin(vertices, piece.weights, transforms), count) for piece, vertices, count in worn])


def open_context() -> Any:
    """An OpenGL context without a window.

    Raises:
        ExportError: moderngl is not installed, or the machine has no EGL.
    """
    try:
        moderngl: Any = importlib.import_module("moderngl")
    except ImportError as error:
        raise ExportError("drawing scenes needs moderngl: pip install 'standin[starter]'") from error
    try:
        return moderngl.create_context(require=330, standalone=True, backend="egl")
    except Exception as error:
        raise ExportError(
            f"cannot draw without a window, is EGL installed (libegl1, libgl1-mesa-dri)? {error}"
        ) from error


class Renderer:
    """Draws pictures of one size. Not for several threads; one process for each core is the fast way."""

    def __init__(self, wardrobe: Wardrobe, width: int, height: int, *, supersample: int = 2) -> None:
        """Opens a context and loads the body.

        Raises:
            ExportError: there is no OpenGL here.
        """
        self._gl = open_context()
        self.width, self.height = width, height
        self._by = supersample
        self._wardrobe = wardrobe
        self._person = self._gl.program(shaders.PERSON_VERTEX.strip(), shaders.PERSON_FRAGMENT.strip())
        self._thing = self._gl.program(shaders.THING_VERTEX.strip(), shaders.THING_FRAGMENT.strip())
        self._shadow = self._gl.program(shaders.SHADOW_VERTEX.strip(), shaders.SHADOW_FRAGMENT.strip())
        self._set_landmarks(wardrobe.body)
        self._load_pieces(wardrobe.pieces)
        self._load_things()
        self._make_targets()

    def draw(
        self, camera: Camera, light: Light, behind: NDArray[np.uint8], things: list[Thing], figures: list[Figure]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int32]]:
        """Draws a picture.

        Args:
            camera: where it is seen from.
            light: how it is lit.
            behind: uint8 RGB, (height, width, 3), what is behind everything; shadows fall on it.
            things: what is no person.
            figures: the people; figure i is instance i + 1.

        Returns:
            The picture, uint8 RGB (height, width, 3), instances, uint8, and vertices, int32, as in ``samples.Scene``.
        """
        view = np.ascontiguousarray(camera.matrix().T)
        loaded = [self._load_figure(figure) for figure in figures]
        shade = self._draw_shadows(view, light, things, loaded, figures)
        self._target.use()
        self._target.clear()
        self._gl.enable(self._gl.DEPTH_TEST)
        for program in (self._person, self._thing):
            _set_light(program, light, camera)
            program["view"].write(view.tobytes())
        # The nearest first: what they hide is never computed.
        for index in sorted(range(len(figures)), key=lambda index: figures[index].distance()):
            metre = self.height / (2 * math.tan(camera.field / 2) * max(figures[index].distance(), 0.1))
            self._draw_figure(figures[index], loaded[index], index + 1, far=metre * _COARSE < _FINE)
        for thing in sorted(things, key=lambda thing: float(thing.place[1, 3])):
            self._draw_thing(thing)
        return self._read(behind * (1.0 - light.shadow * shade[..., None]))

    def _set_landmarks(self, body: Body) -> None:
        self._person["eye"].value = tuple(body.eye.tolist())
        self._person["head_y"].value = float(body.joints[BONE["head"], 1])

    def _load_pieces(self, pieces: tuple[Piece, ...]) -> None:
        self._arrays: dict[str, _Arrays] = {}
        for piece in pieces:
            if not len(piece.faces):
                continue
            still = np.column_stack([piece.canonical, piece.along, piece.parts, piece.ids]).astype(np.float32)
            moving = self._gl.buffer(reserve=len(still) * 24, dynamic=True)
            content = [
                (moving, "3f 3f", "position", "normal"),
                (self._gl.buffer(still.tobytes()), "3f 2f 1f 1f", "canonical", "along", "part", "vertex"),
            ]
            index = self._gl.buffer(np.ascontiguousarray(piece.faces).tobytes())
            drawn = self._gl.vertex_array(self._person, content, index)
            whole = piece.name == "body"
            # Shadows and people far away need few triangles.
            few = self._gl.buffer(coarser(self._wardrobe.body, _COARSE).tobytes()) if whole else index
            cast = self._gl.vertex_array(self._shadow, [(moving, "3f 12x", "position")], few)
            far = self._gl.vertex_array(self._person, content, few)
            self._arrays[piece.name] = _Arrays(moving, drawn, far, cast, whole=whole)

    def _load_things(self) -> None:
        self._things: dict[str, tuple[Any, Any]] = {}
        for name in MESHES:
            corners = self._gl.buffer(mesh(name).tobytes())
            drawn = self._gl.vertex_array(self._thing, [(corners, "3f 3f", "position", "normal")])
            cast = self._gl.vertex_array(self._shadow, [(corners, "3f 12x", "position")])
            self._things[name] = (drawn, cast)

    def _make_targets(self) -> None:
        size = (self.width * self._by, self.height * self._by)
        self._colour = self._gl.texture(size, 4)
        self._label = self._gl.texture(size, 2, dtype="u2")
        self._target = self._gl.framebuffer([self._colour, self._label], self._gl.depth_renderbuffer(size))
        self._dark = self._gl.texture((self.width, self.height), 1)
        self._shade = self._gl.framebuffer([self._dark])

    def _load_figure(self, figure: Figure) -> list[NDArray[np.float32]]:
        return [np.hstack([vertices, normals(vertices, piece.faces)]) for piece, vertices, _ in figure.pieces]

    def _draw_shadows(
        self,
        view: NDArray[np.float32],
        light: Light,
        things: list[Thing],
        loaded: list[list[NDArray[np.float32]]],
        figures: list[Figure],
    ) -> NDArray[np.float32]:
        """How dark the ground is at each pixel, (height, width), 0 to 1."""
        self._shade.use()
        self._shade.clear()
        self._gl.disable(self._gl.DEPTH_TEST)
        self._shadow["view"].write(view.tobytes())
        self._shadow["sun"].value = tuple(light.sun.tolist())
        for thing in things:
            self._shadow["place"].write(np.ascontiguousarray(thing.place.T, np.float32).tobytes())
            self._things[thing.mesh][1].render()
        self._shadow["place"].write(np.eye(4, dtype=np.float32).tobytes())
        for figure, arrays in zip(figures, loaded, strict=True):
            for (piece, _, faces), array in zip(figure.pieces, arrays, strict=True):
                arrays_of = self._arrays[piece.name]
                arrays_of.moving.write(array.tobytes())
                arrays_of.cast.render(vertices=-1 if arrays_of.whole else faces * 3)
        dark = np.frombuffer(self._shade.read(components=1, alignment=1), np.uint8)
        soft = cv2.GaussianBlur(dark.reshape(self.height, self.width), (0, 0), max(0.8, self.height / 160))
        return np.asarray(soft, np.float32) / np.float32(255)

    def _draw_thing(self, thing: Thing) -> None:
        program = self._thing
        program["place"].write(np.ascontiguousarray(thing.place.T, np.float32).tobytes())
        program["first"].value = tuple(thing.first.tolist())
        program["second"].value = tuple(thing.second.tolist())
        program["kind"].value = thing.pattern
        program["scale"].value = thing.scale
        program["seed"].value = thing.seed
        self._things[thing.mesh][0].render()

    def _draw_figure(self, figure: Figure, arrays: list[NDArray[np.float32]], number: int, *, far: bool) -> None:
        program, look = self._person, figure.look
        program["person"].value = number
        program["palette"].write(np.ascontiguousarray(look.palette).tobytes())
        for name in _FLOATS_OF_LOOK:
            program[name].value = float(getattr(look, name))
        for name in _INTS_OF_LOOK:
            program[name].value = int(getattr(look, name))
        program["coat"].value = float(look.coat)
        program["waist"].value = self._wardrobe.waist_of(look)
        program["neckline"].value = self._wardrobe.neckline_of(look)
        for (piece, _, faces), array in zip(figure.pieces, arrays, strict=True):
            program["piece"].value = _PIECES.index(piece.name)
            arrays_of = self._arrays[piece.name]
            arrays_of.moving.write(array.tobytes())
            drawn = arrays_of.far if far else arrays_of.drawn
            drawn.render(vertices=-1 if arrays_of.whole else faces * 3)

    def _read(self, behind: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int32]]:
        """What was drawn, before the picture ``behind`` it; nothing drawn is transparent black."""
        by = self._by
        size = (self.height * by, self.width * by)
        fine = np.frombuffer(self._colour.read(), np.uint8).reshape(*size, 4)
        drawn = cv2.resize(fine, (self.width, self.height), interpolation=cv2.INTER_AREA)
        share = drawn[..., 3:].astype(np.float32) / np.float32(255)
        image = drawn[..., :3] + behind * (1 - share)
        label = np.frombuffer(self._label.read(), np.uint16).reshape(*size, 2)[by // 2 :: by, by // 2 :: by]
        return (
            np.minimum(image + 0.5, 255).astype(np.uint8),
            label[..., 0].astype(np.uint8),
            label[..., 1].astype(np.int32) - 1,
        )


def _set_light(program: Any, light: Light, camera: Camera) -> None:
    """Gives a program that lights surfaces the scene's light."""
    for name in ("sun", "sun_colour", "sky_colour", "ground_colour", "lamp", "lamp_colour"):
        program[name].value = tuple(getattr(light, name).tolist())
    # What a program does not use, its compiler leaves out.
    if "eye_position" in program:
        program["eye_position"].value = tuple(camera.position.tolist())
