"""The run's own report (docs/report.md), and whether it says what is to be seen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from engines.errors import UsageError
from stream import geometry
from stream.outline import PixelMask
from stream.regions import Kind, Regions
from stream.report import SCHEMA_VERSION
from stream.verify.raw import RAW_REGION, RawLook, cores
from stream.verify.record import Claim

#: A stand-in follows a mask and may rightly leave background in its box.
_RAW_REALISTIC: Final = 0.6
#: A region is in the report if so much of its core is covered by the report's boxes.
_REPORTED: Final = 0.5
#: Decimals of seconds to which times agree; reports have six.
_DECIMALS: Final = 4
#: Names of reports beside or in the same place as their files, by the file's path.
_NAMES: Final = ("{path}.report.json", "{path}.json", "{stem}.report.json", "{stem}.json")


@dataclass(frozen=True, slots=True)
class ReportFrame:
    """One entry of `frames`.

    Attributes:
        time: of the frame in the input, in seconds.
        source: of folders, the image's path.
        withheld: whether the frame was replaced by a flat one.
        ignored: how many regions were left on purpose.
        regions: what was covered.
    """

    time: float
    source: str | None
    withheld: bool
    ignored: int
    regions: Regions


@dataclass(frozen=True, slots=True)
class RunReport:
    """A run's report.

    Attributes:
        bundles: names of the engines that ran.
        realistic: kinds that generators replaced.
        kept: kinds that were left raw on purpose.
        start: seconds of the input that were cut off at its beginning.
        end: seconds of the input at which the run stopped, None for its end.
        frames: in order.
        seen_through: kinds whose cover moves as those do who are behind it: blurred and pixelated ones.
    """

    bundles: tuple[str, ...]
    realistic: frozenset[Kind]
    kept: frozenset[Kind]
    start: float
    end: float | None
    frames: tuple[ReportFrame, ...]
    seen_through: frozenset[Kind] = frozenset()

    def of(self, name: str) -> RunReport:
        """The part about one image of a folder; all of it where frames have no source."""
        mine = tuple(frame for frame in self.frames if frame.source in (None, name))
        return replace(self, frames=mine)

    def by_time(self) -> dict[float, ReportFrame]:
        """Frames by their time, rounded; of images, by 0."""
        return {0.0 if frame.source else round(frame.time, _DECIMALS): frame for frame in self.frames}


def read_run_report(path: Path) -> RunReport:
    """Reads a report.

    Raises:
        UsageError: it cannot be read, or is not the report of a run.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the run's report {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not the report of a run: it is not JSON ({error})") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION or "frames" not in content:
        raise UsageError(f"{path} is not the report of a run (standin run --report), or of another release")
    try:
        return _report(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path} is not the report of a run: {type(error).__name__} at {error}") from error


def find_run_report(place: Path, *names: str) -> Path | None:
    """The report of a file: the place itself, or in the folder that it is, by the file's path.

    Args:
        place: a report or a folder with reports.
        names: of the file, paths below the compared folder: the original's, and the result's where that differs.
    """
    if not place.is_dir():
        return place
    tried = (
        place / entry.format(path=name, stem=str(Path(name).with_suffix(""))) for name in names for entry in _NAMES
    )
    return next((path for path in tried if path.is_file()), None)


def _report(content: dict[str, Any]) -> RunReport:
    settings = content["settings"]
    face, fallback = settings["face"], settings["fallback"]
    # What is not said of a kind is as for faces (`AnonymizerSettings.treatment`).
    other = fallback if face in ("realistic", "keep") else face
    treatments = {kind: settings.get(kind.label) or other for kind in Kind}
    return RunReport(
        bundles=tuple(str(bundle["name"]) for bundle in content["bundles"]),
        realistic=frozenset(kind for kind, treatment in treatments.items() if treatment == "realistic"),
        kept=frozenset(kind for kind, treatment in treatments.items() if treatment == "keep"),
        start=float(settings.get("start") or 0.0),
        end=None if settings.get("end") is None else float(settings["end"]),
        frames=tuple(_frame(entry) for entry in content["frames"]),
        seen_through=frozenset(kind for kind, treatment in treatments.items() if treatment in ("blur", "pixelate")),
    )


def _frame(entry: dict[str, Any]) -> ReportFrame:
    parts = [Regions.of([region["box"]], Kind.of(region["kind"])) for region in entry["regions"]]
    return ReportFrame(
        time=float(entry["time"]),
        source=entry.get("source"),
        withheld=entry["withheld"] is not None,
        ignored=int(entry["ignored"]),
        regions=Regions.concatenate(parts),
    )


def is_reported(core: PixelMask, regions: Regions, width: int, height: int) -> bool:
    """Whether a report has a region: most of its core lies in the boxes that were covered.

    Args:
        core: of the region.
        regions: of the report.
        width: of the frame, in pixels.
        height: of the frame, in pixels.
    """
    inside = core.within((0, 0, width, height))
    covered = np.zeros_like(inside.pixels)
    for box in geometry.to_pixels(regions.boxes, width, height).tolist():
        PixelMask.filled((box[0], box[1], box[2], box[3])).paint(PixelMask(inside.x0, inside.y0, covered))
    return bool((covered & inside.pixels).sum() >= _REPORTED * max(1, inside.area))


@dataclass(slots=True)
class ReportCheck:
    """Compares the report of one file with what is seen, frame by frame.

    Args:
        report: of the file.
        places: of the original's frames by their times in seconds, as far as the run had them.
    """

    report: RunReport
    places: Mapping[float, int]
    _not_flat: list[int] = field(default_factory=list)
    _bare: list[int] = field(default_factory=list)

    def add(self, index: int, entry: ReportFrame, look: RawLook, *, flat: bool) -> None:
        """Compares one frame with its entry.

        Args:
            index: of the frame in the original.
            entry: of the report.
            look: original beside output.
            flat: whether the output is of one colour.
        """
        if entry.withheld:
            if not flat:
                self._not_flat.append(index)
            return
        for core, kind in zip(cores(entry.regions), entry.regions.kinds, strict=True):
            limit = _RAW_REALISTIC if Kind(int(kind)) in self.report.realistic else RAW_REGION
            if look.share(core).share >= limit:
                self._bare.append(index)
                break

    def claims(self) -> list[Claim]:
        """What the report says and is not so."""
        known = {round(time, _DECIMALS): index for time, index in self.places.items()}
        reported = self.report.by_time()
        absent = tuple(index for time, index in known.items() if time not in reported)
        strange = [time for time in reported if time not in known]
        found = [
            Claim("frames that the report calls withheld still show something", tuple(self._not_flat)),
            Claim("boxes that the report calls covered show the original", tuple(self._bare)),
            Claim("frames of the original are not in the report", absent),
        ]
        found = [claim for claim in found if claim.frames]
        if strange:
            found.append(Claim(f"{len(strange)} frames of the report have times that the original does not have"))
        return found


def all_bundles(reports: Iterable[RunReport]) -> set[str]:
    """Names of all engines that ran."""
    return {name for report in reports for name in report.bundles}
