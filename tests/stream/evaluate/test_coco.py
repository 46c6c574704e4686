from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.errors import SourceError, StandinError, UsageError
from stream.evaluate.coco import read_coco
from stream.evaluate.synthetic import ANNOTATIONS, IMAGES
from tests.stream.evaluate.made import write_set


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set")


def change(folder: Path, **changes: Any) -> Path:
    path = folder / ANNOTATIONS
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def test_boxes_are_read_by_picture_and_crowds_are_left_out(folder: Path) -> None:
    content = json.loads((folder / ANNOTATIONS).read_text())
    content["annotations"][0] |= {"image_id": 1, "bbox": [1, 2, 10, 20]}
    crowd = content["annotations"][0] | {"id": 900, "iscrowd": 1}
    other = content["annotations"][0] | {"id": 901, "category_id": 7}
    mine = [content["annotations"][0], crowd, other]
    categories = [*content["categories"], {"id": 7, "name": "dog"}]
    found = read_coco(change(folder, annotations=mine, categories=categories), folder / IMAGES)
    assert np.array_equal(found.boxes(1), [[1, 2, 11, 22]])
    assert found.boxes(2).shape == (0, 4)
    assert [entry["id"] for entry in found.annotations] == [1, 900]
    assert found.sizes[1] == (320, 240)


def test_pictures_that_are_not_there_are_named(folder: Path) -> None:
    (folder / IMAGES / "00002.png").unlink()
    with pytest.raises(UsageError, match=r"1 of the 3 pictures .* such as 00002.png"):
        read_coco(folder / ANNOTATIONS, folder / IMAGES)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": {}}, "needs images"),
        ({"images": []}, "no pictures"),
        ({"annotations": []}, "nothing to find"),
        ({"categories": [{"id": 1, "name": "persom"}]}, "did you mean 'persom'"),
        ({"annotations": [{"id": 1, "category_id": 1}]}, "lacks 'bbox'"),
        ({"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3]}]}, "not as expected"),
        ({"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, -3, 4]}]}, "has the box"),
        ({"annotations": [{"id": 1, "image_id": 99, "category_id": 1, "bbox": [1, 2, 3, 4]}]}, "picture 99"),
        ({"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}] * 2}, "ids must differ"),
        ({"images": [{"id": 1, "file_name": "../x.png", "width": 1, "height": 1}]}, "outside the folder"),
        ({"images": ["x"]}, "not as expected"),
    ],
)
def test_what_is_no_such_file_is_said_in_a_line(folder: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(StandinError, match=words) as raised:
        read_coco(change(folder, **changes), folder / IMAGES)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_missing_or_no_json_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_coco(folder / "nothing.json", folder / IMAGES)
    (folder / ANNOTATIONS).write_text("{")
    with pytest.raises(SourceError, match="no JSON"):
        read_coco(folder / ANNOTATIONS, folder / IMAGES)
