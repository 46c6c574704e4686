from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from engines.errors import BundleError, UsageError
from engines.importers.forms import Cells, Columns, Form, Lists, Priors, Queries, Rows
from engines.importers.network import Network, read_network
from engines.importers.recognise import recognise
from tests.engines.importers.networks import fixed_answer, save, ultralytics

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ultralytics([f"class {index}" for index in range(80)])
SEGMENT = NAMES | {"task": "segment"}


def _network(
    folder: Path, shapes: dict[str, tuple[Any, ...]], metadata: dict[str, str], whole: tuple[str, ...]
) -> Network:
    """A file whose outputs are declared with these shapes; the answer itself is small."""
    values = {
        name: np.zeros([1] * len(shape), np.int64 if name in whole else np.float32) for name, shape in shapes.items()
    }
    return read_network(save(fixed_answer(values, shapes=shapes, metadata=metadata), folder))


@pytest.mark.parametrize(
    ("kind", "shapes", "metadata", "form"),
    [
        ("yolo", {"o": (1, 84, 8400)}, NAMES, Columns("o", 80)),
        ("yolo", {"o": (1, 84, 8400)}, {}, Columns("o", 80)),
        ("yolo", {"o": ("batch", 84, "anchors")}, {}, Columns("o", 80)),
        ("yolo", {"o": ("batch", 84, "anchors")}, NAMES, Columns("o", 80)),
        ("yolo", {"o": (1, 8400, 84)}, NAMES, Columns("o", 80, rows=True)),
        ("yolo", {"o": (1, 25200, 85)}, {}, Columns("o", 80, rows=True, objectness=True)),
        ("yolo", {"o": (1, 25200, 85)}, NAMES, Columns("o", 80, rows=True, objectness=True)),
        ("yolo", {"o": (1, 25200, 6)}, ultralytics(["face"]), Columns("o", 1, rows=True, objectness=True)),
        ("yolo", {"o": (1, 6, 8400)}, ultralytics(["person", "face"]), Columns("o", 2)),
        ("yolo", {"o": (1, 5, 8400)}, {}, Columns("o", 1)),
        ("yolo", {"o": (1, 300, 6)}, {}, Rows("o")),
        ("yolo", {"o": (1, 300, 6)}, NAMES, Rows("o")),
        ("yolo", {"o": ("batch", "rows", 6)}, NAMES | {"nms": "True"}, Rows("o")),
        (
            "yolo-seg",
            {"o": (1, 116, 8400), "p": (1, 32, 160, 160)},
            SEGMENT,
            Columns("o", 80, prototypes="p", coefficients=32),
        ),
        (
            "yolo-seg",
            {"o": (1, 116, 8400), "p": (1, 32, 160, 160)},
            {},
            Columns("o", 80, prototypes="p", coefficients=32),
        ),
        ("yolo-seg", {"o": (1, 300, 38), "p": (1, 32, 160, 160)}, SEGMENT, Rows("o", "p", 32)),
        ("rtdetr", {"o": (1, 300, 84)}, NAMES, Columns("o", 80, rows=True, unit=True, queries=True)),
        ("rtdetr", {"logits": (1, 300, 80), "pred_boxes": (1, 300, 4)}, {}, Queries("logits", "pred_boxes", 80)),
        (
            "rtdetr",
            {"labels": (1, 300), "boxes": (1, 300, 4), "scores": (1, 300)},
            {},
            Lists("boxes", "scores", "labels", None, True, 300),
        ),
        (
            "boxes",
            {"boxes": ("K", 4), "labels": ("K",), "scores": ("K",), "masks": ("K", 1, "h", "w")},
            {},
            Lists("boxes", "scores", "labels", "masks", False, 100),
        ),
        ("boxes", {"1": (50, 4), "labels": (50,), "7": (50,)}, {}, Lists("1", "7", "labels", None, False, 50)),
        ("fastestdet", {"758": (1, 85, 22, 22)}, {}, Cells("758", 80)),
        ("ultraface", {"scores": (1, 4420, 2), "boxes": (1, 4420, 4)}, {}, Priors("scores", "boxes", 1)),
    ],
)
def test_layouts_are_recognised(
    tmp_path: Path, kind: str, shapes: dict[str, tuple[Any, ...]], metadata: dict[str, str], form: Form
) -> None:
    assert recognise(kind, _network(tmp_path, shapes, metadata, ("labels",))).form == form


@pytest.mark.parametrize(
    ("kind", "shapes", "metadata"),
    [
        ("yolo", {"o": (1, 84, 8400), "p": (1, 32, 160, 160)}, {}),
        ("yolo", {"o": (1, 70, 8400)}, NAMES),
        ("yolo", {"o": (1, 4, 8400)}, {}),
        ("yolo", {"o": ("batch", "values", "anchors")}, NAMES),
        ("yolo", {"o": (1, 84, 8400)}, NAMES | {"task": "pose"}),
        ("yolo", {"o": (1, 84)}, {}),
        ("yolo-seg", {"o": (1, 84, 8400)}, {}),
        ("yolo-seg", {"o": (1, 116, 8400), "p": (1, "c", 160, 160)}, SEGMENT),
        ("rtdetr", {"o": (1, 84)}, {}),
        ("rtdetr", {"o": (1, 300, 4)}, {}),
        ("boxes", {"boxes": ("K", 5), "labels": ("K",), "scores": ("K",)}, {}),
        ("boxes", {"boxes": ("K", 4), "scores": ("K",)}, {}),
        ("boxes", {"boxes": ("K", 4), "labels": ("K",)}, {}),
        ("fastestdet", {"o": (1, 84, 8400)}, {}),
        ("fastestdet", {"o": (1, 5, 22, 22)}, {}),
        ("ultraface", {"scores": (1, 4420, 3), "boxes": (1, 4420, 4)}, {}),
    ],
)
def test_other_outputs_are_refused_with_what_was_expected(
    tmp_path: Path, kind: str, shapes: dict[str, tuple[Any, ...]], metadata: dict[str, str]
) -> None:
    with pytest.raises(BundleError, match="expect") as caught:
        recognise(kind, _network(tmp_path, shapes, metadata, ("labels",)))
    assert "\n" not in str(caught.value)


def test_an_unknown_kind_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="yolo-seg"):
        recognise("yolov8", _network(tmp_path, {"o": (1, 84, 8400)}, {}, ()))


def test_further_inputs_are_refused(tmp_path: Path) -> None:
    model = fixed_answer({"o": np.zeros((1, 84, 100), np.float32)}, more_inputs={"size": 1})
    with pytest.raises(BundleError, match="further inputs size"):
        recognise("yolo", read_network(save(model, tmp_path)))


def test_names_in_the_file_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    shapes: dict[str, tuple[Any, ...]] = {"o\n\x1b[31m": (1, 84)}
    with pytest.raises(BundleError, match="expects") as caught:
        recognise("yolo", _network(tmp_path, shapes, {}, ()))
    assert str(caught.value).isprintable()
