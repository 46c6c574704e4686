"""Recognises how a network's outputs are arranged, by the kind that the user names, shapes, names and metadata."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import onnx

from engines.errors import BundleError, UsageError
from engines.importers.forms import Cells, Columns, Lists, Priors, Queries, Rows
from engines.importers.network import FLOATS, listed_ports, metadata_names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engines.importers.forms import Form
    from engines.importers.network import Network, Port

DetectorKind = Literal["yolo", "yolo-seg", "rtdetr", "boxes", "fastestdet", "ultraface"]
DETECTOR_KINDS: tuple[DetectorKind, ...] = get_args(DetectorKind)

#: Files that were exported with suppression inside give out at most a few hundred rows; without, thousands.
_MOST_ROWS = 1000


@dataclass(frozen=True)
class Recipe:
    """How a network is fed and read.

    Attributes:
        form: How its outputs are arranged.
        classes: How many it has, None where that is not known.
        names: Of its classes, where they are known.
        mean: Of the normalisation (value - mean) / std of 0..255, RGB.
        std: Of the normalisation.
        bgr: The network wants blue first.
        padding: What it was trained to see beside the picture, normalised.
        iou: Of two boxes of a kind that overlap more, the weaker one is dropped; None where the network does that.
        stretch: It was trained on pictures stretched to its size.
        multiple: Its sides must be multiples of this where they vary.
    """

    form: Form
    classes: int | None
    names: tuple[str, ...] | None
    mean: float = 0.0
    std: float = 255.0
    bgr: bool = False
    padding: float = 0.0
    iou: float | None = None
    stretch: bool = False
    multiple: int = 32


def recognise(kind: str, network: Network, *, most: int = 100) -> Recipe:
    """Recognises a network's outputs.

    Args:
        kind: One of `DETECTOR_KINDS`.
        network: The checked file.
        most: For `boxes`: how many boxes the network gives out at most, where its shapes do not tell.

    Raises:
        UsageError: There is no such kind.
        BundleError: The outputs are not those of that kind; the message says what they are and what was expected.
    """
    if kind not in DETECTOR_KINDS:
        raise UsageError(f"kind {kind!r} is not known; expected one of {', '.join(DETECTOR_KINDS)}")
    if network.others and kind != "rtdetr":
        raise BundleError(f"the network has the further inputs {listed_ports(network.others)}; expected a picture only")
    if kind in ("yolo", "yolo-seg"):
        return _yolo(network, masks=kind == "yolo-seg")
    if kind == "rtdetr":
        return _rtdetr(network, most)
    if kind == "boxes":
        form = _lists(network, most)
        # torchvision normalises and pads inside, and drops what overlaps.
        return Recipe(form, None, metadata_names(network.metadata), multiple=1)
    return _fastestdet(network) if kind == "fastestdet" else _ultraface(network)


def _yolo(network: Network, *, masks: bool) -> Recipe:
    names = metadata_names(network.metadata)
    kind = "yolo-seg" if masks else "yolo"
    task = network.metadata.get("task")
    expected = "segment" if masks else "detect"
    if task not in (None, "", expected):
        raise BundleError(f"the file says that its task is {task!r}, expected {expected!r} for --kind {kind}")
    tables = [port for port in network.outputs if _rank(port) == 3 and port.code in FLOATS]
    prototypes = [port for port in network.outputs if _rank(port) == 4 and port.code in FLOATS]
    if len(tables) != 1 or len(prototypes) != int(masks):
        wanted = "one (N,4+classes+c,A) and one with prototypes (N,c,mh,mw)" if masks else "one (N,4+classes,A)"
        raise _not_of(kind, network, wanted)
    coefficients = 0
    if masks:
        side = _sides(prototypes[0])[1]
        if not isinstance(side, int):
            raise _not_of(kind, network, "prototypes with a fixed number of channels")
        coefficients = side
    form, count = _table(network, kind, tables[0], names, prototypes[0].name if masks else None, coefficients)
    stride = network.metadata.get("stride", "")
    multiple = int(stride) if stride.isdigit() and 1 <= int(stride) <= 256 else 32
    return Recipe(
        form,
        count,
        names,
        padding=114 / 255,
        iou=None if isinstance(form, Rows) else 0.7,
        multiple=multiple,
    )


def _table(
    network: Network,
    kind: str,
    port: Port,
    names: tuple[str, ...] | None,
    prototypes: str | None,
    coefficients: int,
) -> tuple[Columns | Rows, int | None]:
    """Which axis holds the values of a candidate, and what they are, follows from their number."""
    _, first, second = _sides(port)
    known = len(names) if names else None
    fits = [(rows, width) for rows, width in ((False, first), (True, second)) if isinstance(width, int)]
    for rows, width in fits:
        length = second if not rows else first
        values = width - coefficients
        few = isinstance(length, int) and length <= _MOST_ROWS
        if rows and values == 6 and (few or network.metadata.get("nms") == "True"):
            return Rows(port.name, prototypes, coefficients), known
        if known is not None and values in (4 + known, 5 + known):
            form = Columns(
                port.name,
                known,
                rows=rows,
                objectness=values == 5 + known,
                prototypes=prototypes,
                coefficients=coefficients,
            )
            return form, known
    if known is None and fits:
        # Without names: the shorter side holds the values, and transposed ones are those of YOLOv5 to v7.
        rows, width = min(fits, key=lambda fit: fit[1])
        classes = width - coefficients - (5 if rows else 4)
        if classes >= 1:
            return Columns(
                port.name, classes, rows=rows, objectness=rows, prototypes=prototypes, coefficients=coefficients
            ), classes
    has = f"{known} named classes" if known else "no class names"
    raise _not_of(kind, network, f"(N,4+classes,A), (N,A,5+classes) or (N,R,6); the file has {has}")


def _rtdetr(network: Network, most: int) -> Recipe:
    names = metadata_names(network.metadata)
    logits = _called(network.outputs, "logits", 3)
    boxes = _called(network.outputs, "boxes", 3)
    if logits and boxes and not network.others and isinstance(classes := _sides(logits)[2], int):
        return Recipe(Queries(logits.name, boxes.name, classes), classes, names, stretch=True)
    table = network.outputs[0]
    width = _sides(table)[2] if len(network.outputs) == 1 and _rank(table) == 3 else None
    if isinstance(width, int) and width > 4 and not network.others:
        form = Columns(table.name, width - 4, rows=True, unit=True, queries=True)
        return Recipe(form, width - 4, names, stretch=True)
    if len(network.outputs) == 3 and [port.name for port in network.others] in ([], ["orig_target_sizes"]):
        return Recipe(_lists(network, most), None, names, stretch=True)
    raise _not_of("rtdetr", network, "(N,Q,4+classes), or logits and pred_boxes, or labels, boxes and scores")


def _lists(network: Network, most: int) -> Lists:
    wanted = "boxes (K,4), scores (K,), labels (K,) and perhaps masks (K,1,h,w)"
    boxes = [port for port in network.outputs if port.shape and port.shape[-1] == 4 and _rank(port) in (2, 3)]
    if not boxes:
        # Some exporters leave the last side open, then the name has to tell.
        named = [port for port in network.outputs if "box" in port.name.lower() and _rank(port) in (2, 3)]
        boxes = [port for port in named if not isinstance(_sides(port)[-1], int)]
    if len(boxes) != 1:
        raise _not_of("boxes", network, wanted)
    flat = [port for port in network.outputs if _rank(port) == _rank(boxes[0]) - 1]
    labels = [port for port in flat if port.code in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)]
    if not labels:
        labels = [port for port in flat if any(word in port.name.lower() for word in ("label", "class"))]
    scores = [port for port in flat if port.code in FLOATS and port not in labels]
    batched = _rank(boxes[0]) == 3
    masks = [port for port in network.outputs if _rank(port) == 4 and port.code in FLOATS]
    if len(labels) != 1 or len(scores) != 1 or len(masks) > 1:
        raise _not_of("boxes", network, wanted)
    rows = _sides(boxes[0])[-2]
    mask = masks[0].name if masks and not batched else None
    limit = rows if isinstance(rows, int) else most
    return Lists(boxes[0].name, scores[0].name, labels[0].name, mask, batched, limit)


def _fastestdet(network: Network) -> Recipe:
    maps = network.outputs[0]
    values = _sides(maps)[1] if len(network.outputs) == 1 and _rank(maps) == 4 else None
    if not isinstance(values, int) or values < 6:
        raise _not_of("fastestdet", network, "(N,5+classes,gh,gw)")
    # Its own program feeds what OpenCV reads, which has blue first, stretched to a square.
    return Recipe(Cells(maps.name, values - 5), values - 5, None, bgr=True, iou=0.45, stretch=True)


def _ultraface(network: Network) -> Recipe:
    boxes = [port for port in network.outputs if _rank(port) == 3 and _sides(port)[2] == 4]
    scores = [port for port in network.outputs if _rank(port) == 3 and _sides(port)[2] == 2]
    if len(boxes) != 1 or len(scores) != 1:
        raise _not_of("ultraface", network, "scores (N,P,2) and boxes (N,P,4)")
    form = Priors(scores[0].name, boxes[0].name, 1)
    return Recipe(form, 1, ("face",), mean=127.0, std=128.0, iou=0.3, stretch=True)


def _called(ports: Iterable[Port], word: str, rank: int) -> Port | None:
    found = [port for port in ports if word in port.name.lower() and _rank(port) == rank]
    return found[0] if len(found) == 1 else None


def _rank(port: Port) -> int:
    return -1 if port.shape is None else len(port.shape)


def _sides(port: Port) -> tuple[int | str, ...]:
    return port.shape or ()


def _not_of(kind: str, network: Network, expected: str) -> BundleError:
    return BundleError(
        f"the network's outputs are {listed_ports(network.outputs)}; --kind {kind} expects {expected}; "
        f"choose another kind ({', '.join(DETECTOR_KINDS)}) or export it that way"
    )
