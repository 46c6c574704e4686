"""A detector's convolutions in 8-bit integers, for processors.

Between the first convolutions and the last ones, what goes from operator to operator becomes a whole number of 8 bits
(Jacob et al. 2018, https://arxiv.org/abs/1712.05877), with ranges that are measured on pictures. What looks at the
picture, what says where somebody is, and all that is computed with boxes stays in floating point. The file has
QuantizeLinear and DequantizeLinear round the operators, as ONNX Runtime reads it.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import onnx

from engines.bundle import Bundle, open_bundle, write_bundle
from engines.errors import ExportError, RuntimeUnavailableError, StandinError, UsageError
from engines.manifest import Graph, ManifestDraft
from engines.runtime_onnx import import_onnxruntime
from export.bundle_folder import new_bundle_folder
from export.quantize_compare import SOURCE, Limits, compare, judged

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from export.quantize_compare import Feed, Looks

log = logging.getLogger(__name__)

#: The graph that is made.
QUANTIZED: Final = "detector_int8"
#: Operators that ONNX Runtime's processor computes in integers, or that integers pass through.
_OPERATORS: Final = ("Conv", "Relu", "Clip", "LeakyRelu", "Add", "Mul", "Sigmoid", "Resize", "MaxPool", "Concat")
#: What ONNX Runtime says aloud: errors, and by default warnings.
_ERRORS: Final = 3
_WARNINGS: Final = 2


def quantize_detector(
    bundle: Bundle,
    pictures: Sequence[Looks],
    output: Path,
    limits: Limits | None = None,
    *,
    progress: Callable[[str], None] | None = None,
) -> Bundle:
    """Makes a bundle that also has `detector_int8`, of the same inputs and outputs as `detector`; anew if it has one.

    Every second picture's first look gives ranges; on every look at the others both graphs are compared.

    Args:
        bundle: of a detector.
        pictures: for each, what makes that which the graph `detector` takes at every look at it.
        output: folder for the new bundle; must not exist, or be empty.
        limits: see there.
        progress: is told what is being done.

    Raises:
        UsageError: it is no detector's bundle, or there is a picture at most.
        RuntimeUnavailableError: ONNX Runtime is not there.
        ExportError: the graph cannot be quantized, the pictures show too little to judge by, or too much is lost;
            nothing is written.
    """
    limits, say = limits or Limits(), progress or (lambda _: None)
    import_onnxruntime()
    _check(bundle, pictures, limits)
    declared = bundle.graph(SOURCE)
    graph = Graph(file=f"{QUANTIZED}.onnx", inputs=declared.inputs, outputs=declared.outputs)
    with new_bundle_folder(output) as work:
        made = work / graph.file
        calibration = pictures[: 2 * limits.calibrated : 2]
        say(f"measuring ranges on {len(calibration)} pictures")
        # Further looks are at the same things: wider ranges would round all of them more.
        quantize(bundle.file(declared.file), made, [looks[0] for looks in calibration])
        say(f"comparing on {len(pictures[1::2])} pictures")
        measured = judged(compare(bundle, made, pictures[1::2], limits), limits)
        kept = "" if measured.masks is None else f", with {100 * measured.masks:.2f} % of their masks"
        say(f"{100 * measured.found:.2f} % of {measured.regions} regions are found again{kept}")
        manifest = bundle.manifest
        fields = manifest.model_dump(exclude={"files"}) | {
            "graphs": manifest.graphs | {QUANTIZED: graph},
            "quantized": manifest.quantized | {QUANTIZED: measured},
        }
        before = manifest.graphs[QUANTIZED].file if QUANTIZED in manifest.graphs else None
        files: dict[str, bytes | Path] = {name: bundle.file(name) for name in manifest.files if name != before}
        files[graph.file] = made
        write_bundle(work / "bundle", ManifestDraft.model_validate(fields), files)
    return open_bundle(output)


def check_bundle(bundle: Bundle) -> None:
    """Whether there is something to quantize in a bundle.

    Raises:
        UsageError: it is no detector's.
    """
    if bundle.manifest.task != "detection":
        raise UsageError(f"{bundle.manifest.name} is for {bundle.manifest.task}; only detectors are quantized")


def _check(bundle: Bundle, pictures: Sequence[Looks], limits: Limits) -> None:
    check_bundle(bundle)
    if len(pictures) < 2:
        raise UsageError(f"{len(pictures)} pictures; expected a hundred: half give ranges, half are compared on")
    if not 0 <= limits.most_lost < 1:
        raise UsageError(f"a part of {limits.most_lost} may not be lost; expected 0 or more, less than 1")
    if not 0 <= limits.least_kept <= 1:
        raise UsageError(f"a part of {limits.least_kept} cannot be left of masks; expected 0 to 1")
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
        except StandinError:
            # A picture that cannot be read is no fault of the graph.
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
