"""From a frame and its regions to the anonymized frame: crops in waves, generators, pasting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream import geometry
from stream.compose import masks
from stream.compose.crops import cut_image, enlarge
from stream.compose.parts import Crop, Painters, Part, drop_covered_faces, prepare
from stream.compose.waves import waves
from stream.frame import Image
from stream.generators.base import Bools, Crops, Floats
from stream.outline import Box, PixelMask, intersection, is_empty
from stream.regions import Kind, Regions
from stream.roles import Context, Role
from stream.stitch import cover, paste

#: Crops that are held in memory at once; further ones of a wave follow.
_AT_ONCE = 8


@dataclass(frozen=True, slots=True, eq=False)
class Composed:
    """An anonymized picture.

    Attributes:
        image: uint8 RGB, (height, width, 3).
        generated: bool (N,), which regions were replaced by a generator; the others are covered classically, or lie
            outside the frame.
    """

    image: Image
    generated: Bools


def compose(
    image: Image, regions: Regions, painters: Painters, *, context: Context = "private", whole: bool = True
) -> Composed:
    """Replace every region of a frame; the picture that is given stays as it is.

    Regions are stitched in ascending order of area, faces first, then persons without a surface, then persons with
    one, each cut from the picture as already stitched. SG-GAN's persons come last: all are cut from the same picture,
    bodies are stitched first come first served, then borders.

    Args:
        image: uint8 RGB, (height, width, 3).
        regions: what to replace. Generators must know their tracks (`Generator.request`).
        painters: what replaces them.
        context: `private`: pixels of regions that are still raw count as unknown in every crop, so that no generator
            sees them. `published`: crops show them, as in the published code.
        whole: whether every pixel of every region is written. False is for comparison with the published code, which
            leaves thin parts of masks raw, and faces that lie in the box round a person's mask.

    Raises:
        GenerationError: a generator's answer cannot be trusted.
        DetectionError: an embedding is not finite.
        StandinError: a graph could not be run.
    """
    out = image.copy()
    height, width = out.shape[:2]
    prepared = prepare(regions, (height, width), painters, whole)
    parts, dropped = drop_covered_faces(prepared, (height, width), whole)
    last = [part for part in parts if _guided(part)]
    first = sorted((part for part in parts if not _guided(part)), key=lambda part: part.rank)
    canvas = _Canvas(out, painters, context, [part.pixels for part in dropped], len(regions))
    for wave in waves([part.reach((height, width)) for part in first]):
        # What is stitched before a wave lies behind its parts in no picture: later ones are all that may be raw.
        hidden = {id(first[i]): [*first[i:], *last] for i in wave}
        canvas.stitch([first[i] for i in wave], hidden)
    canvas.stitch_bodies(last)
    # A dropped face is under stand-ins, unless one of them could not be made in the end.
    made = all(canvas.generated[part.index] for part in parts if part.crop is not None and part.kind == Kind.PERSON)
    canvas.generated[[part.index for part in dropped]] = made
    return Composed(out, canvas.generated)


def _guided(part: Part) -> bool:
    return part.crop is not None and part.crop.cutting == "surface"


class _Canvas:
    """The picture in the making, and what may not be seen of it yet."""

    def __init__(
        self, out: Image, painters: Painters, context: Context, never: Sequence[PixelMask], regions: int
    ) -> None:
        self._out = out
        self._painters = painters
        self._context = context
        self._never = never
        self._frame: Box = (0, 0, out.shape[1], out.shape[0])
        self.generated = np.zeros(regions, np.bool_)

    def stitch(self, wave: Sequence[Part], hidden: dict[int, list[Part]]) -> None:
        """Replace parts whose crops do not meet."""
        for part in wave:
            if part.crop is None:
                self._cover(part)
        for role in ("person-cse", "person", "face"):
            chosen = [part for part in wave if part.crop is not None and part.crop.role == role]
            for start in range(0, len(chosen), _AT_ONCE):
                batch = chosen[start : start + _AT_ONCE]
                for part, output in zip(batch, self._generate(role, batch, hidden), strict=True):
                    self._paste(part, output)

    def stitch_bodies(self, parts: Sequence[Part]) -> None:
        """Replace SG-GAN's persons: all cut from the same picture, bodies first, then borders."""
        hidden = {id(part): list(parts) for part in parts}
        outputs: list[Floats | None] = []
        for start in range(0, len(parts), _AT_ONCE):
            outputs += self._generate("person-cse", parts[start : start + _AT_ONCE], hidden)
        filled = np.zeros(self._out.shape[:2], np.bool_) if parts else np.zeros((0, 0), np.bool_)
        for part, output in zip(parts, outputs, strict=True):
            if output is None:
                self._cover(part)
        for borders in (False, True):
            for part, output in zip(parts, outputs, strict=True):
                if output is not None and part.crop is not None:
                    self._fill(part.crop, output, filled, borders=borders)
                    self.generated[part.index] = True

    def _generate(self, role: Role, parts: Sequence[Part], hidden: dict[int, list[Part]]) -> list[Floats | None]:
        """Each part's picture (H, W, 3), 0 to 255, None where the generator does not do it."""
        cut = [
            (part.track_id, part.crop, *self._cut(part.crop, hidden[id(part)]))
            for part in parts
            if part.crop is not None
        ]
        made = self._painters.generators[role].generate(_batch(cut))
        levels = (made.output.transpose(0, 2, 3, 1).clip(-1, 1) + 1) * np.float32(127.5)
        return [values if done else None for values, done in zip(levels, made.done, strict=True)]

    def _cut(self, crop: Crop, later: Sequence[Part]) -> tuple[Image, Bools]:
        """A crop's picture and its known pixels."""
        size = (crop.unknown.shape[0], crop.unknown.shape[1])
        hidden = None
        if self._context == "private":
            hidden = self._hidden(crop.box, [*(other.pixels for other in later), *self._never])
        image, shares = cut_image(self._out, crop.box, size, crop.cutting, hidden, self._painters.resampler)
        return image, ~crop.unknown if shares is None else ~crop.unknown & ~shares

    def _hidden(self, box: Box, pixels: Sequence[PixelMask]) -> PixelMask:
        """The pixels of several masks in a box."""
        inside = intersection(box, self._frame)
        hidden = PixelMask(inside[0], inside[1], np.zeros((inside[3] - inside[1], inside[2] - inside[0]), np.bool_))
        for mask in pixels:
            mask.paint(hidden)
        return hidden

    def _paste(self, part: Part, output: Floats | None) -> None:
        crop = part.crop
        if output is None or crop is None:
            self._cover(part)
            return
        inside = self._written(crop)
        if not is_empty(inside):
            where = masks.back(crop.unknown, crop.box, inside)
            paste(self._out, inside, enlarge(output, crop.box, inside, "bicubic", self._painters.resampler), where)
        self.generated[part.index] = True

    def _fill(self, crop: Crop, output: Floats, filled: Bools, *, borders: bool) -> None:
        """Write a body, or its border, where nothing is written yet."""
        inside = self._written(crop, more=1)
        if is_empty(inside) or crop.body is None:
            return
        x0, y0, x1, y1 = inside
        where = masks.back_any(crop.body, crop.box, inside)
        if borders:
            where ^= masks.back_any(crop.unknown, crop.box, inside)
        free = where & ~filled[y0:y1, x0:x1]
        if free.any():
            whole = np.rint(output)
            paste(self._out, inside, enlarge(whole, crop.box, inside, "bilinear", self._painters.resampler), free)
        filled[y0:y1, x0:x1] |= where

    def _written(self, crop: Crop, more: int = 0) -> Box:
        """The part of the frame that a crop may write to, rounded outwards; `more` pixels of the crop round it."""
        rows, columns = np.flatnonzero(crop.unknown.any(axis=1)), np.flatnonzero(crop.unknown.any(axis=0))
        if not len(rows):
            return 0, 0, 0, 0
        high, wide = crop.unknown.shape
        down, across = (crop.box[3] - crop.box[1]) / high, (crop.box[2] - crop.box[0]) / wide
        x0, x1 = int((columns[0] - more) * across) - 2, int((columns[-1] + 1 + more) * across) + 3
        y0, y1 = int((rows[0] - more) * down) - 2, int((rows[-1] + 1 + more) * down) + 3
        written = (crop.box[0] + x0, crop.box[1] + y0, crop.box[0] + x1, crop.box[1] + y1)
        return intersection(intersection(written, crop.box), self._frame)

    def _cover(self, part: Part) -> None:
        pixels = geometry.to_pixels(part.covered, self._frame[2], self._frame[3])[0]
        cover(self._out, part.covered, pixels, self._painters.fills[part.kind], part.shape)


def _batch(cut: Sequence[tuple[int, Crop, Image, Bools]]) -> Crops:
    """Crops as a generator takes them."""
    vertices = [crop.vertices for _, crop, _, _ in cut if crop.vertices is not None]
    bodies = [crop.body for _, crop, _, _ in cut if crop.body is not None]
    posed = len(vertices) == len(bodies) == len(cut)
    return Crops(
        images=np.stack([image for _, _, image, _ in cut]),
        known=np.stack([known for _, _, _, known in cut]),
        track_ids=np.array([track for track, _, _, _ in cut], np.int64),
        body=np.stack(bodies) if posed else None,
        vertices=np.stack(vertices) if posed else None,
    )
