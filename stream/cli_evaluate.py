"""`standin evaluate`: the papers' measures, from options to tables and JSON.

Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from engines.errors import RuntimeUnavailableError, UsageError
from engines.runtime import Device
from engines.store import Store, home
from stream.evaluate.average_precision import import_pycocotools
from stream.evaluate.coco import read_coco
from stream.evaluate.compare import CompareSettings, Row, compare
from stream.evaluate.figures import Figure
from stream.evaluate.folders import folder_distance, folder_fid, folder_identity, folder_precision
from stream.evaluate.frechet import Arithmetic
from stream.evaluate.judge import LOWEST, Judge
from stream.evaluate.market import read_market
from stream.evaluate.methods import CLASSICAL, MethodSettings, check_classical
from stream.evaluate.synthetic import ANNOTATIONS, IMAGES, MARKET, write_synthetic
from stream.evaluate.table import cells, details, markdown, to_json
from stream.networks import FORM, parse_network
from stream.perception import PerceptualNetwork, VectorNetwork
from stream.presets import DEFAULT_PRESET
from stream.regions import Kind
from stream.sinks.target import check_target
from stream.verify.look import write_text
from stream.verify.people import LookSettings, choose_detectors

app = typer.Typer(no_args_is_help=True, help="Take the papers' measures: FID, LPIPS, PPL, AP, re-identification.")

#: Between columns.
_GAP = 2
_Name = Literal["face", "person"]
_Json = Annotated[Path | None, typer.Option(help="Write all figures as JSON.")]
_Markdown = Annotated[Path | None, typer.Option("--markdown", help="Write the table in Markdown.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no table.")]
_Detector = Annotated[
    list[str] | None,
    typer.Option(
        help="For AP: a detection bundle, by name or folder; may be given several times. "
        "(default: all that are installed, but those that are compared)"
    ),
]
_DetectSize = Annotated[int, typer.Option(min=32, max=16_384, help="Longer side that it sees, in pixels.")]
_Category = Annotated[str | None, typer.Option(help="Of the annotations. (default: as --kind)")]
_Kind = Annotated[_Name, typer.Option(help="Who is measured.")]
_Before = Annotated[Path, typer.Argument(metavar="ORIGINAL", help="Folder of originals.")]
_After = Annotated[Path, typer.Argument(metavar="ANONYMIZED", help="Folder of what was made of them.")]


def _network(what: str) -> Any:
    return typer.Option(metavar=FORM, help=f"ONNX network {what}.")


@app.command("table")
def table_command(
    images: Annotated[Path | None, typer.Option(help="Folder of pictures with people.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="COCO annotations of these pictures, for AP.")] = None,
    market: Annotated[Path | None, typer.Option(help="Folder like Market1501's, for re-identification.")] = None,
    preset: Annotated[
        list[str] | None,
        typer.Option(help=f"Whose generators are compared; may be given several times. (default: {DEFAULT_PRESET})"),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(CLASSICAL)}, or none; may be given several times. (default: all)"),
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FOLDER", help="A bundle instead of a preset's, as in run.")
    ] = None,
    features: Annotated[str | None, _network("for FID")] = None,
    perceptual: Annotated[str | None, _network("for LPIPS, diversity and PPL")] = None,
    identity: Annotated[str | None, _network("for re-identification")] = None,
    detector: _Detector = None,
    detect_size: _DetectSize = 1280,
    category: _Category = None,
    kind: _Kind = "person",
    truncation: Annotated[float, typer.Option(min=0, max=1, help="Of crops' latents; 1 is none, as published.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of latents.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Of pictures: the first so many.")] = None,
    device: Annotated[Device, typer.Option(help="Where detectors and generators run.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="For them. (default: one per core)")] = None,
    json: _Json = None,
    markdown_file: _Markdown = None,
    overwrite: _Overwrite = False,
    quiet: _Quiet = False,
) -> None:
    """Anonymize pictures by every method, measure, and print a table like the papers'."""
    settings = CompareSettings(
        presets=tuple(preset or (DEFAULT_PRESET,)),
        classical=() if method == ["none"] else check_classical(method or tuple(CLASSICAL)),
        methods=MethodSettings(_engines(engine or ()), device, threads, seed),
        images=images,
        annotations=annotations,
        category=category,
        market=market,
        kind=Kind.of(kind),
        features=None if features is None else parse_network(features, "--features"),
        perceptual=None if perceptual is None else parse_network(perceptual, "--perceptual"),
        identity=None if identity is None else parse_network(identity, "--identity"),
        look=LookSettings(tuple(detector or ()), (Kind.of(kind),), LOWEST, detect_size, device, threads),
        truncation=truncation,
        limit=limit,
    )
    with _Output(json, markdown_file, overwrite=overwrite, quiet=quiet) as output:
        rows = compare(settings, Store(home()), _load_arithmetic, progress=output.progress)
        output.write(
            rows,
            {
                "command": "table",
                "presets": settings.presets,
                "methods": settings.classical,
                "kind": kind,
                "detect_size": detect_size,
                "truncation": truncation,
                "seed": seed,
                "limit": limit,
                "device": device,
            },
        )


@app.command("fid")
def fid_command(
    real: _Before,
    made: _After,
    features: Annotated[str, _network("whose first output is a vector")],
    json: _Json = None,
    markdown_file: _Markdown = None,
    overwrite: _Overwrite = False,
    quiet: _Quiet = False,
) -> None:
    """FID of two folders of pictures."""
    with _Output(json, markdown_file, overwrite=overwrite, quiet=quiet) as output:
        network = VectorNetwork(parse_network(features, "--features"), "--features")
        output.one("fid", folder_fid(real, made, network, _load_arithmetic, output.advance))


@app.command("distance")
def distance_command(
    first: _Before,
    second: _After,
    perceptual: Annotated[str, _network("whose outputs are maps")],
    json: _Json = None,
    markdown_file: _Markdown = None,
    overwrite: _Overwrite = False,
    quiet: _Quiet = False,
) -> None:
    """Mean perceptual distance of pictures of the same name: LPIPS, or the diversity of two runs."""
    with _Output(json, markdown_file, overwrite=overwrite, quiet=quiet) as output:
        network = PerceptualNetwork(parse_network(perceptual, "--perceptual"))
        output.one("lpips", folder_distance(first, second, network, output.advance))


@app.command("ap")
def ap_command(
    original: _Before,
    anonymized: _After,
    annotations: Annotated[Path, typer.Option(help="COCO annotations of the originals.")],
    detector: _Detector = None,
    detect_size: _DetectSize = 1280,
    category: _Category = None,
    kind: _Kind = "person",
    device: Annotated[Device, typer.Option(help="Where detectors run.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="For them. (default: one per core)")] = None,
    json: _Json = None,
    markdown_file: _Markdown = None,
    overwrite: _Overwrite = False,
    quiet: _Quiet = False,
) -> None:
    """Average precision of a detector on originals and on results."""
    with _Output(json, markdown_file, overwrite=overwrite, quiet=quiet) as output:
        import_pycocotools()
        look = LookSettings(tuple(detector or ()), (Kind.of(kind),), LOWEST, detect_size, device, threads)
        truth = read_coco(annotations, original, category or kind)
        bundles = choose_detectors(look, Store(home()))
        with contextlib.closing(Judge(bundles, look)) as judge:
            output.write(folder_precision(truth, anonymized, judge, output.advance), {"command": "ap"})


@app.command("reid")
def reid_command(
    original: _Before,
    anonymized: _After,
    identity: Annotated[str, _network("whose first output tells people apart")],
    json: _Json = None,
    markdown_file: _Markdown = None,
    overwrite: _Overwrite = False,
    quiet: _Quiet = False,
) -> None:
    """Re-identification in two folders like Market1501's."""
    with _Output(json, markdown_file, overwrite=overwrite, quiet=quiet) as output:
        network = VectorNetwork(parse_network(identity, "--identity"), "--identity")
        rows = folder_identity(read_market(original), read_market(anonymized), network, output.advance)
        output.write(rows, {"command": "reid"})


@app.command("synthetic")
def synthetic_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    pictures: Annotated[int, typer.Option(min=1, max=100_000, help="With annotations.")] = 24,
    people: Annotated[int, typer.Option(min=1, max=9999, help="For re-identification.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="For the same set again.")] = 0,
) -> None:
    """Draw a small set with which every measure can be tried."""
    write_synthetic(folder, pictures=pictures, people=people, seed=seed)
    out = Console(soft_wrap=True, highlight=False)
    for name in (IMAGES, ANNOTATIONS, MARKET):
        out.print(escape(str(folder / name)))


def _load_arithmetic() -> Arithmetic:
    try:
        from export.measures import frechet_distance
    except ImportError as error:
        raise RuntimeUnavailableError(
            f'FID needs PyTorch and torchmetrics ({error}); pip install "standin[evaluate]"'
        ) from None
    return frechet_distance


def _engines(given: Sequence[str]) -> dict[str, Path]:
    pairs = [text.partition("=") for text in given]
    if wrong := [name for name, _, folder in pairs if not name or not folder]:
        raise UsageError(f"--engine {wrong[0]!r} is not NAME=FOLDER, such as person-cse=bundles/mine")
    return {name: Path(folder) for name, _, folder in pairs}


class _Output:
    """Progress while it lasts, then files and the table."""

    def __init__(self, json: Path | None, markdown_file: Path | None, *, overwrite: bool, quiet: bool) -> None:
        self._json, self._markdown, self._overwrite, self._quiet = json, markdown_file, overwrite, quiet
        # Before hours of work, not after them.
        for path in filter(None, (json, markdown_file)):
            check_target(path, overwrite=overwrite)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        self._bars = Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)
        self._bar = self._bars.add_task("reading", total=None)

    def __enter__(self) -> _Output:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def progress(self, what: str, done: int, count: int) -> None:
        self._bars.update(self._bar, description=escape(what), completed=done, total=count)

    def advance(self, done: int, count: int) -> None:
        self.progress("pictures", done, count)

    def one(self, measure: str, figure: Figure) -> None:
        self.write([Row("anonymized", {measure: figure})], {"command": measure})

    def write(self, rows: Sequence[Row], settings: dict[str, Any]) -> None:
        self._bars.stop()
        if self._json is not None:
            write_text(self._json, to_json(rows, settings), overwrite=self._overwrite)
        if self._markdown is not None:
            write_text(self._markdown, markdown(rows), overwrite=self._overwrite)
        if not self._quiet:
            _print(rows)


def _print(rows: Sequence[Row]) -> None:
    console = Console(highlight=False, emoji=False)
    lines = cells(rows)
    if sum(max(map(len, column)) + _GAP for column in zip(*lines, strict=True)) > console.width:
        # Measures are many and methods few.
        lines = [list(column) for column in zip(*lines, strict=True)]
    console.print(_table(lines))
    for line in details(rows):
        console.print(escape(line), soft_wrap=True, style="dim")


def _table(lines: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for column, title in enumerate(lines[0]):
        table.add_column(title, justify="right" if column else "left", no_wrap=True)
    for line in lines[1:]:
        table.add_row(*map(escape, line))
    return table
