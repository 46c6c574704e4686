"""A detector's average precision on pictures, against COCO annotations, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from engines.errors import RuntimeUnavailableError
from stream import geometry
from stream.evaluate.coco import CocoSet
from stream.evaluate.figures import Figure
from stream.regions import Regions

#: Detections of a picture that count, as in COCO.
_MOST: Final = 100
#: What is covered belongs to somebody from this overlap of boxes on.
_SAME: Final = 0.5


def import_pycocotools() -> Any:
    """The library.

    Raises:
        RuntimeUnavailableError: it is not installed.
    """
    try:
        from pycocotools import coco, cocoeval
    except ImportError as error:
        raise RuntimeUnavailableError(
            f'average precision needs pycocotools ({error}); pip install "standin[evaluate]"'
        ) from None
    return coco.COCO, cocoeval.COCOeval


def average_precision(truth: CocoSet, found: Sequence[Mapping[str, Any]], images: Sequence[int]) -> tuple[float, float]:
    """AP at IoU 0.5 to 0.95, and AP50, of boxes, 0 to 1.

    Args:
        truth: the annotations.
        found: detections as `entries` gives them.
        images: ids of the pictures that were looked at; annotations of others do not count.

    Raises:
        RuntimeUnavailableError: pycocotools is not installed.
    """
    make, evaluate = import_pycocotools()
    if not found:
        return 0.0, 0.0
    # It tells standard output about everything.
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = make()
        annotated.dataset = {
            "info": {},
            "images": [
                {"id": image, "width": truth.sizes[image][0], "height": truth.sizes[image][1]} for image in truth.names
            ],
            "annotations": [dict(entry) for entry in truth.annotations],
            "categories": [{"id": truth.category[0], "name": truth.category[1]}],
        }
        annotated.createIndex()
        measured = evaluate(annotated, annotated.loadRes([dict(entry) for entry in found]), "bbox")
        measured.params.imgIds = list(images)
        measured.params.catIds = [truth.category[0]]
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
    return float(max(0.0, measured.stats[0])), float(max(0.0, measured.stats[1]))


def entries(regions: Regions, image: int, category: int) -> list[dict[str, Any]]:
    """Detections of a picture as pycocotools takes them, the best of them.

    Args:
        regions: what a detector found.
        image: id of the picture.
        category: id of what it looked for.
    """
    order = np.argsort(-regions.scores, kind="stable")[:_MOST]
    return [
        {
            "image_id": image,
            "category_id": category,
            "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
            "score": float(score),
        }
        for (x0, y0, x1, y1), score in zip(regions.boxes[order], regions.scores[order], strict=True)
    ]


@dataclass
class Precision:
    """Collects what a detector finds in pictures, and what was covered there.

    Args:
        truth: the annotations.
        detector: its name and hash.
        resize: how pictures come to it.
        notes: what else must be known of it.
    """

    truth: CocoSet
    detector: str
    resize: str
    notes: tuple[str, ...] = ()
    _found: list[dict[str, Any]] = field(default_factory=list)
    _images: list[int] = field(default_factory=list)
    _people: list[bool] = field(default_factory=list)

    def add(self, image: int, found: Regions, covered: Regions | None = None) -> None:
        """A picture has been looked at.

        Args:
            image: its id.
            found: by the detector, all of the category.
            covered: by the method, None for the original.
        """
        self._images.append(image)
        self._found += entries(found, image, self.truth.category[0])
        if covered is not None:
            boxes = self.truth.boxes(image)
            overlap = geometry.iou(boxes, covered.boxes) if len(boxes) and len(covered) else np.zeros((len(boxes), 1))
            self._people += (overlap.max(axis=1) >= _SAME).tolist()

    def figures(self) -> dict[str, Figure]:
        """AP and AP50 where anybody is annotated, and where something was covered the share of people who were."""
        made = {}
        # Without anybody to be found, a precision of 0 would say that all were missed.
        if any(entry["image_id"] in self._images and not entry.get("iscrowd") for entry in self.truth.annotations):
            values = average_precision(self.truth, self._found, self._images)
            made = {
                name: Figure(value, len(self._images), "pictures", self.detector, self.resize, self.notes)
                for name, value in zip(("ap", "ap50"), values, strict=True)
            }
        if self._people:
            made["covered"] = Figure(float(np.mean(self._people)), len(self._people), "annotated people")
        return made
