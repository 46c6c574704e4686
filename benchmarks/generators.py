"""Generators: the published way in torch against the exported graphs, turn by turn, in one run.

Networks of the published sizes get seeded random weights and are exported as `standin export` does it. The published
way makes the modulation from z for every person and frame: a mapping network for the U-Nets, one w per vertex of the
body and a map of it per pixel for SG-GAN. Ours, per device: `steady` is what a track costs in every frame, through
the generator that a run uses; `first` is its first frame, mapping included; `engine` is the bare graph with the whole
batch in one run (on the CPU a run takes crops one by one). All figures are per person and frame.

The floor is the time for the graph's dense convolutions alone at the best rate that 3x3 convolutions of the networks'
own sizes reach here, in ONNX Runtime (chained, so that changes of layout at both ends count little) or torch, taken
beside every turn. `times_*` are medians of ratios within a turn, since the speed of a shared machine changes;
`times_floor_best` compares the best with the best. `difference` is the largest one between both ways' images.

    python benchmarks/generators.py [--only NAME ...] [--batches 1 4 8] [--rounds 4] [--limit 60]
        [--devices cpu,openvino]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import vertex_search
from benchmarks.common import machine, save
from benchmarks.convolutions import PAUSE, Convolutions, count_macs, seconds
from benchmarks.generator_ways import (
    LATENT,
    TRUNCATION,
    Network,
    Spec,
    Way,
    engine_feeds,
    engine_way,
    our_ways,
    published_way,
    random_crops,
    surface_of,
)
from engines.bundle import Bundle
from engines.errors import RuntimeUnavailableError
from engines.runtime import DEVICES, Device, open_runtime
from engines.runtime_openvino import import_openvino
from export.configs import configs
from export.generators import export_generator
from export.seeded import published_spec, random_network
from stream.generators.open import open_generator
from stream.latents import Latents
from stream.report import versions

Row = dict[str, Any]

NAMES = ("dp2-person-cse", "dp2-person", "dp2-face", "sg-gan")
#: Load average above which the machine is not quiet.
_QUIET = 0.5
#: A body of about this share of the crop's rows goes through the vertex search when SG-GAN's whole frame is summed up.
SEARCHES = (
    vertex_search.Case(noise=0.01, share=0.4),
    vertex_search.Case(noise=0.01),
    vertex_search.Case(noise=None),
)


@dataclass(frozen=True)
class Turn:
    """What was measured one right after the other.

    Attributes:
        batch: persons.
        seconds: per person, by way.
        rates: GMAC/s, by convolution.
    """

    batch: int
    seconds: Mapping[str, float]
    rates: Mapping[str, float]


def track_bytes(bundle: Bundle) -> dict[str, int]:
    """What a track keeps from its first frame on: tables, in both precisions, or its w."""
    shapes = [tensor.shape[1:] for tensor in bundle.graph("generator").inputs if tensor.name.startswith("table_")]
    numbers = sum(int(np.prod([int(side) for side in shape])) for shape in shapes) if shapes else LATENT
    return {"fp32": 4 * numbers, "fp16": (2 if shapes else 4) * numbers}


def take_turns(
    ways: Mapping[int, Mapping[str, Way]], rates: Callable[[], Mapping[str, float]], *, rounds: int, limit: float
) -> list[Turn]:
    """Runs all ways of a batch one after the other, small batches more often: one round at least, until `limit`."""
    began = time.perf_counter()
    turns: list[Turn] = []
    for number in range(rounds):
        for batch, by_name in ways.items():
            for _ in range(max(1, 4 // batch)):
                if number and time.perf_counter() - began > limit:
                    return turns
                turns.append(Turn(batch, {name: _timed(way) / batch for name, way in by_name.items()}, rates()))
    return turns


def summarise(turns: Sequence[Turn], dense: float) -> list[Row]:
    """One row for each batch.

    Args:
        turns: of all batches.
        dense: 1e9 multiplications of its dense convolutions per person.
    """
    return [
        _row(batch, [turn for turn in turns if turn.batch == batch], dense)
        for batch in dict.fromkeys(turn.batch for turn in turns)
    ]


def _row(batch: int, turns: Sequence[Turn], dense: float) -> Row:
    ours = [way for way in turns[0].seconds if way != "published"]
    floors = [dense / max(turn.rates.values()) for turn in turns]
    row: Row = {"batch": batch, "turns": len(turns)}
    for way in turns[0].seconds:
        taken = [1000 * turn.seconds[way] for turn in turns]
        row |= {f"{way}_ms": round(statistics.median(taken), 1), f"{way}_best_ms": round(min(taken), 1)}
    row |= {"floor_ms": round(1000 * statistics.median(floors), 1), "floor_best_ms": round(1000 * min(floors), 1)}
    for way in ours:
        faster = statistics.median(turn.seconds["published"] / turn.seconds[way] for turn in turns)
        slower = statistics.median(turn.seconds[way] / floor for turn, floor in zip(turns, floors, strict=True))
        row |= {
            f"{way}_times_published": round(faster, 2),
            f"{way}_times_floor": round(slower, 2),
            f"{way}_times_floor_best": round(min(turn.seconds[way] for turn in turns) / min(floors), 2),
        }
    return row


@dataclass(frozen=True)
class Settings:
    """How much is measured, and where."""

    batches: Sequence[int] = (1, 4, 8)
    rounds: int = 4
    limit: float = 60.0
    devices: Sequence[Device] = ("cpu", "openvino")
    threads: int = 2


def measure(name: str, spec: Spec, convolutions: Convolutions, settings: Settings) -> Row:
    """One generator: what it is, and its rows."""
    network = random_network(spec)
    with tempfile.TemporaryDirectory() as folder:
        bundle = _export(name, network, Path(folder))
        graph = bundle.file(bundle.graph("generator").file)
        macs, mapping = count_macs(onnx.load(graph)), count_macs(onnx.load(bundle.file("mapping.onnx")))
        with _opened(network, bundle, settings) as ways:
            difference = _warm_up(ways)
            turns = take_turns(ways, convolutions.measure, rounds=settings.rounds, limit=settings.limit)
        return {
            "generator": name,
            "image_size": spec.image_size,
            "gmac": {kind: round(count, 3) for kind, count in macs.items()},
            "gmac_mapping": round(sum(mapping.values()), 3),
            "generator_mib": round(graph.stat().st_size / 2**20, 1),
            "track_bytes": track_bytes(bundle),
            "difference": difference,
            "gmac_per_second": {kind: round(max(t.rates[kind] for t in turns), 1) for kind in turns[0].rates},
            "rows": summarise(turns, macs["dense"]),
        }


def _export(name: str, network: Network, folder: Path) -> Bundle:
    checkpoint = folder / "checkpoint.ckpt"
    torch.save({"EMA_generator": network.state_dict()}, checkpoint)
    bundle: Bundle = export_generator(name, checkpoint, folder / "bundle", precision="fp32", config=name)
    return bundle


@contextlib.contextmanager
def _opened(network: Network, bundle: Bundle, settings: Settings) -> Iterator[dict[int, dict[str, Way]]]:
    """All ways by batch and name; those of a device begin with its name."""
    crops, latents = random_crops(network.spec, max(settings.batches)), Latents(seed=0)
    known: dict[str, Any] = {"latents": latents, "truncation": TRUNCATION, "multi_modal": False}
    if network.spec.embedding_channels:
        known["embeddings"] = surface_of(network.spec)
    with contextlib.ExitStack() as opened:
        ways = {
            batch: {"published": published_way(network, crops[:batch], bundle, latents)} for batch in settings.batches
        }
        for device in settings.devices:
            place: dict[str, Any] = {"device": device, "threads": settings.threads}
            generator = open_generator(bundle, **place, **known)
            opened.callback(generator.close)
            runtime = opened.enter_context(open_runtime(bundle, "generator", **place))
            with open_runtime(bundle, "mapping", **place) as mapping:
                feeds = engine_feeds(runtime, mapping, crops, bundle)
            for batch, by_name in ways.items():
                ours = our_ways(generator, crops[:batch]) | {"engine": engine_way(runtime, feeds, batch)}
                by_name.update({f"{device}_{name}": way for name, way in ours.items()})
        yield ways


def _warm_up(ways: Mapping[int, Mapping[str, Way]]) -> float:
    """Runs everything of ours once, and the published way for the first batch; gives the largest difference there."""
    largest = 0.0
    for number, by_name in enumerate(ways.values()):
        made = {}
        for name, way in by_name.items():
            if name != "published" or not number:
                way.before()
                made[name] = way.run()
        if not number:
            # The bare engine has other latents.
            same = [images for name, images in made.items() if not name.endswith("_engine")]
            largest = max(float(np.abs(images - same[0]).max()) for images in same)
    return largest


def _timed(way: Way) -> float:
    way.before()
    time.sleep(PAUSE)
    return seconds(way.run)


def whole_frames(rows: Sequence[Row], search: Row, devices: Sequence[str]) -> list[Row]:
    """SG-GAN with the vertex search that comes before it, sums of two measurements, per person."""
    found = []
    for row in rows:
        published = row["published_ms"] + search["published_ms"]
        ours = {device: row[f"{device}_steady_ms"] + search["ours_ms"] for device in devices}
        found.append(
            {"batch": row["batch"], "published_ms": round(published, 1)}
            | {f"{device}_steady_ms": round(taken, 1) for device, taken in ours.items()}
            | {f"{device}_steady_times_published": round(published / taken, 2) for device, taken in ours.items()}
        )
    return found


def lines(result: Row) -> list[tuple[str, ...]]:
    """The cells of the table, one line for each generator, batch and device, then the vertex search."""
    made = []
    for part in result["generators"]:
        kept = f"{part['track_bytes']['fp32'] / 1e6:.3g} / {part['track_bytes']['fp16'] / 1e6:.3g}"
        name = f"{part['generator']}\n{part['gmac']['dense']:.1f} GMAC"
        made += [_line(name, row, device, kept) for row in part["rows"] for device in result["devices"]]
    for row in result["with_vertex_search"]:
        made += [_line("sg-gan and vertex search", row, device, "") for device in result["devices"]]
    for row in result["vertex_search"]:
        name = f"vertex search, {row['queries']}, {row['pixels']} pixels"
        ours = {"batch": 1, "published_ms": row["published_ms"], "cpu_steady_ms": row["ours_ms"]}
        made.append(_line(name, ours | {"cpu_steady_times_published": row["times_published"]}, "cpu", ""))
    return made


def _line(name: str, row: Row, device: str, kept: str) -> tuple[str, ...]:
    own = ("first_ms", "steady_ms", "engine_ms", "first_times_published", "steady_times_published")
    keys = ["batch", "published_ms", *(f"{device}_{key}" for key in own), "floor_ms", f"{device}_steady_times_floor"]
    cells = [str(row.get(key, "")) for key in keys]
    return (name, device, *cells, kept)


_TABLE_WIDTH = 200
HEAD = (
    *("generator", "device", "batch", "published ms", "first ms", "steady ms", "engine ms", "first x", "steady x"),
    *("floor ms", "steady / floor", "MB a track, fp32 / fp16"),
)


def main() -> None:
    """Measure and write `results/generators.json`."""
    options = _options()
    torch.set_num_threads(options.threads)
    settings = Settings(options.batches, options.rounds, options.limit, options.devices, options.threads)
    convolutions, began = Convolutions(options.threads), time.perf_counter()
    # A pipe does not say how wide it is, and is taken for a narrow terminal.
    console = Console(width=None if sys.stdout.isatty() else _TABLE_WIDTH)
    load, generators = os.getloadavg()[0], []
    if load > _QUIET:
        console.print(f"others load this machine ({load:.1f}): torch's threads suffer most, do not trust its times")
    for name in options.only:
        console.print(f"{name} ...")
        generators.append(measure(name, published_spec(configs()[name]), convolutions, settings))
    searches = vertex_search.measure(SEARCHES, rounds=2) if "sg-gan" in options.only else []
    surface_rows = [row for part in generators if part["generator"] == "sg-gan" for row in part["rows"]]
    result: Row = {
        "versions": versions() | {"torch": torch.__version__, "onnx": onnx.__version__},
        "threads": options.threads,
        "load_before": round(load, 2),
        "devices": options.devices,
        "generators": generators,
        "vertex_search": searches,
        "with_vertex_search": whole_frames(surface_rows, searches[0], options.devices) if searches else [],
        "seconds": round(time.perf_counter() - began, 1),
    }
    table = Table(*HEAD, title=f"ms per person and frame; {machine()['processor']}, {options.threads} threads")
    for line in lines(result):
        table.add_row(*line)
    console.print(table)
    # A part does not take the place of the whole.
    print(save("generators" if tuple(options.only) == NAMES else "generators-" + "-".join(options.only), result))


def _installed() -> list[Device]:
    """OpenVINO is optional."""
    try:
        import_openvino()
    except RuntimeUnavailableError:
        return ["cpu"]
    return list(Settings.devices)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--batches", nargs="+", type=int, default=Settings.batches)
    parser.add_argument("--rounds", type=int, default=Settings.rounds)
    parser.add_argument("--limit", type=float, default=Settings.limit, help="seconds for the turns of a generator")
    parser.add_argument(
        "--devices", type=lambda text: text.split(","), default=_installed(), help="separated by commas"
    )
    parser.add_argument("--threads", type=int, default=Settings.threads)
    options = parser.parse_args()
    if unknown := set(options.devices) - set(DEVICES):
        parser.error(f"no such devices: {', '.join(sorted(unknown))}; expected some of {', '.join(DEVICES)}")
    return options


if __name__ == "__main__":
    main()
