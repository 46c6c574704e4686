"""A detector's graph in integers against the float graph that it was made of: what it loses of people and of masks."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engines.assignment import best_pairs
from engines.bundle import Bundle
from engines.errors import ExportError
from engines.manifest import Quantized
from engines.runtime_onnx import OnnxRuntime

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]
    #: Makes inputs when they are needed: those of all would not fit into memory.
    Feed = Callable[[], Arrays]
    #: Inputs of one picture: some detectors look at it at several sizes.
    Looks = Sequence[Feed]

#: The graph in floating point, and what looks closer at its boxes, where the bundle has that.
SOURCE: Final = "detector"
_HEADS: Final = "heads"
#: Half in common: the same find.
_SAME: Final = 0.5
#: The kind whose masks count.
_PERSON: Final = "person"
#: Boxes that heads get in one run, as in `stream`: each takes tens of megabytes.
_MOST_BOXES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When integers are good enough.

    Attributes:
        sure: What the float graph finds with this score or a higher one must be found again,
        threshold: with this score or a higher one; no lower than runs ask for;
        most_lost: but for this part of it.
        least_kept: Of their masks, so much must be left in the mean, where the bundle gives masks.
        fewest: Regions that a judgement takes.
        calibrated: Pictures at most that ranges are taken from.
    """

    sure: float = 0.5
    threshold: float = 0.3
    most_lost: float = 0.01
    least_kept: float = 0.95
    fewest: int = 50
    calibrated: int = 100


@dataclass(slots=True)
class Tally:
    """What was found in all pictures together.

    Attributes:
        pictures: that were looked at.
        regions: that the float graph was sure of.
        found: of these, those that the other graph found again.
        lost: the others, by class.
        masks: the part that is covered again of what each person covers who was found again; empty where there are no
            masks.
    """

    pictures: int = 0
    regions: int = 0
    found: int = 0
    lost: Counter[int] = field(default_factory=Counter)
    masks: list[float] = field(default_factory=list)


def compare(bundle: Bundle, made: Path, pictures: Sequence[Looks], limits: Limits) -> Tally:
    """Looks at pictures with the float graph and with the one in integers.

    Args:
        bundle: of the float graph.
        made: the file of the other one.
        pictures: for each, what makes that which the graph takes at every look at it.
        limits: see there.
    """
    declared = bundle.graph(SOURCE)
    tally = Tally(pictures=len(pictures))
    with contextlib.ExitStack() as stack:
        exact = stack.enter_context(OnnxRuntime(bundle.file(declared.file), declared, device="cpu"))
        rounded = stack.enter_context(OnnxRuntime(made, declared, device="cpu"))
        heads = None
        if _HEADS in bundle.manifest.graphs:
            graph = bundle.graph(_HEADS)
            heads = stack.enter_context(OnnxRuntime(bundle.file(graph.file), graph, device="cpu"))
        persons = [label for label, kind in enumerate(bundle.manifest.kinds) if kind == _PERSON]
        for looks in pictures:
            for number, feed in enumerate(looks):
                feeds = feed()
                answers = exact.run(feeds), rounded.run(feeds)
                _add(tally, *answers, persons, heads, limits, _least_size(bundle) if number else 0.0)
    return tally


def _least_size(bundle: Bundle) -> float:
    """Pixels of a second look's picture below which a run does not count what it finds."""
    again = bundle.manifest.detection and bundle.manifest.detection.second_look
    return again.from_size * again.scale if again else 0.0


def _add(
    tally: Tally,
    there: Arrays,
    here: Arrays,
    persons: Sequence[int],
    heads: OnnxRuntime | None,
    limits: Limits,
    least: float,
) -> None:
    count = int(there["count"][0])
    boxes, scores, classes = (there[name][0, :count] for name in ("boxes", "scores", "classes"))
    sure = np.flatnonzero((scores >= limits.sure) & ((boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) >= least))
    partners = found_again(there, here, sure, limits.threshold)
    again = partners >= 0
    tally.regions += len(sure)
    tally.found += int(again.sum())
    tally.lost.update(classes[sure[~again]].tolist())
    # Of others the whole box is covered, whatever a mask says.
    rows = np.flatnonzero(again & np.isin(classes[sure], persons))
    before, after = covered(there, sure[rows], heads), covered(here, partners[rows], heads)
    if before is None or after is None:
        return
    tally.masks += [left(*pair) for pair in zip(before, after, strict=True)]


def judged(tally: Tally, limits: Limits) -> Quantized:
    """What was measured, for the manifest.

    Raises:
        ExportError: there is too little to judge by, or too much is lost.
    """
    if tally.regions < limits.fewest:
        raise ExportError(
            f"only {tally.regions} regions with a score of {limits.sure} or more in {tally.pictures} pictures, "
            f"expected {limits.fewest}; nothing was written; give more pictures, of what the detector will see"
        )
    lost = tally.regions - tally.found
    if lost > limits.most_lost * tally.regions:
        worst = ", ".join(f"{count} of class {label}" for label, count in sorted(tally.lost.items()))
        raise ExportError(
            f"integers lose {lost} of {tally.regions} regions ({worst}), more than the part of "
            f"{limits.most_lost:g} that may be; nothing was written"
        )
    masks = float(np.mean(tally.masks)) if tally.masks else None
    if masks is not None and masks < limits.least_kept:
        raise ExportError(
            f"integers keep {100 * masks:.1f} % of masks, less than the part of {limits.least_kept:g} that must be "
            "left; nothing was written"
        )
    return Quantized(
        source=SOURCE,
        pictures=tally.pictures,
        sure=limits.sure,
        threshold=limits.threshold,
        regions=tally.regions,
        found=tally.found / tally.regions,
        masks=masks,
    )


def found_again(there: Arrays, here: Arrays, which: NDArray[np.intp], threshold: float) -> NDArray[np.intp]:
    """The partner of each of some regions, -1 for none: of its class, with half in common and a high enough score.

    Nobody is the partner of two: people who were told apart must be told apart again.

    Args:
        there: an answer of the graph `detector`, for one picture.
        here: another graph's for it.
        which: (n,), rows of `there`.
        threshold: see above.
    """
    count, others = len(which), int(here["count"][0])
    boxes, classes = (there[name][0, which] for name in ("boxes", "classes"))
    low = np.maximum(boxes[:, None, :2], here["boxes"][:1, :others, :2])
    high = np.minimum(boxes[:, None, 2:], here["boxes"][:1, :others, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    mine, theirs = ((group[:, 2:] - group[:, :2]).prod(axis=1) for group in (boxes, here["boxes"][0, :others]))
    iou = shared / np.maximum(mine[:, None] + theirs[None] - shared, 1e-9)
    fits = classes[:, None] == here["classes"][:1, :others]
    fits &= here["scores"][:1, :others] >= threshold
    partners = np.full(count, -1, np.intp)
    rows, columns = best_pairs(np.where(fits, iou, 0), _SAME)
    partners[rows] = columns
    return partners


@dataclass(frozen=True, slots=True)
class Covered:
    """What a region covers of the network's picture.

    Attributes:
        x: of the left pixel.
        y: of the upper one.
        pixels: bool (h,w).
    """

    x: int
    y: int
    pixels: NDArray[np.bool_]


def left(before: Covered, after: Covered) -> float:
    """The part of what was covered that is covered again."""
    x, y = max(before.x, after.x), max(before.y, after.y)
    right = min(one.x + one.pixels.shape[1] for one in (before, after))
    bottom = min(one.y + one.pixels.shape[0] for one in (before, after))
    if right <= x or bottom <= y:
        return 0.0
    parts = [one.pixels[y - one.y : bottom - one.y, x - one.x : right - one.x] for one in (before, after)]
    return float((parts[0] & parts[1]).sum() / before.pixels.sum())


def covered(answer: Arrays, rows: NDArray[np.intp], heads: OnnxRuntime | None) -> list[Covered] | None:
    """What some persons of an answer cover; their boxes where masks are empty, as in a run. None where there are none.

    Args:
        answer: of the graph `detector`, for one picture.
        rows: (n,), of its boxes.
        heads: of a detector in two graphs.
    """
    if heads is None:
        if "masks" not in answer:
            return None
        # Bytes over the whole picture, smaller than it: 255 times the probability.
        shown = [mask >= 128 for mask in answer["masks"][0, rows]]
        return [Covered(0, 0, mask if mask.any() else np.ones_like(mask)) for mask in shown]
    made: list[Covered] = []
    for start in range(0, len(rows), _MOST_BOXES):
        part = rows[start : start + _MOST_BOXES]
        feeds = {
            "index": np.zeros(len(part), np.int64),
            **{name: np.ascontiguousarray(answer[name][0, part]) for name in ("boxes", "classes")},
        }
        taken = {tensor.name: feeds.get(tensor.name, answer.get(tensor.name)) for tensor in heads.inputs}
        out = heads.run({name: array for name, array in taken.items() if array is not None})
        masks = out["masks"] >= 0.5 if "masks" in out else out["coarse_segm"].argmax(axis=1) > 0
        made += [_on_its_box(mask, box) for mask, box in zip(masks, feeds["boxes"], strict=True)]
    return made


def _on_its_box(mask: NDArray[np.bool_], box: NDArray[np.float32]) -> Covered:
    """A mask's grid on the pixels of its box, each of which shows the nearest place."""
    x0, y0, x1, y1 = (int(edge) for edge in np.rint(box))
    width, height = max(1, x1 - x0), max(1, y1 - y0)
    if not mask.any():
        return Covered(x0, y0, np.ones((height, width), np.bool_))
    rows, columns = (np.arange(side) * of // side for side, of in zip((height, width), mask.shape, strict=True))
    pixels = mask[rows[:, None], columns]
    return Covered(x0, y0, pixels if pixels.any() else np.ones_like(pixels))
