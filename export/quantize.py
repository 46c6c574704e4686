"""A detector's convolutions in 8-bit integers, for processors.

Between the first convolutions and the last ones, what goes from operator to operator becomes a whole number of 8 bits
(Jacob et al. 2018, https://arxiv.org/abs/1712.05877), with ranges that are measured on pictures. What looks at the
picture, what says where somebody is, and all that is computed with boxes stays in floating point. The file has
QuantizeLinear and DequantizeLinear round the operators, as ONNX Runtime reads it.
"""

from __future__ import annotations

import logging
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx

from engines.bundle import Bundle, open_bundle, write_bundle
from engines.errors import ExportError, RuntimeUnavailableError, UsageError
from engines.manifest import Graph, ManifestDraft, Quantized
from engines.runtime_onnx import OnnxRuntime, import_onnxruntime
from export.bundle_folder import new_bundle_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]
    #: Makes a picture's inputs when they are needed: those of all would not fit into memory.
    Feed = Callable[[], Arrays]

log = logging.getLogger(__name__)

#: The graph that is made, of which one.
SOURCE: Final = "detector"
QUANTIZED: Final = "detector_int8"
#: Operators that ONNX Runtime's processor computes in integers, or that integers pass through.
_OPERATORS: Final = ("Conv", "Relu", "Clip", "LeakyRelu", "Add", "Mul", "Sigmoid", "Resize", "MaxPool", "Concat")
#: What ONNX Runtime says aloud: errors, and by default warnings.
_ERRORS: Final = 3
_WARNINGS: Final = 2
#: Half in common: the same find.
_SAME: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When integers are good enough.

    Attributes:
        sure: What the float graph finds with this score or a higher one must be found again,
        threshold: with this score or a higher one, as runs ask for;
        most_lost: but for this part of it.
        fewest: Regions that a judgement takes.
        calibrated: Pictures at most that ranges are taken from.
    """

    sure: float = 0.5
    threshold: float = 0.3
    most_lost: float = 0.01
    fewest: int = 50
    calibrated: int = 100


def quantize_detector(
    bundle: Bundle,
    feeds: Sequence[Feed],
    output: Path,
    limits: Limits | None = None,
    *,
    progress: Callable[[str], None] | None = None,
) -> Bundle:
    """Makes a bundle that also has `detector_int8`, of the same inputs and outputs as `detector`.

    Every second picture gives ranges; on the others both graphs are compared.

    Args:
        bundle: of a detector.
        feeds: make what the graph `detector` takes, for each of some pictures.
        output: folder for the new bundle; must not exist, or be empty.
        limits: see there.
        progress: is told what is being done.

    Raises:
        UsageError: it is no detector's bundle, has integers already, or there is a picture at most.
        RuntimeUnavailableError: ONNX Runtime is not there.
        ExportError: the graph cannot be quantized, the pictures show too little to judge by, or too much is lost;
            nothing is written.
    """
    limits, say = limits or Limits(), progress or (lambda _: None)
    import_onnxruntime()
    _check(bundle, feeds, limits)
    declared = bundle.graph(SOURCE)
    graph = Graph(file=f"{QUANTIZED}.onnx", inputs=declared.inputs, outputs=declared.outputs)
    with new_bundle_folder(output) as work:
        made = work / graph.file
        calibration = feeds[: 2 * limits.calibrated : 2]
        say(f"measuring ranges on {len(calibration)} pictures")
        quantize(bundle.file(declared.file), made, calibration)
        say(f"comparing on {len(feeds[1::2])} pictures")
        measured = _judged(*_both(bundle.file(declared.file), made, graph, feeds[1::2]), limits)
        say(f"{100 * measured.found:.2f} % of {measured.regions} regions are found again")
        manifest = bundle.manifest
        fields = manifest.model_dump(exclude={"files"}) | {
            "graphs": manifest.graphs | {QUANTIZED: graph},
            "quantized": manifest.quantized | {QUANTIZED: measured},
        }
        files: dict[str, bytes | Path] = {name: bundle.file(name) for name in manifest.files}
        files[graph.file] = made
        write_bundle(work / "bundle", ManifestDraft.model_validate(fields), files)
    return open_bundle(output)


def _check(bundle: Bundle, feeds: Sequence[Feed], limits: Limits) -> None:
    manifest = bundle.manifest
    if manifest.task != "detection":
        raise UsageError(f"{manifest.name} is for {manifest.task}; only detectors are quantized")
    if QUANTIZED in manifest.graphs:
        raise UsageError(f"{manifest.name} has {QUANTIZED} already; take the bundle that it was made of")
    if len(feeds) < 2:
        raise UsageError(f"{len(feeds)} pictures; expected some dozens: half give ranges, half are compared on")
    if not 0 <= limits.most_lost < 1:
        raise UsageError(f"a part of {limits.most_lost} may not be lost; expected 0 or more, less than 1")
    if not 0 < limits.threshold <= limits.sure < 1:
        raise UsageError(f"thresholds of {limits.threshold} and {limits.sure}; expected 0 to 1, the lower one first")


def quantize(source: Path, target: Path, feeds: Iterable[Feed]) -> None:
    """Writes an ONNX file with integers between its first convolutions and its last.

    Args:
        source: an ONNX file in float32.
        target: the file to write.
        feeds: make inputs on which ranges are measured.

    Raises:
        RuntimeUnavailableError: ONNX Runtime comes without its tools.
        ExportError: there is nothing to quantize, or it fails.
    """
    onnxruntime = import_onnxruntime()
    try:
        from onnxruntime.quantization import QuantType, quant_pre_process, quantize_static
        from onnxruntime.quantization.calibrate import CalibrationDataReader
    except ImportError as error:
        raise RuntimeUnavailableError(
            f'quantizing needs ONNX Runtime with its tools ({error}); pip install "standin[cpu]"'
        ) from None

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # no types are published
        """Gives inputs one after the other."""

        def __init__(self) -> None:
            self._rest: Iterator[Feed] = iter(feeds)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            feed = next(self._rest, None)
            return None if feed is None else dict(feed())

    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        prepared = Path(folder) / "prepared.onnx"
        named = Path(folder) / "named.onnx"
        onnx.save(_named(onnx.load(source)), named)
        # Files that others wrote hold what nobody reads, and ONNX Runtime would warn of each piece.
        onnxruntime.set_default_logger_severity(_ERRORS)
        try:
            quant_pre_process(str(named), str(prepared), skip_symbolic_shape=True)
            nodes = between_convolutions(onnx.load(prepared))
            if not nodes:
                raise ExportError(f"{source.name} has no convolution between two others; there is nothing to quantize")
            quantize_static(
                str(prepared),
                str(target),
                Reader(),
                op_types_to_quantize=list(_OPERATORS),
                nodes_to_quantize=nodes,
                per_channel=True,
                # Seven bits: processors without VNNI add pairs of products in 16 bits, which eight would overflow.
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        except ExportError:
            raise
        except Exception as error:
            line = " ".join(str(error).split())[:200]
            raise ExportError(f"{source.name} cannot be quantized ({line}); use it as it is") from error
        finally:
            onnxruntime.set_default_logger_severity(_WARNINGS)


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Nodes are chosen by name, and some files give none."""
    taken = {node.name for node in model.graph.node}
    if "" in taken or len(taken) < len(model.graph.node):
        for number, node in enumerate(model.graph.node):
            node.name = f"{node.op_type}_{number}"
    return model


def between_convolutions(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that may be in integers: with a convolution before them and another one after them."""
    nodes = [node for node in model.graph.node if node.op_type in _OPERATORS]
    before = _reached(model.graph.node, lambda node: (node.input, node.output))
    after = _reached(list(model.graph.node)[::-1], lambda node: (node.output, node.input))
    return [
        node.name
        for node in nodes
        if any(name in before for name in node.input) and any(name in after for name in node.output)
    ]


def _reached(nodes: Sequence[Any], ends: Callable[[Any], tuple[Sequence[str], Sequence[str]]]) -> set[str]:
    """Tensors that a convolution's come to, following nodes that are in order from one of their ends to the other."""
    reached: set[str] = set()
    for node in nodes:
        comes, goes = ends(node)
        if node.op_type == "Conv" or any(name in reached for name in comes):
            reached.update(name for name in goes if name)
    return reached


@dataclass(frozen=True, slots=True)
class _Regions:
    """What a graph found in a picture: boxes (n,4), scores and classes (n,)."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]


def _regions(answer: Arrays) -> _Regions:
    count = int(answer["count"][0])
    return _Regions(*(answer[name][0, :count] for name in ("boxes", "scores", "classes")))


def _both(source: Path, made: Path, graph: Graph, feeds: Sequence[Feed]) -> tuple[list[_Regions], list[_Regions]]:
    """What both graphs find in each picture."""
    with OnnxRuntime(source, graph, device="cpu") as exact, OnnxRuntime(made, graph, device="cpu") as rounded:
        pairs = [(_regions(exact.run(feed)), _regions(rounded.run(feed))) for feed in (make() for make in feeds)]
    return [one for one, _ in pairs], [other for _, other in pairs]


def _judged(expected: Sequence[_Regions], found: Sequence[_Regions], limits: Limits) -> Quantized:
    regions = kept = 0
    lost_by_class: dict[int, int] = defaultdict(int)
    for there, here in zip(expected, found, strict=True):
        sure = np.flatnonzero(there.scores >= limits.sure)
        here_too = found_again(there, here, sure, limits.threshold)
        regions += len(sure)
        kept += int(here_too.sum())
        for label in there.classes[sure[~here_too]].tolist():
            lost_by_class[label] += 1
    if regions < limits.fewest:
        raise ExportError(
            f"only {regions} regions with a score of {limits.sure} or more in {len(expected)} pictures, "
            f"expected {limits.fewest}; nothing was written; give more pictures, of what the detector will see"
        )
    if regions - kept > limits.most_lost * regions:
        worst = ", ".join(f"{count} of class {label}" for label, count in sorted(lost_by_class.items()))
        raise ExportError(
            f"integers lose {regions - kept} of {regions} regions ({worst}), more than the part of "
            f"{limits.most_lost:g} that may be; nothing was written"
        )
    return Quantized(
        source=SOURCE,
        pictures=len(expected),
        sure=limits.sure,
        threshold=limits.threshold,
        regions=regions,
        found=kept / regions,
    )


def found_again(there: _Regions, here: _Regions, which: NDArray[np.intp], threshold: float) -> NDArray[np.bool_]:
    """Whether each of some regions has a partner of its class, with half in common and a high enough score."""
    good = here.scores >= threshold
    boxes, classes = here.boxes[good], here.classes[good]
    if not len(which) or not len(boxes):
        return np.zeros(len(which), np.bool_)
    wanted = there.boxes[which]
    low = np.maximum(boxes[None, :, :2], wanted[:, None, :2])
    high = np.minimum(boxes[None, :, 2:], wanted[:, None, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    areas = [(group[:, 2:] - group[:, :2]).prod(axis=1) for group in (boxes, wanted)]
    iou = shared / np.maximum(areas[0][None] + areas[1][:, None] - shared, 1e-9)
    same = (iou >= _SAME) & (classes[None] == there.classes[which][:, None])
    return np.asarray(same.any(axis=1), np.bool_)
