"""Pictures of what the starter set's detector gets right and wrong, on synthetic scenes that no training saw.

    python benchmarks/starter_pictures.py [--detector DIR] [--scenes 120] [--output docs/images]

Scenes are sorted by their faults (people missed and boxes that are nobody's), then by how much of the people's pixels
the masks have. The first and the last are drawn: masks in colour, boxes of people green, boxes of nobody red, and
people who were missed white.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.starter_detector import held_out
from engines.store import Store, home
from export.starter.detector_targets import visible
from export.starter.samples import Scene
from export.starter.stages import BODY
from stream import assemble, geometry
from stream.caution import own_pixels
from stream.config import AnonymizerSettings, make_settings
from stream.frame import Frame
from stream.regions import Kind, Regions

_SEED = 77_000_002
_COLUMNS, _ROWS = 4, 3
_GAP = 4
_RIGHT = 0.5
_GREEN, _RED, _WHITE, _BODY = (60, 220, 60), (240, 40, 40), (255, 255, 255), (255, 170, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """A scene with what was found in it.

    Attributes:
        picture: uint8 RGB, drawn over.
        faults: people missed and boxes of nobody.
        covered: share of people's pixels that masks or boxes without a mask cover.
    """

    picture: npt.NDArray[np.uint8]
    faults: int
    covered: float


def look(scene: Scene, regions: Regions) -> Looked:
    """Compares and draws."""
    persons = regions[regions.kinds == Kind.PERSON]
    people = [person for person in visible(scene.instances) if person.counts]
    true = np.array([person.box for person in people], np.float32).reshape(-1, 4)
    shares = geometry.iou(true, persons.boxes)
    found = shares.max(axis=1, initial=0) >= _RIGHT
    right = shares.max(axis=0, initial=0) >= _RIGHT
    height, width = scene.instances.shape
    masks = np.zeros((height, width), np.bool_)
    for index in range(len(persons)):
        mask = own_pixels(persons.outline(index), width, height)
        if mask is not None:
            x0, y0, x1, y1 = mask.box
            masks[y0:y1, x0:x1] |= mask.pixels
    picture = scene.image.copy()
    picture[masks] = (0.55 * picture[masks] + 0.45 * np.array(_BODY)).astype(np.uint8)
    for box, is_right in zip(persons.boxes, right, strict=True):
        _rectangle(picture, box, _GREEN if is_right else _RED)
    for box in true[~found]:
        _rectangle(picture, box, _WHITE)
    there = scene.instances > 0
    covered = float(masks[there].mean()) if there.any() else 1.0
    return Looked(picture, int((~found).sum() + (~right).sum()), covered)


def sheet(looked: list[Looked]) -> Image.Image:
    """Pictures side by side, at half their size."""
    height, width = looked[0].picture.shape[:2]
    tile = width // 2, height // 2
    whole = Image.new("RGB", (_COLUMNS * (tile[0] + _GAP) + _GAP, _ROWS * (tile[1] + _GAP) + _GAP), "white")
    for place, one in enumerate(looked[: _COLUMNS * _ROWS]):
        at = _GAP + place % _COLUMNS * (tile[0] + _GAP), _GAP + place // _COLUMNS * (tile[1] + _GAP)
        whole.paste(Image.fromarray(one.picture).resize(tile, Image.Resampling.LANCZOS), at)
    return whole


def main() -> None:
    """Draw scenes, look, and write `starter-good.jpg` and `starter-bad.jpg`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", type=Path, help="a bundle (default: the preset's)")
    parser.add_argument("--scenes", type=int, default=120)
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    values = {"detector": [str(options.detector)] if options.detector else [], "preset": "starter", "person": "mask"}
    settings = make_settings(AnonymizerSettings, values)
    detector = assemble.open_detector(assemble.find_bundles(settings, Store(home())), settings, None)
    try:
        scenes = held_out(BODY, options.scenes, seed=_SEED, size=(512, 288), workers=1)
        looked = [look(scene, detector.detect(Frame(scene.image))) for _, scene in scenes if scene.instances.any()]
    finally:
        detector.close()
    looked.sort(key=lambda one: (one.faults, -one.covered))
    count = _COLUMNS * _ROWS
    for name, chosen in (("good", looked[:count]), ("bad", looked[-count:])):
        path = options.output / f"starter-{name}.jpg"
        sheet(chosen).save(path, quality=88)
        print(path)


def _rectangle(picture: npt.NDArray[np.uint8], box: npt.NDArray[np.float32], colour: tuple[int, int, int]) -> None:
    x0, y0, x1, y1 = np.rint(box).astype(int).tolist()
    cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), colour, 2)


if __name__ == "__main__":
    main()
