"""Sets for the papers' measures: people of scenes that no training saw, rendered, and stills of clips.

The rendered set for re-identification shows each person in the same clothes and with the same body before several
cameras: other poses, other light, other rooms. Its people are synthetic, and nobody's network was trained for them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from export.starter.backgrounds import draw_background
from export.starter.body import load_body
from export.starter.cameras import draw_camera, draw_light
from export.starter.degradation import degrade
from export.starter.looks import Look, draw_look
from export.starter.poses import draw_pose, forward, rotation
from export.starter.production import make_scenes
from export.starter.render import Renderer, make_figure
from export.starter.scenes import SceneSettings
from export.starter.wardrobe import Wardrobe
from stream.detectors.base import Detector
from stream.evaluate.market import GALLERY, QUERY
from stream.frame import Frame, Image
from stream.regions import Kind
from stream.sources.video import VideoSource

Box = tuple[float, float, float, float]

_UP: Final = np.array([0.0, 0.0, 1.0])
#: Of shots: of the rendered picture, and of the crop, width and height as Market1501's.
_RENDERED, _SHOT = (160, 256), (64, 128)
CAMERAS: Final = 3
#: Pictures of a person by a camera in the gallery.
_IN_GALLERY: Final = 2
#: How far a shot reaches beyond the person, as a share of the person's height.
_AROUND: Final = 0.03
#: Of people who are smaller nobody could say where they are.
_FEWEST_PIXELS: Final = 30


def write_scenes(folder: Path, body: Path, count: int, *, seed: int, workers: int) -> Path:
    """Rendered scenes with exact boxes; the annotations' path.

    Args:
        folder: for `images/` and `annotations.json`.
        body: of the people.
        count: of scenes, about one in eight of which shows nobody.
        seed: that no training was given.
        workers: processes that draw.
    """
    scenes = make_scenes(body, SceneSettings(), seed, count, workers=workers)
    return _write(folder, ((scene.image, _boxes(scene.instances)) for scene in scenes))


def _boxes(instances: npt.NDArray[np.uint8]) -> list[Box]:
    boxes = []
    for person in range(1, int(instances.max(initial=0)) + 1):
        rows, columns = np.nonzero(instances == person)
        if len(rows) >= _FEWEST_PIXELS:
            boxes.append((float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)))
    return boxes


def write_stills(folder: Path, clips: Sequence[Path], every: int, detector: Detector, sure: float) -> Path:
    """Stills of clips, with a detector's confident boxes for annotations; their path.

    Args:
        folder: for `images/` and `annotations.json`.
        clips: of people.
        every: of so many frames one is taken.
        detector: whose boxes count.
        sure: score from which they do.
    """

    def stills() -> Iterable[tuple[Image, list[Box]]]:
        for clip in clips:
            source = VideoSource(clip)
            try:
                for number, frame in enumerate(source):
                    if number % every == 0 and frame.damaged is None:
                        found = detector.detect(Frame(frame.image))
                        chosen = found[(found.kinds == Kind.PERSON) & (found.scores >= sure)]
                        yield frame.image, [(b[0], b[1], b[2], b[3]) for b in chosen.boxes.tolist()]
            finally:
                source.close()

    return _write(folder, stills())


def _write(folder: Path, pictures: Iterable[tuple[Image, list[Box]]]) -> Path:
    (folder / "images").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (image, boxes) in enumerate(pictures, start=1):
        name = f"{number:05d}.png"
        Pillow.fromarray(image).save(folder / "images" / name)
        images.append({"id": number, "file_name": name, "width": image.shape[1], "height": image.shape[0]})
        for x0, y0, x1, y1 in boxes:
            box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 1, **box})
    path = folder / "annotations.json"
    categories = [{"id": 1, "name": "person"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def write_market(folder: Path, body: Path, people: int, *, seed: int) -> Path:
    """A folder like Market1501's of rendered people; half as many more are distractors.

    Args:
        folder: for it.
        body: of the people.
        people: that are looked for.
        seed: that no training was given.
    """
    for part in (QUERY, GALLERY):
        (folder / part).mkdir(parents=True)
    studio = _Studio(body)
    for person in range(1, people + people // 2 + 1):
        draw = np.random.default_rng((seed, person))
        look, shape = draw_look(draw), studio.body.draw_shape(draw)
        wanted = person <= people
        for camera in range(1, CAMERAS + 1) if wanted else (1,):
            for number in range(_IN_GALLERY + wanted):
                part = QUERY if wanted and number == _IN_GALLERY else GALLERY
                name = f"{person if wanted else 0:04d}_c{camera}s1_{person:06d}_{number:02d}.png"
                Pillow.fromarray(studio.shot(look, shape, draw)).save(folder / part / name)
    return folder


class _Studio:
    """Renders one person at a time."""

    def __init__(self, body: Path) -> None:
        self.body = load_body(body)
        self._wardrobe = Wardrobe(self.body)
        self._renderer = Renderer(self._wardrobe, *_RENDERED)

    def shot(self, look: Look, shape: npt.NDArray[np.float32], draw: np.random.Generator) -> Image:
        """Somebody in a new pose, place and light, cut out, uint8 RGB (128, 64, 3)."""
        while True:
            camera = draw_camera(draw, _RENDERED[0] / _RENDERED[1], "portrait")
            at_rest, joints = self.body.at_rest(shape)
            rotations, _ = draw_pose(draw, joints, "walk")
            figure = make_figure(self._wardrobe, look, at_rest, forward(rotations, joints))
            place = np.eye(4, dtype=np.float32)
            place[:3, :3] = rotation(_UP, draw.uniform(0, 2 * np.pi))
            place[:3, 3] = (0, draw.uniform(camera.nearest, camera.farthest), -figure.lowest())
            behind = draw_background(draw, camera, *_RENDERED, [])
            image, instances, _ = self._renderer.draw(camera, draw_light(draw), behind, [], [figure.moved(place)])
            if (instances > 0).sum() > 0.1 * instances.size:
                return _cut(degrade(draw, image), instances > 0)


def _cut(image: Image, where: npt.NDArray[np.bool_]) -> Image:
    rows, columns = np.nonzero(where)
    more = _AROUND * (rows.max() - rows.min())
    middle = (columns.min() + columns.max() + 1) / 2
    high = rows.max() + 1 - rows.min() + 2 * more
    wide = max(columns.max() + 1 - columns.min(), high * _SHOT[0] / _SHOT[1])
    top = rows.min() - more
    box = (round(middle - wide / 2), round(top), round(middle + wide / 2), round(top + high))
    inside = (max(0, box[0]), max(0, box[1]), min(image.shape[1], box[2]), min(image.shape[0], box[3]))
    return np.asarray(Pillow.fromarray(image).crop(inside).resize(_SHOT, Pillow.Resampling.BILINEAR), np.uint8)
