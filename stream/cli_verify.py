"""`standin verify`: an independent look at a result, from options to an exit code.

Exit codes: 0 nothing over its limit, 1 a limit was passed or a file could not be read, 2 wrong usage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from engines.errors import UsageError
from engines.runtime import Device
from engines.store import Store, home
from stream.networks import FORM, parse_network
from stream.regions import Kind
from stream.sinks.target import check_target
from stream.terminal import EXIT_FAILED
from stream.verify.findings import DEFAULT_LIMITS, MEASURES, parse_limits
from stream.verify.html import page
from stream.verify.identity import EmbeddingSettings
from stream.verify.look import Verification, VerifySettings, json_text, verify, write_text
from stream.verify.numbers import shown
from stream.verify.people import KINDS, LookSettings

_MOST_FINDINGS = 40
_DEFAULTS = ", ".join(f"{name}={value:g}" for name, value in DEFAULT_LIMITS.items())


def verify_command(
    original: Annotated[Path, typer.Argument(metavar="ORIGINAL", help="The video, image or folder before.")],
    anonymized: Annotated[Path, typer.Argument(metavar="ANONYMIZED", help="What was made of it.")],
    report: Annotated[Path | None, typer.Option(help="Write a page with plots and the worst cases.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write all numbers as JSON.")] = None,
    detector: Annotated[
        list[str] | None,
        typer.Option(
            help="A detection bundle, by name or folder; may be given several times. "
            "(default: all that are installed and are not in the run's report)"
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="face or person: what must not be raw; may be given several times. "
            "(default: both, or what each --detector finds)"
        ),
    ] = None,
    threshold: Annotated[float, typer.Option(min=0.02, max=1, help="Score from which a detection counts.")] = 0.5,
    detect_size: Annotated[
        int, typer.Option(min=32, max=16_384, help="Longer side that detectors see, in pixels.")
    ] = 1280,
    tiles: Annotated[
        int, typer.Option(min=1, max=8, help="Look at N x N overlapping parts as well, for who is far away.")
    ] = 1,
    device: Annotated[Device, typer.Option(help="Where detectors run.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="For detectors. (default: one per core)")] = None,
    every: Annotated[int, typer.Option(min=1, help="Of so many frames one is compared.")] = 1,
    run_report: Annotated[
        Path | None,
        typer.Option(help="What `standin run --report` wrote, or a folder with FILE.report.json for every file."),
    ] = None,
    embedding: Annotated[
        str | None,
        typer.Option(metavar=FORM, help="A network that tells people apart (ONNX), for what is left of identity."),
    ] = None,
    embedding_kind: Annotated[Literal["face", "person"], typer.Option(help="What that network is for.")] = "face",
    perceptual: Annotated[
        str | None,
        typer.Option(metavar=FORM, help="A network that tells how far pictures look apart (ONNX), for tLP."),
    ] = None,
    fail_over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MEASURE=NUMBER",
            help=f"What is too much, or MEASURE=off; may be given several times. Of: {', '.join(MEASURES)}. "
            f"(default: {_DEFAULTS})",
        ),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Show the worst cases as they are: the page then holds raw people.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing reports.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no table.")] = False,
) -> None:
    """Look at a result with other detectors: what is left raw, what else is left, and is the run's report right?"""
    settings = VerifySettings(
        look=LookSettings(
            detectors=tuple(detector or ()),
            kinds=_parse_kinds(kind or []),
            threshold=threshold,
            detect_size=detect_size,
            device=device,
            threads=threads,
            tiles=tiles,
        ),
        every=every,
        embedding=None
        if embedding is None
        else EmbeddingSettings(parse_network(embedding, "--embedding"), Kind.of(embedding_kind)),
        perceptual=None if perceptual is None else parse_network(perceptual, "--perceptual"),
        run_report=run_report,
        limits=parse_limits(fail_over or ()),
    )
    # Before hours of work, not after them.
    if report is not None and json is not None and report.resolve() == json.resolve():
        raise UsageError(f"--report and --json both write {report}; give them different names")
    for path in filter(None, (report, json)):
        check_target(path, overwrite=overwrite, inputs=tuple(filter(None, (original, anonymized, run_report))))
    result = _with_progress(original, anonymized, settings, quiet=quiet)
    if json is not None:
        write_text(json, json_text(result), overwrite=overwrite)
    if report is not None:
        write_text(report, page(result, show=show), overwrite=overwrite)
    if not quiet:
        _print(Console(), result)
    raise typer.Exit(0 if result.clean else EXIT_FAILED)


def _with_progress(original: Path, anonymized: Path, settings: VerifySettings, *, quiet: bool) -> Verification:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True, quiet=quiet), transient=True) as bars:
        bar = bars.add_task("reading", total=None)

        def advance(name: str, done: int, count: int) -> None:
            bars.update(bar, description=escape(name), completed=done, total=count)

        return verify(original, anonymized, settings, Store(home()), progress=advance)


def _parse_kinds(names: list[str]) -> tuple[Kind, ...]:
    labels = [kind.label for kind in KINDS]
    if wrong := [name for name in names if name not in labels]:
        raise UsageError(f"--kind {wrong[0]}: expected {' or '.join(labels)}")
    return tuple(Kind.of(name) for name in dict.fromkeys(names))


def _print(console: Console, result: Verification) -> None:
    limits = result.settings.limits
    table = Table("measure", "value", "limit", "", title_justify="left", box=None, pad_edge=False)
    for name, value in result.measures.items():
        over = name in result.faults
        limit = shown(name, limits[name]) if name in limits else "-"
        table.add_row(name, shown(name, value), limit, "[red]over[/]" if over else "", style="bold" if over else None)
    console.print(table)
    several = len(result.files) > 1
    for finding in result.findings[:_MOST_FINDINGS]:
        mark = "[red]●[/]" if finding.measure in result.faults else "[yellow]○[/]"
        where = f"{escape(finding.file)}: " if several else ""
        console.print(f"{mark} {where}{escape(finding.text)}", soft_wrap=True, highlight=False)
    if (more := len(result.findings) - _MOST_FINDINGS) > 0:
        console.print(f"  and {more} more; --json and --report have all of them")
    if result.settings.run_report is None:
        console.print("whether these detectors had a part in the run is not known: --run-report tells", highlight=False)
    compared = sum(len(file.frames) for file in result.files)
    people = sum(len(frame.regions) for file in result.files for frame in file.frames)
    seen = f"{compared} frames, {people} faces and persons, seen by {', '.join(result.detectors)}"
    verdict = "[green]nothing over its limit[/]" if result.clean else f"[red]over: {', '.join(result.faults)}[/]"
    console.print(f"{verdict} ({escape(seen)})", soft_wrap=True, highlight=False)
