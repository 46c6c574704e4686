"""How near each engine comes to what this machine could do at best.

For every graph of the starter set, and of the published networks with random weights (as `standin bench --seeded`
makes them): floating-point operations and bytes on their way to and from memory, counted over the ONNX graph (what
counts is said in `engines/work.py`), and the time that a run takes. Two floors stand against it: the operations at the
best rate of a matrix product, and the bytes at the best rate of reading and writing, both measured on the same device,
products in the graph's precision. The higher one is the floor, and `times_floor` is the measured time over it, as a
median over runs and for the fastest one, since other people's load makes runs slower (it stands in the result). On a
GPU, generators are timed with inputs and outputs that stay there; detectors' times hold the copies.

Floors are those of straightforward arithmetic: a library that needs fewer multiplications for a convolution (Winograd,
FFT) can come below, and so can graphs whose arrays stay in caches. Half precision on a CPU is computed in float32, so
that the better rate of both counts.

    python benchmarks/limit.py [--presets starter deepprivacy2 sg-gan] [--device cpu] [--precision fp32]
        [--batches 1] [--size 1280x720] [--persons 4] [--tf32] [--name limit]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import save
from benchmarks.rates import Rates, measure_rates
from engines.bundle import Bundle
from engines.errors import StandinError
from engines.resident import on_host
from engines.runtime import Device
from engines.store import Store, home
from engines.work import Work, count_work, observe_shapes, unknown_tensors
from stream.assemble import Bundles, find_bundles
from stream.bench.engines import example_feeds, generator_runs, opened_eyes
from stream.bench.machine import Gpu
from stream.bench.plan import bundle_names
from stream.bench.records import EngineRun
from stream.bench.text import number
from stream.config import AnonymizerSettings, make_settings
from stream.frame import Frame
from stream.generators.base import Array
from stream.generators.open import Precision
from stream.presets import PRESETS
from stream.terminal import table

#: Columns of a table in a file, where nobody folds it.
_WIDE = 160


@dataclass(frozen=True)
class Found:
    """One graph: what it holds, and how long it took."""

    run: EngineRun
    work: Work


@dataclass(frozen=True)
class Row:
    """One graph against its floors."""

    bundle: str
    graph: str
    batch: int
    inputs: str
    giga_operations: float
    megabytes_least: float
    megabytes_moved: float
    milliseconds: float
    milliseconds_best: float
    floor_operations: float
    floor_bytes: float
    times_floor: float
    times_floor_best: float
    provider: str
    tf32: bool | None
    nodes_on_cpu: dict[str, int] | None
    unknown: dict[str, int]


def row_of(found: Found, rates: Rates) -> Row:
    """The floors of a graph, in milliseconds for a run, and its time over the higher one."""
    run, work = found.run, found.work
    # The way from and to the host is another limit, and not the engine's.
    times = run.on_device or run.milliseconds
    operations, copied = 1000 * work.operations / rates.operations, 1000 * work.moved / rates.bytes
    return Row(
        bundle=run.bundle,
        graph=run.graph,
        batch=run.batch,
        inputs=run.inputs,
        giga_operations=round(work.operations / 1e9, 3),
        megabytes_least=round(work.least / 1e6, 2),
        megabytes_moved=round(work.moved / 1e6, 2),
        milliseconds=round(times.median, 3),
        milliseconds_best=round(times.lowest, 3),
        floor_operations=round(operations, 4),
        floor_bytes=round(copied, 4),
        times_floor=round(times.median / max(operations, copied), 2),
        times_floor_best=round(times.lowest / max(operations, copied), 2),
        provider=run.provider,
        tf32=run.tf32,
        nodes_on_cpu=run.on_cpu,
        unknown=dict(work.unknown),
    )


def work_of(bundle: Bundle, graph: str, feeds: dict[str, Array]) -> Work:
    """The work of a graph on some inputs; where shapes depend on values it is run once more to see them."""
    model = onnx.load(bundle.file(bundle.graph(graph).file))
    shapes = {name: array.shape for name, array in feeds.items()}
    return count_work(model, shapes, observe_shapes(model, feeds, unknown_tensors(model, shapes)))


def detectors(settings: AnonymizerSettings, bundles: Bundles, size: tuple[int, int], persons: int) -> Iterator[Found]:
    """Every graph of the detectors, on a frame of noise with persons put into what they answer."""
    width, height = size
    frame = Frame(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
    by_name = {bundle.manifest.name: bundle for bundle in bundles.detectors}
    with opened_eyes(bundles, settings, persons=persons, aspect=width / height) as eyes:
        runs = eyes.look(frame)
        for runtime in eyes.runtimes:
            runtime.keeps = True
        # As when it was timed: what a network with random weights answers may not make sense.
        with contextlib.suppress(StandinError):
            eyes.detector.detect(frame)
        feeds = {(r.bundle, r.name): on_host(r.feeds) for r in eyes.runtimes}
    for run in runs:
        yield Found(run, work_of(by_name[run.bundle], run.graph, feeds[run.bundle, run.graph]))


def generators(
    bundles: Bundles, device: Device, precision: Precision, threads: int | None, batches: Sequence[int], *, tf32: bool
) -> Iterator[Found]:
    """Every graph of the generators by itself."""
    by_name = {bundle.manifest.name: bundle for bundle in bundles.generators.values()}
    runs, missing = generator_runs(list(by_name.values()), device, precision, threads, batches)
    for text in missing:
        Console(stderr=True).print(f"not measured: {text}", markup=False)
    switched = {run.graph for run in runs if run.tf32 == tf32}
    for run in runs:
        # Half precision knows no TF32, and tables are made without it.
        if run.tf32 in (None, tf32) or run.graph not in switched:
            bundle = by_name[run.bundle]
            yield Found(run, work_of(bundle, run.graph, example_feeds(bundle.graph(run.graph), run.batch)))


def settings_of(preset: str, arguments: argparse.Namespace) -> AnonymizerSettings:
    """The settings of a preset, with random weights for what needs a checkpoint."""
    given: list[str] = []
    if preset != "starter":
        # Needs PyTorch, which the starter set does not.
        from export.seeded import kept_bundle, seeded_names

        def say(text: str) -> None:
            Console(stderr=True).print(f"  {text}", markup=False)

        names = [name for name in bundle_names(preset) if name in seeded_names()]
        given = [f"{name}={kept_bundle(name, home(), progress=say)}" for name in names]
    return make_settings(
        AnonymizerSettings,
        {
            "preset": preset,
            "device": arguments.device,
            "precision": arguments.precision,
            # The floors are those of floating point.
            "detector_precision": "fp32",
            "engine": given,
            "threads": arguments.threads,
        },
    )


def all_found(arguments: argparse.Namespace) -> list[Found]:
    """Every graph of all presets, each once."""
    found: dict[tuple[str, str, int], Found] = {}
    width, _, height = arguments.size.partition("x")
    for preset in arguments.presets:
        settings = settings_of(preset, arguments)
        bundles = find_bundles(settings, Store(home()))
        made = [
            *detectors(settings, bundles, (int(width), int(height)), arguments.persons),
            *generators(
                bundles,
                arguments.device,
                arguments.precision,
                arguments.threads,
                arguments.batches,
                tf32=arguments.tf32,
            ),
        ]
        for one in made:
            found.setdefault((one.run.bundle, one.run.graph, one.run.batch), one)
    return list(found.values())


def show(rows: Sequence[Row], rates: Rates) -> None:
    """A table for people."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)
    console.print(
        f"matrix products: {rates.operations / 1e9:,.0f} GFLOP/s ({rates.product}); "
        f"reading and writing: {rates.bytes / 1e9:,.1f} GB/s",
        highlight=False,
    )
    columns = (
        *("graph", "batch", "input", "GFLOP", "MB moved", "floor, operations", "floor, bytes"),
        *("ms", "over floor", "at best"),
    )
    lines = [
        (
            f"{row.bundle} {row.graph}",
            str(row.batch),
            row.inputs,
            *map(
                number,
                (
                    row.giga_operations,
                    row.megabytes_moved,
                    row.floor_operations,
                    row.floor_bytes,
                    row.milliseconds,
                    row.times_floor,
                    row.times_floor_best,
                ),
            ),
        )
        for row in rows
    ]
    console.print(
        table("Graphs by themselves against what this machine could do at best (floors in ms)", columns, lines)
    )


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=["starter", "deepprivacy2", "sg-gan"])
    parser.add_argument("--device", choices=("cpu", "cuda", "tensorrt"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32")
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--size", default="1280x720", help="of the frame that detectors look at")
    parser.add_argument("--persons", type=int, default=4)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--tf32", action="store_true", help="generators with TF32, and its rate of products")
    parser.add_argument("--name", default="limit", help="of the result")
    return parser.parse_args()


def main() -> None:
    """Measure, show and write."""
    arguments = parsed()
    began, load = time.monotonic(), round(os.getloadavg()[0], 2)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:

        def rates() -> Rates:
            # Plans are as fast as the GPU; ONNX Runtime's own provider would be timed in their place, and with TF32.
            where: Device = "cuda" if arguments.device == "tensorrt" else arguments.device
            return measure_rates(Path(folder), where, arguments.threads, arguments.precision, tf32=arguments.tf32)

        # Before and after: the speed of a shared machine changes, and a floor is the best of it.
        first = rates()
        found = all_found(arguments)
        best = first.better(rates())
        gpu = stack.enter_context(Gpu.opened())
        name = gpu.name() if gpu is not None else None
    rows = [row_of(one, best) for one in found]
    show(rows, best)
    settings: dict[str, Any] = {k: v for k, v in vars(arguments).items() if k != "name"}
    path = save(
        arguments.name,
        {
            "settings": settings,
            "gpu": name,
            "load_before_and_after": [load, round(os.getloadavg()[0], 2)],
            "rates": asdict(best),
            "rows": [asdict(row) for row in rows],
        },
    )
    Console().print(f"{path} after {time.monotonic() - began:.0f} s", highlight=False)


if __name__ == "__main__":
    try:
        main()
    except StandinError as error:
        sys.exit(str(error))
