"""How well a detector does on scenes that it did not learn from: people found by height, masks, surface."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from export.starter.detector import KINDS, MULTIPLE
from export.starter.detector_data import normalised
from export.starter.detector_graphs import SIDE, StarterDetector, StarterHeads
from export.starter.detector_targets import Visible, visible
from export.starter.detector_training import TrainedDetector
from export.starter.samples import Scene

#: Pixels: classes of height begin here.
HEIGHTS: Final = (0, 24, 60)
#: A found box is a person's if they share this much (IoU).
_SAME: Final = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A person whom a detector found in a picture.

    Attributes:
        box: float (4,), `xyxy` in pixels.
        score: 0 to 1.
        mask: bool (H, W).
        vertices: int64 (H, W); only looked at where the mask is.
    """

    box: npt.NDArray[np.float32]
    score: float
    mask: npt.NDArray[np.bool_]
    vertices: npt.NDArray[np.int64]


Finder = Callable[[npt.NDArray[np.uint8]], list[Found]]


@dataclass(frozen=True, slots=True)
class Counted:
    """People of a class of height.

    Attributes:
        lowest: height in pixels from which the class begins.
        people: that there were.
        found: of them.
    """

    lowest: int
    people: int
    found: int

    @property
    def recall(self) -> float:
        """Part that was found; NaN where there was nobody."""
        return self.found / self.people if self.people else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was measured.

    Attributes:
        heights: By height, from small to large.
        right: Boxes that are somebody's.
        wrong: Boxes that are nobody's, or somebody's whom another box has.
        mask_iou: Mean over people who were found; NaN without any, like all that follows.
        surface_median: Error in centimetres on the canonical body, over pixels where both masks agree.
        surface_within: Part of them whose error is below 10 and below 20 centimetres.
    """

    heights: tuple[Counted, ...]
    right: int
    wrong: int
    mask_iou: float
    surface_median: float
    surface_within: tuple[float, float]

    @property
    def recall(self) -> float:
        """Over all heights."""
        people = sum(counted.people for counted in self.heights)
        return sum(counted.found for counted in self.heights) / people if people else float("nan")

    @property
    def precision(self) -> float:
        """Part of the boxes that are somebody's; NaN without a box."""
        boxes = self.right + self.wrong
        return self.right / boxes if boxes else float("nan")


@dataclass(slots=True)
class _Sums:
    people: list[int] = field(default_factory=lambda: [0] * len(HEIGHTS))
    found: list[int] = field(default_factory=lambda: [0] * len(HEIGHTS))
    right: int = 0
    wrong: int = 0
    ious: list[float] = field(default_factory=list)
    errors: list[npt.NDArray[np.float32]] = field(default_factory=list)


def evaluate(find: Finder, scenes: Iterable[Scene], canonical: npt.NDArray[np.float32]) -> Evaluation:
    """Compares what is found with what is there.

    People who are too small to count (`detector_targets.Visible`) are neither missed nor wrongly found.

    Args:
        find: from a picture to people, best first.
        scenes: that it has not seen.
        canonical: (K, 3), the body's vertices in metres.
    """
    sums = _Sums()
    for scene in scenes:
        _count(sums, find(scene.image), scene, canonical)
    errors = np.concatenate(sums.errors) if sums.errors else np.zeros(0, np.float32)
    return Evaluation(
        heights=tuple(Counted(*row) for row in zip(HEIGHTS, sums.people, sums.found, strict=True)),
        right=sums.right,
        wrong=sums.wrong,
        mask_iou=float(np.mean(sums.ious)) if sums.ious else float("nan"),
        surface_median=float(np.median(errors)) if len(errors) else float("nan"),
        surface_within=(_below(errors, 10), _below(errors, 20)),
    )


def _below(errors: npt.NDArray[np.float32], limit: float) -> float:
    return float((errors < limit).mean()) if len(errors) else float("nan")


def _count(sums: _Sums, found: list[Found], scene: Scene, canonical: npt.NDArray[np.float32]) -> None:
    people = visible(scene.instances)
    free = {person.number: person for person in people}
    for somebody in found:
        person = _partner(somebody, list(free.values()))
        if person is None:
            sums.wrong += 1
            continue
        del free[person.number]
        if not person.counts:
            continue
        sums.right += 1
        sums.found[_class(person)] += 1
        there = scene.instances == person.number
        both = there & somebody.mask
        sums.ious.append(both.sum() / (there | somebody.mask).sum())
        if both.any():
            ends = canonical[somebody.vertices[both]] - canonical[scene.vertices[both]]
            sums.errors.append(np.asarray(100 * np.linalg.norm(ends, axis=1), np.float32))
    for person in people:
        if person.counts:
            sums.people[_class(person)] += 1


def _class(person: Visible) -> int:
    return int(np.searchsorted(HEIGHTS, person.sides[1], side="right")) - 1


def _partner(found: Found, people: list[Visible]) -> Visible | None:
    """Who shares most with a box, if that is enough."""
    shares = [_share(found.box, person.box) for person in people]
    best = int(np.argmax(shares)) if shares else -1
    return people[best] if shares and shares[best] >= _SAME else None


def _share(first: npt.NDArray[np.float32], second: tuple[int, int, int, int]) -> float:
    one, two = first.astype(np.float64), np.array(second, np.float64)
    sides = np.minimum(one[2:], two[2:]) - np.maximum(one[:2], two[:2])
    shared = float(np.maximum(sides, 0).prod())
    return shared / float((one[2:] - one[:2]).prod() + (two[2:] - two[:2]).prod() - shared)


class TorchFinder:
    """Finds people with a trained network as it is; pictures are looked at in their own size.

    Args:
        trained: see there.
        threshold: people with a lower score are left out.
        body_probability: see `StarterHeads`.
    """

    def __init__(self, trained: TrainedDetector, *, threshold: float, body_probability: float = 0.5) -> None:
        self._detector = StarterDetector(trained.network, threshold=threshold).eval()
        self._heads = StarterHeads(body_probability=body_probability)
        self._embeddings = torch.from_numpy(trained.embeddings)

    def __call__(self, image: npt.NDArray[np.uint8]) -> list[Found]:
        """People in uint8 RGB (H, W, 3), best first."""
        height, width = image.shape[:2]
        padded = np.zeros((1, 3, *(-(-side // MULTIPLE) * MULTIPLE for side in (height, width))), np.float32)
        padded[0, :, :height, :width] = normalised(image)
        with torch.no_grad():
            size = torch.tensor([[height, width]])
            boxes, scores, classes, count, _, pixels = self._detector(torch.from_numpy(padded), size)
            people = classes[0, : int(count)] == KINDS.index("person")
            boxes, scores = boxes[0, : int(count)][people], scores[0, : int(count)][people]
            segmented, embedding = self._heads(pixels, boxes, torch.zeros(len(boxes), dtype=torch.int64))
            bodies = segmented.argmax(dim=1) > 0
        return [
            self._found(box.numpy(), float(score), body.numpy(), values, (height, width))
            for box, score, body, values in zip(boxes, scores, bodies, embedding, strict=True)
        ]

    def _found(
        self,
        box: npt.NDArray[np.float32],
        score: float,
        body: npt.NDArray[np.bool_],
        embedding: torch.Tensor,
        size: tuple[int, int],
    ) -> Found:
        mask, vertices = np.zeros(size, np.bool_), np.full(size, -1, np.int64)
        x0, y0, x1, y1 = (int(edge) for edge in np.rint(box))
        if x1 > x0 and y1 > y0:
            rows = (np.arange(y1 - y0) + 0.5) * SIDE / (y1 - y0)
            columns = (np.arange(x1 - x0) + 0.5) * SIDE / (x1 - x0)
            places = rows.astype(np.int64)[:, None], columns.astype(np.int64)
            mask[y0:y1, x0:x1] = body[places]
            # The nearest of unit norm is the one with the largest product.
            seen = embedding[:, torch.from_numpy(places[0]), torch.from_numpy(places[1])][:, mask[y0:y1, x0:x1]]
            vertices[mask] = (seen.T @ self._embeddings.T).argmax(dim=1).numpy()
        return Found(box, score, mask, vertices)
