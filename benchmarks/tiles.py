"""`--tiles`: whom detectors find in large pictures when they look at parts of them as well, and what that costs.

On scenes of synthetic people, which say where everybody is: by height in pixels, who is found (a box with an IoU of at
least a half, nobody twice) and who is missed (less than half of the visible pixels lie in any box). What is not a tenth
of anybody is nobody's.

    python -m export.starter scenes --output SCENES --size 1920x1080 --views street overhead --count 200 --seed 91002
    python benchmarks/tiles.py --scenes SCENES [--tiles 1 2 3] [--preset starter] [--empty CLIP...]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import frames_of, save
from engines.errors import StandinError
from engines.store import Store, home
from export.starter.detector_targets import Visible, visible
from export.starter.samples import Scene, read_scenes
from stream import geometry
from stream.assemble import find_bundles, open_detector
from stream.config import AnonymizerSettings, make_settings
from stream.detectors.base import Detector
from stream.frame import Frame
from stream.regions import Kind, Regions

Row = dict[str, Any]

#: Pixels: classes of height begin here, and the last one ends.
HEIGHTS: Final = (24, 60, 100, 200, 10_000)
_FOUND, _MISSED, _NOBODY = 0.5, 0.5, 0.1


@dataclass(slots=True)
class Tally:
    """What was counted.

    Attributes:
        people: by class of height.
        found: likewise.
        missed: likewise.
        boxes: of persons.
        nobody: of these, boxes that are nobody's.
    """

    people: list[int] = field(default_factory=lambda: [0] * (len(HEIGHTS) - 1))
    found: list[int] = field(default_factory=lambda: [0] * (len(HEIGHTS) - 1))
    missed: list[int] = field(default_factory=lambda: [0] * (len(HEIGHTS) - 1))
    boxes: int = 0
    nobody: int = 0

    def add(self, regions: Regions, instances: npt.NDArray[np.uint8]) -> None:
        """Counts one picture.

        Args:
            regions: persons that were found.
            instances: (H, W), 0 or 1 + person.
        """
        people = visible(instances)
        theirs = np.array([person.box for person in people], np.float32).reshape(-1, 4)
        overlaps = geometry.iou(regions.boxes, theirs)
        covered = np.zeros(instances.shape, np.bool_)
        for x0, y0, x1, y1 in geometry.to_pixels(regions.boxes, instances.shape[1], instances.shape[0]).tolist():
            covered[y0:y1, x0:x1] = True
        found = _partners(overlaps, regions.scores)
        self.boxes += len(regions)
        self.nobody += int((overlaps.max(axis=1, initial=0) < _NOBODY).sum())
        for number, person in enumerate(people):
            if (place := _class(person)) is not None:
                self.people[place] += 1
                self.found[place] += number in found
                self.missed[place] += bool(covered[instances == person.number].mean() < _MISSED)

    def row(self) -> Row:
        """For the file."""
        classes = zip(pairwise(HEIGHTS), self.people, self.found, self.missed, strict=True)
        heights = [
            {"from_px": low, "people": people, "found": _part(found, people), "missed": _part(missed, people)}
            for (low, _), people, found, missed in classes
        ]
        return {"by_height": heights, "boxes": self.boxes, "nobodys": self.nobody}


def _part(count: int, of: int) -> float | None:
    return round(count / of, 4) if of else None


def _class(person: Visible) -> int | None:
    """Of height; None for who is too small to count."""
    place = int(np.searchsorted(HEIGHTS, person.sides[1], side="right")) - 1
    return place if person.counts and place >= 0 else None


def _partners(overlaps: npt.NDArray[np.float32], scores: npt.NDArray[np.float32]) -> set[int]:
    """Who is found: the surest box takes whom it fits best."""
    free = overlaps.copy()
    taken: set[int] = set()
    for row in np.argsort(-scores, kind="stable").tolist():
        if free.shape[1] and free[row].max() >= _FOUND:
            person = int(free[row].argmax())
            taken.add(person)
            free[:, person] = 0
    return taken


def persons(detector: Detector, frame: Frame) -> Regions:
    """The persons whom a detector finds."""
    found = detector.detect(frame)
    return found[found.kinds == Kind.PERSON]


def measure(detector: Detector, scenes: Iterable[Scene]) -> Row:
    """Figures of one setting, and seconds a picture."""
    tally, seconds, count = Tally(), 0.0, 0
    for scene in scenes:
        frame = Frame(np.ascontiguousarray(scene.image))
        if not count:
            detector.prepare(frame.width, frame.height, 1)
        start = time.perf_counter()
        found = persons(detector, frame)
        seconds += time.perf_counter() - start
        count += 1
        tally.add(found, scene.instances)
    return {"scenes": count, **tally.row(), "ms": round(1000 * seconds / max(1, count), 1)}


def false_alarms(detector: Detector, clips: Sequence[Path]) -> Row:
    """Frames of clips that show nobody in which a person is found."""
    return {
        clip.name: {"frames": len(frames), "alarms": sum(len(persons(detector, frame)) > 0 for frame in frames)}
        for clip, frames in ((clip, frames_of(clip)) for clip in clips)
    }


def main() -> int:
    """Measure and write `results/tiles.json`; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--tiles", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--preset", default="starter")
    parser.add_argument("--empty", type=Path, nargs="*", default=[], help="clips that show nobody")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    rows = []
    try:
        for count in options.tiles:
            settings = make_settings(AnonymizerSettings, {"preset": options.preset, "tiles": count})
            bundles = find_bundles(settings, Store(home()))
            detector = open_detector(bundles, settings, None)
            row = {"tiles": count, **measure(detector, read_scenes(options.scenes))}
            rows.append(row | {"empty": false_alarms(detector, options.empty)})
            detector.close()
    except StandinError as error:
        console.print(str(error), markup=False)
        return error.exit_code
    detectors = {bundle.manifest.name: bundle.digest for bundle in bundles.detectors}
    _print(rows, console)
    print(save("tiles", {"preset": options.preset, "detectors": detectors, "rows": rows}))
    return 0


def _print(rows: Sequence[Row], console: Console) -> None:
    table = Table("tiles", "height", "people", "found", "missed", "nobody's boxes", "ms a picture")
    for row in rows:
        for place, heights in enumerate(row["by_height"]):
            ends = [str(row["nobodys"]), str(row["ms"])] if not place else ["", ""]
            found, missed = ("-" if heights[name] is None else f"{heights[name]:.2f}" for name in ("found", "missed"))
            first = str(row["tiles"]) if not place else ""
            table.add_row(first, f"from {heights['from_px']} px", str(heights["people"]), found, missed, *ends)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
