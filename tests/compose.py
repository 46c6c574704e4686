"""Pipeline parity cases as the project takes them, and latents that are given."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.bundle import Bundle
from stream.detectors.ensemble import unite
from stream.frame import Image
from stream.generators import classical
from stream.generators.base import AlwaysReady, Crops, Generated, check_crops
from stream.latents import Latent, Latents
from stream.outline import BodySurface, Outline, PixelMask
from stream.regions import NO_TRACK, Kind, Regions
from stream.roles import Style
from tests.parity import OWN, ParityCase, parity_folder

#: More vertices than any surface has.
_ANY_SURFACE = 10**9

Arrays = Mapping[str, npt.NDArray[Any]]
Bundles = Callable[[str], Bundle]


def pipeline_cases(name: str) -> list[ParityCase]:
    """All pipeline cases whose name begins so; another folder than the project's own may have none.

    Raises:
        LookupError: the project's own folder has none.
    """
    found = [
        _case(path) for path in sorted(parity_folder().glob(f"{name}*.json")) if path.with_suffix(".npz").is_file()
    ]
    if not found and parity_folder() == OWN:
        raise LookupError(f"no parity case {name!r} in {OWN}")
    return found


def _case(path: Path) -> ParityCase:
    return ParityCase(path.stem, json.loads(path.read_text()), path.with_suffix(".npz"))


class GivenLatents(Latents):
    """Latents that are set, by track.

    Args:
        z: float32 (512,) of each track.
    """

    def __init__(self, z: Mapping[int, npt.NDArray[np.float32]]) -> None:
        super().__init__(seed=0)
        self._given = dict(z)

    def of(self, track_id: int) -> Latent:
        return Latent(self._given[track_id], 0)


def drawn_z(index: int) -> npt.NDArray[np.float32]:
    """z of the parity cases' rule, from its index."""
    z: npt.NDArray[np.float32] = np.random.RandomState(seed=index).normal(size=512).astype(np.float32)
    return z


def unpacked(masks: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Masks whose last axis is packed eight to a byte."""
    return np.unpackbits(masks, axis=-1).astype(np.bool_)


def surfaces_of(arrays: Arrays) -> list[BodySurface]:
    """The CSE detections of a case."""
    return [
        BodySurface(tuple(box.tolist()), segmentation > 0, embedding.astype(np.float32))
        for box, segmentation, embedding in zip(
            arrays["in/cse_boxes"], arrays["in/cse_segm"], arrays["in/cse_embedding"], strict=True
        )
    ]


def persons_of(arrays: Arrays) -> list[PixelMask]:
    """The Mask R-CNN detections of a case."""
    return [PixelMask(0, 0, mask).tight() for mask in unpacked(arrays["in/maskrcnn_masks"])]


def box_of(outline: Outline) -> tuple[int, int, int, int]:
    mask = outline.mask
    if mask is not None:
        return mask.tight().box
    assert outline.surface is not None
    return outline.surface.box


def as_regions(outlines: list[Outline], tracks: list[int]) -> Regions:
    """Persons with these outlines."""
    boxes = np.array([box_of(outline) for outline in outlines], np.float32).reshape(-1, 4)
    return Regions.of(boxes, Kind.PERSON, track_ids=np.array(tracks, np.int64), outlines=outlines)


def by_area(outlines: list[Outline]) -> list[Outline]:
    return sorted(outlines, key=lambda outline: outline.mask.area if outline.mask else 0)


def united(persons: Sequence[PixelMask], surfaces: Sequence[BodySurface]) -> list[Outline]:
    """The outlines of all persons, as a run finds them from what two detectors say."""
    masked = as_regions([Outline(mask) for mask in persons], [NO_TRACK] * len(persons))
    poses = as_regions([Outline(surface=surface) for surface in surfaces], [NO_TRACK] * len(surfaces))
    regions = unite([masked, poses])
    return [outline for i in range(len(regions)) if (outline := regions.outline(i)) is not None]


def dp2_regions(spec: Mapping[str, Any], arrays: Arrays) -> Regions:
    """All detections of a case, matched, with the track ids that its latents go by."""
    outlines = united(persons_of(arrays), surfaces_of(arrays))
    posed = by_area([outline for outline in outlines if outline.surface])
    plain = by_area([outline for outline in outlines if not outline.surface])
    indices = spec["z_indices"]
    kept = [tuple(box) for box in arrays["out/face_boxes_kept"].tolist()]
    faces = arrays["in/face_boxes"]
    # Only faces that are kept have a latent; the others get one that would show.
    ids = [
        indices["face"][kept.index(tuple(f))] if tuple(f) in kept else 10**6 + i for i, f in enumerate(faces.tolist())
    ]
    return Regions.concatenate(
        [
            Regions.of(faces, Kind.FACE, track_ids=np.array(ids, np.int64)),
            as_regions(plain, indices["person"]),
            as_regions(posed, indices["cse"]),
        ]
    )


class Flat(AlwaysReady):
    """A generator that paints one colour, known pixels too, and keeps what it was given.

    Args:
        kind: what it is for.
        size: height and width of its crops.
        surface: whether it takes one.
        refuses: tracks that it says it will do, and does not.
    """

    #: What it paints, and what becomes of it as a pixel.
    VALUE, LEVEL = np.float32(0.5), 191

    def __init__(
        self,
        kind: Kind,
        size: tuple[int, int] = (36, 20),
        *,
        surface: bool = False,
        refuses: frozenset[int] = frozenset(),
    ) -> None:
        self.kind = kind
        self.size = size
        self.needs_surface = surface
        self.refuses = refuses
        self.keeps = True
        self.given: list[Crops] = []

    def prepare(self) -> None:
        """Nothing to do."""

    def generate(self, crops: Crops) -> Generated:
        check_crops(crops, self.size, _ANY_SURFACE if self.needs_surface else None)
        if self.keeps:
            self.given.append(crops)
        done = np.array([int(track) not in self.refuses for track in crops.track_ids], np.bool_)
        output = np.full((len(crops), 3, *self.size), self.VALUE, np.float32)
        output[~done] = 0
        return Generated(output, done)

    def set_truncation(self, value: float) -> None:
        """Nothing depends on it."""

    def forget(self, track_id: int) -> None:
        """Nothing is kept."""

    def reset(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is open."""


def blob(x0: int, y0: int, width: int, height: int, seed: int = 0) -> PixelMask:
    """An ellipse with a thin line through it and some dust round it: what detectors give, and worse."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = ((x + 0.5) / width - 0.5) ** 2 + ((y + 0.5) / height - 0.5) ** 2 < 0.16
    pixels |= np.random.default_rng(seed).random(pixels.shape) < 0.01
    pixels[:, width // 2] = True
    pixels[height // 2] = True
    return PixelMask(x0, y0, pixels)


def posed(box: tuple[int, int, int, int], vertices: npt.NDArray[np.float32], seed: int = 0) -> BodySurface:
    """A dense pose that fills most of its box."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0:112, 0:112] / 111 - 0.5
    embedding = vertices[draw.integers(0, len(vertices), (112, 112))].transpose(2, 0, 1)
    return BodySurface(box, np.asarray(x**2 + y**2 < 0.2), np.ascontiguousarray(embedding, np.float32))


def assert_near(image: Image, expected: Image, raw: Image) -> None:
    """Within 2 of 255 for 99.9 % of the pixels that the published code replaces, and nothing else written."""
    replaced = (expected != raw).any(axis=2)
    assert replaced.any()
    apart = np.abs(image.astype(int) - expected).max(axis=2)
    assert (apart[replaced] <= 2).mean() >= 0.999
    assert not apart[~replaced].any()


def undilated(regions: Regions, index: int, style: Style = "deepprivacy2") -> PixelMask:
    """What a region's pixels are, computed from its fields."""
    outline = regions.outline(index)
    x0, y0, x1, y1 = regions.boxes[index]
    box = PixelMask.filled((int(np.floor(x0)), int(np.floor(y0)), int(np.ceil(x1)), int(np.ceil(y1))))
    if outline is None:
        return box
    own = None
    if outline.surface is not None:
        own = outline.surface.linear_mask() if style == "sg-gan" else outline.surface.nearest_mask()
    if outline.mask is None:
        return box if own is None else own
    # SG-GAN itself knows no other mask than the pose's; what another detector found counts here as well.
    return outline.mask.union(own) if own is not None and style == "sg-gan" else outline.mask


def under(regions: Regions, shape: tuple[int, ...], style: Style = "deepprivacy2") -> npt.NDArray[np.bool_]:
    """All pixels of all regions, bool (height, width)."""
    canvas = PixelMask(0, 0, np.zeros(shape[:2], np.bool_))
    for index in range(len(regions)):
        undilated(regions, index, style).paint(canvas)
    return canvas.pixels


def repainted(image: Image, regions: Regions, style: Style = "deepprivacy2") -> Image:
    """The picture with other pixels under all masks, and no others."""
    hidden = under(regions, image.shape, style)
    assert hidden.any()
    noise = np.random.default_rng(99).integers(0, 256, image.shape, np.uint8)
    return np.asarray(np.where(hidden[..., None], noise, image), np.uint8)


#: What shows where a classical anonymizer was at work.
FILLS = dict.fromkeys(Kind, classical.mask_out((255, 0, 255)))
