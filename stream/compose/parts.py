"""Each region of a frame with all that is needed to replace it: its pixels, and the crop for its generator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from engines.errors import UsageError
from stream import geometry
from stream.compose import boxes, masks, surfaces
from stream.compose.crops import Cutting
from stream.compose.matching import inside_any
from stream.compose.resampler import HOST, Resampler
from stream.generators.base import Bools, Floats, Generator, Ints
from stream.generators.classical import Fill
from stream.outline import BodySurface, Box, PixelMask, intersection, is_empty
from stream.regions import Kind, Regions
from stream.roles import Role, Style
from stream.stitch import Shape, covered_boxes
from stream.surface import Surface

#: Smaller regions are covered classically.
SMALLEST = 32 * 32
#: The order of stitching; what has no generator in the place of what it shows.
_ORDER: dict[Role, int] = {"face": 1, "person": 2, "person-cse": 3}
_KINDS: dict[Role, Kind] = {"face": Kind.FACE, "person": Kind.PERSON, "person-cse": Kind.PERSON}


@dataclass(frozen=True)
class Painters:
    """What replaces regions.

    Attributes:
        generators: by role; a role without one is covered classically (persons with a surface are given to the
            generator for persons first).
        fills: the classical anonymizer of each kind.
        surface: the vertices that the generator for `person-cse` was trained with.
        style: whose rules hold for persons with a surface.
        margin: of classical anonymizers, see `stream.stitch.stitch`.
        shape: of classical anonymizers, likewise.
        resampler: brings pictures to a generator's size, and its answers back.

    Raises:
        UsageError: a generator needs a surface and there is none, or its kind has no classical anonymizer.
    """

    generators: Mapping[Role, Generator]
    fills: Mapping[Kind, Fill]
    surface: Surface | None = None
    style: Style = "deepprivacy2"
    margin: float = 0.0
    shape: Shape = "box"
    resampler: Resampler = HOST

    def __post_init__(self) -> None:
        for role, generator in self.generators.items():
            if generator.needs_surface and self.surface is None:
                raise UsageError(f"the generator for {role} needs the vertices of its surface; give its bundle's")
            if generator.needs_surface != (role == "person-cse"):
                needs = "needs" if generator.needs_surface else "takes no"
                raise UsageError(f"the generator for {role} {needs} surface; give another one")
            if _KINDS[role] not in self.fills:
                raise UsageError(f"no classical anonymizer is set to fall back on for {_KINDS[role].label}")


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """What a generator is asked to replace.

    Attributes:
        role: which generator.
        cutting: how the picture is resized.
        box: of the crop, in the frame; may reach outside.
        unknown: bool (H, W), the region's own unknown pixels; they and no others are written.
        body: bool (H, W), body pixels with a vertex, None without a surface.
        vertices: int64 (H, W), K outside the body.
    """

    role: Role
    cutting: Cutting
    box: Box
    unknown: Bools
    body: Bools | None = None
    vertices: Ints | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One region on its way through `compose`.

    Attributes:
        index: in the frame's regions.
        kind: what it shows.
        track_id: whose latent it gets.
        pixels: its undilated pixels, inside the frame.
        covered: box (4,) that a classical anonymizer covers, before clipping.
        shape: of what a classical anonymizer covers.
        crop: None if it is covered classically in any case.
    """

    index: int
    kind: Kind
    track_id: int
    pixels: PixelMask
    covered: geometry.Floats = field(repr=False)
    shape: Shape = "box"
    crop: Crop | None = None

    @property
    def rank(self) -> tuple[int, int]:
        """In ascending order of this, parts are stitched."""
        role: Role = self.crop.role if self.crop else "face" if self.kind != Kind.PERSON else "person"
        return (_ORDER[role] if self.kind != Kind.PLATE else 0), self.pixels.area

    def reach(self, frame: tuple[int, int]) -> Box:
        """The box of everything that is read or written for it."""
        x0, y0, x1, y1 = geometry.to_pixels(self.covered, frame[1], frame[0])[0].tolist()
        if self.crop is None:
            return x0, y0, x1, y1
        return union((x0, y0, x1, y1), self.crop.box)


def union(first: Box, second: Box) -> Box:
    """The smallest box that holds both."""
    return min(first[0], second[0]), min(first[1], second[1]), max(first[2], second[2]), max(first[3], second[3])


def prepare(regions: Regions, frame: tuple[int, int], painters: Painters, whole: bool = True) -> list[Part]:
    """One part for each region that has a pixel in the frame, in the order of regions.

    Args:
        regions: of one frame.
        frame: height and width.
        painters: what replaces them.
        whole: whether crops take pixels as well that thin parts or rounding leave out of a published mask.
    """
    inside = (0, 0, frame[1], frame[0])
    touched = geometry.to_pixels(regions.boxes, frame[1], frame[0])
    grown = covered_boxes(regions, painters.margin, painters.shape)
    parts = []
    for index in range(len(regions)):
        x0, y0, x1, y1 = touched[index].tolist()
        pixels = _pixels(regions, index, (x0, y0, x1, y1), painters.style).within(inside).tight()
        if not pixels.pixels.size:
            # A mask beside the frame says nothing of the part of the box that is in it.
            pixels = PixelMask.filled((x0, y0, x1, y1))
        if not pixels.pixels.size:
            continue
        kind, track_id = Kind(int(regions.kinds[index])), int(regions.track_ids[index])
        outline = regions.outline(index)
        role = _role(kind, outline.surface if outline else None, painters)
        crop = None
        if role is not None and painters.generators[role].ready([track_id])[0]:
            crop = _crop(role, pixels, outline.surface if outline else None, frame, painters, whole)
        covered, shape = grown[index], painters.shape
        if outline is not None or crop is not None:
            # Where a generator does not do its part in the end, the classical anonymizer covers as much.
            covered, shape = _hold(covered, pixels.box), "box"
        if crop is not None:
            # The published box is rounded down; what is written may reach a pixel further.
            x0, y0, x1, y1 = boxes.dilated_box(crop.box, crop.unknown)
            covered = _hold(covered, (x0 - 1, y0 - 1, x1 + 2, y1 + 2))
        parts.append(Part(index, kind, track_id, pixels, covered, shape, crop))
    return parts


def drop_covered_faces(parts: list[Part], frame: tuple[int, int], whole: bool = True) -> tuple[list[Part], list[Part]]:
    """Parts that remain, and faces that persons' stand-ins replace anyway.

    A face is dropped if every pixel of its grown box (the crop's, within the frame) will be replaced. The published
    way is looser: it drops faces inside the *box* round a person's dilated mask.

    Args:
        parts: of all regions.
        frame: height and width.
        whole: False for the published way.
    """
    persons = [part.crop for part in parts if part.crop is not None and part.kind == Kind.PERSON]
    unknown = [(crop.unknown, crop.box) for crop in persons]
    around = [boxes.dilated_box(box, mask) for mask, box in unknown]
    kept: list[Part] = []
    dropped: list[Part] = []
    for part in parts:
        gone = False
        if part.kind == Kind.FACE and persons:
            if not whole:
                gone = inside_any(part.pixels.box, around)
            else:
                grown = union(boxes.face_box(part.pixels.box), part.pixels.box)
                gone = masks.covers(unknown, intersection(grown, (0, 0, frame[1], frame[0])))
        (dropped if gone else kept).append(part)
    return kept, dropped


def _pixels(regions: Regions, index: int, box: Box, style: Style) -> PixelMask:
    """A region's undilated pixels: its mask, else its dense pose, else its filled box."""
    outline = regions.outline(index)
    filled = PixelMask.filled(box)
    if outline is None:
        return filled
    found = outline.mask
    if outline.surface is not None and (found is None or style == "sg-gan"):
        own = outline.surface.linear_mask() if style == "sg-gan" else outline.surface.nearest_mask()
        found = own if found is None else found.union(own)
    return filled if found is None or not found.pixels.any() else found


def _role(kind: Kind, surface: BodySurface | None, painters: Painters) -> Role | None:
    wanted: tuple[Role, ...] = ()
    if kind == Kind.FACE:
        wanted = ("face",)
    elif kind == Kind.PERSON:
        posed = surface is not None and bool(surface.segmentation.any())
        wanted = ("person-cse", "person") if posed else ("person",)
    return next((role for role in wanted if role in painters.generators), None)


def _hold(covered: geometry.Floats, box: Box) -> geometry.Floats:
    """The box (4,) that holds two."""
    return np.asarray(geometry.union_box(covered, np.array(box, np.float32))[0], np.float32)


def _crop(
    role: Role,
    pixels: PixelMask,
    surface: BodySurface | None,
    frame: tuple[int, int],
    painters: Painters,
    whole: bool,
) -> Crop | None:
    """The crop for a generator, None where the region is too small for one."""
    size = painters.generators[role].size
    if role == "face":
        return _face(pixels, size, whole)
    if role == "person" or surface is None or painters.surface is None:
        return _person(pixels, None, frame, size, whole)
    if painters.style == "sg-gan":
        return _surface_guided(pixels, surface, painters.surface, frame, size, whole)
    crop = _person(pixels, surface, frame, size, whole)
    if crop is None:
        return None
    embedding, body = surfaces.place_whole(surface, crop.box, size)
    return Crop(role, "person", crop.box, crop.unknown, body, _vertices(painters.surface, embedding, body))


def _face(pixels: PixelMask, size: tuple[int, int], whole: bool) -> Crop | None:
    box = boxes.face_box(pixels.box)
    if is_empty(box) or (whole and _area(box) < SMALLEST):
        return None
    unknown = masks.face_mask(pixels.box, box, size)
    return Crop("face", "face", box, _complete(unknown, pixels, box, whole))


def _person(
    pixels: PixelMask, surface: BodySurface | None, frame: tuple[int, int], size: tuple[int, int], whole: bool
) -> Crop | None:
    tight = pixels.box
    if surface is not None:
        tight = union(tight, intersection(surface.box, (0, 0, frame[1], frame[0])))
    box = boxes.person_box(tight, pixels.area, frame, size)
    if is_empty(box) or _area(box) < SMALLEST:
        return None
    unknown = masks.dilate_person(masks.cut(pixels, box, size), box, frame)
    return Crop("person", "person", box, _complete(unknown, pixels, box, whole))


def _surface_guided(
    pixels: PixelMask,
    surface: BodySurface,
    vertices: Surface,
    frame: tuple[int, int],
    size: tuple[int, int],
    whole: bool,
) -> Crop | None:
    within = union(pixels.box, intersection(surface.box, (0, 0, frame[1], frame[0])))
    tight = boxes.surface_tight(pixels.box, within)
    if _area(tight) < SMALLEST:
        return None
    box = boxes.surface_box(tight, pixels.area / _area(within), within, frame, size)
    own = masks.cut(surface.linear_mask(), box, size)
    unknown = masks.dilate_body(masks.cut(pixels, box, size))
    embedding = surfaces.place_in_frame(surface, box, size)
    found = _vertices(vertices, embedding, own)
    return Crop("person-cse", "surface", box, _complete(unknown, pixels, box, whole), own, found)


def _complete(unknown: Bools, pixels: PixelMask, box: Box, whole: bool) -> Bools:
    return unknown | masks.touched(pixels, box, (unknown.shape[0], unknown.shape[1])) if whole else unknown


def _vertices(surface: Surface, embedding: Floats, body: Bools) -> Ints:
    found: Ints = surface.vertices(embedding.transpose(2, 0, 1)[None], body[None], ~body[None])[0]
    return found


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
