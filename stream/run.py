"""One run: from settings, an input and outputs to finished files. What `standin run` does, without the terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Protocol

from stream.address import Address, Place
from stream.anonymizer import Anonymized, Anonymizer
from stream.config import AnonymizerSettings, RunSettings
from stream.contact_sheet import ContactSheet
from stream.endpoints import open_sinks, open_source
from stream.metrics import Meter, Snapshot
from stream.pipeline import Observer, Pipeline, Summary
from stream.pulse import Pulse
from stream.report import ReportWriter
from stream.report_lines import ReportLines
from stream.run_checks import LINES, check_lookahead, check_run, for_stills, is_still
from stream.sinks.base import Sink
from stream.sinks.network import NetworkSink
from stream.sinks.several import SeveralSinks
from stream.slate import LastPicture
from stream.sources.base import Source, StreamInfo
from stream.sources.decoder import DEPENDENT, FAILED
from stream.sources.live import LiveSource
from stream.sources.real_time import RealTime
from stream.stitch import draw_regions
from stream.watch import Connected, Watch

#: Frames of a live source that may wait between two stages.
_LIVE_WAITING = 1


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run did.

    Attributes:
        summary: counts and times.
        problems: what could not be read.
        dropped: what was in the input and did not go on.
        notes: what the user should know about the output.
        snapshot: rates and latencies at the end, None where nothing measured them.
    """

    summary: Summary
    problems: tuple[str, ...]
    dropped: tuple[str, ...]
    notes: tuple[str, ...]
    snapshot: Snapshot | None = None


class _Report(Protocol):
    """What is written about every frame, as one JSON object or as lines."""

    def add(self, item: Anonymized) -> None: ...

    def close(
        self, summary: Summary, problems: tuple[str, ...], dropped: tuple[str, ...], last: Snapshot | None = None
    ) -> None: ...

    def abort(self) -> None: ...


def run(
    source_at: Path | Address,
    output: Path | Address | Sequence[Path | Address],
    settings: RunSettings,
    *,
    on_start: Callable[[StreamInfo, Pipeline], None] | None = None,
    on_frame: Observer | None = None,
    on_watch: Callable[[Watch], None] | None = None,
    on_source: Callable[[str | None], None] = lambda _: None,
    anonymizer: Anonymizer | None = None,
) -> RunResult:
    """Anonymize a file, a folder of images, or a live source until it ends or is stopped.

    Args:
        source_at: a video, an image or a folder of images; or the address of one, of a camera, of a network stream, of
            a pipeline or of a pipe.
        output: where the result goes, one or several: a file, which is complete or not there at all, a folder of
            segments, or the address of a server, a pipeline or a pipe.
        settings: of the run.
        on_start: called once with what is known of the input, and with the pipeline, so that it can be stopped.
        on_frame: called after every frame that was written.
        on_watch: called once with what can be asked of the run while it goes on.
        on_source: called with why a live source is away, without secrets, when that changes, also before its first
            picture, and with None when it is there; by another thread, which waits for it.
        anonymizer: to use instead of the one that the settings describe.

    Raises:
        UsageError: input, outputs or settings cannot be meant.
        StandinError: it cannot be done; nothing is left under a file's final name. Where only the report or the
            contact sheet cannot be written, the finished output stays.
    """
    source_at, outputs = _addresses(source_at), tuple(map(_addresses, _several(output)))
    live = source_at.live
    still = source_at.place is Place.FILE and is_still(source_at.path)
    settings = for_stills(settings) if still else settings
    check_run(source_at, outputs, settings, still=still)
    pipeline: Pipeline | None = None
    with contextlib.ExitStack() as stack:
        covering = anonymizer or stack.enter_context(Anonymizer.from_settings(settings, offline=not live))
        source = open_source(source_at, settings, still=still, on_change=on_source)
        if source_at.place is Place.FILE and any(output.place is Place.NETWORK for output in outputs):
            source = RealTime(source)
        stack.callback(lambda: None if pipeline and pipeline.reading else source.close())
        report = _open_report(settings, source.info, covering)
        if report is not None:
            stack.callback(report.abort)
        sheet = ContactSheet() if settings.contact_sheet else None
        check_lookahead(source.info, covering.settings.lookahead)
        sinks = open_sinks(source_at, outputs, source.info, settings, still=still)
        sink = sinks[0] if len(sinks) == 1 else SeveralSinks(sinks)
        stack.callback(sink.abort)
        observers = [o for o in (on_frame, report and report.add, sheet and sheet.add) if o]
        names = tuple(map(str, outputs))
        pipeline, watch = _build(source, covering, sink, sinks, observers, settings, names)
        if not (still and source_at.path.is_dir()):
            # Images in a folder have sizes of their own.
            covering.prepare(source.info.width, source.info.height)
        if on_watch is not None:
            on_watch(watch)
        if on_start is not None:
            on_start(source.info, pipeline)
        summary = pipeline.run()
        if report is not None:
            report.close(summary, source.problems(), source.side_exits(), watch.snapshot())
        if sheet is not None and settings.contact_sheet is not None and summary.frames:
            sheet.write(settings.contact_sheet, overwrite=settings.overwrite)
        notes = _notes(source, dict(zip(outputs, sinks, strict=True)), summary, settings, covering)
        return RunResult(summary, source.problems(), source.side_exits(), notes, watch.snapshot())


def _addresses(at: Path | Address) -> Address:
    return at if isinstance(at, Address) else Address(Place.FILE, str(at))


def _several(output: Path | Address | Sequence[Path | Address]) -> Sequence[Path | Address]:
    return [output] if isinstance(output, (Path, Address)) else output


def _open_report(settings: RunSettings, info: StreamInfo, covering: Anonymizer) -> _Report | None:
    if settings.report is None:
        return None
    if settings.report.suffix.lower() == LINES:
        return ReportLines(settings.report, settings, info, covering, rotate=settings.report_rotate)
    return ReportWriter(settings.report, settings, info, covering)


def _build(
    source: Source,
    covering: Anonymizer,
    sink: Sink,
    sinks: Sequence[Sink],
    observers: Sequence[Observer],
    settings: RunSettings,
    names: Sequence[str],
) -> tuple[Pipeline, Watch]:
    """The pipeline between the ends, and what watches it."""
    meter = Meter()
    mark = _mark(settings, covering)
    if isinstance(source, LiveSource):
        covering.in_haste = lambda: source.pace.simple
        pulse = Pulse(source.info.rate)
        pipeline = Pipeline(
            source, covering, sink, observers=[meter, *observers], mark=mark, waiting=_LIVE_WAITING, pulse=pulse
        )
    else:
        pipeline = Pipeline(source, covering, sink, observers=[meter, *observers], mark=mark)
    return pipeline, Watch(source, sinks, pipeline, meter, names=names)


def _mark(settings: RunSettings, covering: Anonymizer) -> Callable[[Anonymized], Anonymized] | None:
    """What changes anonymized pictures before they are written."""
    marks: list[Callable[[Anonymized], Anonymized]] = [LastPicture()] if settings.when_lost == "hold" else []
    if settings.show_regions:
        marks.append(_marker(covering.settings))
    return (lambda item: reduce(lambda changed, mark: mark(changed), marks, item)) if marks else None


def _marker(settings: AnonymizerSettings) -> Callable[[Anonymized], Anonymized]:
    def mark(item: Anonymized) -> Anonymized:
        drawn = draw_regions(item.image, item.regions, margin=settings.margin, shape=settings.shape)
        return replace(item, frame=item.frame.with_image(drawn))

    return mark


def _notes(
    source: Source,
    sinks: Mapping[Address, Sink],
    summary: Summary,
    settings: RunSettings,
    covering: Anonymizer,
) -> tuple[str, ...]:
    notes, manual, info = [], covering.manual, source.info
    if isinstance(source, LiveSource):
        notes.append(f"{source.dropped} pictures came too late to be looked at; {source.reconnects} reconnects")
    if summary.superseded:
        notes.append(f"{summary.superseded} frames came when withheld ones had taken their time")
    for output, sink in sinks.items():
        if isinstance(sink, Connected):
            notes.append(f"{sink.dropped} frames did not reach {output}; {sink.reconnects} reconnects")
        if isinstance(sink, NetworkSink) and sink.spooled:
            notes.append(f"{sink.spooled} frames were kept while {output} was away")
    if (counts := covering.detections) is not None:
        notes.append(f"detections of {counts.read} frames were read from {settings.detections}, {counts.detected} made")
    if manual is not None and manual.never_applied:
        notes.append(f"{manual.never_applied} of {len(manual)} regions given by hand lie outside the clip's time")
    if info.bits > 8:
        notes.append(f"the input has {info.bits} bits a sample; the output has 8")
    if settings.decoding == "strict" and {FAILED, DEPENDENT} & set(summary.reasons):
        notes.append("if the file plays without damage elsewhere, --decoding lenient withholds fewer pictures")
    return tuple(notes)
