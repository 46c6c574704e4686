"""From candidates to the tensors that every `detector.onnx` gives out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx import TensorProto

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines.nodes import Nodes

#: Candidates at or below this score are never returned.
SCORE_FLOOR = 0.02
#: TensorRT's TopK takes at most 3840.
MOST_CANDIDATES = 3800
#: Masks take memory for each box that is returned, so that there are fewer.
MOST_MASKS = 300


@dataclass(frozen=True)
class Candidates:
    """What a network proposes, as names of tensors.

    Attributes:
        boxes: float32 (N,A,4), `xyxy` in pixels of the network's picture.
        scores: float32 (N,C,A), for each kind; `sane` was applied.
        masks: Makes of an index (N,M) into A the masks (N,M,mh,mw) of those candidates, 0..1 over the whole picture.
        floor: float32 (N,), what `own_floor` says of a network that cuts to its best itself.
    """

    boxes: str
    scores: str
    masks: Callable[[str], str] | None = None
    floor: str | None = None


@dataclass(frozen=True)
class Limits:
    """When boxes are dropped.

    Attributes:
        iou: Of two boxes of a kind that overlap more, the weaker one is dropped; None where the network does that.
        score: Candidates at or below it are dropped.
        candidates: How many of the best are considered.
        returned: How many boxes are returned, M.
    """

    iou: float | None
    score: float = SCORE_FLOOR
    candidates: int = MOST_CANDIDATES
    returned: int = MOST_CANDIDATES


def sane(g: Nodes, scores: str) -> str:
    """Scores with NaN and everything over 1 as 1: a network that computes rubbish must not look like an empty image."""
    one = g.number(1)
    return g.one("Where", g.one("LessOrEqual", scores, one), scores, one)


def column_scores(g: Nodes, scores: str, groups: tuple[tuple[int, ...], ...]) -> str:
    """Scores (N,A,classes) as scores for each kind (N,C,A): the best of its classes."""
    rows = []
    for group in groups:
        parts = [sane(g, g.one("Gather", scores, g.integer(index), axis=2)) for index in group]
        best = g.one("Max", *parts) if len(parts) > 1 else parts[0]
        rows.append(g.one("Unsqueeze", best, g.integers(1)))
    return g.one("Concat", *rows, axis=1)


def label_scores(g: Nodes, scores: str, labels: str, groups: tuple[tuple[int, ...], ...]) -> str:
    """Scores (N,A) and labels (N,A) as scores for each kind (N,C,A)."""
    labels = g.one("Cast", labels, to=TensorProto.INT64)
    known = sane(g, scores)
    rubbish = g.one("Not", g.one("LessOrEqual", scores, g.number(1)))
    rows = []
    for number, group in enumerate(groups):
        # Where the score is rubbish the label is, too: the first kind takes it.
        means = [g.one("Equal", labels, g.integer(index)) for index in group] + ([rubbish] if number == 0 else [])
        mine = means[0]
        for other in means[1:]:
            mine = g.one("Or", mine, other)
        row = g.one("Where", mine, known, g.number(0))
        rows.append(g.one("Unsqueeze", row, g.integers(1)))
    return g.one("Concat", *rows, axis=1)


def own_floor(g: Nodes, scores: str, *, most: int | None = None) -> str:
    """What a network's own cut may have lost: its weakest score where its list is full, else 0.

    Args:
        g: Where to add nodes.
        scores: (N,A), of all classes.
        most: The network's own limit, where A varies with what it finds; else A is the limit.

    Returns:
        Name of a tensor (N,).
    """
    # A first row of score 1, since there may be none.
    first = g.one(
        "Expand",
        g.number(1),
        g.one("Concat", g.one("Reshape", g.size(scores, 0), g.integers(1)), g.integers(1), axis=0),
    )
    upside_down = g.one("Neg", g.one("Concat", first, scores, axis=1))
    lowest = g.one("Gather", g.many("TopK", [upside_down, g.integers(1)], 2, axis=1)[0], g.integer(0), axis=1)
    weakest = g.one("Neg", lowest)
    full = g.one("Greater", weakest, g.number(SCORE_FLOOR))
    if most is not None:
        full = g.one("And", full, g.one("Equal", g.size(scores, 1), g.integer(most)))
    return g.one("Where", full, weakest, g.number(0))


def finish(g: Nodes, found: Candidates, limits: Limits) -> None:
    """Adds the outputs `boxes`, `scores`, `classes`, `count`, `floor`, and `masks` where there are any.

    Dropped before the cut to the best, so that they crowd nothing out: what the picture's padding shows, and the
    network's classes that are of no interest.
    """
    anchors = g.size(found.boxes, 1)
    kinds = g.size(found.scores, 1)
    boxes = _with_area(g, found.boxes)
    flat = g.one("Reshape", _inside(g, boxes, found.scores), g.integers(0, -1))
    k = g.one("Min", g.one("Reshape", g.one("Mul", anchors, kinds), g.integers(1)), g.integers(limits.candidates))
    # K depends on the size of the picture where that is not fixed, and TensorRT takes a TopK whose K is no constant
    # only since 8.6: next to NonMaxSuppression the operator to look at first when a plan does not build.
    best, place = g.many("TopK", [flat, k], 2, axis=1, largest=1, sorted=1)
    anchor = g.one("Mod", place, anchors)
    kind = g.one("Div", place, anchors)
    picked = _rows(g, boxes, anchor)
    stays = _survivors(g, best, picked, kind, kinds, limits)
    m = g.one("Min", k, g.integers(limits.returned))
    _, order = g.many("TopK", [g.one("Mul", best, stays), m], 2, axis=1, largest=1, sorted=1)
    flags = g.one("GatherElements", stays, order, axis=1)
    scores = g.named("scores", "Mul", g.one("GatherElements", best, order, axis=1), flags)
    keep = g.one("Greater", flags, g.number(0))
    # Where, not Mul: the side of a box that is not returned may be infinite.
    wide = g.one("Unsqueeze", keep, g.integers(2))
    g.named("boxes", "Where", wide, _rows(g, picked, order), g.number(0))
    g.named("classes", "Where", keep, g.one("GatherElements", kind, order, axis=1), g.integer(0))
    g.named("count", "Cast", g.one("ReduceSum", flags, g.integers(1), keepdims=0), to=TensorProto.INT64)
    _floor(g, found, limits, flat=flat, best=best, k=k, stays=stays, returned=scores, m=m)
    if found.masks is not None:
        _masks(g, found.masks(g.one("GatherElements", anchor, order, axis=1)), keep)


def _rows(g: Nodes, boxes: str, index: str) -> str:
    """The boxes (N,K,4) at an index (N,K)."""
    wide = g.one("Expand", g.one("Unsqueeze", index, g.integers(2)), g.integers(1, 1, 4))
    return g.one("GatherElements", boxes, wide, axis=1)


def _with_area(g: Nodes, boxes: str) -> str:
    """Boxes with sides of 0 to 1 pixel widened to one: a small find is a find, and boxes without area are refused.

    Boxes that are inside out stay so, and are refused where they are used: they mean that the layout is another one.
    """
    low, high = g.part(boxes, 0, 2, 2), g.part(boxes, 2, 4, 2)
    sides = g.one("Sub", high, low)
    zero, one = g.number(0), g.number(1)
    thin = g.one("And", g.one("GreaterOrEqual", sides, zero), g.one("Less", sides, one))
    spare = g.one("Where", thin, g.one("Mul", g.one("Sub", one, sides), g.number(0.5)), zero)
    return g.one("Concat", g.one("Sub", low, spare), g.one("Add", high, spare), axis=2)


def _inside(g: Nodes, boxes: str, scores: str) -> str:
    """Scores (N,C,A), 0 where a box has its centre in the padding or lies before the picture's first row or column.

    The comparisons are written so that NaN counts as inside.
    """
    left, top, right, bottom = g.columns(boxes, 2)
    size = g.real("image_size")
    half, zero = g.number(0.5), g.number(0)
    outside = []
    for low, high, index in ((left, right, 1), (top, bottom, 0)):
        side = g.part(size, index, index + 1, 1)
        centre = g.one("Mul", g.one("Add", low, high), half)
        outside += [g.one("GreaterOrEqual", centre, side), g.one("LessOrEqual", high, zero)]
    anywhere = outside[0]
    for other in outside[1:]:
        anywhere = g.one("Or", anywhere, other)
    return g.one("Where", g.one("Unsqueeze", anywhere, g.integers(1)), zero, scores)


def _survivors(g: Nodes, scores: str, boxes: str, kind: str, kinds: str, limits: Limits) -> str:
    """Non-maximum suppression for each picture and kind by itself: (N,K) with 1 for boxes that stay, else 0.

    NonMaxSuppression is the delicate operator for TensorRT: its number of rows depends on the data. It is contained
    here, everything after it has the shape (N,K) again.
    """
    if limits.iou is None:
        return g.real(g.one("Greater", scores, g.number(limits.score)))
    numbers = g.one("Reshape", g.steps(kinds), g.integers(1, -1, 1))
    mine = g.one("Equal", g.one("Unsqueeze", kind, g.integers(1)), numbers)
    by_kind = g.one("Where", mine, g.one("Unsqueeze", scores, g.integers(1)), g.number(0))
    chosen = g.one(
        "NonMaxSuppression",
        boxes,
        by_kind,
        g.integers(limits.candidates),
        g.numbers(limits.iou),
        g.numbers(limits.score),
    )
    # Rows are (picture, kind, box); a box is of one kind here.
    places = g.one("Gather", chosen, g.integers(0, 2), axis=1)
    ones = g.one("Expand", g.numbers(1), g.one("Reshape", g.size(places, 0), g.integers(1)))
    zeros = g.one("Mul", scores, g.number(0))
    return g.one("ScatterND", zeros, places, ones)


def _floor(
    g: Nodes, found: Candidates, limits: Limits, *, flat: str, best: str, k: str, stays: str, returned: str, m: str
) -> None:
    """The score of the weakest that was considered, or returned, where others over the limit were not, else 0."""
    zero, axis = g.number(0), g.integers(1)
    over = g.one("Cast", g.one("Greater", flat, g.number(limits.score)), to=TensorProto.INT64)
    number = g.one("ReduceSum", over, axis, keepdims=0)
    last = g.integer(-1)
    lost = g.one("Where", g.one("Greater", number, k), g.one("Gather", best, last, axis=1), zero)
    stayed = g.one("Cast", g.one("ReduceSum", stays, axis, keepdims=0), to=TensorProto.INT64)
    cut = g.one("Where", g.one("Greater", stayed, m), g.one("Gather", returned, last, axis=1), zero)
    parts = [lost, cut]
    if found.floor is not None:
        parts.append(found.floor)
    g.named("floor", "Max", *parts)


def _masks(g: Nodes, masks: str, keep: str) -> None:
    """Masks (N,M,mh,mw) 0..1 as bytes, 0 after `count`; NaN counts as the person."""
    full = g.number(1)
    known = g.one("Where", g.one("LessOrEqual", masks, full), masks, full)
    kept = g.one("Where", g.one("Unsqueeze", keep, g.integers(2, 3)), known, g.number(0))
    g.named("masks", "Cast", g.one("Round", g.one("Mul", kept, g.number(255))), to=TensorProto.UINT8)
