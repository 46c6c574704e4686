"""`standin bench`: measure this machine, and compare two measurements."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final, TypeVar, get_args

import typer
from rich.console import Console

from engines.errors import RuntimeUnavailableError, StandinError, UsageError
from engines.runtime import DEVICES
from engines.store import home
from stream.bench.compare import Compared, compare
from stream.bench.html import render_html
from stream.bench.plan import Plan, bench, bundle_names, check_plan
from stream.bench.records import Case, Figures, Record, Settings, read_record, write_text
from stream.bench.text import (
    NOT_MEASURED,
    amount,
    graph,
    number,
    persons,
    ran_on,
    remarks,
    seeded_bundles,
    series,
    spread,
)
from stream.config import AnonymizerSettings, make_settings
from stream.detectors.graphs import DetectorPrecision
from stream.generators.open import Precision
from stream.pipeline import STAGES
from stream.presets import DEFAULT_PRESET, PRESETS, find_preset
from stream.sinks.target import check_target
from stream.terminal import EXIT_FAILED, table

T = TypeVar("T")

app = typer.Typer(
    invoke_without_command=True,
    help="Measure what a run gets on this machine: frames per second, latencies, each stage, memory, power.",
    epilog="Options that take a list take it with commas: --persons 0,1,4. Compare two results: "
    "standin bench compare A.json B.json",
)

#: What `--matrix` sweeps where nothing is said.
_MATRIX_PERSONS = "found,0,1,4,8"
_MATRIX_BATCHES = "1,2,4,8"
_FOUND = "found"
_PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)
#: With random weights, which find nobody or too many, and mean nothing in a preset whose weights come along.
_SEEDED_PRESET = "deepprivacy2"
_SEEDED_PERSONS, _SEEDED_MATRIX_PERSONS = "4", "0,1,4,8"


@app.callback()
def bench_command(
    context: typer.Context,
    preset: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(PRESETS)}; or several of them. (default: {DEFAULT_PRESET})", show_default=False),
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option(readable=False, help="A video to look at. (default: a clip of synthetic people that comes along)"),
    ] = None,
    size: Annotated[str | None, typer.Option(help="WxH to which that clip is brought, such as 1920x1080.")] = None,
    device: Annotated[str | None, typer.Option(help=f"{', '.join(DEVICES)}. (default: cpu)")] = None,
    precision: Annotated[
        str | None, typer.Option(help=f"Of generators: {', '.join(_PRECISIONS)}. (default: fp32)")
    ] = None,
    detector_precision: Annotated[
        DetectorPrecision, typer.Option(help="Of detectors; auto: 8-bit integers on a CPU where a bundle has them.")
    ] = "auto",
    detect_size: Annotated[
        int | None,
        typer.Option(min=32, max=16_384, help="Longer side that detectors see, in pixels. (default: the preset's)"),
    ] = None,
    tiles: Annotated[
        int, typer.Option(min=1, max=8, help="Detectors look at N x N overlapping parts of each frame as well.")
    ] = 1,
    batch: Annotated[
        str | None,
        typer.Option(help="Crops in one run of a generator by itself; the pipeline has a run's. (default: 1)"),
    ] = None,
    people: Annotated[
        str | None,
        typer.Option(
            "--persons",
            help="Put so many into what the detectors answer; 'found' is what they find. (default: found)",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="For the engines. (default: one per core)")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="That each run takes, about.")] = 3.0,
    runs: Annotated[int, typer.Option(min=1, max=100, help="Of each kind; their spread is the noise.")] = 3,
    encode: Annotated[bool, typer.Option("--encode/--no-encode", help="Whether frames are encoded.")] = True,
    engine: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FOLDER", help="A bundle to run instead, as for standin run.")
    ] = None,
    seeded: Annotated[
        bool,
        typer.Option(
            "--seeded",
            help="Without checkpoints: networks of the published sizes with random weights, which are as fast. They "
            f"are made once, which takes minutes and the extra 'export'. (preset: {_SEEDED_PRESET}, persons: "
            f"{_SEEDED_PERSONS})",
        ),
    ] = False,
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Every device, precision, several batches and numbers of persons.")
    ] = False,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures, for compare.")] = None,
    html_path: Annotated[Path | None, typer.Option("--html", help="Write a report with plots, as one page.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")] = False,
) -> None:
    """Measure what a run gets on this machine."""
    if context.invoked_subcommand is not None:
        return
    wanted = preset or (_SEEDED_PRESET if seeded else DEFAULT_PRESET)
    people = people or _usual_persons(seeded=seeded, matrix=matrix)
    plan = Plan(
        presets=tuple(find_preset(name) and name for name in _listed("preset", wanted)),
        devices=_known("device", device or (",".join(DEVICES) if matrix else "cpu"), DEVICES),
        precisions=_known("precision", precision or (",".join(_PRECISIONS) if matrix else "fp32"), _PRECISIONS),
        persons=_persons(people),
        batches=tuple(
            _number("batch", text) for text in _listed("batch", batch or (_MATRIX_BATCHES if matrix else "1"))
        ),
        video=video,
        size=_size(size),
        engine=dict(make_settings(AnonymizerSettings, {"engine": engine or []}, origin="options").engine),
        settings=Settings(
            seconds=seconds,
            runs=runs,
            encode=encode,
            threads=threads,
            detector_precision=detector_precision,
            detect_size=detect_size,
            tiles=tiles,
        ),
    )
    if (wrong := check_plan(plan)) is not None:
        raise UsageError(wrong)
    for path in (json_path, html_path):
        if path is not None:
            check_target(path, overwrite=overwrite, inputs=(video,) if video is not None else ())
    if seeded:
        plan = plan.model_copy(update={"seeded": _seeded(plan)})
    record = _measured(plan)
    if json_path is not None:
        write_text(json_path, record.model_dump_json(indent=1) + "\n", overwrite=overwrite)
    if html_path is not None:
        write_text(html_path, render_html(record), overwrite=overwrite)
    _show(record)
    if not record.measured:
        raise typer.Exit(EXIT_FAILED)


@app.command("compare")
def compare_command(
    before: Annotated[Path, typer.Argument(metavar="A.json", help="A result of: standin bench --json")],
    after: Annotated[Path, typer.Argument(metavar="B.json", help="Another one.")],
    fail_below: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Exit with 1 where B's frame rate is below so much of A's, such as 0.9, or B withheld more frames.",
        ),
    ] = None,
) -> None:
    """Compare two results: ratios, and what is only noise."""
    found = compare(read_record(before), read_record(after))
    _show_comparison(found)
    if fail_below is not None and (fell := found.slower_than(fail_below)):
        raise StandinError(f"slower than {fail_below} of {before}: {'; '.join(fell)}")


def _usual_persons(*, seeded: bool, matrix: bool) -> str:
    if seeded:
        return _SEEDED_MATRIX_PERSONS if matrix else _SEEDED_PERSONS
    return _MATRIX_PERSONS if matrix else _FOUND


def _seeded(plan: Plan) -> dict[str, Path]:
    """Folders of bundles with random weights for the published networks of all presets; what is missing is made."""
    try:
        from export.seeded import kept_bundle, seeded_names
    except ImportError as error:
        raise RuntimeUnavailableError(
            f'--seeded makes networks, which needs PyTorch and onnxscript ({error}); pip install "standin[export]"'
        ) from None
    used = {name: None for preset in plan.presets for name in bundle_names(preset)}
    names = [name for name in used if name in seeded_names() and name not in plan.engine]
    if not names:
        raise UsageError(
            f"--seeded stands for networks that need a checkpoint, and preset {', '.join(plan.presets)} has none; "
            f"leave it out, or choose another preset, such as {_SEEDED_PRESET}"
        )
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    made: dict[str, Path] = {}
    with _terminable():
        for number_of, name in enumerate(names, start=1):
            console.print(f"random weights, network {number_of} of {len(names)}: {name}", markup=False)
            made[name] = kept_bundle(
                name, home(), progress=lambda text: console.print(f"  {text}", markup=False, style="dim")
            )
    return made


def _measured(plan: Plan) -> Record:
    """The record, with a line for each case on standard error."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)

    def on_case(index: int, count: int, case: Case) -> None:
        console.print(f"{index + 1} of {count}: {case}", markup=False)

    with _terminable():
        return bench(plan, on_case=on_case)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM end it as Ctrl-C does, which ends the process that measures and removes its folder."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _listed(option: str, text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts) or len(set(parts)) < len(parts):
        raise UsageError(f"--{option} {text!r} is no list of different values with commas between them")
    return parts


def _known(option: str, text: str, known: Sequence[T]) -> tuple[T, ...]:
    by_name = {str(name): name for name in known}
    if unknown := [part for part in _listed(option, text) if part not in by_name]:
        raise UsageError(f"--{option} {unknown[0]!r} is not known; expected {', '.join(by_name)}")
    return tuple(by_name[part] for part in _listed(option, text))


def _persons(text: str) -> tuple[int | None, ...]:
    return tuple(None if part == _FOUND else _number("persons", part) for part in _listed("persons", text))


def _number(option: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 6):
        raise UsageError(f"--{option} {text!r} is no whole number")
    return int(text)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and len(text) < 12):
        raise UsageError(f"--size {text!r} is no size; expected WxH, such as 1920x1080")
    return int(width), int(height)


_GRAPH_COLUMNS = ("graph", "input", "batch", "ms", "a second", "ran on")


def _show(record: Record) -> None:
    console = Console()
    if seeded := seeded_bundles(record):
        console.print(f"Random weights, not trained ones: {', '.join(seeded)}", markup=False, highlight=False)
    if record.measured:
        lines = [_figures(case, found) for case, found in record.measured]
        # Columns without a single figure are named below: there is little room.
        shown = [name for name in lines[0] if any(line[name] != NOT_MEASURED for line in lines)]
        title = "Frames per second flat out; latency at a camera's pace, and that pace"
        console.print(table(title, shown, ([line[name] for name in shown] for line in lines)))
        title = "Stages, flat out: median of a frame in ms, and the share of the time in which the stage worked"
        console.print(table(title, ("case", "persons", *STAGES), _stages(record)))
        console.print(table("Graphs by themselves", _GRAPH_COLUMNS, _graphs(record)))
        if left_out := [name for name in lines[0] if name not in shown]:
            console.print(f"{NOT_MEASURED}: {', '.join(left_out)}", highlight=False)
    # What is not there lacks for many cases alike.
    missing: dict[str, list[str]] = {}
    for result in record.results:
        if result.figures is None:
            missing.setdefault(result.reason or "", []).append(str(result.case))
    if missing:
        rows = (("\n".join(cases), reason) for reason, cases in missing.items())
        console.print(table("Not measured", ("cases", "reason"), rows))
    for remark in remarks(record):
        console.print(remark, markup=False, highlight=False)


def _figures(case: Case, found: Figures) -> dict[str, str]:
    latency, memory, power = found.paced.latency, found.memory, found.power
    return {
        "case": series(case),
        "persons": persons(case),
        "frames/s": spread(found.flat_out.rate),
        "p50 / p95 ms": " / ".join(number(latency[share].median) for share in ("p50", "p95") if share in latency),
        "at fps": number(found.paced.rate),
        "start-up": amount(found.start_up.total, "s"),
        "memory": amount(memory.peak, "MiB"),
        "GPU memory": amount(memory.gpu, "MiB"),
        "GPU power": amount(power.gpu, "W"),
        "processor power": amount(power.processor, "W"),
    }


def _stages(record: Record) -> Iterator[tuple[str, ...]]:
    for case, found in record.measured:
        texts = []
        for name in STAGES:
            stage = found.flat_out.stages.get(name)
            texts.append(
                f"{number(stage.latency['p50'].median)}, {stage.busy.median:.0%}" if stage is not None else NOT_MEASURED
            )
        yield (series(case), persons(case), *texts)


def _graphs(record: Record) -> Iterator[tuple[str, ...]]:
    for case, found in record.measured:
        how = f"{case.device}, {case.precision}"
        for run in found.engines:
            rate = NOT_MEASURED if run.rate is None else number(run.rate.median)
            times = spread(run.milliseconds)
            if run.on_device is not None:
                times += f"; {number(run.on_device.median)} without copies"
            yield graph(run), run.inputs, str(run.batch), times, rate, f"{ran_on(run)} ({how})"
        for text in found.engines_missing:
            yield text, "", "", NOT_MEASURED, "", how


def _show_comparison(found: Compared) -> None:
    console = Console()
    for case in dict.fromkeys(row.case for row in found.rows):
        rows = [
            (
                row.figure.name,
                spread(row.before, row.figure.unit),
                spread(row.after, row.figure.unit),
                "" if row.ratio is None else f"{row.ratio:.3f}",
                row.verdict,
            )
            for row in found.rows
            if row.case == case
        ]
        console.print(table(str(case), ("figure", "A", "B", "B / A", "verdict"), rows))
    for text in (*found.warnings, *found.missing, *found.withheld):
        console.print(text, markup=False, highlight=False)
