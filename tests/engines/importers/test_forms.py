from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.engines.importers.networks import answer, columns, fixed_answer, found, imported, segmentation, ultralytics

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engines.importers.networks import Array

PERSON_FACE = ("person", "face")


def test_yolo_boxes_come_in_pixels_with_the_kinds_of_their_classes(tmp_path: Path) -> None:
    # Centre and sides, then the scores of cat, person, face, plate.
    rows = [
        [20, 30, 10, 20, 0, 0.9, 0.01, 0],
        [60, 30, 8, 8, 0, 0.01, 0.8, 0],
        [80, 50, 12, 6, 0, 0, 0, 0.7],
        [40, 40, 9, 9, 0.99, 0, 0, 0],
    ]
    names = ultralytics(["cat", "person", "face", "license_plate"])
    bundle = imported(fixed_answer({"output0": columns(rows)}, metadata=names), tmp_path, "yolo")
    assert bundle.manifest.kinds == ("person", "face", "plate")
    assert found(answer(bundle)) == [
        ([15, 20, 25, 40], 0.9, 0),
        ([56, 26, 64, 34], 0.8, 1),
        ([74, 47, 86, 53], 0.7, 2),
    ]


@pytest.mark.parametrize("named", [True, False])
def test_yolov5_rows_multiply_objectness_and_class(tmp_path: Path, named: bool) -> None:
    rows = np.zeros((1, 1200, 7), np.float32)
    rows[0, :, 2:4] = 4
    rows[0, 3] = [20, 30, 10, 20, 0.5, 0.8, 0.1]
    model = fixed_answer({"o": rows}, metadata=ultralytics(PERSON_FACE) if named else {})
    bundle = imported(model, tmp_path, "yolo", "person,face")
    assert found(answer(bundle)) == [([15, 20, 25, 40], 0.4, 0), ([15, 20, 25, 40], 0.05, 1)]


def test_yolo_exported_with_suppression_inside(tmp_path: Path) -> None:
    rows = np.zeros((1, 20, 6), np.float32)
    rows[0, :3] = [[1, 2, 11, 22, 0.9, 0], [2, 2, 11, 22, 0.8, 0], [30, 2, 41, 22, 0.7, 5]]
    bundle = imported(fixed_answer({"o": rows}), tmp_path, "yolo", "0=face")
    result = answer(bundle)
    assert found(result) == [([1, 2, 11, 22], 0.9, 0), ([2, 2, 11, 22], 0.8, 0)]
    assert result["floor"].tolist() == [0]


def test_masks_come_with_their_boxes_at_the_prototypes_resolution(tmp_path: Path) -> None:
    bundle = imported(segmentation(), tmp_path, "yolo-seg")
    result = answer(bundle)
    assert found(result) == [([32, 20, 64, 44], 0.9, 0), ([72, 24, 88, 40], 0.8, 1)]
    masks = result["masks"]
    assert masks.dtype == np.uint8
    assert masks.shape[2:] == (16, 24)
    left = np.zeros((16, 24), bool)
    left[5:11, 8:12] = True
    np.testing.assert_array_equal(masks[0, 0] > 128, left)
    whole = np.zeros((16, 24), bool)
    whole[6:10, 18:22] = True
    np.testing.assert_array_equal(masks[0, 1] > 128, whole)
    assert masks[0, 0, 5, 8] == round(255 / (1 + np.exp(-4)))
    assert not masks[0, 2:].any()


def test_rtdetr_as_ultralytics_exports_it(tmp_path: Path) -> None:
    rows = np.zeros((1, 30, 6), np.float32)
    rows[0, :2] = [[0.5, 0.5, 0.25, 0.5, 0.9, 0.1], [0.5, 0.5, 0.25, 0.5, 0.1, 0.8]]
    model = fixed_answer({"output0": rows}, metadata=ultralytics(PERSON_FACE))
    bundle = imported(model, tmp_path, "rtdetr", "person")
    assert found(answer(bundle)) == [([36, 16, 60, 48], 0.9, 0), ([36, 16, 60, 48], 0.1, 0)]
    assert bundle.manifest.normalisation.fit == "stretch"


def test_rtdetr_as_hugging_face_exports_it(tmp_path: Path) -> None:
    logits = np.full((1, 30, 2), -9, np.float32)
    logits[0, 4, 1] = 0
    boxes = np.full((1, 30, 4), 0.5, np.float32)
    model = fixed_answer({"logits": logits, "pred_boxes": boxes}, picture=("batch", 3, "height", "width"))
    bundle = imported(model, tmp_path, "rtdetr", "-,face")
    assert found(answer(bundle)) == [([24, 16, 72, 48], 0.5, 0)]


def test_rtdetr_as_its_authors_export_it_is_told_the_pictures_size(tmp_path: Path) -> None:
    outputs: dict[str, Array] = {
        "labels": np.array([[0, 1]], np.int64),
        "boxes": np.array([[[1, 2, 11, 22], [30, 2, 41, 22]]], np.float32),
        "scores": np.array([[0.9, 0.8]], np.float32),
    }
    model = fixed_answer(outputs, more_inputs={"orig_target_sizes": TensorProto.INT64})
    # Boxes move by the first value of what the network is told, which is the width.
    model.graph.node.extend(
        [
            onnx.helper.make_node("Cast", ["orig_target_sizes"], ["told"], to=TensorProto.FLOAT),
            onnx.helper.make_node("Split", ["told"], ["told_width", "told_height"], axis=1, num_outputs=2),
            onnx.helper.make_node("Div", ["told_width", "told_height"], ["aspect"]),
            onnx.helper.make_node("Add", ["boxes", "aspect"], ["moved"]),
        ]
    )
    model.opset_import[0].version = 18
    model.graph.output[1].name = "moved"
    model.graph.node[-2].name = "aspect"
    bundle = imported(model, tmp_path, "rtdetr", "0=person")
    assert found(answer(bundle)) == [([2.5, 3.5, 12.5, 23.5], 0.9, 0)]


@pytest.mark.parametrize("number", [0, 1, 3])
def test_lists_as_torchvision_gives_them(tmp_path: Path, number: int) -> None:
    boxes = np.array([[1, 2, 11, 22], [30, 2, 41, 22], [50, 2, 61, 22]], np.float32)
    outputs: dict[str, Array] = {
        "boxes": boxes[:number],
        "labels": np.array([1, 2, 1], np.int64)[:number],
        "scores": np.array([0.9, 0.8, 0.7], np.float32)[:number],
    }
    shapes: dict[str, list[str | int]] = {"boxes": ["K", 4], "labels": ["K"], "scores": ["K"]}
    model = fixed_answer(outputs, picture=(3, 64, 96), shapes=shapes)
    bundle = imported(model, tmp_path, "boxes", "1=person")
    assert bundle.graph("detector").inputs[0].shape == (1, 3, 64, 96)
    result = answer(bundle)
    assert [score for _, score, _ in found(result)] == [0.9, 0.7][: (number + 1) // 2]
    assert result["floor"].tolist() == [0]


def test_masks_of_lists_are_reduced_to_a_quarter(tmp_path: Path) -> None:
    masks = np.zeros((2, 1, 64, 96), np.float32)
    masks[0, 0, 8:16, 8:24] = 1
    masks[1, 0, 20:24, 40:48] = 0.5
    outputs: dict[str, Array] = {
        "boxes": np.array([[40, 20, 48, 24], [8, 8, 24, 16]], np.float32),
        "labels": np.array([1, 1], np.int64),
        "scores": np.array([0.8, 0.9], np.float32),
        "masks": masks[::-1].copy(),
    }
    shapes: dict[str, list[str | int]] = {
        "boxes": ["K", 4],
        "labels": ["K"],
        "scores": ["K"],
        "masks": ["K", 1, "h", "w"],
    }
    bundle = imported(fixed_answer(outputs, shapes=shapes), tmp_path, "boxes", "1=person")
    result = answer(bundle)
    assert [score for _, score, _ in found(result)] == [0.9, 0.8]
    assert result["masks"].shape[2:] == (16, 24)
    assert np.argwhere(result["masks"][0, 0] == 255).min(axis=0).tolist() == [2, 2]
    assert np.argwhere(result["masks"][0, 0] == 255).max(axis=0).tolist() == [3, 5]
    assert result["masks"][0, 1].max() == 128


def test_fastestdet_cells(tmp_path: Path) -> None:
    maps = np.zeros((1, 7, 4, 6), np.float32)
    maps[0, 3:5] = -3
    maps[0, :, 1, 2] = [0.9, 0.5, -0.25, 0, -1, 0.8, 0.1]
    bundle = imported(fixed_answer({"758": maps}), tmp_path, "fastestdet", "0=person")
    (box, score, kind) = found(answer(bundle))[0]
    x, y = (2 + np.tanh(0.5)) / 6 * 96, (1 + np.tanh(-0.25)) / 4 * 64
    width, height = 0.5 * 96, 64 / (1 + np.e)
    np.testing.assert_allclose(box, [x - width / 2, y - height / 2, x + width / 2, y + height / 2], rtol=0, atol=1e-3)
    assert score == pytest.approx(0.9**0.6 * 0.8**0.4, abs=1e-4)
    assert kind == 0


def test_ultraface_boxes_are_shares_of_the_picture(tmp_path: Path) -> None:
    scores = np.zeros((1, 10, 2), np.float32)
    scores[..., 0] = 1
    scores[0, 7] = [0.2, 0.8]
    boxes = np.zeros((1, 10, 4), np.float32)
    boxes[0, 7] = [0.25, 0.5, 0.5, 0.75]
    bundle = imported(fixed_answer({"scores": scores, "boxes": boxes}), tmp_path, "ultraface")
    assert found(answer(bundle)) == [([24, 32, 48, 48], 0.8, 0)]
    assert bundle.manifest.kinds == ("face",)
    assert bundle.manifest.normalisation.mean == (127, 127, 127)
