"""What a person sees of a run: a progress bar, and a summary at the end."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from stream.anonymizer import Anonymized
from stream.frame import AWAY
from stream.pipeline import Summary
from stream.run import RunResult
from stream.sources.base import StreamInfo


class _Rate(ProgressColumn):
    """Frames per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} fps")


class RunProgress:
    """A progress bar with frames per second and the time left."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def start(self, info: StreamInfo) -> None:
        """The input is open."""
        self._task = self._progress.add_task(info.name, total=info.frames)

    def advance(self, item: Anonymized) -> None:  # noqa: ARG002  every observer gets the frame
        """One more frame was written."""
        if self._task is not None:
            self._progress.advance(self._task)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


def render_summary(console: Console, result: RunResult, output: str) -> None:
    """Print what a run did."""
    summary = result.summary
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _rows(result, output):
        table.add_row(name, Text(value))
    console.print(table)
    for line in _withheld(summary):
        console.print(Text(line), style="yellow")


def _rows(result: RunResult, output: str) -> list[tuple[str, str]]:
    summary = result.summary
    found = ", ".join(f"{count} {kind}" for kind, count in summary.regions.items()) or "none"
    rows = [
        ("output", output if summary.frames else "none: not a single frame was written"),
        ("frames", f"{summary.frames} ({summary.withheld} withheld)"),
        ("detected", f"{found} in {summary.tracks} tracks"),
        ("held", f"{summary.held}, looked ahead {summary.looked_ahead}, by hand {summary.manual}{_ignored(summary)}"),
        *(
            [("stand-ins", f"{summary.generated} regions; the others are covered classically")]
            if summary.generated
            else []
        ),
        ("speed", f"{summary.rate:.1f} frames per second, {summary.seconds:.1f} s"),
        ("stages", _stages(summary)),
    ]
    if result.snapshot is not None and (latency := result.snapshot.latency.recent) is not None:
        usual, most, nearly_all = (f"{1000 * value:.0f}" for value in latency)
        rows.append(("latency", f"{usual} ms at the median, {most} at 95 %, {nearly_all} at 99 % of the last frames"))
    if result.dropped:
        rows.append(("dropped", ", ".join(result.dropped[:12]) + (" ..." if len(result.dropped) > 12 else "")))
    rows += [("note", note) for note in result.notes]
    return rows


def _withheld(summary: Summary) -> Iterator[str]:
    """Why frames were withheld, by what is to be seen instead."""
    flat = dict(summary.reasons)
    held = flat.pop(AWAY, 0) if summary.holds else 0
    if flat:
        yield "withheld frames are flat grey: " + "; ".join(f"{reason} ({count})" for reason, count in flat.items())
    if held:
        yield f"withheld frames show the last anonymized picture: {AWAY} ({held})"


def _ignored(summary: Summary) -> str:
    return f"; {summary.ignored} left raw as asked for" if summary.ignored else ""


def _stages(summary: Summary) -> str:
    """Where the time went: each stage's own time, as a share of the wall time (they overlap)."""
    if not summary.seconds:
        return "none"
    return ", ".join(f"{name} {busy:.1f} s ({busy / summary.seconds:.0%})" for name, busy in summary.busy.items())
