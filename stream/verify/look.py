"""An independent look at a result: what `standin verify` does, without the terminal.

Detectors that had no part in the run look for faces and persons in the original and in the output. How raw pixels are
told from others is said in `stream.verify.raw`, how stand-ins are followed in `stream.verify.tracks`, how people are
recognised in `stream.verify.identity`, how much stand-ins change in `stream.verify.perceptual`, what a report claims in
`stream.verify.run_report`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from engines.errors import BundleError, SinkError, SourceError, UsageError
from engines.store import Store
from stream.networks import NetworkSettings
from stream.regions import Kind
from stream.report import versions
from stream.sinks.target import Target
from stream.verify.file import FileTools, Progress, look_at
from stream.verify.findings import DEFAULT_LIMITS, MEASURES, Finding, find, measure, passed
from stream.verify.identity import Embedder, EmbeddingSettings
from stream.verify.pairs import FilePair, pair_files
from stream.verify.people import Lookout, LookSettings, choose_detectors
from stream.verify.perceptual import PerceptualLook
from stream.verify.record import Claim, FileRecord
from stream.verify.run_report import RunReport, all_bundles, find_run_report, read_run_report
from stream.verify.tracks import flicker

SCHEMA_VERSION: Final = 1
#: Worst cases of which pictures are kept.
_CASES: Final = 12


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """What a look at a result can be told.

    Attributes:
        look: how faces and persons are found.
        every: of so many frames of the original one is compared.
        embedding: a network that tells people apart, None for none.
        perceptual: a network that tells how far pictures look apart, None for none.
        run_report: the run's report, or a folder with one for each file, called as the file with `.report.json` after.
        limits: of measures, by name; more than that is a fault.
    """

    look: LookSettings = field(default_factory=LookSettings)
    every: int = 1
    embedding: EmbeddingSettings | None = None
    perceptual: NetworkSettings | None = None
    run_report: Path | None = None
    limits: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_LIMITS))


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        original: as given.
        anonymized: as given.
        settings: as given.
        detectors: names of those that looked.
        of_the_run: names of the engines that the run's report names.
        files: in order of their names.
        missing: originals without a result.
        extra: results without an original.
        kinds: what they looked for.
        networks: of the user's own that looked, by their options: file and hash.
        measures: by name; those that could not be taken are not there.
        findings: of all files, in their order.
        faults: names of the measures that passed their limits.
    """

    original: Path
    anonymized: Path
    settings: VerifySettings
    detectors: tuple[str, ...]
    of_the_run: tuple[str, ...]
    files: tuple[FileRecord, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    kinds: tuple[Kind, ...]
    networks: Mapping[str, str]
    measures: Mapping[str, float]
    findings: tuple[Finding, ...]
    faults: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether no limit was passed."""
        return not self.faults


def verify(
    original: Path,
    anonymized: Path,
    settings: VerifySettings,
    store: Store,
    *,
    progress: Progress = lambda _name, _done, _all: None,
) -> Verification:
    """Compare an original with what was made of it: two files, or two folders by the paths below them.

    In a folder, a file that cannot be compared is a finding and the others are looked at all the same.

    Args:
        original: file or folder.
        anonymized: likewise.
        settings: what is looked for, and what is too much.
        store: where detectors are.
        progress: is told how far it is.

    Raises:
        UsageError: what was given cannot be meant: nothing there, no detector, no frames that belong together.
        SourceError: a single file cannot be read, or its pictures have another size.
        BundleError: a detector or the network is not what it should be.
    """
    _check_limits(settings)
    found = pair_files(original, anonymized)
    reports = _read_reports(found.pairs, settings.run_report)
    of_the_run = all_bundles(reports.values())
    bundles = choose_detectors(settings.look, store, of_the_run)
    embedder = None if settings.embedding is None else Embedder(settings.embedding)
    perceptual = None if settings.perceptual is None else PerceptualLook(settings.perceptual)
    lookout = Lookout(bundles, settings.look)
    try:
        tools = FileTools(lookout, embedder, perceptual, settings.every, progress)
        single = not original.is_dir()
        files: list[FileRecord] = []
        for pair in found.pairs:
            file = _look_at(pair, tools, reports.get(pair.name), single=single)
            if settings.run_report is not None and pair.name not in reports:
                file.claims.append(Claim("there is none of this file"))
            files.append(file)
            _keep_worst(files)
    finally:
        lookout.close()
    values = measure(files, len(found.missing), len(found.extra))
    findings = [finding for file in files for finding in find(file)]
    findings += [Finding("missing_files", "there is no result of this file", name) for name in found.missing]
    findings += [Finding("extra_files", "there is no original of this result", name) for name in found.extra]
    findings += [
        Finding(name, f"{name} could not be taken, so its limit was not looked at", original.name)
        for name in settings.limits
        if name not in values and name not in DEFAULT_LIMITS
    ]
    return Verification(
        original=original,
        anonymized=anonymized,
        settings=settings,
        detectors=tuple(bundle.manifest.name for bundle in bundles),
        of_the_run=tuple(sorted(of_the_run)),
        files=tuple(files),
        missing=found.missing,
        extra=found.extra,
        kinds=lookout.kinds,
        networks={
            option: network.name
            for option, network in (("embedding", embedder), ("perceptual", perceptual))
            if network is not None
        },
        measures=values,
        findings=tuple(findings),
        faults=passed(values, settings.limits),
    )


def to_json(result: Verification) -> dict[str, Any]:
    """The result as plain values; no picture and no metadata's value is in it."""
    limits = result.settings.limits
    return {
        "schema_version": SCHEMA_VERSION,
        "original": result.original.name,
        "anonymized": result.anonymized.name,
        "clean": result.clean,
        "faults": list(result.faults),
        "detectors": list(result.detectors),
        "of_the_run": list(result.of_the_run),
        "networks": dict(result.networks),
        "every": result.settings.every,
        "threshold": result.settings.look.threshold,
        "detect_size": result.settings.look.detect_size,
        "tiles": result.settings.look.tiles,
        "kinds": [kind.label for kind in result.kinds],
        "versions": versions(),
        "measures": {
            name: {"value": value, "limit": limits.get(name), "meaning": MEASURES[name]}
            for name, value in result.measures.items()
        },
        "findings": [asdict(finding) for finding in result.findings],
        "missing_files": list(result.missing),
        "extra_files": list(result.extra),
        "files": [_file(file) for file in result.files],
    }


def write_text(path: Path, text: str, *, overwrite: bool) -> None:
    """Puts a report in its place, whole or not at all.

    Raises:
        SinkError: it cannot be written.
    """
    target = Target(path, overwrite=overwrite)
    try:
        target.temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        target.discard()
        raise SinkError(f"cannot write {path}: {error.strerror or error}") from error
    target.commit()


def json_text(result: Verification) -> str:
    """The result as JSON."""
    return json.dumps(to_json(result), indent=1) + "\n"


def _read_reports(pairs: tuple[FilePair, ...], place: Path | None) -> dict[str, RunReport]:
    """By the files' names."""
    if place is None:
        return {}
    read: dict[Path, RunReport] = {}
    found: dict[str, RunReport] = {}
    for pair in pairs:
        path = find_run_report(place, pair.name, str(Path(pair.name).with_suffix(pair.anonymized.suffix)))
        if path is None:
            continue
        if path not in read:
            read[path] = read_run_report(path)
        found[pair.name] = read[path].of(pair.name)
    return found


def _look_at(pair: FilePair, tools: FileTools, report: RunReport | None, *, single: bool) -> FileRecord:
    try:
        return look_at(pair, tools, report)
    except (SourceError, UsageError, BundleError) as error:
        if single:
            raise
        # Reports go to others, whom it does not concern where files are here.
        text = str(error).replace(str(pair.original), pair.name).replace(str(pair.anonymized), f"{pair.name}'s result")
        return FileRecord(pair.name, error=text)


def _check_limits(settings: VerifySettings) -> None:
    """See that what is limited can be measured."""
    for option, given, names in (
        ("--perceptual", settings.perceptual, ("tlp",)),
        ("--embedding", settings.embedding, ("similarity", "rank1", "map")),
    ):
        if given is None and (limited := [name for name in names if name in settings.limits]):
            raise UsageError(f"--fail-over {limited[0]} needs a network: {option} FILE")


def _keep_worst(files: Sequence[FileRecord]) -> None:
    """Pictures are kept of the worst cases of all files alone: there may be thousands of files."""
    cases = sorted((case for file in files for case in file.cases), key=lambda case: -case.badness)
    if len(cases) > _CASES:
        limit = cases[_CASES - 1].badness
        for file in files:
            file.cases = [case for case in file.cases if case.badness >= limit]


def _file(file: FileRecord) -> dict[str, Any]:
    moved = flicker(file)
    return {
        "name": file.name,
        "error": file.error,
        "size": list(file.size),
        "frames_original": file.times[0],
        "frames_output": file.times[1],
        "moved_back": file.moved,
        "measures": measure([file]),
        "flicker": {"steps": moved.pairs, "mean": moved.mean, "worst": moved.worst, "original": moved.original},
        "identity": None if file.identity is None else asdict(file.identity),
        "perceptual": None if file.perceptual is None else asdict(file.perceptual),
        "frames": [
            {
                "index": frame.index,
                "time": round(frame.time, 6),
                "raw_area": round(frame.raw_share, 4),
                "found": frame.found,
                "flat": frame.flat,
                "looked": frame.looked,
                "unmatched": frame.foreign,
                "noise": round(frame.noise, 2),
                "regions": [
                    {
                        "kind": region.kind.label,
                        "box": [round(value, 1) for value in region.box],
                        "score": round(region.score, 3),
                        "track": region.track,
                        "raw": round(region.share, 4) if region.raw.judged else None,
                        "again": region.again,
                        "only_after": region.only_after,
                        "reported": region.reported,
                    }
                    for region in frame.regions
                ],
            }
            for frame in file.frames
        ],
    }
