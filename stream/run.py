"""One run: from settings, an input and an output to a finished file. What `standin run` does, without the terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

from engines.errors import SourceError, UsageError
from stream.address import Address
from stream.anonymizer import Anonymized, Anonymizer
from stream.config import AnonymizerSettings, RunSettings
from stream.contact_sheet import ContactSheet
from stream.pipeline import Observer, Pipeline, Summary
from stream.report import ReportWriter
from stream.sinks.base import Sink
from stream.sinks.images import ImageSink
from stream.sinks.network import NetworkSink, SinkOptions
from stream.sinks.target import check_target
from stream.sinks.video import VideoSink
from stream.slate import LastPicture
from stream.sources.base import Source, StreamInfo
from stream.sources.connection import Peer
from stream.sources.decoder import DEPENDENT, FAILED
from stream.sources.images import ENDINGS, ImageSource
from stream.sources.live import LiveOptions, LiveSource
from stream.sources.video import VideoSource
from stream.stitch import draw_regions

#: Names that nobody gives to a folder of images.
_FILE_ENDINGS = ENDINGS | {".avi", ".gif", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".ogv", ".ts", ".webm"}


#: Bytes of frames that may wait for later ones.
_MOST_WAITING = 2 * 2**30
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
    """

    summary: Summary
    problems: tuple[str, ...]
    dropped: tuple[str, ...]
    notes: tuple[str, ...]


def run(
    source_at: Path | Address,
    output: Path | Address,
    settings: RunSettings,
    *,
    on_start: Callable[[StreamInfo, Pipeline], None] | None = None,
    on_frame: Observer | None = None,
    anonymizer: Anonymizer | None = None,
) -> RunResult:
    """Anonymize a file, a folder of images, or a live source until it ends or is stopped.

    Args:
        source_at: a video, an image or a folder of images; or the address of one, of a camera or of a network stream.
        output: where the result goes: a file, which is complete or not there at all, or the address of a server.
        settings: of the run.
        on_start: called once with what is known of the input, and with the pipeline, so that it can be stopped.
        on_frame: called after every frame that was written.
        anonymizer: to use instead of the one that the settings describe.

    Raises:
        UsageError: input, output or settings cannot be meant.
        StandinError: it cannot be done; nothing is left under the output's final name. Where only the report or the
            contact sheet cannot be written, the finished output stays.
    """
    source_at, output = _plain(source_at), _plain(output)
    live = isinstance(source_at, Address)
    still = isinstance(source_at, Path) and _is_still(source_at)
    settings = _for_stills(settings) if still else settings
    _check_live(settings, live=live)
    _check_paths(source_at, output, settings, still=still)
    pipeline: Pipeline | None = None
    with contextlib.ExitStack() as stack:
        covering = anonymizer or stack.enter_context(Anonymizer.from_settings(settings, offline=not live))
        source = _open_source(source_at, settings, still=still)
        stack.callback(lambda: None if pipeline and pipeline.reading else source.close())
        report = None
        if settings.report is not None:
            report = ReportWriter(settings.report, settings, source.info, covering)
            stack.callback(report.abort)
        sheet = ContactSheet() if settings.contact_sheet else None
        observers = [o for o in (on_frame, report and report.add, sheet and sheet.add) if o]
        _check_lookahead(source.info, covering.settings.lookahead)
        sink = _open_sink(source_at, output, source.info, settings, still=still)
        stack.callback(sink.abort)
        waiting = {"waiting": _LIVE_WAITING} if live else {}
        pipeline = Pipeline(source, covering, sink, observers=observers, mark=_mark(settings, covering), **waiting)
        if not (isinstance(source_at, Path) and source_at.is_dir()):
            # Images in a folder have sizes of their own.
            covering.prepare(source.info.width, source.info.height)
        if on_start is not None:
            on_start(source.info, pipeline)
        summary = pipeline.run()
        if report is not None:
            report.close(summary, source.problems(), source.side_exits())
        if sheet is not None and settings.contact_sheet is not None and summary.frames:
            sheet.write(settings.contact_sheet, overwrite=settings.overwrite)
        return RunResult(
            summary, source.problems(), source.side_exits(), _notes(source, sink, summary, settings, covering)
        )


def _plain(at: Path | Address) -> Path | Address:
    """A file's address as a path."""
    return at.path if isinstance(at, Address) and not at.live else at


def _is_still(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"no such file or folder: {path}") from error
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    return path.is_dir() or path.suffix.lower() in ENDINGS


def _for_stills(settings: RunSettings) -> RunSettings:
    """Images in a folder have nothing to do with each other, unless the user says so by giving hold or lookahead."""
    if settings.start is not None or settings.end is not None:
        raise UsageError("--start and --end are for video; the input is an image or a folder of images")
    unset = {"hold": 0, "lookahead": 0}.items()
    return settings.model_copy(update={k: v for k, v in unset if k not in settings.model_fields_set})


def _check_live(settings: RunSettings, *, live: bool) -> None:
    if not live:
        return
    if settings.start is not None or settings.end is not None:
        raise UsageError("--start and --end are for files; a live source begins now and ends when it is stopped")
    if settings.audio == "keep":
        raise UsageError("--audio keep is for files; the sound of a live source is dropped")
    if settings.detections is not None:
        raise UsageError("--detections is for files; what a live source shows never comes again")


def _check_output(source: Path | Address, output: Path | Address, settings: RunSettings, *, still: bool) -> None:
    """Whether the output can be meant for this input."""
    inputs = (source,) if isinstance(source, Path) else ()
    folder = isinstance(source, Path) and source.is_dir()
    if isinstance(output, Address):
        if still:
            raise UsageError(f"images cannot be sent to {output}; give a file or a folder for them")
        if settings.audio == "keep":
            raise UsageError("--audio keep is for files; no sound is sent to a server")
        return
    if folder:
        if output.suffix.lower() in _FILE_ENDINGS:
            raise UsageError(f"the input {source} is a folder, so the output {output.name!r} must be one too")
    else:
        check_target(output, overwrite=settings.overwrite, inputs=inputs)
    if still != (output.suffix.lower() in ENDINGS) and not folder:
        expected = "an image" if still else "a video"
        raise UsageError(f"the input is {expected}, so the output {output.name!r} must be one too")


def _check_paths(source: Path | Address, output: Path | Address, settings: RunSettings, *, still: bool) -> None:
    _check_output(source, output, settings, still=still)
    inputs = (source,) if isinstance(source, Path) else ()
    written = (output,) if isinstance(output, Path) else ()
    extras = {"--report": settings.report, "--contact-sheet": settings.contact_sheet}
    for option, path in extras.items():
        if path is None:
            continue
        check_target(path, overwrite=settings.overwrite, inputs=inputs)
        if path.resolve() in {result.resolve() for result in written}:
            raise UsageError(f"{option} and the output are the same file: {path}")
    if settings.contact_sheet and settings.contact_sheet.suffix.lower() != ".png":
        raise UsageError(
            f"--contact-sheet writes PNG, so its name must end in .png, got {settings.contact_sheet.name!r}"
        )
    if settings.detections and settings.detections.resolve() in {
        path.resolve() for path in (*inputs, *written, *extras.values()) if path is not None
    }:
        raise UsageError(
            f"--detections is the input or an output, too: {settings.detections}; give it a file of its own"
        )
    if settings.report and settings.contact_sheet and settings.report.resolve() == settings.contact_sheet.resolve():
        raise UsageError(f"--report and --contact-sheet are the same file: {settings.report}")


def _open_source(path: Path | Address, settings: RunSettings, *, still: bool) -> Source:
    if isinstance(path, Address):
        return LiveSource(path, live_options(settings))
    if still:
        return ImageSource(path)
    try:
        return VideoSource(path, start=settings.start, end=settings.end, strict=settings.decoding == "strict")
    except PermissionError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error


def live_options(settings: RunSettings) -> LiveOptions:
    """How a live source is read, as the settings say."""
    return LiveOptions(
        peer=Peer(
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.read_timeout,
            rtsp_transport=settings.rtsp_transport,
            insecure=settings.insecure,
        ),
        attempts=settings.reconnect_attempts,
        when_lost=settings.when_lost,
        budget=settings.latency_budget / 1000,
        strict=settings.decoding == "strict",
    )


def sink_options(settings: RunSettings) -> SinkOptions:
    """How a server is written to, as the settings say."""
    return SinkOptions(timeout=settings.sink_timeout, attempts=settings.reconnect_attempts, insecure=settings.insecure)


def _open_sink(
    source: Path | Address, output: Path | Address, info: StreamInfo, settings: RunSettings, *, still: bool
) -> Sink:
    if isinstance(output, Address):
        return NetworkSink(
            output, info, sink_options(settings), codec=settings.codec, crf=settings.crf, speed=settings.speed
        )
    keep = settings.metadata == "keep"
    if still and isinstance(source, Path):
        return ImageSink(output, folder=source.is_dir(), overwrite=settings.overwrite, inputs=source, metadata=keep)
    return VideoSink(
        output,
        info,
        codec=settings.codec,
        crf=settings.crf,
        speed=settings.speed,
        overwrite=settings.overwrite,
        metadata=keep,
        audio_from=source if settings.audio == "keep" and isinstance(source, Path) else None,
        start=settings.start,
    )


def _check_lookahead(info: StreamInfo, lookahead: int) -> None:
    """Frames that wait for later ones wait in memory, uncompressed."""
    frame = info.width * info.height * 3
    if lookahead * frame > _MOST_WAITING:
        raise UsageError(
            f"lookahead={lookahead} keeps {lookahead * frame / 2**30:.1f} GiB of {info.width}x{info.height} frames in "
            f"memory; use at most {_MOST_WAITING // frame}"
        )


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
    source: Source, sink: Sink, summary: Summary, settings: RunSettings, covering: Anonymizer
) -> tuple[str, ...]:
    notes, manual, info = [], covering.manual, source.info
    if isinstance(source, LiveSource):
        notes.append(f"{source.dropped} pictures came too late to be looked at; {source.reconnects} reconnects")
    if isinstance(sink, NetworkSink):
        notes.append(f"{sink.dropped} frames did not reach the server; {sink.reconnects} reconnects")
    if (counts := covering.detections) is not None:
        notes.append(f"detections of {counts.read} frames were read from {settings.detections}, {counts.detected} made")
    if manual is not None and manual.never_applied:
        notes.append(f"{manual.never_applied} of {len(manual)} regions given by hand lie outside the clip's time")
    if info.bits > 8:
        notes.append(f"the input has {info.bits} bits a sample; the output has 8")
    if settings.decoding == "strict" and {FAILED, DEPENDENT} & set(summary.reasons):
        notes.append("if the file plays without damage elsewhere, --decoding lenient withholds fewer pictures")
    return tuple(notes)
