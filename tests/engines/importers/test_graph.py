from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto

from tests.engines.importers.networks import (
    answer,
    columns,
    fixed_answer,
    found,
    imported,
    segmentation,
    session,
    ultralytics,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_fastestdet_is_fed_blue_first(tmp_path: Path) -> None:
    maps = np.zeros((1, 6, 4, 6), np.float32)
    bundle = imported(fixed_answer({"758": maps}), tmp_path, "fastestdet", "0=person")
    graph = onnx.load(bundle.file("detector.onnx"))
    graph.graph.output.append(onnx.helper.make_tensor_value_info("net.images", TensorProto.FLOAT, [1, 3, 64, 96]))
    onnx.save(graph, bundle.path / "detector.onnx")
    image = np.zeros((1, 3, 64, 96), np.float32)
    image[0, 2] = 1
    (fed,) = session(bundle).run(["net.images"], {"image": image, "image_size": np.array([[64, 96]])})
    assert fed[0].mean(axis=(1, 2)).tolist() == [1, 0, 0]


def test_padding_has_the_grey_that_yolo_was_trained_with(tmp_path: Path) -> None:
    rows = columns([[20, 30, 10, 20, 0.9]])
    bundle = imported(fixed_answer({"o": rows}, metadata=ultralytics(["face"])), tmp_path, "yolo")
    graph = onnx.load(bundle.file("detector.onnx"))
    graph.graph.output.append(onnx.helper.make_tensor_value_info("net.images", TensorProto.FLOAT, [1, 3, 64, 96]))
    onnx.save(graph, bundle.path / "detector.onnx")
    image = np.zeros((1, 3, 64, 96), np.float32)
    (fed,) = session(bundle).run(["net.images"], {"image": image, "image_size": np.array([[50, 90]])})
    assert not fed[:, :, :50, :90].any()
    np.testing.assert_allclose(fed[:, :, 50:], 114 / 255)
    np.testing.assert_allclose(fed[:, :, :, 90:], 114 / 255)


def test_open_sides_stay_open_and_pictures_go_in_batches(tmp_path: Path) -> None:
    rows = np.concatenate([columns([[20, 30, 10, 20, 0.9]]), columns([[60, 30, 10, 20, 0.8]])])
    model = fixed_answer(
        {"o": rows},
        picture=("batch", 3, "height", "width"),
        shapes={"o": ["batch", 5, "anchors"]},
        metadata=ultralytics(["face"]),
    )
    bundle = imported(model, tmp_path, "yolo")
    assert bundle.graph("detector").inputs[0].shape == ("N", 3, "h", "w")
    result = answer(bundle, size=(96, 128), pictures=2)
    assert [found(result, row)[0][1] for row in (0, 1)] == [0.9, 0.8]


def test_the_bundle_is_always_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = (imported(segmentation(), tmp_path / name, "yolo-seg") for name in "ab")
    assert one.manifest.files == other.manifest.files


def test_half_precision_stays_inside_the_network(tmp_path: Path) -> None:
    model = fixed_answer({"o": columns([[20, 30, 10, 20, 0.9]])}, metadata=ultralytics(["face"]))
    model.graph.node[0].input[0] = "wide"
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["images"], ["wide"], to=TensorProto.FLOAT))
    model.graph.node.append(onnx.helper.make_node("Cast", ["o"], ["narrow"], to=TensorProto.FLOAT16))
    model.graph.output[0].name = "narrow"
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    bundle = imported(model, tmp_path, "yolo")
    assert {tensor.dtype for tensor in bundle.graph("detector").inputs} == {"float32", "int64"}
    result = answer(bundle)
    assert result["boxes"].dtype == np.float32
    assert found(result) == [([15, 20, 25, 40], 0.8999, 0)]
