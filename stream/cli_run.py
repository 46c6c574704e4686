"""`standin run`: one stream, from options to an exit code."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from rich.console import Console

from engines.errors import StandinError
from engines.runtime import Device
from stream import logs
from stream.address import input_address, output_address
from stream.config import (
    Backend,
    Classical,
    DecoderDevice,
    OnFailure,
    RunSettings,
    Treatment,
    WhenLost,
    make_settings,
    read_config,
)
from stream.detectors.graphs import DetectorPrecision
from stream.generators.open import Precision
from stream.logs import LogFormat
from stream.pace import WhenSlow
from stream.pipeline import Pipeline
from stream.presets import PRESETS
from stream.progress import RunProgress, render_summary
from stream.report import summary_line
from stream.roles import Context
from stream.run import RunResult, run
from stream.signals import Signals
from stream.sources.base import StreamInfo
from stream.stitch import Shape
from stream.terminal import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_WITHHELD, error_console, say

_log = logging.getLogger(__name__)

_FINISHING: Final = "finishing what is begun; press Ctrl-C again to give it up"
_GIVEN_UP: Final = "interrupted; what was not finished is not there, or as it was"

#: Seventy options in one list are more than anybody reads: each is shown under what it is about, and stands under the
#: same heading in docs/run.md. What concerns a run as a whole stays in the list without a heading.
_engines: Final = partial(typer.Option, rich_help_panel="Engines")
_covering: Final = partial(typer.Option, rich_help_panel="How people are covered")
_finding: Final = partial(typer.Option, rich_help_panel="How people are found and followed")
_reading: Final = partial(typer.Option, rich_help_panel="Input")
_writing: Final = partial(typer.Option, rich_help_panel="Output")
_live: Final = partial(typer.Option, rich_help_panel="Live sources and servers")


def _default(name: str) -> str:
    value = RunSettings.model_fields[name].default
    others = any(name in preset.settings for preset in PRESETS.values())
    # Round brackets: square ones would be markup, and vanish.
    return f"(default: {value}{', or as the preset has it' if others else ''})"


def run_command(
    input_path: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A video, an image or a folder of images; or live: rtsp://, rtmp://, srt://, udp://, http://, "
            "/dev/videoN or gst:PIPELINE; or - for standard input.",
        ),
    ],
    outputs: Annotated[
        list[str],
        typer.Argument(
            metavar="OUTPUT...",
            help="The result, one or several: a file, or a folder for images and for segments; a server: rtsp://, "
            "rtmp://, srt://, udp://; our own: rtsp-server://; gst:PIPELINE, or - for standard output.",
        ),
    ],
    preset: Annotated[
        str | None, _engines(help=f"{', '.join(PRESETS)}: which engines run, and how. {_default('preset')}")
    ] = None,
    detector: Annotated[
        list[str] | None,
        _engines(help="A detection bundle, by name or folder, instead of the preset's; may be given several times."),
    ] = None,
    engine: Annotated[
        list[str] | None,
        _engines(
            metavar="NAME=FOLDER",
            help="A bundle to run instead of the one that goes by NAME: a bundle's name, or what a generator replaces "
            "(face, person, person-cse); may be given several times.",
        ),
    ] = None,
    face: Annotated[Treatment | None, _covering(help=f"How faces are covered. {_default('face')}")] = None,
    person: Annotated[Treatment | None, _covering(help="How persons are covered. (default: as faces)")] = None,
    plate: Annotated[Treatment | None, _covering(help="How licence plates are covered. (default: as faces)")] = None,
    fallback: Annotated[
        Classical | None, _covering(help=f"What covers where no stand-in can be made. {_default('fallback')}")
    ] = None,
    context: Annotated[
        Context | None,
        _covering(help=f"Whether generators may see pixels of people who are still raw. {_default('context')}"),
    ] = None,
    truncation: Annotated[
        float | None,
        _covering(help="Of stand-ins, 0 to 1: less variety, fewer broken ones. (default: by generator)"),
    ] = None,
    seed: Annotated[int | None, _covering(help="For the same stand-ins in every run. (default: by chance)")] = None,
    cells: Annotated[int | None, _covering(help=f"Of pixelate: 8 or 16 across. {_default('cells')}")] = None,
    blur_radius: Annotated[
        float | None, _covering(help=f"Of blur, as a share of the region. {_default('blur_radius')}")
    ] = None,
    mask_colour: Annotated[
        str | None, _covering(help="Of mask, like #000000. (default: black, or as the preset has it)")
    ] = None,
    shape: Annotated[Shape | None, _covering(help=f"What is covered. {_default('shape')}")] = None,
    margin: Annotated[
        float | None,
        _covering(help=f"Every side of a region moves out by this share. {_default('margin')}"),
    ] = None,
    mask_margin: Annotated[
        float | None,
        _covering(
            help=f"Masks of persons move out by this share of the person's shorter side. {_default('mask_margin')}"
        ),
    ] = None,
    mask_frames: Annotated[
        int | None,
        _covering(help=f"Frames for which what a person's mask covered stays covered. {_default('mask_frames')}"),
    ] = None,
    join_faces: Annotated[
        bool | None,
        _covering(
            "--join-faces/--no-join-faces",
            help=f"Whether a face in a person is replaced with the person. {_default('join_faces')}",
        ),
    ] = None,
    device: Annotated[Device | None, _engines(help=f"Where engines run. {_default('device')}")] = None,
    engine_server: Annotated[
        Path | None, _engines(help="Socket of a process that runs the engines. (default: this process)")
    ] = None,
    precision: Annotated[Precision | None, _engines(help=f"Of generators. {_default('precision')}")] = None,
    detector_precision: Annotated[
        DetectorPrecision | None,
        _engines(
            help="Of detectors; auto: 8-bit integers on a CPU where a bundle has them. "
            f"{_default('detector_precision')}"
        ),
    ] = None,
    threads: Annotated[int | None, _engines(help="For the engines. (default: one per core)")] = None,
    hold: Annotated[
        int | None, _finding(help=f"Frames for which a missed track stays covered. {_default('hold')}")
    ] = None,
    remember: Annotated[
        int | None,
        _finding(
            help=f"Frames after --hold for which who is seen again gets the same stand-in. {_default('remember')}"
        ),
    ] = None,
    lookahead: Annotated[
        int | None,
        _finding(help=f"Frames before their first detection in which people are covered. {_default('lookahead')}"),
    ] = None,
    detect_size: Annotated[
        int | None, _finding(help=f"Longer side that detectors see, in pixels. {_default('detect_size')}")
    ] = None,
    tiles: Annotated[
        int | None,
        _finding(
            help="Look at N x N overlapping parts of each frame as well, for who is far away; takes 1 + N x N looks. "
            f"{_default('tiles')}"
        ),
    ] = None,
    threshold: Annotated[
        float | None, _finding(help=f"Score from which a detection counts. {_default('threshold')}")
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(help=f"Seconds a stage may take for a frame. {_default('deadline')}")
    ] = None,
    on_failure: Annotated[
        OnFailure | None, typer.Option(help=f"What to do with frames that fail. {_default('on_failure')}")
    ] = None,
    regions: Annotated[Path | None, _finding(help="CSV or JSON with regions to cover in any case.")] = None,
    detections: Annotated[
        Path | None, _finding(help="File that keeps detections: read where it has them, written where not.")
    ] = None,
    ignore_zones: Annotated[
        Path | None, _finding(help="JSON with polygons; what lies wholly in them stays as it is.")
    ] = None,
    only_zones: Annotated[
        Path | None, _finding(help="JSON with polygons; what touches none of them stays as it is.")
    ] = None,
    codec: Annotated[str | None, _writing(help="Encoder, any that PyAV has, or gpu. (default: by OUTPUT)")] = None,
    crf: Annotated[float | None, _writing(help="Quality of the encoder; lower is better.")] = None,
    speed: Annotated[str | None, _writing(help="Preset of the encoder, like veryfast.")] = None,
    audio: Annotated[
        Literal["drop", "keep"] | None, _writing(help=f"Voices identify people. {_default('audio')}")
    ] = None,
    metadata: Annotated[
        Literal["strip", "keep"] | None, _writing(help=f"GPS, device, times. {_default('metadata')}")
    ] = None,
    overwrite: Annotated[bool | None, _writing("--overwrite", help="Replace existing outputs.")] = None,
    report: Annotated[Path | None, _writing(help="Write what was covered as JSON.")] = None,
    contact_sheet: Annotated[Path | None, _writing(help="Write a sheet of anonymized frames as PNG.")] = None,
    show_regions: Annotated[
        bool | None, _writing("--show-regions", help="Draw what was found on the anonymized picture.")
    ] = None,
    decoding: Annotated[
        Literal["strict", "lenient"] | None,
        _reading(help=f"Withhold all pictures that may be damaged, or only the worst. {_default('decoding')}"),
    ] = None,
    decoder: Annotated[
        DecoderDevice | None,
        _reading(help=f"Who decodes; a GPU needs --decoding lenient. {_default('decoder')}"),
    ] = None,
    start: Annotated[float | None, _reading(help="Seconds at which to begin.")] = None,
    end: Annotated[float | None, _reading(help="Seconds at which to stop.")] = None,
    when_lost: Annotated[
        WhenLost | None,
        _live(help=f"What goes out while a live source is away. {_default('when_lost')}"),
    ] = None,
    reconnect_attempts: Annotated[
        int | None, _live(help="Connections in a row that may fail. (default: any number)")
    ] = None,
    connect_timeout: Annotated[
        float | None, _live(help=f"Seconds until a live source must answer. {_default('connect_timeout')}")
    ] = None,
    read_timeout: Annotated[
        float | None,
        _live(help=f"Seconds of silence after which a live source is lost. {_default('read_timeout')}"),
    ] = None,
    latency_budget: Annotated[
        int | None,
        _live(help=f"Milliseconds that live pictures may wait to be looked at. {_default('latency_budget')}"),
    ] = None,
    rtsp_transport: Annotated[
        Literal["tcp", "udp"] | None, _live(help=f"How RTSP sources send. {_default('rtsp_transport')}")
    ] = None,
    insecure: Annotated[bool | None, _live("--insecure", help="Take any certificate.")] = None,
    sink_timeout: Annotated[
        float | None, _live(help=f"Seconds in which a server must take a frame. {_default('sink_timeout')}")
    ] = None,
    when_slow: Annotated[
        WhenSlow | None,
        _live(help=f"What is done when engines cannot keep up with a live source. {_default('when_slow')}"),
    ] = None,
    backend: Annotated[
        Backend | None,
        _live(help=f"Who reads and writes network streams: FFmpeg or GStreamer. {_default('backend')}"),
    ] = None,
    video_stream: Annotated[
        str | None, _reading(help="Number or title of the video stream to take of an input with several.")
    ] = None,
    raw: Annotated[str | None, _reading(help="What bare frames on standard input are like: 640x360@25:rgb24.")] = None,
    segment: Annotated[
        str | None, _writing(help="Segments of this length or size, like 10min or 500MB, into a folder OUTPUT.")
    ] = None,
    retain: Annotated[
        str | None, _writing(help="Delete the oldest segments beyond this age or size, like 7d,200GB.")
    ] = None,
    spool: Annotated[
        str | None, _live(help="Anonymized video that waits for a server that is away, like 200MB.")
    ] = None,
    report_rotate: Annotated[
        str | None, _writing(help="Size of each file of a report in JSON lines. (default: 64MB)")
    ] = None,
    certificate: Annotated[Path | None, _live(help="Of rtsps-server://, as PEM.")] = None,
    private_key: Annotated[Path | None, _live(help="Of that certificate, as PEM.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with any of these options; those given here win.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")] = False,
    log_format: Annotated[
        LogFormat | None, typer.Option(help="Log as lines of text with times, or as JSON, instead of for people.")
    ] = None,
) -> None:
    """Anonymize a video, an image, a folder of images or a live stream."""
    source, targets = input_address(input_path), [output_address(output) for output in outputs]
    given = _given(locals())
    values = read_config(config) if config is not None else {}
    settings = make_settings(RunSettings, values | given, origin="options")
    if log_format is not None:
        logs.configure(log_format)
    console = Console(stderr=True, quiet=quiet or log_format is not None)

    with Signals(console, finishing=_FINISHING, given_up=_GIVEN_UP) as signals, RunProgress(console) as progress:

        def begin(info: StreamInfo, pipeline: Pipeline) -> None:
            progress.start(info)
            signals.begin(pipeline.stop)

        try:
            result = run(source, targets, settings, on_start=begin, on_frame=progress.advance)
        except StandinError as error:
            if log_format is None:
                raise
            # Whoever reads lines gets this as one, too.
            _log.error("%s", error)
            raise typer.Exit(error.exit_code) from error
    render_summary(console, result, ", ".join(map(str, targets)))
    if log_format is None:
        raise typer.Exit(_exit_code(result, partial(say, error_console())))
    for note in result.notes:
        _log.info("%s", note)
    _log.info("%s has ended: %s", source, summary_line(result.summary, result.snapshot))
    raise typer.Exit(_exit_code(result, partial(_log.error, "%s")))


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Options that were given, without those that are no settings."""
    return {name: value for name, value in values.items() if name in RunSettings.model_fields and value is not None}


def _exit_code(result: RunResult, tell: Callable[[str], None]) -> int:
    summary = result.summary
    for problem in result.problems:
        tell(problem)
    if summary.stopped is not None:
        tell(summary.stopped)
    if summary.stopped is not None or result.problems:
        return EXIT_FAILED
    if summary.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_WITHHELD if summary.withheld else 0


_Command = Callable[..., None]


def _check_options(command: _Command) -> None:
    """Every setting has an option: a field that is added to the settings cannot be forgotten here."""
    missing = set(RunSettings.model_fields) - set(inspect.signature(command).parameters)
    if missing:
        raise TypeError(f"settings without an option: {', '.join(sorted(missing))}")


_check_options(run_command)
