"""Coverage: how many pixels of the persons and faces that detectors report leave the anonymizer as they came?

Frames go from the decoder through `Anonymizer.iterate` and are compared in memory: an encoder would change every pixel.
What has to be covered is said by detectors that this benchmark runs itself, on the same frames: not by what the
anonymizer believes it covered. `mask` and `realistic` are the strict ones, with a colour that clips do not hold: every
pixel of another colour counts. The stand-ins of `realistic` come from a generator that paints this colour, through
crops, waves and pasting as any other's; persons are filled boxes there. `blur` and `pixelate` leave the one or other
pixel as it was by chance: there, regions count of which no pixel has changed, those of one colour apart. The control
keeps everything, and the same counting must find all of it.

    python benchmarks/coverage.py CLIP... --detector fastestdet --detector ultraface --frames 40
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import before_after, save
from engines.store import Store, home
from stream import geometry
from stream.anonymizer import Anonymized, Anonymizer
from stream.assemble import find_bundles, make_fills, open_detector
from stream.compose.parts import Painters
from stream.config import AnonymizerSettings
from stream.detectors.base import Detector
from stream.frame import Frame, Image
from stream.generators.base import AlwaysReady, Crops, Generated, check_crops
from stream.regions import Kind, Regions
from stream.roles import Role
from stream.sources.video import VideoSource
from stream.stand_ins import StandIns

#: Of `mask`: nothing that a camera sees is so.
COLOUR: Final = (255, 0, 255)
METHODS: Final = ("mask", "realistic", "blur", "pixelate")
#: Those that leave one colour, so that pixels can be counted.
FLAT: Final = ("mask", "realistic")
#: The anonymizer that covers nothing.
CONTROL: Final = "keep"

#: Gives the frames of a clip, from its beginning.
Clip = Callable[[], Iterable[Frame]]


@dataclass
class Tally:
    """What left, of all regions of all frames.

    Attributes:
        frames: how many came out.
        withheld: of these, how many were replaced by flat ones, in which nothing is left to count.
        regions: reported in the others, and large enough to hold a pixel of the frame.
        pixels: of these regions; where they overlap, of each of them.
        not_flat: of these, how many have another colour than `COLOUR`.
        unchanged: regions of more than one colour of which no pixel has changed.
    """

    frames: int = 0
    withheld: int = 0
    regions: int = 0
    pixels: int = 0
    not_flat: int = 0
    unchanged: int = 0

    def add(self, before: Image, after: Anonymized, regions: Regions) -> None:
        """Counts one frame.

        Args:
            before: uint8 RGB (height, width, 3), as decoded.
            after: what the anonymizer made of it.
            regions: what has to be covered.

        Raises:
            RuntimeError: a frame is said to be withheld, and is not flat.
        """
        self.frames += 1
        if after.withheld is not None:
            if (after.image != after.image[0, 0]).any():
                raise RuntimeError(f"a frame was withheld ({after.withheld}) and still shows something")
            self.withheld += 1
            return
        height, width = before.shape[:2]
        for x0, y0, x1, y1 in geometry.to_pixels(regions.boxes, width, height).tolist():
            old, new = before[y0:y1, x0:x1], after.image[y0:y1, x0:x1]
            if not old.size:
                continue
            self.regions += 1
            self.pixels += old.shape[0] * old.shape[1]
            self.not_flat += int((new != np.array(COLOUR, np.uint8)).any(axis=2).sum())
            self.unchanged += bool((old != old[0, 0]).any() and np.array_equal(old, new))


def settings_for(method: str, detectors: Sequence[str]) -> AnonymizerSettings:
    """The defaults, but with one treatment for all kinds, and boxes."""
    # What no stand-in can be made for has to be of the colour, too.
    treatments = {kind.label: "mask" if method == "realistic" else method for kind in Kind}
    return AnonymizerSettings.model_validate(
        {**treatments, "detector": detectors, "shape": "box", "mask_colour": COLOUR, "on_failure": "withhold"}
    )


class FlatGenerator(AlwaysReady):
    """Makes every stand-in `COLOUR`, all over its crop.

    Args:
        kind: what it replaces.
        size: height and width of a crop.
    """

    needs_surface = False

    def __init__(self, kind: Kind, size: tuple[int, int]) -> None:
        self.kind = kind
        self.size = size

    def prepare(self) -> None:
        """Nothing to do."""

    def generate(self, crops: Crops) -> Generated:
        """The colour, as a network gives it."""
        check_crops(crops, self.size, None)
        colour = np.array(COLOUR, np.float32).reshape(1, 3, 1, 1) / np.float32(127.5) - 1
        output = np.broadcast_to(colour, (len(crops), 3, *self.size)).copy()
        return Generated(output, np.ones(len(crops), np.bool_))

    def set_truncation(self, value: float) -> None:
        """Nothing depends on it."""

    def forget(self, track_id: int) -> None:
        """Nothing is kept."""

    def reset(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is open."""


def anonymizer_for(method: str, detectors: Sequence[str]) -> Anonymizer:
    """An anonymizer that covers all kinds in one way.

    Args:
        method: one of `METHODS`, or `CONTROL`.
        detectors: names or folders of bundles.
    """
    settings = settings_for(method, detectors)
    if method != "realistic":
        return Anonymizer.from_settings(settings)
    bundles = find_bundles(settings, Store(home()))
    sizes: dict[Role, tuple[int, int]] = {"person": (288, 160), "face": (256, 256)}
    generators = {role: FlatGenerator(Kind.of(role), size) for role, size in sizes.items()}
    fills = make_fills(settings)
    stand_ins = StandIns(Painters(generators, fills, margin=settings.margin, shape=settings.shape))
    detector = open_detector(bundles, settings, settings.threads)
    return Anonymizer([detector], fills, settings, stand_ins=stand_ins, bundles=bundles.all)


def tally(clip: Clip, reported: Sequence[Regions], anonymizer: Anonymizer) -> Tally:
    """Sends a clip through an anonymizer and counts what leaves.

    Args:
        clip: the frames.
        reported: what has to be covered, one for each frame.
        anonymizer: is closed in the end.

    Raises:
        RuntimeError: frames were lost, or came in another order.
    """
    made = Tally()
    for regions, (before, after) in zip(reported, before_after(clip(), len(reported), anonymizer), strict=True):
        made.add(before.image, after, regions)
    return made


def measure(
    clip: Clip, look: Callable[[Frame], Regions], anonymizer_for: Callable[[str], Anonymizer]
) -> dict[str, Any]:
    """All methods and the control, on one clip.

    Args:
        clip: the frames.
        look: says what has to be covered in a frame.
        anonymizer_for: gives a new anonymizer for each of `METHODS` and for `CONTROL`.
    """
    # A damaged picture is withheld, and nothing in it is to be found.
    reported = [Regions.empty() if frame.damaged is not None else look(frame) for frame in clip()]
    tallies = {method: tally(clip, reported, anonymizer_for(method)) for method in (*METHODS, CONTROL)}
    control = tallies[CONTROL]
    return {
        "frames": control.frames,
        "withheld": max(made.withheld for made in tallies.values()),
        "regions": control.regions,
        "by_kind": {
            kind.label: sum(int((regions.kinds == kind).sum()) for regions in reported)
            for kind in Kind
            if any((regions.kinds == kind).any() for regions in reported)
        },
        "pixels": control.pixels,
        "raw": {
            **{method: {"pixels": tallies[method].not_flat} for method in FLAT},
            **{method: {"regions": tallies[method].unchanged} for method in ("blur", "pixelate")},
        },
        "control": {"pixels": control.not_flat, "regions": control.unchanged},
    }


def problems(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Why the result is no good: something left raw, or the counting would not have noticed."""
    found = []
    for row in rows:
        for method, raw in row["raw"].items():
            found += [f"{row['clip']}: {count} raw {what} with {method}" for what, count in raw.items() if count]
        if row["withheld"]:
            found.append(f"{row['clip']}: {row['withheld']} frames were withheld, so nothing is known of them")
        if row["regions"] and not (row["control"]["pixels"] and row["control"]["regions"]):
            found.append(f"{row['clip']}: the control, which keeps everything, looks covered")
    if not any(row["regions"] for row in rows):
        found.append("no region was found in any clip, so nothing was tested")
    return found


def measure_file(path: Path, detectors: Sequence[str], limit: int | None) -> dict[str, Any]:
    """One clip, with detectors of this benchmark's own."""
    own = [_open(name) for name in detectors]

    def clip() -> Iterator[Frame]:
        source = VideoSource(path)
        try:
            yield from islice(source, limit)
        finally:
            source.close()

    def look(frame: Frame) -> Regions:
        # Not united: each box of each detector counts.
        return Regions.concatenate([detector.detect(frame) for detector in own])

    try:
        return {
            "clip": path.name,
            **measure(clip, look, lambda method: anonymizer_for(method, detectors)),
        }
    finally:
        for detector in own:
            detector.close()


def _open(name: str) -> Detector:
    """One detector by itself: nothing that unites several is between it and the count."""
    settings = settings_for("mask", (name,))
    return open_detector(find_bundles(settings, Store(home())), settings, settings.threads)


def main() -> int:
    """Measure and write `results/coverage.json`; 1 if anything was raw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--detector", action="append", required=True, help="name or folder of a bundle; several count")
    parser.add_argument("--frames", type=int, help="of each clip at most (default: all)")
    options = parser.parse_args()
    rows = [measure_file(clip, options.detector, options.frames) for clip in options.clips]
    found = problems(rows)
    names = [Path(name).name for name in options.detector]
    path = save("coverage", {"detectors": names, "clips": rows, "problems": found})
    _print(rows, found)
    print(path)
    return 1 if found else 0


def _print(rows: Sequence[dict[str, Any]], found: Sequence[str]) -> None:
    console = Console()
    counted = ("mask px", "realistic px", "blur", "pixelate", "control px", "control")
    table = Table("clip", "frames", "regions", "pixels", *counted, title="raw pixels, and regions that nothing changed")
    for row in rows:
        raw, control = row["raw"], row["control"]
        counts = (
            *(raw[method]["pixels"] for method in FLAT),
            *(raw[method]["regions"] for method in ("blur", "pixelate")),
        )
        table.add_row(
            row["clip"],
            *(str(row[name]) for name in ("frames", "regions", "pixels")),
            *map(str, (*counts, control["pixels"], control["regions"])),
        )
    console.print(table)
    for problem in found:
        console.print(problem, markup=False)


if __name__ == "__main__":
    sys.exit(main())
