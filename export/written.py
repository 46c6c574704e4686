"""A graph on its way into a bundle: written, and compared with what its network computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.detector_parity import measure_detections
from export.parity import measure_parity
from export.to_onnx import write_onnx

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engines.manifest import Parity
    from export.graphs import GraphPlan

Progress = Callable[[str], None]
Expected = Mapping[str, "NDArray[Any]"]


def write_and_compare(plan: GraphPlan, expected: Expected, work: Path, opset: int, say: Progress) -> tuple[Parity, ...]:
    """Writes a graph into a folder and compares each of its outputs.

    Args:
        plan: of the graph.
        expected: what it has to give on its example, by output.
        work: the folder.
        opset: of the ONNX operators.
        say: is told what is being done.

    Raises:
        ExportError: it cannot be traced, or gives something else.
        OSError: it cannot be written.
    """
    say(f"exporting {plan.file}")
    write_onnx(plan, work / plan.file, opset)
    say(f"verifying {plan.file}")
    return measure_parity(plan, work / plan.file, expected)


def write_and_compare_pair(
    detector: tuple[GraphPlan, Expected], heads: tuple[GraphPlan, Expected], work: Path, opset: int, say: Progress
) -> tuple[Parity, ...]:
    """As `write_and_compare`, for a detector, whose boxes need partners, and for the heads that look at them.

    Raises:
        ExportError: a graph cannot be traced, or gives something else.
        OSError: a file cannot be written.
    """
    parity: tuple[Parity, ...] = ()
    for (plan, expected), measure in ((detector, measure_detections), (heads, measure_parity)):
        say(f"exporting {plan.file}")
        write_onnx(plan, work / plan.file, opset)
        say(f"verifying {plan.file}")
        parity += measure(plan, work / plan.file, expected)
    if not any(result.output == "boxes" for result in parity):
        say("warning: nothing was found in the pictures, so only what the heads take was compared")
    return parity
