"""Findings: what was seen, as numbers that can be limited and as sentences for people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from engines.errors import UsageError
from stream.presets import did_you_mean
from stream.regions import Kind
from stream.verify.perceptual import weighted
from stream.verify.record import FileRecord, FrameRecord
from stream.verify.tracks import Run, flicker, raw_runs, switches, tracks_of

#: What is measured, and what it means.
MEASURES: Final[Mapping[str, str]] = {
    "raw_area": "share of the area of faces and persons that is as in the original",
    "raw_frames": "frames in which a face or person was left raw",
    "missing_frames": "frames of the original that the output does not have",
    "extra_frames": "frames of the output that the original does not have",
    "shifted_frames": "frames with another time than in the original",
    "repeated_frames": "frames that show the picture before once more",
    "unmatched_frames": "frames that show another place than the original, or too little of its own to tell",
    "unseen_frames": "frames that could not be decoded, or that detectors could not look at",
    "streams_left": "audio, subtitles, data, attachments, cover and further pictures",
    "metadata_left": "entries about place, device, time or title",
    "report_faults": "frames for which the run's report is wrong",
    "extra_files": "results without an original",
    "missing_files": "files without a result, or that could not be compared",
    "empty_files": "files in which detectors found nobody",
    "unreported": "frames with a face or person that the run's report does not have",
    "identity_switches": "stand-ins that became others",
    "flicker": "mean step of stand-ins' colours from frame to frame",
    "tlp": "mean difference between the perceptual steps of stand-ins and of their originals",
    "found_again": "share of faces and persons that detectors find in the output as well",
    "unjudged": "share of faces and persons without texture enough to tell",
    "similarity": "mean cosine between people and their stand-ins",
    "rank1": "share of stand-ins whose nearest original is their own",
    "map": "mean average precision of that search",
}
#: What must not be more, unless the user says otherwise.
DEFAULT_LIMITS: Final[Mapping[str, float]] = {
    "raw_area": 0.001,
    "raw_frames": 0,
    "missing_frames": 0,
    "extra_frames": 0,
    "shifted_frames": 0,
    "unmatched_frames": 0,
    "unseen_frames": 0,
    "streams_left": 0,
    "metadata_left": 0,
    "report_faults": 0,
    "missing_files": 0,
    "extra_files": 0,
    # Where most cannot be judged, nothing was shown.
    "unjudged": 0.5,
}


#: Share of a person from which on nothing is said of the rest.
_NEARLY_ALL: Final = 0.9


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was found.

    Attributes:
        measure: which of `MEASURES` it counts in.
        text: for people.
        file: which file it is about.
        frames: places of the first and last frame in the original, None if it is not about frames.
    """

    measure: str
    text: str
    file: str
    frames: tuple[int, int] | None = None


def parse_limits(given: Iterable[str]) -> dict[str, float]:
    """The defaults, with what was given as `measure=number`; `measure=off` removes a limit.

    Raises:
        UsageError: no such measure, or no number.
    """
    limits = dict(DEFAULT_LIMITS)
    for text in given:
        name, _, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if name not in MEASURES:
            raise UsageError(f"--fail-over {text}: nothing measured is called {name!r}: {did_you_mean(name, MEASURES)}")
        if value.strip() == "off":
            limits.pop(name, None)
            continue
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UsageError(f"--fail-over {text}: expected a number, as in {name}=0.001, or {name}=off")
        limits[name] = number
    return limits


def measure(files: Sequence[FileRecord], missing: int = 0, extra: int = 0) -> dict[str, float]:
    """All measures over all files; those that could not be taken are left out.

    Args:
        files: that were looked at.
        missing: how many originals have no result.
        extra: how many results have no original.
    """
    frames = [frame for file in files for frame in file.frames]
    regions = [region for frame in frames for region in frame.regions]
    area = sum(frame.area for frame in frames)
    values: dict[str, float] = {
        "raw_area": sum(frame.raw_area for frame in frames) / area if area else 0.0,
        "raw_frames": sum(bool(frame.raw) or _shows_damage(frame) for frame in frames),
        "missing_frames": sum(len(file.pairing.missing) for file in files),
        "extra_frames": sum(len(file.pairing.extra) for file in files),
        "shifted_frames": sum(_shifted(file) for file in files),
        "repeated_frames": sum(frame.repeated for frame in frames),
        "unmatched_frames": sum(frame.foreign for frame in frames),
        "unseen_frames": sum(_unseen(frame) for frame in frames) + sum(len(file.unread) for file in files),
        "streams_left": sum(len(file.streams) for file in files),
        "metadata_left": sum(len(file.metadata) for file in files),
        "report_faults": sum(max(1, len(claim.frames)) for file in files for claim in file.claims),
        "missing_files": missing + sum(file.error is not None for file in files),
        "extra_files": extra,
        "empty_files": sum(_empty(file) for file in files),
        "unreported": sum(len(file.unreported) for file in files),
        "identity_switches": sum(len(switches(file)) for file in files),
    }
    moved = [found for file in files if (found := flicker(file)).pairs]
    if moved:
        values["flicker"] = sum(found.mean * found.pairs for found in moved) / sum(found.pairs for found in moved)
    if regions:
        original = [region for region in regions if not region.only_after]
        values["found_again"] = sum(region.again for region in original) / max(1, len(original))
        values["unjudged"] = sum(not region.raw.judged for region in regions) / len(regions)
    return values | _perceptual(files) | _identity(files)


def passed(values: Mapping[str, float], limits: Mapping[str, float]) -> tuple[str, ...]:
    """Names of the measures that are over their limits."""
    return tuple(name for name, limit in limits.items() if values.get(name, 0.0) > limit)


def find(file: FileRecord) -> list[Finding]:
    """What was found in one file, in the order of the measures."""
    if file.error is not None:
        return [Finding("missing_files", file.error, file.name)]
    found = [*_raw(file), *_doubtful(file), *_timing(file), *_beside(file), *_report(file), *_steady(file)]
    order = list(MEASURES)
    return sorted(found, key=lambda finding: (order.index(finding.measure), finding.frames or (-1, -1)))


def spans(places: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending places as first and last of those that follow one another."""
    found: list[tuple[int, int]] = []
    for place in places:
        if found and place == found[-1][1] + 1:
            found[-1] = found[-1][0], place
        else:
            found.append((place, place))
    return found


def _shows_damage(frame: FrameRecord) -> bool:
    """Whether a picture that nobody could look at left as something else than a flat one."""
    return frame.damaged is not None and not frame.flat


def _unseen(frame: FrameRecord) -> bool:
    """Whether nobody knows what the output shows there."""
    return frame.lost is not None or not frame.looked


def _shifted(file: FileRecord) -> int:
    return len(file.pairing.shifted) or (len(file.pairing.pairs) if file.pairing.offset else 0)


def _perceptual(files: Sequence[FileRecord]) -> dict[str, float]:
    """The mean over the steps of all files."""
    known = [file.perceptual for file in files if file.perceptual is not None]
    if not known:
        return {}
    return {"tlp": weighted(known, lambda entry: entry.tlp)}


def _identity(files: Sequence[FileRecord]) -> dict[str, float]:
    """Means over files, each with the weight of its pictures."""
    known = [file.identity for file in files if file.identity is not None]
    values: dict[str, float] = {}
    for name, attribute in (("similarity", "similarity"), ("rank1", "rank1"), ("map", "mean_ap")):
        pairs = [(float(value), entry.pictures) for entry in known if (value := getattr(entry, attribute)) is not None]
        if pairs:
            values[name] = sum(value * weight for value, weight in pairs) / sum(weight for _, weight in pairs)
    return values


def _raw(file: FileRecord) -> Iterator[Finding]:
    whole = {frame.index for frame in file.frames if _all_raw(frame)}
    named: set[int] = set()
    for run in raw_runs(file):
        first, last = run.frames[0], run.frames[-1]
        where = _where(first, last)
        count = len(run.frames)
        # Whom the report has at once was found at once, and covered in part.
        if run.first and run.ends and not (run.known and run.most < _NEARLY_ALL):
            text = f"late first detection: {_who(run)} is raw in {_its_first(count)}, {where}, and covered after"
        elif all(frame.index in whole for frame in run.frames):
            # Said once for all who are in these frames.
            if run.frames[0].index in named:
                continue
            named |= {frame.index for frame in run.frames}
            text = f"{_frames(count)} left raw: nobody in {where} is covered"
        else:
            how = f", {run.most:.0%} at most," if run.most < _NEARLY_ALL else ""
            text = f"{_who(run)}{how} left raw in {_frames(count)}, {where}"
        yield Finding("raw_frames", text, file.name, (first.index, last.index))
    yield from _partly_raw(file)
    damaged = [frame.index for frame in file.frames if _shows_damage(frame)]
    for one, other in spans(damaged):
        text = f"{_frames(other - one + 1)} could not be decoded, and are not flat in the output: {_places(one, other)}"
        yield Finding("raw_frames", text, file.name, (one, other))


def _partly_raw(file: FileRecord) -> Iterator[Finding]:
    """Tracks of which less than a raw region's share is raw, and more than by chance."""
    for track, seen in tracks_of(file.frames).items():
        partly = [(frame, region) for frame, region in seen if region.share and not region.is_raw]
        if not partly:
            continue
        first, last = partly[0][0], partly[-1][0]
        most = max(region.share for _, region in partly)
        who = f"{_name(partly[0][1].kind)} (track {track})"
        text = f"a part of {who}, {most:.0%} at most, left raw in {_frames(len(partly))}, {_where(first, last)}"
        yield Finding("raw_area", text, file.name, (first.index, last.index))


def _all_raw(frame: FrameRecord) -> bool:
    judged = [region for region in frame.regions if region.raw.judged]
    return bool(judged) and all(region.is_raw for region in judged)


def _doubtful(file: FileRecord) -> Iterator[Finding]:
    """What does not show anybody raw, and proves nothing either."""
    if _empty(file):
        # Nothing raw was found, and nothing at all: that must not read as a proof.
        yield Finding("empty_files", "detectors found nobody in the original", file.name)
    for one, other in spans(frame.index for frame in file.frames if frame.foreign):
        text = f"{_places(one, other)} of the output do not show the original's place, or too little of it to tell"
        yield Finding("unmatched_frames", text, file.name, (one, other))
    for one, other in spans(frame.index for frame in file.frames if frame.regions and not _judged(frame)):
        text = f"nobody in {_places(one, other)} has texture enough to tell whether it is raw"
        yield Finding("unjudged", text, file.name, (one, other))


def _empty(file: FileRecord) -> bool:
    seen = any(frame.looked and frame.damaged is None and frame.lost is None for frame in file.frames)
    return seen and not any(frame.regions for frame in file.frames)


def _judged(frame: FrameRecord) -> bool:
    return any(region.raw.judged for region in frame.regions)


def _timing(file: FileRecord) -> Iterator[Finding]:
    pairing = file.pairing
    if pairing.offset:
        yield Finding("shifted_frames", f"all frames are {pairing.offset:+.3f} s off their times", file.name)
    for place, seconds in pairing.shifted:
        index = pairing.pairs[place][0]
        yield Finding("shifted_frames", f"frame {index} is {seconds:+.4f} s off its time", file.name, (index, index))
    for one, other in spans(pairing.missing):
        count = other - one + 1
        text = f"{_frames(count)} missing in the output: {_places(one, other)}"
        yield Finding("missing_frames", text, file.name, (one, other))
    for one, other in spans(pairing.extra):
        count = other - one + 1
        text = f"{_frames(count)} too many in the output: there, {_places(one, other)}"
        yield Finding("extra_frames", text, file.name)
    for one, other in spans(frame.index for frame in file.frames if frame.repeated):
        text = f"the picture before is shown once more in {_places(one, other)}"
        yield Finding("repeated_frames", text, file.name, (one, other))
    for one, other in spans(frame.index for frame in file.frames if _unseen(frame)):
        text = f"{_places(one, other)} could not be decoded in the output, or not be looked at"
        yield Finding("unseen_frames", text, file.name, (one, other))
    for text in file.unread:
        yield Finding("unseen_frames", text, file.name)


def _beside(file: FileRecord) -> Iterator[Finding]:
    for name in file.streams:
        yield Finding("streams_left", f"left in the output: {name}", file.name)
    for name in file.metadata:
        yield Finding("metadata_left", f"left in the output: {name}", file.name)


def _report(file: FileRecord) -> Iterator[Finding]:
    for claim in file.claims:
        runs = spans(sorted(claim.frames))
        places = ", ".join(_places(one, other) for one, other in runs[:5]) + (" ..." if len(runs) > 5 else "")
        text = f"the run's report: {claim.what}{': ' if runs else ''}{places}"
        yield Finding("report_faults", text, file.name, (runs[0][0], runs[-1][1]) if runs else None)
    for one, other in spans(file.unreported):
        text = f"a face or person in {_places(one, other)} is not in the run's report"
        yield Finding("unreported", text, file.name, (one, other))


def _steady(file: FileRecord) -> Iterator[Finding]:
    for switch in switches(file):
        text = (
            f"identity switch: {_name(switch.kind)} (track {switch.track}) has another stand-in from frame "
            f"{switch.index} on ({switch.time:.2f} s); its colours jump by {switch.jump:.0%}, the original's by "
            f"{switch.original:.0%}"
        )
        yield Finding("identity_switches", text, file.name, (switch.index, switch.index))


def _name(kind: Kind) -> str:
    return f"a {kind.label}"


def _who(run: Run) -> str:
    return f"{_name(run.kind)} (track {run.track})"


def _frames(count: int) -> str:
    return "one frame" if count == 1 else f"{count} frames"


def _its_first(count: int) -> str:
    return "its first frame" if count == 1 else f"its first {count} frames"


def _places(one: int, other: int) -> str:
    return f"frame {one}" if one == other else f"frames {one} to {other}"


def _where(first: FrameRecord, last: FrameRecord) -> str:
    if first is last:
        return f"{_places(first.index, last.index)} ({first.time:.2f} s)"
    return f"{_places(first.index, last.index)} ({first.time:.2f} to {last.time:.2f} s)"
