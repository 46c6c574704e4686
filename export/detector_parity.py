"""Whether an exported detector finds what the published network does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engines.errors import BundleError, ExportError, RuntimeFailedError, TensorError
from engines.manifest import Graph, Parity
from engines.runtime_onnx import OnnxRuntime
from export.parity import TOLERANCES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from export.graphs import GraphPlan

#: Of a coordinate, in pixels, after matching.
BOX_TOLERANCE: Final = 0.1
SCORE_TOLERANCE: Final = 1e-3
#: Boxes that must have a partner: a score that differs in its last bits may change which of two a cut leaves out.
SHARE_MATCHED: Final = 0.98
#: The best boxes of a frame that are compared, as many as published models give: far below them, where nothing is sure,
#: the last bits of a score decide which boxes suppress which.
COMPARED: Final = 100
_SAME = 0.9


def match_boxes(found: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.intp]:
    """For each expected box (B,4) the found box (A,4) that shares most with it, or -1 where none shares 0.9 (IoU)."""
    if not len(found) or not len(expected):
        return np.full(len(expected), -1, np.intp)
    low = np.maximum(found[None, :, :2], expected[:, None, :2])
    high = np.minimum(found[None, :, 2:], expected[:, None, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (found, expected)]
    iou = shared / np.maximum(areas[0][None] + areas[1][:, None] - shared, 1e-9)
    partner: NDArray[np.intp] = np.where(iou.max(axis=1) >= _SAME, iou.argmax(axis=1), -1)
    return partner


def measure_detections(plan: GraphPlan, path: Path, expected: Mapping[str, NDArray[Any]]) -> tuple[Parity, ...]:
    """Runs an exported detector on its example; compares features one by one, and boxes with their partners.

    Args:
        plan: declarations and example inputs.
        path: the ONNX file.
        expected: what the published way of computing gives, by output.

    Raises:
        ExportError: it does not run, or differs by more than the tolerances; or the network gives what is not finite.
    """
    if not all(np.isfinite(values).all() for values in expected.values()):
        raise ExportError("the network's own output is not finite, even before it is exported; check the training")
    graph = Graph(file=plan.file, inputs=plan.inputs, outputs=plan.outputs)
    try:
        with OnnxRuntime(path, graph, device="cpu") as runtime:
            found = runtime.run(plan.example)
    except (BundleError, RuntimeFailedError, TensorError) as error:
        raise ExportError(f"{plan.file} does not run in ONNX Runtime ({error}); report it") from error
    features = [name for name in found if name.startswith("p")]
    made = [_compared(plan, name, found[name], expected[name]) for name in features]
    return (*made, *_detections(plan, found, expected))


def _compared(plan: GraphPlan, name: str, found: NDArray[Any], expected: NDArray[Any]) -> Parity:
    tolerance = TOLERANCES[False] * max(1.0, float(expected.std()))
    return _within(plan, name, float(np.abs(found.astype(np.float64) - expected).max()), tolerance, len(expected))


def _within(plan: GraphPlan, name: str, difference: float, tolerance: float, cases: int) -> Parity:
    # Written so that NaN fails too.
    if not difference <= tolerance:
        raise ExportError(
            f"{plan.file} differs from the published network: {name} by {difference:.3g}, "
            f"expected at most {tolerance:.3g}; nothing was written"
        )
    return Parity(
        graph=plan.key,
        output=name,
        largest_difference=difference,
        measured=difference,
        tolerance=tolerance,
        cases=cases,
    )


def _detections(
    plan: GraphPlan, found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]
) -> tuple[Parity, ...]:
    total, worst = 0, {"boxes": 0.0, "scores": 0.0}
    lost = 0
    for frame, (here, there) in enumerate(zip(found["count"], expected["count"], strict=True)):
        mine = {name: found[name][frame, :here] for name in ("boxes", "scores", "classes")}
        wanted = min(int(there), COMPARED)
        theirs = {name: expected[name][frame, :wanted] for name in mine}
        partner = match_boxes(mine["boxes"], theirs["boxes"])
        same = (partner >= 0) & (mine["classes"][partner] == theirs["classes"] if here else False)
        lost += max(int((~same).sum()), abs(min(int(here), COMPARED) - wanted))
        total += wanted
        for name in worst:
            if same.any():
                worst[name] = max(worst[name], float(np.abs(mine[name][partner[same]] - theirs[name][same]).max()))
    if lost > (1 - SHARE_MATCHED) * total:
        raise ExportError(
            f"{plan.file} differs from the published network: {lost} of {total} boxes; nothing was written"
        )
    if not total:
        return ()
    return (
        _within(plan, "boxes", worst["boxes"], BOX_TOLERANCE, total),
        _within(plan, "scores", worst["scores"], SCORE_TOLERANCE, total),
    )
