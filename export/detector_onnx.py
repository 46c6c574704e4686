"""What an exported detector needs beyond tracing: suppression is spelled out in ONNX's own operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import helper, inliner, numpy_helper

from export.models.boxes import SUPPRESS
from export.to_onnx import DEFAULT_OPSET, write_onnx

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from export.graphs import GraphPlan

_DOMAIN, _NAME = SUPPRESS.split("::")
_INPUTS: Final = ("boxes", "scores", "most", "iou", "threshold")


def write_detector(plan: GraphPlan, path: Path, opset: int = DEFAULT_OPSET) -> None:
    """Traces a graph that may suppress boxes, and writes it with standard operators only.

    The number of rows that NonMaxSuppression gives depends on the data, which the tracer does not need to know of: it
    sees one operator that marks the boxes that stay, and here that one is replaced by what it stands for.

    Args:
        plan: module, declarations and example inputs.
        path: the file; written over.
        opset: of the ONNX operators.

    Raises:
        ExportError: the module cannot be traced.
        OSError: the file cannot be written.
    """
    write_onnx(plan, path, opset)
    model = onnx.load(path)
    model.functions.append(_suppress(opset))
    model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    model = inliner.inline_local_functions(model)
    kept = [entry for entry in model.opset_import if entry.domain != _DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _suppress(opset: int) -> onnx.FunctionProto:
    """From boxes (N,K,4) and scores (N,G,K) to flags (N,K).

    NonMaxSuppression is the delicate operator for TensorRT: how many rows it gives depends on the data. They end here,
    scattered into a mask of constant size.
    """
    nodes = [
        _constant("columns", np.array([0, 2])),
        _constant("first", np.array([0])),
        _constant("one", np.ones(1, np.float32)),
        _constant("zero", np.zeros(1, np.float32)),
        # Rows are (frame, group, box).
        helper.make_node("NonMaxSuppression", list(_INPUTS), ["rows"]),
        helper.make_node("Gather", ["rows", "columns"], ["places"], axis=1),
        helper.make_node("Shape", ["places"], ["size"]),
        helper.make_node("Gather", ["size", "first"], ["count"], axis=0),
        helper.make_node("Expand", ["one", "count"], ["ones"]),
        helper.make_node("Shape", ["boxes"], ["shape"], start=0, end=2),
        helper.make_node("Expand", ["zero", "shape"], ["zeros"]),
        helper.make_node("ScatterND", ["zeros", "places", "ones"], ["flags"]),
    ]
    imports = [helper.make_opsetid("", opset)]
    return helper.make_function(_DOMAIN, _NAME, list(_INPUTS), ["flags"], nodes, imports)


def _constant(name: str, value: NDArray[Any]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
