"""`standin engines build` and `standin engines prune`: TensorRT plans of bundles."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from engines.errors import BundleError, RuntimeUnavailableError, UsageError
from engines.plan_serialize import BuildOptions
from engines.plan_shapes import Range, dimension_ranges, input_shapes, parse_range, parse_sizes
from engines.plans import Hardware, InputShapes, plan_folders, plans_folder, remove_plan, useless
from engines.store import Store, home
from engines.tensorrt_policy import Policy, precision_of

if TYPE_CHECKING:
    from engines.bundle import Bundle
    from engines.plan_build import PlanBuilder
    from engines.plan_prune import Look
    from engines.plans import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wish:
    """What is to be built.

    Attributes:
        graphs: names in the manifest, empty for all.
        tf32: whether float32 products may be rounded to TF32.
        hardware: GPUs that plans may run on.
        version_compatible: whether later versions of TensorRT may load plans.
        workspace: mebibytes that layers may use, None for what the GPU has.
        level: how much is tried, None for TensorRT's own choice.
        batch: rows of a run, None for what the bundle says.
        sizes: heights and widths of pictures, None for what the bundle says.
        dimensions: numbers of dimensions by name.
        force: build what is there.
        regardless: build what TensorRT is not expected to take.
    """

    graphs: tuple[str, ...] = ()
    tf32: bool = False
    hardware: Hardware = "model"
    version_compatible: bool = False
    workspace: int | None = None
    level: int | None = None
    batch: Range | None = None
    sizes: tuple[Range, Range] | None = None
    dimensions: tuple[tuple[str, Range], ...] = ()
    force: bool = False
    regardless: bool = False

    def options(self, graph: str) -> BuildOptions:
        """How a graph's plan is built."""
        precision = precision_of(graph, Policy(tf32=self.tf32))
        return BuildOptions(precision, self.hardware, self.version_compatible, self.workspace, self.level)

    def shapes(self, bundle: Bundle, graph: str) -> tuple[InputShapes, ...]:
        """What shapes a graph's plan takes.

        Raises:
            UsageError: It would not take single rows, or numbers do not fit the graph.
        """
        declared = bundle.graph(graph)
        ranges = dimension_ranges(
            bundle.manifest, declared, batch=self.batch, sizes=self.sizes, given=dict(self.dimensions)
        )
        rows = ranges.get("N")
        if rows is not None and rows.least > 1:
            # A frame with one person, or the rest of what was run in parts, has fewer.
            raise UsageError(f"{rows.least} rows are the least for {graph}; runs have any number of rows, so give 1")
        return input_shapes(declared, ranges)

    def chosen(self, bundle: Bundle) -> tuple[str, ...]:
        """The graphs that are built.

        Raises:
            BundleError: There is no such graph.
            UsageError: None of them has a dimension whose numbers are given.
        """
        quantized = bundle.manifest.quantized
        # Integers as ONNX Runtime's processor has them: TensorRT takes other ones, and floating point is at hand.
        chosen = self.graphs or tuple(name for name in bundle.manifest.graphs if name not in quantized)
        if integers := [name for name in chosen if name in quantized]:
            raise UsageError(f"--graph {integers[0]}: integers are for processors; leave it out")
        words = {word for graph in chosen for tensor in bundle.graph(graph).inputs for word in tensor.shape}
        for name, _ in self.dimensions:
            if name not in words:
                known = ", ".join(sorted(word for word in words if isinstance(word, str))) or "none"
                raise UsageError(f"--shape {name}: no graph that is built has such a dimension; there are: {known}")
        return chosen


def build_command(
    which: Annotated[
        str, typer.Argument(metavar="PATH_OR_NAME", help="A bundle's folder, or the name of an installed bundle.")
    ],
    graph: Annotated[list[str] | None, typer.Option(help="Only this graph; may be given again. (default: all)")] = None,
    batch: Annotated[
        str | None, typer.Option(help="Rows of a run: MOST, LEAST,MOST or LEAST,USUAL,MOST. (default: by the bundle)")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Pictures of detectors, HEIGHTxWIDTH, up to three with commas. (default: by the bundle)"),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="Any other dimension by its name: S=32 (at most) or R=1,8,16; may be given again."),
    ] = None,
    tf32: Annotated[bool, typer.Option("--tf32", help="Round float32 products to TF32: faster, less exact.")] = False,
    workspace: Annotated[
        int | None, typer.Option(min=1, help="Mebibytes that layers may use at most. (default: the GPU's)")
    ] = None,
    hardware: Annotated[
        Hardware, typer.Option(help="GPUs that plans may run on: this model, its compute capability, or ampere+.")
    ] = "model",
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="For later versions of TensorRT too; such plans bring code.")
    ] = False,
    level: Annotated[
        int | None, typer.Option(min=0, max=5, help="How much is tried. (default: TensorRT's choice)")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build plans that are there.")] = False,
    regardless: Annotated[
        bool, typer.Option("--regardless", help="Try even what TensorRT is not expected to take.")
    ] = False,
    print_trtexec: Annotated[
        bool, typer.Option("--print-trtexec", help="Only print the commands that build the same elsewhere.")
    ] = False,
    plan: Annotated[
        Path | None,
        typer.Option(readable=False, help="Take this plan, which trtexec built for this machine from the one --graph."),
    ] = None,
) -> None:
    """Build TensorRT plans of a bundle for this machine."""
    wish = Wish(
        graphs=tuple(graph or ()),
        tf32=tf32,
        hardware=hardware,
        version_compatible=version_compatible,
        workspace=workspace,
        level=level,
        batch=None if batch is None else parse_range(f"1,{batch}" if batch.isdecimal() else batch, "--batch"),
        sizes=None if size is None else parse_sizes(size),
        dimensions=tuple(_dimension(text) for text in shape or ()),
        force=force,
        regardless=regardless,
    )
    bundle = Store(home()).find(which)
    if print_trtexec:
        _print_commands(bundle, wish)
    elif plan is not None:
        _adopt(bundle, wish, plan)
    else:
        build_plans(bundle, wish)


def _dimension(text: str) -> tuple[str, Range]:
    name, _, numbers = text.partition("=")
    if not name or not numbers:
        raise UsageError(f"--shape is {text!r}; expected NAME=NUMBERS, such as S=32")
    found = parse_range(numbers, f"--shape {name}")
    # As for --batch: a run has as many as there are, so that a plan for a single number would take hardly any.
    return name, found._replace(least=1) if numbers.isdecimal() else found


def _print(text: str, *, to_error: bool = False) -> None:
    Console(stderr=to_error, soft_wrap=True, highlight=False, emoji=False).print(text, markup=False)


def _print_commands(bundle: Bundle, wish: Wish) -> None:
    from engines.trtexec import shell_text, trtexec_command

    for graph in wish.chosen(bundle):
        options = wish.options(graph)
        plan = Path(f"{bundle.manifest.name}-{graph}-{options.precision}.plan")
        declared = bundle.graph(graph)
        source = bundle.file(declared.file)
        _print(shell_text(trtexec_command(source, plan, declared, wish.shapes(bundle, graph), options)))
        _print(
            f"# then, on the machine that it is for: standin engines build {bundle.manifest.name} --graph {graph} "
            f"--plan {plan}{' and the same options' if wish != Wish(wish.graphs) else ''}"
        )


def _adopt(bundle: Bundle, wish: Wish, file: Path) -> None:
    from engines.plan_adopt import adopt_plan

    if len(wish.graphs) != 1:
        raise UsageError(f"--plan {file} needs the graph that it was built from; give one --graph")
    (graph,) = wish.chosen(bundle)
    taken = adopt_plan(bundle, graph, file, wish.options(graph), plans_folder(bundle, home()))
    _print(f"{graph}: {taken.path}")


def require_tensorrt() -> PlanBuilder:
    """What builds plans on this machine; to be asked for before anything that takes long.

    Raises:
        RuntimeUnavailableError: TensorRT or a GPU is not there.
    """
    from engines.plan_build import PlanBuilder

    return PlanBuilder()


def build_plans(bundle: Bundle, wish: Wish, builder: PlanBuilder | None = None) -> None:
    """Builds what is wished for, and says how it goes.

    Args:
        bundle: a verified bundle.
        wish: what is built.
        builder: on this machine; a new one if not given.

    Raises:
        BundleError: There is no such graph, or TensorRT cannot take it.
        UsageError: The shapes are not known.
        RuntimeUnavailableError: TensorRT or a GPU is not there.
        RuntimeFailedError: TensorRT did not build a plan.
    """
    graphs = wish.chosen(bundle)
    shapes = {graph: wish.shapes(bundle, graph) for graph in graphs}
    builder = builder or require_tensorrt()
    for graph in graphs:
        _check(bundle, graph, regardless=wish.regardless)
    folder = plans_folder(bundle, home())
    with terminable():
        for graph in graphs:
            with _shown(graph) as progress:
                built = builder.build(
                    bundle, graph, shapes[graph], wish.options(graph), folder, force=wish.force, progress=progress
                )
            how = "is there" if built.was_there else f"built in {built.plan.record.seconds:.0f} s"
            _print(f"{graph}: {how}, {built.plan.path} ({decimal(built.plan.path.stat().st_size)})")


def _check(bundle: Bundle, graph: str, *, regardless: bool) -> None:
    import onnx

    from export.tensorrt_checks import check_onnx

    source = bundle.file(bundle.graph(graph).file)
    problems = check_onnx(onnx.load(source))
    errors = [problem for problem in problems if problem.severity == "error"]
    for problem in problems:
        if problem.severity == "warning" or (problem.severity == "error" and regardless):
            _print(f"{graph}: {problem}", to_error=True)
    if errors and not regardless:
        more = f" (and {len(errors) - 3} more)" if len(errors) > 3 else ""
        shown = "; ".join(str(problem) for problem in errors[:3])
        raise BundleError(f"TensorRT cannot take {source}: {shown}{more}; --regardless tries it all the same")


@contextlib.contextmanager
def _shown(graph: str) -> Iterator[_Bar]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    if not console.is_terminal:
        _print(f"{graph}: building, which may take minutes", to_error=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        yield _Bar(graph, bars)


class _Bar:
    """Phases of a build lie within each other; every one has a bar while it lasts. Called from several threads."""

    def __init__(self, graph: str, bars: Progress) -> None:
        self._bars = bars
        self._whole = bars.add_task(graph, total=None)
        self._tasks = {graph: self._whole}

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(f"  {phase}", total=total)
        self._bars.update(self._tasks[phase], completed=done, total=total, visible=done < total)


def prune_command(
    which: Annotated[
        str | None, typer.Argument(metavar="PATH_OR_NAME", help="Only this bundle's plans. (default: all bundles')")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove TensorRT plans that no run on this machine would load."""
    from engines.plan_prune import folders_elsewhere

    store = Store(home())
    target = _this_machine()
    if target is None:
        _print("no TensorRT or no GPU here: only plans that fit nowhere are looked for", to_error=True)
    names = store.available() if which is None else (which,)
    looks: dict[Path, Look] = {}
    left_out: set[Path] = set()
    for name in names:
        try:
            bundle = store.find(name)
        except BundleError as error:
            if which is not None:
                raise
            log.warning("%s is left out: %s", name, error)
            left_out |= {path for path in (home() / "plans").glob(f"{name}-*") if path.is_dir()}
            continue
        looks |= {folder: partial(useless, bundle, (folder,), target) for folder in plan_folders(bundle, home())}
    if which is None:
        looks |= folders_elsewhere(home(), {*looks, *left_out}, target)
    _remove(looks, dry_run=dry_run)


def _this_machine() -> Target | None:
    try:
        return require_tensorrt().target
    except RuntimeUnavailableError as error:
        log.info("%s", error)
        return None


def _remove(looks: Mapping[Path, Look], *, dry_run: bool) -> None:
    from engines.plan_prune import alone_in

    count = total = 0
    for folder, look in looks.items():
        with alone_in(folder) as alone:
            if not alone:
                _print(f"{folder} is left out: a build is under way there", to_error=True)
                continue
            for plan in look():
                try:
                    total += plan.path.stat().st_size if dry_run else remove_plan(plan.path)
                except OSError as error:
                    raise BundleError(f"{plan.path} cannot be removed ({error.strerror or error})") from None
                count += 1
                _print(f"{plan.path}: {plan.reason}")
    _print(f"{count} plans, {decimal(total)}{' would be removed' if dry_run else ' removed'}")


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Lets SIGTERM, and the end of the terminal, end what takes long as Ctrl-C does, which cleans up."""
    ends = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(which, signal.default_int_handler) for which in ends]
    try:
        yield
    finally:
        for which, handler in zip(ends, before, strict=True):
            signal.signal(which, handler)
