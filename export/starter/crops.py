"""From scenes to what a generator is trained with: one person's crop, cut as it will be cut from a frame.

Crops are cut once and kept in a folder as plain arrays, which training maps into memory and reads in any order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.errors import SourceError
from export.starter.samples import Scene

Box = tuple[int, int, int, int]
Size = tuple[int, int]

#: What stands in a crop's `labels` where no vertex of its person does.
BACKGROUND, OTHERS = -1, -2

#: How much a side of a box grows at least, and the share of it that is background at least, as stand-ins are cut.
_GROWTH, _BACKGROUND = 0.1, 0.3
#: Pixels of a tight box; smaller people are covered by other means.
SMALLEST = 32 * 32
#: Of its tight box; of a person who is hidden further there is not enough to learn from.
_SMALLEST_SHARE = 0.1
_INDEX = "crops.json"
_DTYPES = {"images": np.uint8, "labels": np.int16, "looks": np.float32}


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """One person in the middle of a crop.

    Attributes:
        image: uint8 RGB, (H, W, 3); black outside the scene.
        labels: int16, (H, W); the person's vertex, `OTHERS` on other people, else `BACKGROUND`.
        look: float32, (Z,).
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int16]
    look: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class CropSet:
    """Crops by number.

    Attributes:
        images: uint8 RGB, (M, H, W, 3).
        labels: int16, (M, H, W), as in `Crop`.
        looks: float32, (M, Z).
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int16]
    looks: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> Size:
        """Height and width of a crop."""
        return int(self.images.shape[1]), int(self.images.shape[2])


def crop_box(tight: Box, pixels: int, frame: Size, size: Size) -> Box:
    """The box that is cut for a person with a surface (Hukkelås et al. 2023): as at run time, to the pixel.

    Each side grows by a tenth, the shorter one to the crop's ratio, then both until 30 % is background.

    Args:
        tight: round the person, `xyxy`, inside the frame, with area.
        pixels: of the person.
        frame: height and width of the picture.
        size: height and width of the crop.

    Returns:
        A box that may reach outside the frame.
    """
    x0, y0, x1, y1 = tight
    ratio = size[0] / size[1]
    width, height = x1 - x0, y1 - y0
    share = pixels / (width * height)
    wanted = int(int(width * height * share) / (1 - _BACKGROUND))
    x0, x1 = _stretched(x0, x1, min(int(width * (1 + _GROWTH)), frame[1]), frame[1])
    y0, y1 = _stretched(y0, y1, min(int(height * (1 + _GROWTH)), frame[0]), frame[0])
    width, height = x1 - x0, y1 - y0
    if height / width < ratio:
        y0, y1 = _stretched(y0, y1, int(width * ratio), frame[0])
    elif height / width > ratio:
        x0, x1 = _stretched(x0, x1, int(height / ratio), frame[1])
    width, height = x1 - x0, y1 - y0
    if height * width < wanted:
        scale = math.sqrt(wanted / (height * width))
        x0, x1 = _stretched(x0, x1, int(scale * width), frame[1])
        y0, y1 = _stretched(y0, y1, int(scale * height), frame[0])
    return x0, y0, x1, y1


def _stretched(start: int, end: int, wanted: int, limit: int) -> tuple[int, int]:
    """A span of another length about the same middle, moved inside 0 .. `limit` as far as it fits."""
    start -= (wanted - (end - start)) // 2
    end = start + wanted
    if start < 0 < limit - end:
        move = min(-start, limit - end)
    elif end > limit and start > 0:
        move = -min(end - limit, start)
    else:
        move = 0
    return start + move, end + move


def crops_of(scene: Scene, size: Size, draw: np.random.Generator | None = None) -> Iterator[Crop]:
    """The crop of every person that is large enough and shows enough.

    Args:
        scene: a picture of people.
        size: height and width of a crop.
        draw: moves the edges of each tight box by up to a twentieth, as a detector's box is not exact; None for not.
    """
    frame = scene.instances.shape[0], scene.instances.shape[1]
    for person, look in enumerate(scene.looks, start=1):
        own = scene.instances == person
        pixels = int(np.count_nonzero(own))
        if not pixels:
            continue
        rows, columns = np.flatnonzero(own.any(axis=1)), np.flatnonzero(own.any(axis=0))
        tight = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
        area = (tight[2] - tight[0]) * (tight[3] - tight[1])
        if area < SMALLEST or pixels < _SMALLEST_SHARE * area:
            continue
        if draw is not None:
            tight = _moved(tight, frame, draw)
        box = crop_box(tight, pixels, frame, size)
        yield Crop(_cut_image(scene.image, box, size), _cut_labels(scene, person, box, size), look)


def _moved(tight: Box, frame: Size, draw: np.random.Generator) -> Box:
    width, height = tight[2] - tight[0], tight[3] - tight[1]
    edges = np.array(tight) + np.rint(draw.uniform(-0.05, 0.05, 4) * (width, height, width, height)).astype(int)
    x0, x1 = np.clip(edges[[0, 2]], 0, frame[1]).tolist()
    y0, y1 = np.clip(edges[[1, 3]], 0, frame[0]).tolist()
    return x0, y0, x1, y1


def _cut_image(image: NDArray[np.uint8], box: Box, size: Size) -> NDArray[np.uint8]:
    # Pillow's bilinear filter widens where it shrinks, as stand-ins are cut.
    cut = Image.fromarray(image).crop(box).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(cut, np.uint8)


def _cut_labels(scene: Scene, person: int, box: Box, size: Size) -> NDArray[np.int16]:
    """Nearest pixels; background outside the scene."""
    height, width = scene.instances.shape
    rows = box[1] + ((np.arange(size[0]) + 0.5) * (box[3] - box[1]) / size[0]).astype(int)
    columns = box[0] + ((np.arange(size[1]) + 0.5) * (box[2] - box[0]) / size[1]).astype(int)
    inside = np.ix_((rows >= 0) & (rows < height), (columns >= 0) & (columns < width))
    at = np.ix_(rows[(rows >= 0) & (rows < height)], columns[(columns >= 0) & (columns < width)])
    instances = scene.instances[at]
    labels = np.full(size, BACKGROUND, np.int16)
    labels[inside] = np.where(
        instances == person, scene.vertices[at], np.where(instances > 0, OTHERS, BACKGROUND)
    ).astype(np.int16)
    return labels


def write_crops(folder: Path, scenes: Iterable[Scene], size: Size, *, seed: int = 0, cuts: int = 1) -> int:
    """Cuts all people of scenes into a new folder.

    Args:
        folder: made if missing; its crops are replaced.
        scenes: whose vertices fit 16 bits.
        size: height and width of a crop.
        seed: of the movements of boxes.
        cuts: how often each person is cut, always a little differently.

    Returns:
        How many crops there are.

    Raises:
        SourceError: nobody in the scenes is large enough, or there are too many vertices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count, look = 0, 0
    with ExitStack() as opened:
        files = {name: opened.enter_context((folder / f"{name}.bin").open("wb")) for name in _DTYPES}
        for number, scene in enumerate(scenes):
            if scene.vertices.max(initial=0) > np.iinfo(np.int16).max:
                raise SourceError(
                    f"a scene has vertex {scene.vertices.max()}; expected at most {np.iinfo(np.int16).max}"
                )
            draw = np.random.default_rng((seed, number))
            for _ in range(cuts):
                for crop in crops_of(scene, size, draw):
                    for name, part in zip(_DTYPES, (crop.image, crop.labels, crop.look), strict=True):
                        files[name].write(np.ascontiguousarray(part).tobytes())
                    count, look = count + 1, len(crop.look)
    if not count:
        raise SourceError(f"the scenes show nobody of {SMALLEST} pixels and more, so there is nothing to train with")
    # Last, so that a folder with an index is whole.
    (folder / _INDEX).write_text(json.dumps({"count": count, "size": size, "look": look}), encoding="utf-8")
    return count


def open_crops(folder: Path) -> CropSet:
    """Maps the crops of a folder into memory, read-only.

    Raises:
        SourceError: there are none, or files are missing or of another length than the folder says.
    """
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        count, (height, width), look = index["count"], index["size"], index["look"]
        shapes = {"images": (count, height, width, 3), "labels": (count, height, width), "looks": (count, look)}
        for name, shape in shapes.items():
            expected = math.prod(shape) * np.dtype(_DTYPES[name]).itemsize
            if (folder / f"{name}.bin").stat().st_size != expected:
                raise SourceError(f"{folder / name}.bin is not {expected} bytes long; cut the crops again")
        images, labels, looks = (
            np.memmap(folder / f"{name}.bin", _DTYPES[name], "r", shape=shape) for name, shape in shapes.items()
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{folder} holds no crops ({error}); cut them again") from error
    return CropSet(images, labels, looks)
