"""Tiny networks with the outputs of published kinds of detectors, made in code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from engines.importers.build import import_detector

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from engines.bundle import Bundle

    Array = NDArray[Any]


def fixed_answer(
    outputs: Mapping[str, Array],
    *,
    picture: Sequence[int | str | None] = (1, 3, 64, 96),
    shapes: Mapping[str, Sequence[int | str | None]] | None = None,
    metadata: Mapping[str, str] | None = None,
    more_inputs: Mapping[str, int] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """A network that always answers the same, plus nothing times what the picture's mean is.

    Args:
        outputs: Its answer.
        picture: Shape of the input `images`.
        shapes: Declared shapes that are not those of the answer.
        metadata: As exporters write it.
        more_inputs: Further inputs (N,2), with their element types.
        opset: Of the file.
    """
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Constant", [], ["none"], value=numpy_helper.from_array(np.array(0, np.float32))),
        helper.make_node("Mul", ["mean", "none"], ["nothing"]),
        helper.make_node("Cast", ["nothing"], ["nothing_whole"], to=TensorProto.INT64),
    ]
    weights, declared = [], []
    for name, values in outputs.items():
        weights.append(numpy_helper.from_array(values, f"answer.{name}"))
        zero = "nothing_whole" if values.dtype == np.int64 else "nothing"
        nodes.append(helper.make_node("Add", [f"answer.{name}", zero], [name]))
        shape = (shapes or {}).get(name, values.shape)
        declared.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(values.dtype), shape))
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, picture)]
    inputs += [helper.make_tensor_value_info(name, code, ["N", 2]) for name, code in (more_inputs or {}).items()]
    graph = helper.make_graph(nodes, "fixed_answer", inputs, declared, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, dict(metadata or {}))
    return model


def ultralytics(names: Sequence[str], **more: str) -> dict[str, str]:
    """Metadata as Ultralytics writes it."""
    return {"names": str(dict(enumerate(names))), "task": "detect", "stride": "32", **more}


def columns(rows: Sequence[Sequence[float]], more: int = 5) -> Array:
    """Rows of a table as YOLOv8 gives them out, (1,values,A), with some empty candidates behind."""
    table = np.array(rows, np.float32)
    empty = np.zeros((more, table.shape[1]), np.float32)
    empty[:, 2:4] = 8
    return np.concatenate([table, empty]).T[None].copy()


def save(model: onnx.ModelProto, folder: Path, name: str = "mine.onnx") -> Path:
    path = folder / name
    onnx.save(model, path)
    return path


def imported(model: onnx.ModelProto, folder: Path, kind: str, classes: str | None = None, **more: Any) -> Bundle:
    return import_detector(save(model, folder), folder / "bundle", kind=kind, name="mine", classes=classes, **more)


def session(bundle: Bundle) -> Any:
    return onnxruntime.InferenceSession(bundle.file("detector.onnx"), providers=["CPUExecutionProvider"])


def answer(
    bundle: Bundle, *, size: tuple[int, int] = (64, 96), inside: tuple[int, int] | None = None, pictures: int = 1
) -> dict[str, Array]:
    """What the bundle's detector says of empty pictures."""
    names = [tensor.name for tensor in bundle.graph("detector").outputs]
    feeds = {
        "image": np.zeros((pictures, 3, *size), np.float32),
        "image_size": np.array([inside or size] * pictures, np.int64),
    }
    return dict(zip(names, session(bundle).run(names, feeds), strict=True))


def found(result: Mapping[str, Array], row: int = 0) -> list[tuple[list[float], float, int]]:
    """Boxes, scores and classes of one picture, rounded."""
    number = int(result["count"][row])
    assert not result["boxes"][row, number:].any()
    assert not result["scores"][row, number:].any()
    assert not result["classes"][row, number:].any()
    rows = zip(result["boxes"][row], result["scores"][row], result["classes"][row], strict=True)
    return [([round(float(v), 3) for v in box], round(float(score), 4), int(c)) for box, score, c in rows][:number]


def segmentation(names: tuple[str, ...] = ("person", "face")) -> onnx.ModelProto:
    """YOLO with two candidates and two prototypes of 16x24 for 64x96: the left half, and everything."""
    prototypes = np.full((1, 2, 16, 24), -4, np.float32)
    prototypes[0, 0, :, :12] = 4
    prototypes[0, 1] = 4
    rows = [[48, 32, 32, 24, 0.9, 0, 1, 0], [80, 32, 16, 16, 0, 0.8, 0, 1]]
    outputs: dict[str, Array] = {"output0": columns(rows), "output1": prototypes}
    return fixed_answer(outputs, metadata=ultralytics(names, task="segment"))
