"""The command line: `standin run` and the other commands. Only the modules named `cli` and `doctor` print.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 finished but frames were withheld, 130 interrupted.
"""

from __future__ import annotations

import inspect
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Annotated, Any, Literal, Self

import typer
from rich.console import Console
from rich.logging import RichHandler

from engines.errors import StandinError
from engines.runtime import Device
from stream import cli_engines, cli_export, cli_generate, cli_gst, doctor
from stream.address import input_address, output_address
from stream.config import Classical, OnFailure, RunSettings, Treatment, WhenLost, make_settings, read_config
from stream.generators.open import Precision
from stream.pipeline import Pipeline
from stream.presets import PRESETS
from stream.progress import RunProgress, render_summary
from stream.roles import Context
from stream.run import RunResult, run
from stream.sources.base import StreamInfo
from stream.stitch import Shape

app = typer.Typer(
    name="standin",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Replaces the people in video with synthetic stand-ins, and fails closed: what could not be looked at "
    "never leaves raw.",
)
app.add_typer(cli_engines.app, name="engines")

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_WITHHELD = 3
EXIT_INTERRUPTED = 130


def main() -> None:
    """Entry point of the console script."""
    errors = _errors()
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=errors, show_time=False, show_path=False, markup=False)],
    )
    try:
        code = app(standalone_mode=False)
    except StandinError as error:
        _say(errors, str(error))
        code = error.exit_code
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody left to tell.
        code = EXIT_FAILED
    except OSError as error:
        _say(errors, f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        code = EXIT_FAILED
    except Exception as error:
        # Typer's own complaints about the command line; where their base class lives depends on its release.
        if not hasattr(error, "format_message"):
            raise
        code = EXIT_USAGE
        # Empty where it has printed the help instead.
        if text := error.format_message():
            _say(errors, text.replace("Value error, ", ""))
    sys.exit(code or 0)


def _say(errors: Console, text: str) -> None:
    """Whatever went wrong is one line for the user."""
    errors.print(f"standin: {' '.join(text.split())}", markup=False)


def _version(value: bool) -> None:
    if value:
        from stream.report import versions

        typer.echo(f"standin {versions()['standin']}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options that stand before the command."""


def _default(name: str) -> str:
    value = RunSettings.model_fields[name].default
    others = any(name in preset.settings for preset in PRESETS.values())
    # Round brackets: square ones would be markup, and vanish.
    return f"(default: {value}{', or as the preset has it' if others else ''})"


@app.command("run")
def run_command(
    input_path: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A video, an image or a folder of images; or live: rtsp://, rtmp://, udp://, http:// or /dev/videoN.",
        ),
    ],
    output: Annotated[
        str,
        typer.Argument(
            metavar="OUTPUT",
            help="The result: a file, or a folder for a folder; or a server: rtsp://, rtmp://, udp://.",
        ),
    ],
    preset: Annotated[
        str | None, typer.Option(help=f"{', '.join(PRESETS)}: which engines run, and how. {_default('preset')}")
    ] = None,
    detector: Annotated[
        list[str] | None,
        typer.Option(
            help="A detection bundle, by name or folder, instead of the preset's; may be given several times."
        ),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER",
            help="A bundle to run instead of the one that goes by NAME: a bundle's name, or what a generator replaces "
            "(face, person, person-cse); may be given several times.",
        ),
    ] = None,
    face: Annotated[Treatment | None, typer.Option(help=f"How faces are covered. {_default('face')}")] = None,
    person: Annotated[Treatment | None, typer.Option(help="How persons are covered. (default: as faces)")] = None,
    plate: Annotated[Treatment | None, typer.Option(help="How licence plates are covered. (default: as faces)")] = None,
    fallback: Annotated[
        Classical | None, typer.Option(help=f"What covers where no stand-in can be made. {_default('fallback')}")
    ] = None,
    context: Annotated[
        Context | None,
        typer.Option(help=f"Whether generators may see pixels of people who are still raw. {_default('context')}"),
    ] = None,
    truncation: Annotated[
        float | None,
        typer.Option(help="Of stand-ins, 0 to 1: less variety, fewer broken ones. (default: by generator)"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="For the same stand-ins in every run. (default: by chance)")] = None,
    cells: Annotated[int | None, typer.Option(help=f"Of pixelate: 8 or 16 across. {_default('cells')}")] = None,
    blur_radius: Annotated[
        float | None, typer.Option(help=f"Of blur, as a share of the region. {_default('blur_radius')}")
    ] = None,
    mask_colour: Annotated[
        str | None, typer.Option(help="Of mask, like #000000. (default: black, or as the preset has it)")
    ] = None,
    shape: Annotated[Shape | None, typer.Option(help=f"What is covered. {_default('shape')}")] = None,
    margin: Annotated[
        float | None,
        typer.Option(help=f"Every side of a region moves out by this share. {_default('margin')}"),
    ] = None,
    mask_margin: Annotated[
        float | None,
        typer.Option(
            help=f"Masks of persons move out by this share of the person's shorter side. {_default('mask_margin')}"
        ),
    ] = None,
    mask_frames: Annotated[
        int | None,
        typer.Option(help=f"Frames for which what a person's mask covered stays covered. {_default('mask_frames')}"),
    ] = None,
    join_faces: Annotated[
        bool | None,
        typer.Option(
            "--join-faces/--no-join-faces",
            help=f"Whether a face in a person is replaced with the person. {_default('join_faces')}",
        ),
    ] = None,
    device: Annotated[Device | None, typer.Option(help=f"Where engines run. {_default('device')}")] = None,
    precision: Annotated[Precision | None, typer.Option(help=f"Of generators. {_default('precision')}")] = None,
    threads: Annotated[int | None, typer.Option(help="For the engines. (default: one per core)")] = None,
    hold: Annotated[
        int | None, typer.Option(help=f"Frames for which a missed track stays covered. {_default('hold')}")
    ] = None,
    lookahead: Annotated[
        int | None,
        typer.Option(help=f"Frames before their first detection in which people are covered. {_default('lookahead')}"),
    ] = None,
    detect_size: Annotated[
        int | None, typer.Option(help=f"Longer side that detectors see, in pixels. {_default('detect_size')}")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help=f"Score from which a detection counts. {_default('threshold')}")
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(help=f"Seconds a stage may take for a frame. {_default('deadline')}")
    ] = None,
    on_failure: Annotated[
        OnFailure | None, typer.Option(help=f"What to do with frames that fail. {_default('on_failure')}")
    ] = None,
    regions: Annotated[Path | None, typer.Option(help="CSV or JSON with regions to cover in any case.")] = None,
    detections: Annotated[
        Path | None, typer.Option(help="File that keeps detections: read where it has them, written where not.")
    ] = None,
    ignore_zones: Annotated[
        Path | None, typer.Option(help="JSON with polygons; what lies wholly in them stays as it is.")
    ] = None,
    only_zones: Annotated[
        Path | None, typer.Option(help="JSON with polygons; what touches none of them stays as it is.")
    ] = None,
    codec: Annotated[str | None, typer.Option(help="Encoder, any that PyAV has. (default: by OUTPUT)")] = None,
    crf: Annotated[float | None, typer.Option(help="Quality of the encoder; lower is better.")] = None,
    speed: Annotated[str | None, typer.Option(help="Preset of the encoder, like veryfast.")] = None,
    audio: Annotated[
        Literal["drop", "keep"] | None, typer.Option(help=f"Voices identify people. {_default('audio')}")
    ] = None,
    metadata: Annotated[
        Literal["strip", "keep"] | None, typer.Option(help=f"GPS, device, times. {_default('metadata')}")
    ] = None,
    overwrite: Annotated[bool | None, typer.Option("--overwrite", help="Replace existing outputs.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write what was covered as JSON.")] = None,
    contact_sheet: Annotated[Path | None, typer.Option(help="Write a sheet of anonymized frames as PNG.")] = None,
    show_regions: Annotated[
        bool | None, typer.Option("--show-regions", help="Draw what was found on the anonymized picture.")
    ] = None,
    decoding: Annotated[
        Literal["strict", "lenient"] | None,
        typer.Option(help=f"Withhold all pictures that may be damaged, or only the worst. {_default('decoding')}"),
    ] = None,
    start: Annotated[float | None, typer.Option(help="Seconds at which to begin.")] = None,
    end: Annotated[float | None, typer.Option(help="Seconds at which to stop.")] = None,
    when_lost: Annotated[
        WhenLost | None,
        typer.Option(help=f"What goes out while a live source is away. {_default('when_lost')}"),
    ] = None,
    reconnect_attempts: Annotated[
        int | None, typer.Option(help="Connections in a row that may fail. (default: any number)")
    ] = None,
    connect_timeout: Annotated[
        float | None, typer.Option(help=f"Seconds until a live source must answer. {_default('connect_timeout')}")
    ] = None,
    read_timeout: Annotated[
        float | None,
        typer.Option(help=f"Seconds of silence after which a live source is lost. {_default('read_timeout')}"),
    ] = None,
    latency_budget: Annotated[
        int | None,
        typer.Option(help=f"Milliseconds that live pictures may wait to be looked at. {_default('latency_budget')}"),
    ] = None,
    rtsp_transport: Annotated[
        Literal["tcp", "udp"] | None, typer.Option(help=f"How RTSP sources send. {_default('rtsp_transport')}")
    ] = None,
    insecure: Annotated[bool | None, typer.Option("--insecure", help="Take any certificate.")] = None,
    sink_timeout: Annotated[
        float | None, typer.Option(help=f"Seconds in which a server must take a frame. {_default('sink_timeout')}")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with any of these options; those given here win.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")] = False,
) -> None:
    """Anonymize a video, an image, a folder of images or a live stream."""
    source, target = input_address(input_path), output_address(output)
    given = _given(locals())
    values = read_config(config) if config is not None else {}
    settings = make_settings(RunSettings, values | given, origin="options")
    console = Console(stderr=True, quiet=quiet)

    with _Signals(console) as signals, RunProgress(console) as progress:

        def begin(info: StreamInfo, pipeline: Pipeline) -> None:
            progress.start(info)
            signals.stop = pipeline.stop

        result = run(source, target, settings, on_start=begin, on_frame=progress.advance)
    render_summary(console, result, str(target))
    raise typer.Exit(_exit_code(result))


app.command("generate")(cli_generate.generate_command)
app.command("export")(cli_export.export_command)
app.command("gst-path")(cli_gst.gst_path_command)


@app.command("doctor")
def doctor_command() -> None:
    """Print what is installed and usable, and what to do about what is not."""
    raise typer.Exit(doctor.doctor_command())


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Options that were given, without those that are no settings."""
    return {name: value for name, value in values.items() if name in RunSettings.model_fields and value is not None}


class _Signals:
    """Ctrl-C and SIGTERM finish the file; a second one, or one before there is a file, gives up.

    Attributes:
        stop: what finishes the file, None before there is one.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._before: dict[int, Any] = {}
        self.stop: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        for which in (signal.SIGINT, signal.SIGTERM):
            self._before[which] = signal.signal(which, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for which, handler in self._before.items():
            signal.signal(which, handler)
        if isinstance(error, KeyboardInterrupt):
            _say(_errors(), "interrupted; the output is not there, or as it was")

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        stop, self.stop = self.stop, None
        if stop is None:
            raise KeyboardInterrupt
        self._console.print("finishing the file; press Ctrl-C again to give it up")
        stop()


def _errors() -> Console:
    return Console(stderr=True, soft_wrap=True, highlight=False)


def _exit_code(result: RunResult) -> int:
    summary = result.summary
    errors = _errors()
    for problem in result.problems:
        _say(errors, problem)
    if summary.stopped is not None:
        _say(errors, summary.stopped)
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

if __name__ == "__main__":
    main()
