"""A small synthetic set, drawn in code: pictures with COCO annotations, and a folder like Market1501's.

It shows the formats, and lets every measure run without anybody's pictures. Its people are drawn with a few ellipses:
figures measured on it say nothing about real ones.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from engines.errors import SinkError, UsageError
from stream.evaluate.market import GALLERY, QUERY
from stream.frame import Image

Box = tuple[int, int, int, int]

IMAGES, ANNOTATIONS, MARKET = "images", "annotations.json", "market"
#: Of pictures and of shots, width and height.
_PICTURE, _SHOT = (320, 240), (64, 128)
_CAMERAS: Final = 3
#: Of body parts: middle and half axes, as shares of the person's height; whose colour.
_PARTS: Final = (
    ((0.0, 0.09), (0.065, 0.085), "skin"),
    ((0.0, 0.05), (0.07, 0.05), "hair"),
    ((0.0, 0.34), (0.13, 0.2), "shirt"),
    ((-0.15, 0.36), (0.04, 0.17), "shirt"),
    ((0.15, 0.36), (0.04, 0.17), "shirt"),
    ((-0.06, 0.75), (0.06, 0.25), "trousers"),
    ((0.06, 0.75), (0.06, 0.25), "trousers"),
)


@dataclass(frozen=True, slots=True)
class Look:
    """Colours of a person, RGB."""

    skin: tuple[int, int, int]
    hair: tuple[int, int, int]
    shirt: tuple[int, int, int]
    trousers: tuple[int, int, int]


def draw_look(draw: np.random.Generator) -> Look:
    """Somebody."""
    tone = float(draw.uniform(0.35, 1))
    hair = draw.integers(10, 120)
    return Look(
        (int(235 * tone), int(190 * tone), int(160 * tone)),
        (int(hair), int(0.8 * hair), int(0.6 * hair)),
        _colour(draw),
        _colour(draw),
    )


def _colour(draw: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = draw.integers(20, 236, 3).tolist()
    return red, green, blue


def background(size: tuple[int, int], draw: np.random.Generator) -> Image:
    """Blurred blocks of colour, uint8 RGB; `size` is width and height."""
    blocks = draw.integers(60, 196, (size[1] // 20 + 2, size[0] // 20 + 2, 3), np.uint8)
    return np.asarray(cv2.resize(blocks, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def paint(image: Image, look: Look, middle: int, top: int, height: int) -> Box:
    """Draws a person in place, and says where, `xyxy` within the picture.

    Args:
        image: uint8 RGB (h, w, 3).
        look: of the person.
        middle: column of the person's middle.
        top: row of the top of the head.
        height: in pixels.
    """
    before = image.copy()
    for (across, down), (wide, high), part in _PARTS:
        centre = round(middle + across * height), round(top + down * height)
        axes = max(1, round(wide * height)), max(1, round(high * height))
        cv2.ellipse(image, centre, axes, 0, 0, 360, getattr(look, part), -1, cv2.LINE_AA)
    changed = (image != before).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def scene(draw: np.random.Generator) -> tuple[Image, list[Box]]:
    """A picture of one to three people beside each other, and where they are."""
    width, height = _PICTURE
    image = background(_PICTURE, draw)
    count = int(draw.integers(1, 4))
    boxes = []
    for place in range(count):
        tall = int(draw.integers(110, 200))
        middle = int((place + 0.5) * width / count + draw.integers(-8, 9))
        boxes.append(paint(image, draw_look(draw), middle, int(draw.integers(8, height - tall)), tall))
    return image, boxes


def shot(look: Look, camera: int, draw: np.random.Generator) -> Image:
    """A person as a camera sees them, uint8 RGB (128, 64, 3): each camera has its own light."""
    image = background(_SHOT, draw)
    tall = int(draw.integers(112, 124))
    paint(image, look, _SHOT[0] // 2 + int(draw.integers(-3, 4)), int(draw.integers(1, 128 - tall)), tall)
    light = np.array([(1.0, 1.0, 1.0), (0.85, 0.9, 1.05), (1.1, 1.0, 0.85)][camera % 3])
    return np.asarray((image * light).clip(0, 255), np.uint8)


def write_synthetic(folder: Path, *, pictures: int = 24, people: int = 8, seed: int = 0) -> None:
    """Writes the set: `images/` with `annotations.json`, and `market/`.

    Args:
        folder: new, or empty.
        pictures: with annotations.
        people: in the set for re-identification, each seen by three cameras.
        seed: of everything.

    Raises:
        UsageError: the folder holds something.
        SinkError: it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} holds something already; give a new folder")
    try:
        _write_pictures(folder, pictures, np.random.default_rng((seed, 0)))
        _write_market(folder / MARKET, people, np.random.default_rng((seed, 1)))
    except OSError as error:
        raise SinkError(f"cannot write {folder}: {error.strerror or error}") from error


def _write_pictures(folder: Path, count: int, draw: np.random.Generator) -> None:
    (folder / IMAGES).mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        image, boxes = scene(draw)
        name = f"{number:05d}.png"
        _save(folder / IMAGES / name, image)
        images.append({"id": number, "file_name": name, "width": image.shape[1], "height": image.shape[0]})
        for x0, y0, x1, y1 in boxes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                }
            )
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    (folder / ANNOTATIONS).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _write_market(folder: Path, people: int, draw: np.random.Generator) -> None:
    for part in (QUERY, GALLERY):
        (folder / part).mkdir(parents=True)
    for person in range(1, people + 1):
        look = draw_look(draw)
        for camera in range(_CAMERAS):
            name = f"{person:04d}_c{camera + 1}s1_{person:06d}"
            _save(folder / QUERY / f"{name}_00.png", shot(look, camera, draw))
            for number in (1, 2):
                _save(folder / GALLERY / f"{name}_{number:02d}.png", shot(look, camera, draw))
    for number in range(people):
        # People of no query, and boxes that show too little of anybody.
        _save(folder / GALLERY / f"0000_c1s1_{number:06d}_00.png", shot(draw_look(draw), 0, draw))
        _save(folder / GALLERY / f"-1_c2s1_{number:06d}_00.png", background(_SHOT, draw))


def _save(path: Path, image: npt.NDArray[np.uint8]) -> None:
    Pillow.fromarray(image).save(path)
