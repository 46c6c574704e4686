"""The starter set's detector on synthetic scenes that no training saw, through its bundle as a run uses it.

Every scene is looked at once, at the lowest score that the bundle gives. Who is found by what score is kept, so that
any threshold can be summed up afterwards: of the boxes of one kind, best first, each has the person or head that it
shares most with, if that is at least half (IoU), and whom no better box has. Who is too small to count (see
`export.starter.detector_targets`) is neither missed nor wrongly found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engines.bundle import Bundle
from engines.runtime import open_runtime
from export.starter.cameras import SHARES, VIEWS
from export.starter.detector_surface import Template
from export.starter.detector_targets import Visible, visible
from export.starter.production import make_scenes
from export.starter.samples import Scene
from export.starter.scenes import SceneSettings
from stream import geometry, resample
from stream.config import AnonymizerSettings
from stream.detectors.graphs import detector_graph
from stream.detectors.two_stage import TwoStageDetector
from stream.frame import Frame
from stream.outline import BodySurface
from stream.regions import Kind, Regions
from stream.surface import Surface

Row = dict[str, Any]

#: Pixels: classes of height begin here.
HEIGHTS: Final = (0, 24, 60)
#: Least share that a box and somebody have in common (IoU).
SAME: Final = 0.5
#: The best threshold is the lowest with at least this precision.
PRECISION: Final = 0.85
#: Pixels of a person whose place on the surface is looked up.
_LOOKED_UP: Final = 400
#: How high cameras of a view hang, in metres, for the reader: `export.starter.cameras` draws from these ranges.
HUNG: Final[Mapping[str, tuple[float, float]]] = {
    "webcam": (1.0, 1.6),
    "room": (0.9, 2.2),
    "street": (1.4, 4.5),
    "overhead": (2.2, 5.0),
    "top": (2.8, 6.0),
}


@dataclass(frozen=True, slots=True, eq=False)
class Somebody:
    """A person, or a head, who is there.

    Attributes:
        kind: which of both.
        view: of the camera.
        height: in pixels.
        score: with which they were found, 0 if they were not.
        iou: of the masks of persons who were found, else NaN.
        errors: in centimetres on the canonical body, of some pixels where both masks agree.
        pixels: that they stand for.
    """

    kind: Kind
    view: str
    height: int
    score: float
    iou: float
    errors: npt.NDArray[np.float32]
    pixels: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """A box that was given.

    Attributes:
        kind: of what.
        view: of the camera.
        height: in pixels.
        score: 0 to 1.
        right: whether it is somebody's whom no better box has.
    """

    kind: Kind
    view: str
    height: float
    score: float
    right: bool


@dataclass(slots=True)
class Findings:
    """Of all scenes."""

    there: list[Somebody] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)

    def of(self, kind: Kind, view: str | None = None) -> Findings:
        """Those of one kind, and of one view if given."""
        return Findings(
            [one for one in self.there if one.kind == kind and view in (None, one.view)],
            [one for one in self.claims if one.kind == kind and view in (None, one.view)],
        )

    def precision(self, threshold: float) -> float:
        """Part of the boxes that are right; NaN without a box."""
        counted = [claim.right for claim in self.claims if claim.score >= threshold]
        return float(np.mean(counted)) if counted else float("nan")

    def best_threshold(self, least: float = PRECISION) -> float | None:
        """The lowest threshold with at least this precision, None if there is none."""
        ordered = sorted(self.claims, key=lambda claim: -claim.score)
        if not ordered:
            return None
        precise = np.cumsum([claim.right for claim in ordered]) / np.arange(1, len(ordered) + 1)
        scores = np.array([claim.score for claim in ordered])
        # All boxes of a score count or none.
        fits = (precise >= least) & np.append(scores[1:] != scores[:-1], True)
        return float(scores[np.flatnonzero(fits)[-1]]) if fits.any() else None

    def summary(self, threshold: float) -> Row:
        """The figures at a threshold; None for what there was nothing to measure on."""
        found = [one for one in self.there if one.score >= threshold]
        errors = np.concatenate([one.errors for one in found]) if found else np.zeros(0, np.float32)
        shares = [np.full(len(one.errors), one.pixels / max(1, len(one.errors))) for one in found]
        claims = [claim.right for claim in self.claims if claim.score >= threshold]
        return {
            "people": len(self.there),
            "recall": _share(len(found), len(self.there)),
            "boxes": len(claims),
            "precision": _share(sum(claims), len(claims)),
            "mask_iou": _mean([one.iou for one in found if np.isfinite(one.iou)]),
            "surface_median_cm": _rounded(float(np.median(errors))) if len(errors) else None,
            "surface_median_cm_by_pixel": _middle(errors, np.concatenate(shares)) if len(errors) else None,
            "surface_within_10_cm": _share(int((errors < 10).sum()), len(errors)),
        }

    def by_height(self, threshold: float) -> list[Row]:
        """The figures by class of height, of people as of boxes."""
        rows = []
        for low, high in zip(HEIGHTS, (*HEIGHTS[1:], 1 << 30), strict=True):
            part = Findings(
                [one for one in self.there if low <= one.height < high],
                [one for one in self.claims if low <= one.height < high],
            )
            rows.append({"from_px": low, **part.summary(threshold)})
        return rows


def _share(part: int, whole: int) -> float | None:
    return _rounded(part / whole) if whole else None


def _middle(values: npt.NDArray[np.float32], weights: npt.NDArray[np.float64]) -> float:
    """The median of values that count by their weights."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return _rounded(float(values[order][np.searchsorted(reached, reached[-1] / 2)]))


def _mean(values: Sequence[float]) -> float | None:
    return _rounded(float(np.mean(values))) if values else None


def _rounded(value: float) -> float:
    return round(value, 4)


class Comparison:
    """Compares what is found in scenes with what is there.

    Args:
        template: the surface of the people in the scenes.
        surface: the detector's vertex embeddings.
        vertices: (k,), which of the template's vertices the detector's are.
    """

    def __init__(self, template: Template, surface: Surface, vertices: npt.NDArray[np.int64]) -> None:
        self._template, self._surface = template, surface
        self._places = template.canonical[vertices]
        self.findings = Findings()

    def add(self, scene: Scene, view: str, regions: Regions) -> None:
        """Takes in one scene and what was found in it."""
        head = (scene.vertices >= 0) & self._template.head[scene.vertices]
        for kind, instances in (
            (Kind.PERSON, scene.instances),
            (Kind.FACE, np.where(head, scene.instances, np.uint8(0))),
        ):
            self._add(kind, scene, visible(instances), view, regions)

    def _add(self, kind: Kind, scene: Scene, people: Sequence[Visible], view: str, regions: Regions) -> None:
        free = {person.number: person for person in people}
        claims = np.flatnonzero(regions.kinds == kind)
        partners: dict[int, int] = {}
        for index in claims[np.argsort(-regions.scores[claims], kind="stable")].tolist():
            person = _partner(regions.boxes[index], list(free.values()))
            if person is not None:
                del free[person.number]
                partners[person.number] = index
            if person is None or person.counts:
                score, high = float(regions.scores[index]), float(regions.boxes[index, 3] - regions.boxes[index, 1])
                self.findings.claims.append(Claim(kind, view, high, score, person is not None))
        for person in people:
            if person.counts:
                self.findings.there.append(self._seen(kind, scene, person, view, regions, partners.get(person.number)))

    def _seen(
        self, kind: Kind, scene: Scene, person: Visible, view: str, regions: Regions, index: int | None
    ) -> Somebody:
        high, nothing = person.sides[1], np.zeros(0, np.float32)
        if index is None:
            return Somebody(kind, view, high, 0.0, float("nan"), nothing)
        score = float(regions.scores[index])
        outline = None if regions.outlines is None else regions.outlines[index]
        if kind != Kind.PERSON or outline is None or outline.surface is None:
            return Somebody(kind, view, high, score, float("nan"), nothing)
        iou, errors, pixels = self._outlined(scene, person.number, outline.surface)
        return Somebody(kind, view, high, score, iou, errors, pixels)

    def _outlined(self, scene: Scene, number: int, posed: BodySurface) -> tuple[float, npt.NDArray[np.float32], int]:
        """IoU of the masks, errors of some pixels where both agree, and how many these pixels are."""
        x0, y0, x1, y1 = posed.box
        there = scene.instances == number
        # A box lies within the frame.
        inside = there[y0:y1, x0:x1]
        rows, columns = (
            resample.nearest(count, side)
            for count, side in zip(posed.segmentation.shape, (y1 - y0, x1 - x0), strict=True)
        )
        mask = posed.segmentation[rows[:, None], columns]
        both = mask & inside
        shared = int(both.sum())
        iou = shared / (int(there.sum()) + int(mask.sum()) - shared)
        y, x = np.nonzero(both)
        if not len(y):
            return iou, np.zeros(0, np.float32), 0
        chosen = np.linspace(0, len(y) - 1, min(len(y), _LOOKED_UP)).astype(np.int64)
        y, x = y[chosen], x[chosen]
        queries = np.ascontiguousarray(posed.embedding[:, rows[y], columns[x]].T)
        canonical = self._template.canonical
        ends = self._places[self._surface.nearest(queries)] - canonical[scene.vertices[y0:y1, x0:x1][y, x]]
        return iou, np.asarray(100 * np.linalg.norm(ends, axis=1), np.float32), shared


def _partner(box: npt.NDArray[np.float32], people: Sequence[Visible]) -> Visible | None:
    if not people:
        return None
    shares = geometry.iou(box[None], np.array([person.box for person in people], np.float32)).ravel()
    best = int(np.argmax(shares))
    return people[best] if shares[best] >= SAME else None


def open_lowest(bundle: Bundle, settings: AnonymizerSettings) -> TwoStageDetector:
    """The detector as a run opens it, but giving all that the bundle gives."""
    opened = [
        open_runtime(bundle, graph, device=settings.device, threads=settings.threads)
        for graph in (detector_graph(bundle, settings.device, settings.detector_precision), "heads")
    ]
    return TwoStageDetector(bundle, opened[0], opened[1], longest=settings.detect_size, threshold=0.0)


def held_out(
    body: Path, count: int, *, seed: int, size: tuple[int, int], workers: int = 1
) -> Iterator[tuple[str, Scene]]:
    """Scenes with their view, in the shares in which cameras are put up; one at least of each.

    Args:
        body: the body's file.
        count: of scenes in all.
        seed: that no training was given.
        size: width and height.
        workers: processes that draw.
    """
    for number, (view, share) in enumerate(zip(VIEWS, SHARES, strict=True)):
        if share:
            settings = SceneSettings(width=size[0], height=size[1], views=(view,))
            scenes = make_scenes(body, settings, seed + number, max(1, round(count * share)), workers=workers)
            yield from ((view, scene) for scene in scenes)


def measure(
    detect: Callable[[Frame], Regions],
    scenes: Iterable[tuple[str, Scene]],
    template: Template,
    surface: Surface,
    vertices: npt.NDArray[np.int64],
    *,
    preset_threshold: float,
) -> Row:
    """All figures of the detector.

    Args:
        detect: gives all regions of a frame, also unlikely ones.
        scenes: with the views of their cameras.
        template: the surface of the people in them.
        surface: the detector's vertex embeddings.
        vertices: (k,), which of the template's vertices the detector's are.
        preset_threshold: at which a run counts them.
    """
    comparison, seen = Comparison(template, surface, vertices), Counter[str]()
    for view, scene in scenes:
        comparison.add(scene, view, detect(Frame(scene.image)))
        seen[view] += 1
    found = comparison.findings
    views = [view for view in VIEWS if seen[view]]
    return {"scenes": seen.total()} | {
        kind.label: _of_kind(found.of(kind), {view: found.of(kind, view) for view in views}, preset_threshold)
        for kind in (Kind.PERSON, Kind.FACE)
    }


def _of_kind(whole: Findings, by_view: Mapping[str, Findings], preset_threshold: float) -> Row:
    rows: Row = {}
    best = whole.best_threshold()
    for name, threshold in (("best", best), ("preset", preset_threshold)):
        if threshold is None:
            rows[name] = None
            continue
        rows[name] = {
            "threshold": _rounded(threshold),
            **whole.summary(threshold),
            "by_height": whole.by_height(threshold),
            "by_view": [
                {"view": view, "camera_m": HUNG.get(view), **part.summary(threshold)} for view, part in by_view.items()
            ],
        }
    return rows


def lines(result: Row) -> Iterator[tuple[str, ...]]:
    """The cells of the table."""
    for kind in ("person", "face"):
        for at in ("best", "preset"):
            if (part := result[kind][at]) is None:
                yield kind, f"no threshold has precision {PRECISION}", *[""] * 8
                continue
            label = f"{at}, {part['threshold']:.2f}"
            yield kind, label, "all", *_cells(part)
            for row in part["by_height"]:
                yield "", "", f"from {row['from_px']} px", *_cells(row)
            for row in part["by_view"]:
                yield "", "", row["view"], *_cells(row)


HEAD: Final = (
    "kind",
    "threshold",
    "of",
    "people",
    "recall",
    "boxes",
    "precision",
    "mask IoU",
    "surface cm",
    "by pixel",
)


def _cells(row: Row) -> list[str]:
    keys = ("people", "recall", "boxes", "precision", "mask_iou", "surface_median_cm", "surface_median_cm_by_pixel")
    return ["-" if row[key] is None else f"{row[key]:g}" for key in keys]
