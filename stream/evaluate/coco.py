"""Annotations in COCO's format: which people are where in a folder of pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.errors import SourceError, UsageError
from stream.evaluate.pictures import check_folder
from stream.presets import did_you_mean

Boxes = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CocoSet:
    """Pictures and the boxes of one category in them.

    Attributes:
        folder: with the pictures.
        names: of pictures, by their ids.
        annotations: of the category, as pycocotools takes them.
        category: id and name.
        sizes: width and height of pictures by their ids, as the file says.
    """

    folder: Path
    names: Mapping[int, str]
    annotations: tuple[Mapping[str, Any], ...]
    category: tuple[int, str]
    sizes: Mapping[int, tuple[int, int]]

    def boxes(self, image: int) -> Boxes:
        """The boxes in a picture, crowds left out, `xyxy` (N, 4)."""
        found = [entry["bbox"] for entry in self.annotations if entry["image_id"] == image and not entry["iscrowd"]]
        corners = np.array(found, np.float32).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        return corners


def read_coco(path: Path, folder: Path, category: str = "person") -> CocoSet:
    """Reads annotations and sees that they belong to a folder's pictures.

    Args:
        path: JSON in COCO's format of detection: `images`, `annotations` and `categories`.
        folder: in which `file_name` is looked for.
        category: whose boxes count, by name.

    Raises:
        UsageError: a file or folder is missing, or pictures of the annotations are not in the folder.
        SourceError: the file is not of that format.
    """
    check_folder(folder)
    content = _read_json(path)
    try:
        names = {int(entry["id"]): str(entry["file_name"]) for entry in content["images"]}
        sizes = {int(entry["id"]): (int(entry["width"]), int(entry["height"])) for entry in content["images"]}
        known = {str(entry["name"]): int(entry["id"]) for entry in content["categories"]}
        if category not in known:
            raise UsageError(f"{path} has no category {category!r}: {did_you_mean(category, known)}")
        chosen = tuple(
            _annotation(entry) for entry in content["annotations"] if int(entry["category_id"]) == known[category]
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, UsageError):
            raise
        what = f"lacks {error}" if isinstance(error, KeyError) else f"is not as expected: {error}"
        raise SourceError(f"{path} is no file of COCO annotations, it {what}") from None
    _check(path, folder, names, chosen, len(content["images"]))
    return CocoSet(folder, names, chosen, (known[category], category), sizes)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"no such file: {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no JSON"
        raise SourceError(f"{path} cannot be read ({reason}); give COCO annotations as JSON") from None
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    ):
        raise SourceError(f"{path} is no file of COCO annotations: it needs images, annotations and categories")
    return content


def _annotation(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    x, y, width, height = (float(value) for value in entry["bbox"])
    if not np.isfinite([x, y, width, height]).all() or width < 0 or height < 0:
        raise ValueError(f"annotation {entry['id']} has the box {entry['bbox']}, expected x, y, width, height")
    return {
        "id": int(entry["id"]),
        "image_id": int(entry["image_id"]),
        "category_id": int(entry["category_id"]),
        "bbox": [x, y, width, height],
        "area": float(entry.get("area", width * height)),
        "iscrowd": int(entry.get("iscrowd", 0)),
    }


def _check(
    path: Path, folder: Path, names: Mapping[int, str], annotations: tuple[Mapping[str, Any], ...], count: int
) -> None:
    if not names:
        raise UsageError(f"{path} names no pictures")
    if len(names) != count or len({entry["id"] for entry in annotations}) != len(annotations):
        raise SourceError(f"{path} gives one id to several pictures or annotations; ids must differ")
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in names.values()):
        raise SourceError(f"{path} names pictures outside the folder; file_name must lie below it")
    missing = [name for name in names.values() if not (folder / name).is_file()]
    if missing:
        raise UsageError(
            f"{len(missing)} of the {len(names)} pictures of {path} are not in {folder}, such as {missing[0]}; "
            "give the folder that belongs to the annotations"
        )
    if lost := {entry["image_id"] for entry in annotations} - set(names):
        raise SourceError(f"{path} annotates picture {min(lost)}, which is not among its images")
    if not annotations:
        raise UsageError(f"{path} has no box of that category, so that there is nothing to find")
