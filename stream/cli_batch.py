"""`standin batch`: many files, from options to an exit code.

Exit codes: 0 all are done, 1 a file failed, 2 wrong usage, 3 all are done but frames were withheld, 130 interrupted.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from engines.errors import StandinError, UsageError
from stream.batch.batch import Batch, Ended, Estimate, Where, estimate, run_batch
from stream.batch.dispatch import Dispatcher, Rules
from stream.batch.folder import Extras
from stream.batch.inputs import Layout
from stream.batch.manifest import Counts
from stream.batch.sidecars import check_patterns
from stream.cli_run import run_command
from stream.config import RunSettings, make_settings, read_config
from stream.signals import Signals
from stream.terminal import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_WITHHELD, error_console, say, visible

#: Options of `standin run` that mean nothing for many files, or that a batch has in another form.
_NOT_FOR_FILES: Final = frozenset({
    "input_path", "outputs", "report", "contact_sheet", "detections", "engine_server", "threads", "log_format",
    "when_lost", "reconnect_attempts", "connect_timeout", "read_timeout", "latency_budget", "rtsp_transport",
    "insecure", "sink_timeout", "when_slow", "backend", "raw", "segment", "retain", "spool", "report_rotate",
    "certificate", "private_key",
})  # fmt: skip
_FINISHING: Final = "finishing the files that are under way; press Ctrl-C again to give them up"
_GIVEN_UP: Final = "interrupted; what is done is kept, and the next call goes on from there"
_RULES: Final = Rules(1)
_MOST_TROUBLES: Final = 20


def _with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of `standin run` that make sense for files, as they are declared there."""
    own = inspect.signature(command, eval_str=True)
    of_runs = inspect.signature(run_command, eval_str=True)
    kept = [parameter for name, parameter in own.parameters.items() if parameter.kind is not parameter.VAR_KEYWORD]
    names = {parameter.name for parameter in kept}
    added = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in of_runs.parameters.items()
        if name not in _NOT_FOR_FILES | names
    ]
    command.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
    return command


@_with_run_options
def batch_command(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Videos, images, folders, patterns in quotes ('day1/**/*.mp4'), lists (@FILE, one input a line), "
            "and URLs of stores (s3://bucket/day1).",
        ),
    ],
    *,
    output: Annotated[Path, typer.Option(help="Folder for the results; it remembers what is done.")],
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Of a Ray cluster, or auto. (default: this machine alone)")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Files at a time; each worker has engines of its own. (default: by cores)")
    ] = None,
    cpus_per_worker: Annotated[int | None, typer.Option(min=1, help="Cores for each. (default: a fair share)")] = None,
    gpus_per_worker: Annotated[float, typer.Option(min=0, help="GPUs for each, such as 1 or 0.5.")] = 0.0,
    chunk: Annotated[
        float | None, typer.Option(min=1, help="Seconds of the pieces in which several workers look at a long file.")
    ] = None,
    attempts: Annotated[int, typer.Option(min=1, help="At a file that fails.")] = _RULES.attempts,
    stall: Annotated[
        float, typer.Option(min=1, help="Seconds without a frame after which a worker is taken for stuck.")
    ] = _RULES.stall,
    base: Annotated[
        Path | None, typer.Option(help="Folder below which names begin. (default: each folder that is given)")
    ] = None,
    flat: Annotated[bool, typer.Option("--flat", help="All results in one folder.")] = False,
    ending: Annotated[
        str | None, typer.Option(help="Of all videos' results, like .mp4. (default: as the input's)")
    ] = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write NAME.report.json beside each result.")
    ] = True,
    sidecar: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Texts beside an input, like '*.srt', that are copied as they are; may be given several times.",
        ),
    ] = None,
    keep_times: Annotated[bool, typer.Option("--keep-times", help="Results have the times of their inputs.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and how long it would take.")
    ] = False,
    ray_folder: Annotated[
        Path | None, typer.Option(help="For the logs of Ray on this machine. (default: one that is deleted)")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file with options of standin run that are here, too; those given here win."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")] = False,
    **options: Any,
) -> None:
    """Anonymize many files, here or on a cluster; what was done before and has not changed is left as it is."""
    given = {name: value for name, value in options.items() if value is not None}
    values = _from_file(config) if config is not None else {}
    settings = make_settings(RunSettings, values | given, origin="options")
    check_patterns(patterns := tuple(sidecar or ()))
    batch = Batch(
        inputs,
        Layout(output, base, flat, ending),
        settings,
        Extras(report, patterns, keep_times, settings.overwrite),
        Rules(1, attempts, stall=stall, chunk=chunk),
        Where(address, workers, cpus_per_worker, gpus_per_worker, ray_folder),
    )
    console = Console(stderr=True, quiet=quiet)
    if dry_run:
        found = estimate(batch)
        _show_estimate(Console(), found)
        raise typer.Exit(EXIT_FAILED if found.counts.failed or found.counts.incomplete else 0)
    with Signals(console, finishing=_FINISHING, given_up=_GIVEN_UP) as signals, _Bars(console) as bars:

        def begin(dispatcher: Dispatcher) -> None:
            bars.dispatcher = dispatcher
            signals.begin(dispatcher.stop)

        ended = run_batch(batch, on_plan=bars.plan, on_begin=begin, on_look=bars.look, on_end=bars.end)
    _show(console, ended, output)
    raise typer.Exit(_exit_code(ended, interrupted=signals.asked))


def _from_file(config: Path) -> dict[str, Any]:
    values = read_config(config)
    if strange := sorted(_NOT_FOR_FILES & values.keys()):
        raise UsageError(f"`{strange[0]}` in {config} means nothing for standin batch")
    return values


class _Bars:
    """Progress of the whole and of each file that is under way; without a terminal, a line for each that ended."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._whole: TaskID | None = None
        self._single: dict[int, TaskID] = {}
        self._done = self._count = 0
        self.dispatcher: Dispatcher | None = None

    def plan(self, counts: Counts) -> None:
        """The inputs are known."""
        self._count = counts.waiting
        kept = f", {counts.kept} are done already" if counts.kept else ""
        beyond = counts.failed + counts.incomplete
        cannot = f", {beyond} cannot be done" if beyond else ""
        self._console.print(f"{counts.waiting} of {counts.total} files to do{kept}{cannot}", highlight=False)
        if counts.waiting:
            self._whole = self._bars.add_task("files", total=counts.waiting)

    def look(self) -> None:
        """Show how far files are."""
        if self.dispatcher is None or self._bars.disable:
            return
        now = self.dispatcher.under_way
        for worker in [worker for worker in self._single if worker not in now]:
            self._bars.remove_task(self._single.pop(worker))
        for worker, progress in now.items():
            if worker not in self._single:
                self._single[worker] = self._bars.add_task("")
            name = Text(visible(progress.name)).markup
            self._bars.update(
                self._single[worker], description=name, completed=progress.frames, total=progress.total or None
            )

    def end(self, name: str, error: str | None) -> None:
        """One more file has ended."""
        self._done += 1
        if self._whole is not None:
            self._bars.update(self._whole, completed=self._done)
        if not self._console.is_terminal:
            line = f"{self._done} of {self._count}: {name}" + (f": {error}" if error else "")
            self._console.print(visible(line), markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()


def _show(console: Console, ended: Ended, output: Path) -> None:
    counts = ended.counts
    rows = {
        "output": str(output),
        "files": f"{counts.total}, {ended.others} others left out" if ended.others else str(counts.total),
        "done": f"{counts.done}, {counts.frames} frames",
        "done before": str(counts.kept),
        "failed": str(counts.failed),
    }
    if counts.incomplete:
        rows["incomplete"] = str(counts.incomplete)
    if counts.waiting:
        rows["left"] = f"{counts.waiting}: the same call goes on from there"
    if counts.withheld:
        rows["withheld"] = f"{counts.withheld} frames are flat grey; the reports say why"
        rows["withheld in"] = _names_grey(ended)
    _print_rows(console, rows)


def _show_estimate(console: Console, found: Estimate) -> None:
    counts = found.counts
    rows = {
        "files": f"{counts.total}, {found.others} others left out" if found.others else str(counts.total),
        "to do": f"{counts.waiting}, about {found.frames:.0f} frames",
        "done before": str(counts.kept),
        "cannot be done": str(counts.failed + counts.incomplete),
    }
    if found.speed is not None and counts.waiting:
        rows["time"] = (
            f"about {_duration(found.seconds)}: {found.workers} workers with {found.speed:.1f} frames per second each"
        )
    _print_rows(console, rows)
    _say_troubles(found.troubles, counts)


def _names_grey(ended: Ended) -> str:
    named = ", ".join(f"{name} ({count})" for name, count in ended.grey)
    more = ended.counts.grey - len(ended.grey)
    return f"{named}, and {more} more" if more > 0 else named


def _print_rows(console: Console, rows: dict[str, str]) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(visible(value)))
    console.print(table)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _say_troubles(troubles: list[tuple[str, str]], counts: Counts) -> None:
    errors = error_console()
    for name, error in troubles[:_MOST_TROUBLES]:
        say(errors, f"{visible(name)}: {error}")
    if (more := counts.failed + counts.incomplete - _MOST_TROUBLES) > 0:
        say(errors, f"and {more} more; the manifest has all of them (docs/batch.md)")


def _exit_code(ended: Ended, *, interrupted: bool) -> int:
    counts = ended.counts
    _say_troubles(ended.troubles, counts)
    if ended.stopped is not None:
        raise StandinError(f"{ended.stopped}; {counts.waiting} files are left, and the same call goes on from there")
    if interrupted and counts.waiting:
        return EXIT_INTERRUPTED
    if counts.failed or counts.incomplete:
        return EXIT_FAILED
    return EXIT_WITHHELD if counts.withheld else 0
