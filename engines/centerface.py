"""From the published CenterFace file to the bundle `centerface`: one graph that ends in sorted boxes.

The published network stops at four maps at stride 4 and declares fixed dimensions, although it is fully
convolutional. Here its dimensions become dynamic, the landmarks are dropped, and decoding and
non-maximum suppression (CenterFace, section 3) become part of the graph, so that every program that feeds
`detector.onnx` gets the same boxes.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, version_converter

from engines.bundle import write_bundle
from engines.detector_tensors import decided_tensors
from engines.errors import BundleError
from engines.manifest import Graph, ManifestDraft, Normalisation, Provenance, Tensor
from engines.nodes import Nodes, value_info

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from engines.bundle import Bundle
    from engines.registry import Artefact

OPSET = 17
#: The oldest IR that knows opset 17, so that older runtimes read the file too.
IR_VERSION = 8
STRIDE = 4
#: Candidates at or below this score are never returned.
SCORE_FLOOR = 0.02
IOU_LIMIT = 0.3
#: TensorRT's TopK takes at most 3840.
MOST_CANDIDATES = 3800

INPUTS = (
    Tensor(
        name="image",
        dtype="float32",
        shape=("N", 3, "h", "w"),
        meaning="RGB, 0..255, resized, padded at the bottom and right; h and w are multiples of 32",
    ),
    Tensor(name="image_size", dtype="int64", shape=("N", 2), meaning="height and width in pixels before padding"),
)
OUTPUTS = decided_tensors(
    "M",
    boxes="x1, y1, x2, y2 in pixels of `image`, not clipped; 0 after `count`",
    scores="descending; 0 after `count`",
    classes="index into kinds, always 0",
    floor=f"0 if all candidates with a score over {SCORE_FLOOR} were considered, else the lowest score that was; with "
    "a threshold at or below it, candidates were lost",
)


def _centres(g: Nodes, offset: str) -> tuple[str, str]:
    """Centres of all cells in pixels, y and x, each (N,1,gh,gw)."""
    zero, one = g.constant(0), g.constant(1)
    shape = g.one("Shape", offset)
    half, stride = g.constant(0.5, np.float32), g.constant(STRIDE, np.float32)
    halves = g.many("Split", [offset, g.constant([1, 1])], 2, axis=1)
    centres = []
    for axis, part, column in ((2, halves[0], [1, 1, -1, 1]), (3, halves[1], [1, 1, 1, -1])):
        length = g.one("Gather", shape, g.constant(axis), axis=0)
        steps = g.one("Cast", g.one("Range", zero, length, one), to=TensorProto.FLOAT)
        cells = g.one("Reshape", steps, g.constant(column))
        centres.append(g.one("Mul", g.one("Add", g.one("Add", cells, part), half), stride))
    return centres[0], centres[1]


def _scores_outside_padding(g: Nodes, heat: str, y: str, x: str) -> str:
    """Scores (N,cells), 0 where the centre lies in the padding.

    Before the cut to the best: padding must not crowd out what is in the image. The comparisons are written
    so that NaN counts as inside and as score 1: a network that computes rubbish must not look like an
    empty image.
    """
    size = g.one("Cast", "image_size", to=TensorProto.FLOAT)
    outside = []
    for index, centre in ((0, y), (1, x)):
        side = g.one("Gather", size, g.constant([index]), axis=1)
        limit = g.one("Reshape", side, g.constant([-1, 1, 1, 1]))
        outside.append(g.one("GreaterOrEqual", centre, limit))
    one = g.constant(1, np.float32)
    known = g.one("Where", g.one("LessOrEqual", heat, one), heat, one)
    masked = g.one("Where", g.one("Or", *outside), g.constant(0, np.float32), known)
    return g.one("Flatten", masked, axis=1)


def _best(g: Nodes, scores: str, maps: Sequence[str], most: int) -> tuple[str, str, str]:
    """Cuts to the best K = min(most, cells): scores (N,K), boxes xyxy (N,K,4), and K as (1,).

    K depends on the size of the image, and TensorRT takes a TopK whose K is no constant only since 8.6:
    next to NonMaxSuppression the operator to look at first when a plan does not build.
    """
    cells = g.one("Gather", g.one("Shape", scores), g.constant([1]), axis=0)
    k = g.one("Min", cells, g.constant([most]))
    best, index = g.many("TopK", [scores, k], 2, axis=1, largest=1, sorted=1)
    stacked = g.one("Concat", *maps, axis=1)
    flat = g.one("Reshape", stacked, g.constant([0, 4, -1]))
    wide = g.one("Expand", g.one("Unsqueeze", index, g.constant([1])), g.constant([1, 4, 1]))
    picked = g.one("GatherElements", flat, wide, axis=2)
    y, x, log_height, log_width = g.many("Split", [picked, g.constant([1, 1, 1, 1])], 4, axis=1)
    half_stride = g.constant(STRIDE / 2, np.float32)
    half_height = g.one("Mul", g.one("Exp", log_height), half_stride)
    half_width = g.one("Mul", g.one("Exp", log_width), half_stride)
    corners = g.one(
        "Concat",
        g.one("Sub", x, half_width),
        g.one("Sub", y, half_height),
        g.one("Add", x, half_width),
        g.one("Add", y, half_height),
        axis=1,
    )
    return best, g.one("Transpose", corners, perm=[0, 2, 1]), k


def _survivors(g: Nodes, scores: str, boxes: str, most: int) -> str:
    """Non-maximum suppression for each image by itself: (N,K) with 1 for boxes that stay, else 0.

    NonMaxSuppression is the delicate operator for TensorRT: its number of rows depends on the data. It is
    contained here, everything after it has the shape (N,K) again.
    """
    selected = g.one(
        "NonMaxSuppression",
        boxes,
        g.one("Unsqueeze", scores, g.constant([1])),
        g.constant([most]),
        g.constant([IOU_LIMIT], np.float32),
        g.constant([SCORE_FLOOR], np.float32),
    )
    # Rows are (image, class, box); there is one class.
    places = g.one("Gather", selected, g.constant([0, 2]), axis=1)
    rows = g.one("Gather", g.one("Shape", places), g.constant([0]), axis=0)
    ones = g.one("Expand", g.constant([1.0], np.float32), rows)
    zeros = g.one("Mul", scores, g.constant(0, np.float32))
    return g.one("ScatterND", zeros, places, ones)


def _outputs(g: Nodes, scores: str, boxes: str, k: str, stays: str) -> None:
    """Moves the boxes that stay to the front and clears the others."""
    last = g.constant([1])
    _, order = g.many("TopK", [g.one("Mul", scores, stays), k], 2, axis=1, largest=1, sorted=1)
    flags = g.one("GatherElements", stays, order, axis=1)
    g.named("scores", "Mul", g.one("GatherElements", scores, order, axis=1), flags)
    wide = g.one("Expand", g.one("Unsqueeze", order, g.constant([2])), g.constant([1, 1, 4]))
    # Where, not Mul: the side of a box that is not one may be infinite.
    keep = g.one("Unsqueeze", g.one("Greater", flags, g.constant(0, np.float32)), g.constant([2]))
    g.named("boxes", "Where", keep, g.one("GatherElements", boxes, wide, axis=1), g.constant(0, np.float32))
    g.named("classes", "Mul", order, g.constant(0))
    total = g.one("ReduceSum", stays, last, keepdims=0)
    g.named("count", "Cast", total, to=TensorProto.INT64)


def _floor(g: Nodes, all_scores: str, best: str, k: str) -> None:
    """The score of the weakest candidate that was considered where others over the floor were not, else 0."""
    over = g.one("Greater", all_scores, g.constant(SCORE_FLOOR, np.float32))
    candidates = g.one("ReduceSum", g.one("Cast", over, to=TensorProto.INT64), g.constant([1]), keepdims=0)
    lost = g.one("Greater", candidates, k)
    weakest = g.one("Gather", best, g.constant(-1), axis=1)
    g.named("floor", "Where", lost, weakest, g.constant(0, np.float32))


def _decoder(heat: str, scale: str, offset: str, most: int) -> Nodes:
    g = Nodes()
    y, x = _centres(g, offset)
    scores = _scores_outside_padding(g, heat, y, x)
    best, boxes, k = _best(g, scores, [y, x, scale], most)
    _outputs(g, best, boxes, k, _survivors(g, best, boxes, most))
    _floor(g, scores, best, k)
    return g


def _needed(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """The nodes that the outputs depend on, in their order."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def dynamic_network(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """Cuts a network with one image input down to some of its outputs, and makes its dimensions dynamic.

    Args:
        model: Initializers may be listed as inputs too, as files of IR 3 do.
        outputs: Names of the outputs that stay; each is declared as (N,any,any,any) float32.

    Returns:
        The same network at `OPSET` with the input `image` (N,3,h,w).

    Raises:
        BundleError: It has not exactly one input, or lacks one of the outputs.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in weights]
    made = {name for node in model.graph.node for name in node.output}
    if len(inputs) != 1 or not made.issuperset(outputs):
        raise BundleError(
            f"the network has inputs {inputs} and outputs {[value.name for value in model.graph.output]}; "
            f"expected one input and outputs {list(outputs)}; give the published CenterFace file"
        )
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    for node in nodes:
        node.input[:] = ["image" if name == inputs[0] else name for name in node.input]
    nodes = _needed(nodes, outputs)
    used = {name for node in nodes for name in node.input}
    maps = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", None, None, None]) for name in outputs]
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    graph = helper.make_graph(nodes, "network", [value_info(INPUTS[0])], maps, kept)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    old = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=model.ir_version)
    return version_converter.convert_version(old, OPSET) if opset < OPSET else old


def build_detector(
    model: onnx.ModelProto,
    *,
    heat: str = "537",
    scale: str = "538",
    offset: str = "539",
    most: int = MOST_CANDIDATES,
) -> onnx.ModelProto:
    """Makes `detector.onnx` from a network with CenterFace's maps.

    Args:
        model: The published network.
        heat: Name of its heat-map (N,1,h/4,w/4), values 0..1.
        scale: Name of the map of log height and log width (N,2,h/4,w/4), in cells.
        offset: Name of the map of y and x offsets (N,2,h/4,w/4), in cells.
        most: K, the number of best candidates that are considered.

    Returns:
        The model with `INPUTS` and `OUTPUTS`.

    Raises:
        BundleError: The network does not have these maps.
    """
    network = dynamic_network(model, [heat, scale, offset])
    decoder = _decoder(heat, scale, offset, most)
    graph = helper.make_graph(
        [*network.graph.node, *decoder.nodes],
        "detector",
        [value_info(tensor) for tensor in INPUTS],
        [value_info(tensor) for tensor in OUTPUTS],
        [*network.graph.initializer, *decoder.constants],
    )
    built = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="standin",
    )
    onnx.checker.check_model(built, full_check=True)
    return built


def build(published: Path, artefact: Artefact, folder: Path) -> Bundle:
    """Builds the bundle `centerface` from the published file.

    Args:
        published: `centerface.onnx` as published; its hash was checked by whoever fetched it.
        artefact: Its entry in the registry.
        folder: Where to write the bundle; must be empty.

    Raises:
        BundleError: It is not the network that this recipe knows, or the built graph does not agree with it.
    """
    # Imported here: parity runs this module's own graph builder.
    from engines.centerface_parity import measure_parity

    try:
        model = onnx.load(published)
    except Exception as error:  # noqa: BLE001  protobuf's decode errors have no public base class
        raise BundleError(f"{published} is not an ONNX file ({error}); give the published CenterFace file") from None
    detector = build_detector(model)
    draft = ManifestDraft(
        name=artefact.name,
        task="detection",
        family="centerface",
        kinds=("face",),
        graphs={"detector": Graph(file="detector.onnx", inputs=INPUTS, outputs=OUTPUTS)},
        normalisation=Normalisation(colour="rgb", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), multiple=32),
        licence=artefact.licence,
        provenance=Provenance(
            artefact=artefact.name,
            source=str(artefact.sources[0]),
            sha256=artefact.sha256,
            homepage=artefact.homepage,
        ),
        exporter=f"standin {metadata.version('standin')}",
        parity=measure_parity(model, detector),
    )
    return write_bundle(folder, draft, {"detector.onnx": detector.SerializeToString(deterministic=True)})
