"""Forms: what published kinds of detectors give out, and how that becomes candidates.

Each form is one arrangement of outputs. `decode` adds nodes that make boxes in pixels, scores for each wanted kind and,
where there are any, masks; the same decoding in numpy, for comparison, is in `engines.importers.reference`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from engines.importers.finish import Candidates, column_scores, label_scores, own_floor

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines.nodes import Nodes

Groups = tuple[tuple[int, ...], ...]


class Form(Protocol):
    """One arrangement of a network's outputs."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """The network's outputs that are used, by their names in its file."""
        ...

    @property
    def has_masks(self) -> bool:
        """Whether there are masks."""
        ...

    def decode(self, g: Nodes, outputs: dict[str, str], groups: Groups) -> Candidates:
        """Adds the decoding.

        Args:
            g: Where to add nodes. The tensor `image` (N,3,h,w) is there.
            outputs: Names in the graph of `self.outputs`.
            groups: For each kind the network's classes.
        """
        ...


@dataclass(frozen=True)
class Columns:
    """YOLOv8, YOLO11: a column for each anchor, (N,4+classes[+masks],A); centre and sides in pixels, scores 0..1.

    Attributes:
        name: Of the output.
        classes: How many.
        rows: The output is transposed, (N,A,4+classes[+masks]).
        objectness: YOLOv5 to v7: a score for "anything" before those of the classes, with which they are multiplied.
        unit: Centre and sides are shares of the picture, as those of RT-DETR's queries.
        queries: There are only as many rows as the network gives out at most.
        prototypes: The output with mask prototypes (N,c,mh,mw), None without masks.
        coefficients: c, how many columns at the end are factors of the prototypes.
    """

    name: str
    classes: int
    rows: bool = False
    objectness: bool = False
    unit: bool = False
    queries: bool = False
    prototypes: str | None = None
    coefficients: int = 0

    @property
    def outputs(self) -> tuple[str, ...]:
        """As in `Form`."""
        return (self.name,) if self.prototypes is None else (self.name, self.prototypes)

    @property
    def has_masks(self) -> bool:
        """As in `Form`."""
        return self.prototypes is not None

    def decode(self, g: Nodes, outputs: dict[str, str], groups: Groups) -> Candidates:
        """As in `Form`."""
        rows = outputs[self.name] if self.rows else g.one("Transpose", outputs[self.name], perm=[0, 2, 1])
        first = 5 if self.objectness else 4
        last = first + self.classes
        sides = g.columns(g.part(rows, 0, 4, 2), 2)
        if self.unit:
            sides = in_pixels(g, sides)
        scores = g.part(rows, first, last, 2)
        if self.objectness:
            scores = g.one("Mul", scores, g.part(rows, 4, 5, 2))
        boxes = g.box_around(*sides)
        floor = own_floor(g, best_of(g, scores)) if self.queries else None
        masks = None
        if self.prototypes is not None:
            factors = g.part(rows, last, last + self.coefficients, 2)
            masks = from_prototypes(g, factors, outputs[self.prototypes], boxes)
        return Candidates(boxes, column_scores(g, scores, groups), masks, floor)


@dataclass(frozen=True)
class Rows:
    """Exported with non-maximum suppression inside: (N,R,6[+masks]), x0, y0, x1, y1 in pixels, score, class.

    Attributes:
        name: Of the output.
        prototypes: As in `Columns`.
        coefficients: As in `Columns`.
    """

    name: str
    prototypes: str | None = None
    coefficients: int = 0

    @property
    def outputs(self) -> tuple[str, ...]:
        """As in `Form`."""
        return (self.name,) if self.prototypes is None else (self.name, self.prototypes)

    @property
    def has_masks(self) -> bool:
        """As in `Form`."""
        return self.prototypes is not None

    def decode(self, g: Nodes, outputs: dict[str, str], groups: Groups) -> Candidates:
        """As in `Form`."""
        rows = outputs[self.name]
        boxes = g.part(rows, 0, 4, 2)
        score, label = (g.one("Gather", rows, g.integer(column), axis=2) for column in (4, 5))
        masks = None
        if self.prototypes is not None:
            factors = g.part(rows, 6, 6 + self.coefficients, 2)
            masks = from_prototypes(g, factors, outputs[self.prototypes], boxes)
        return Candidates(boxes, label_scores(g, score, label, groups), masks, own_floor(g, score))


@dataclass(frozen=True)
class Queries:
    """RT-DETR as Hugging Face exports it: logits (N,Q,classes), and centre and sides as shares of the picture.

    Attributes:
        logits: Name of the output with the classes' logits (N,Q,classes); their sigmoid is the score.
        boxes: Name of the output with centres and sides (N,Q,4).
        classes: How many.
    """

    logits: str
    boxes: str
    classes: int

    @property
    def outputs(self) -> tuple[str, ...]:
        """As in `Form`."""
        return (self.logits, self.boxes)

    @property
    def has_masks(self) -> bool:
        """As in `Form`."""
        return False

    def decode(self, g: Nodes, outputs: dict[str, str], groups: Groups) -> Candidates:
        """As in `Form`."""
        scores = g.one("Sigmoid", outputs[self.logits])
        boxes = g.box_around(*in_pixels(g, g.columns(outputs[self.boxes], 2)))
        return Candidates(boxes, column_scores(g, scores, groups), None, own_floor(g, best_of(g, scores)))


@dataclass(frozen=True)
class Lists:
    """torchvision and others: boxes `xyxy` in pixels, scores, labels, perhaps masks; as many as were found.

    Attributes:
        boxes: Name of the output (K,4) or (N,K,4).
        scores: Name of the output (K,) or (N,K).
        labels: Name of the output (K,) or (N,K).
        masks: Name of the output (K,1,h,w) with one picture's masks, 0..1, None where there are none.
        batched: Whether there is an axis for pictures.
        most: The network's own limit for K.
    """

    boxes: str
    scores: str
    labels: str
    masks: str | None
    batched: bool
    most: int

    @property
    def outputs(self) -> tuple[str, ...]:
        """As in `Form`."""
        names = (self.boxes, self.scores, self.labels)
        return names if self.masks is None else (*names, self.masks)

    @property
    def has_masks(self) -> bool:
        """As in `Form`."""
        return self.masks is not None

    def decode(self, g: Nodes, outputs: dict[str, str], groups: Groups) -> Candidates:
        """As in `Form`."""
        boxes, scores, labels = (outputs[name] for name in (self.boxes, self.scores, self.labels))
        if not self.batched:
            boxes, scores, labels = (g.one("Unsqueeze", t, g.integers(0)) for t in (boxes, scores, labels))
        kinds = label_scores(g, scores, labels, groups)
        # One empty row more, since there may be none, and the operators after this need one.
        ends = (g.integers(0, 0, 0, 0, 1, 0), g.integers(0, 0, 0, 0, 0, 1))
        boxes, padded = g.one("Pad", boxes, ends[0]), g.one("Pad", kinds, ends[1])
        masks = None if self.masks is None else self._masks(g, outputs[self.masks])
        return Candidates(boxes, padded, masks, own_floor(g, scores, most=self.most))

    @staticmethod
    def _masks(g: Nodes, masks: str) -> Callable[[str], str]:
        """A quarter of the size each way: whole ones for hundreds of boxes take gigabytes."""

        def pick(index: str) -> str:
            small = g.one("AveragePool", masks, kernel_shape=[4, 4], strides=[4, 4], ceil_mode=1)
            more = g.one("Pad", small, g.integers(0, 0, 0, 0, 1, 0, 0, 0))
            flat = g.one("Reshape", index, g.integers(-1))
            chosen = g.one("Gather", more, flat, axis=0)
            return g.one("Transpose", chosen, perm=[1, 0, 2, 3])

        return pick


@dataclass(frozen=True)
class Cells:
    """FastestDet: (N,5+classes,gh,gw), for each cell objectness, offsets, sides and the classes' scores.

    Attributes:
        name: Of the output.
        classes: How many.
    """

    name: str
    classes: int

    @property
    def outputs(self) -> tuple[str, ...]:
        """As in `Form`."""
        return (self.name,)

    @property
    def has_masks(self) -> bool:
        """As in `Form`."""
        return False

    def decode(self, g: Nodes, outputs: dict[str, str], groups: Groups) -> Candidates:
        """As in `Form`: score = objectness^0.6 class^0.4, centre = cell + tanh(offset), side = sigmoid."""
        maps = outputs[self.name]
        rows, columns = g.size(maps, 2), g.size(maps, 3)
        flat = g.one("Reshape", maps, g.integers(0, 0, -1))
        values = g.one("Transpose", flat, perm=[0, 2, 1])
        cells = g.steps(g.one("Mul", rows, columns))
        x, y, width, height = g.columns(g.part(values, 1, 5, 2), 2)
        at_x = g.one("Add", g.real(g.one("Mod", cells, columns)), g.one("Tanh", x))
        at_y = g.one("Add", g.real(g.one("Div", cells, columns)), g.one("Tanh", y))
        unit = [g.one("Div", at_x, g.real(columns)), g.one("Div", at_y, g.real(rows))]
        unit += [g.one("Sigmoid", width), g.one("Sigmoid", height)]
        boxes = g.box_around(*in_pixels(g, unit))
        classes = g.one("Pow", g.part(values, 5, 5 + self.classes, 2), g.number(0.4))
        scores = g.one("Mul", classes, g.one("Pow", g.part(values, 0, 1, 2), g.number(0.6)))
        return Candidates(boxes, column_scores(g, scores, groups))


@dataclass(frozen=True)
class Priors:
    """UltraFace: scores (N,P,classes) with the background first, boxes (N,P,4) `xyxy` as shares of the picture.

    Attributes:
        scores: Name of the output.
        boxes: Name of the output.
        classes: How many, without the background.
    """

    scores: str
    boxes: str
    classes: int

    @property
    def outputs(self) -> tuple[str, ...]:
        """As in `Form`."""
        return (self.scores, self.boxes)

    @property
    def has_masks(self) -> bool:
        """As in `Form`."""
        return False

    def decode(self, g: Nodes, outputs: dict[str, str], groups: Groups) -> Candidates:
        """As in `Form`."""
        scores = g.part(outputs[self.scores], 1, 1 + self.classes, 2)
        boxes = g.box(*in_pixels(g, g.columns(outputs[self.boxes], 2)))
        return Candidates(boxes, column_scores(g, scores, groups))


def in_pixels(g: Nodes, shares: list[str]) -> list[str]:
    """Horizontal and vertical values in turn, as shares of the picture `image`, in its pixels."""
    height, width = (g.real(g.size("image", axis)) for axis in (2, 3))
    return [g.one("Mul", share, side) for share, side in zip(shares, (width, height, width, height), strict=True)]


def best_of(g: Nodes, scores: str) -> str:
    """The best class of each candidate: (N,A,classes) to (N,A)."""
    return g.one("Gather", g.many("TopK", [scores, g.integers(1)], 2, axis=2)[0], g.integer(0), axis=2)


def from_prototypes(g: Nodes, factors: str, prototypes: str, boxes: str) -> Callable[[str], str]:
    """Masks as YOLACT and YOLO make them: sigmoid(factors @ prototypes), 0 outside the box.

    Args:
        g: Where to add nodes.
        factors: (N,A,c).
        prototypes: (N,c,mh,mw); the whole picture at another resolution.
        boxes: (N,A,4) in pixels.
    """

    def pick(index: str) -> str:
        def at(rows: str, last: str) -> str:
            wide = g.one("Expand", g.one("Unsqueeze", index, g.integers(2)), g.one("Concat", *ones, last, axis=0))
            return g.one("GatherElements", rows, wide, axis=1)

        ones = (g.integers(1), g.integers(1))
        chosen = at(factors, g.one("Reshape", g.size(factors, 2), g.integers(1)))
        flat = g.one("Reshape", prototypes, g.integers(0, 0, -1))
        whole = g.one("Sigmoid", g.one("MatMul", chosen, flat))
        height, width = g.size(prototypes, 2), g.size(prototypes, 3)
        sides = [g.one("Reshape", side, g.integers(1)) for side in (height, width)]
        masks = g.one("Reshape", whole, g.one("Concat", g.integers(0), g.integers(0), *sides, axis=0))
        x0, y0, x1, y1 = g.columns(at(boxes, g.integers(4)), 2)
        across = _outside(g, x0, x1, length=width, picture=g.size("image", 3), shape=(1, 1, 1, -1))
        down = _outside(g, y0, y1, length=height, picture=g.size("image", 2), shape=(1, 1, -1, 1))
        return g.one("Where", g.one("Or", across, down), g.number(0), masks)

    return pick


def _outside(g: Nodes, low: str, high: str, *, length: str, picture: str, shape: tuple[int, ...]) -> str:
    """Cells of a mask that do not touch a box: bool, broadcast to (N,M,mh,mw)."""
    step = g.one("Div", g.real(picture), g.real(length))
    edges = g.one("Reshape", g.one("Mul", g.real(g.steps(length)), step), g.integers(*shape))
    low, high = (g.one("Unsqueeze", side, g.integers(2, 3)) for side in (low, high))
    return g.one("Or", g.one("LessOrEqual", g.one("Add", edges, step), low), g.one("GreaterOrEqual", edges, high))
