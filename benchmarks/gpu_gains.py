"""What each thing that is done for a GPU gains there, each with and without it, in turns, in one run.

- CUDA graphs: TensorRT plans of the starter set, recorded and not, in milliseconds a run.
- The GPU's encoder: frames per second of 1080p that it encodes, and the processor's.
- Stages side by side: how much work of stages a second of a run holds.
- Sharing: pictures per second of four clients of an engine process, in joint runs and one by one.

    python benchmarks/gpu_gains.py --device tensorrt [--rounds 200]

What is not there is left out, with a line that says why. `--device cpu` measures the last two, to see that it works.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import overlap
from benchmarks.common import save
from benchmarks.engine_process import measure_shared
from engines.errors import StandinError
from engines.manifest import Graph, Tensor
from engines.plan_build import PlanBuilder
from engines.plan_serialize import BuildOptions
from engines.plan_shapes import Range, dimension_ranges, input_shapes
from engines.plans import Plan
from engines.runtime import DEVICES, Device, Runtime
from engines.runtime_tensorrt import TensorrtRuntime
from engines.store import Store, home
from stream.anonymizer import Anonymized
from stream.bench.encode import FileEncoder
from stream.bench.frames import clip_info
from stream.config import RunSettings, make_settings
from stream.demo import WALKERS
from stream.frame import Frame
from stream.regions import Regions

Row = dict[str, Any]

WARM_UP, CLIENTS = 10, 4
FULL_HD = (1080, 1920)
#: Pictures and persons that plans are built for.
RANGES = {"N": Range(1, 1, 4), "S": Range(1, 2, 4), "h": Range(288, 288, 288), "w": Range(512, 512, 512)}
#: Of the starter set, with what their inputs' free sides are.
GRAPHS: Mapping[tuple[str, str], Mapping[str, int]] = {
    ("starter-detector", "detector"): {"N": 1, "h": 288, "w": 512},
    ("starter-generator", "generator"): {"N": 1, "S": 1},
}


def in_turns(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each way, called in turns, so that whatever else the machine does meets all."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(WARM_UP + rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if number >= WARM_UP:
                times[name].append(1000 * (time.perf_counter() - began))
    return {name: round(statistics.median(values), 4) for name, values in times.items()}


def recorded(graph: str, sizes: Mapping[str, int], rounds: int, open_plan: Callable[[bool], Runtime]) -> Row:
    """A plan with its runs recorded as CUDA graphs, and without.

    Args:
        graph: what it is called in the result.
        sizes: of the free sides of its inputs.
        rounds: timed runs of each.
        open_plan: gives the plan's runtime, which records or does not.
    """
    with open_plan(True) as with_graphs, open_plan(False) as without:
        feeds = _feeds(with_graphs.inputs, sizes)
        ways = {"recorded_ms": with_graphs, "enqueued_ms": without}
        found = in_turns({name: partial(runtime.run, feeds) for name, runtime in ways.items()}, rounds)
    return {"what": "CUDA graphs", "graph": graph, **found, "gain": _ratio(found["enqueued_ms"], found["recorded_ms"])}


def _feeds(inputs: Iterable[Tensor], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Something for each input. What it holds does not change how long a run takes; sizes of pictures are true."""
    draw, feeds = np.random.default_rng(0), {}
    for tensor in inputs:
        shape = tuple(sizes[side] if isinstance(side, str) else side for side in tensor.shape)
        values = draw.uniform(0.1, 0.9, shape) if np.dtype(tensor.dtype).kind == "f" else np.zeros(shape)
        if tensor.name == "image_size":
            values[:] = sizes["h"], sizes["w"]
        feeds[tensor.name] = values.astype(tensor.dtype)
    return feeds


def _ratio(slower: float, faster: float) -> float:
    return round(slower / faster, 3)


def plans(folder: Path, rounds: int) -> Iterator[Row]:
    """CUDA graphs, for plans of the starter set, which are built first.

    Raises:
        StandinError: there is no TensorRT here, or it does not build them.
    """
    builder, store = PlanBuilder(), Store(home())
    for (name, graph), sizes in GRAPHS.items():
        bundle = store.find(name)
        declared = bundle.graph(graph)
        given = {side: sizes for side, sizes in RANGES.items() if side in _sides(declared)}
        shapes = input_shapes(declared, dimension_ranges(bundle.manifest, declared, given=given))
        plan = builder.build(bundle, graph, shapes, BuildOptions("fp32"), folder).plan
        opened = partial(_opened, plan, declared)
        yield recorded(f"{name} {graph}", sizes, rounds, opened)


def _sides(declared: Graph) -> set[str]:
    return {side for tensor in declared.inputs for side in tensor.shape if isinstance(side, str)}


def _opened(plan: Plan, declared: Graph, record: bool) -> TensorrtRuntime:
    return TensorrtRuntime(plan, declared, recorded=record)


def encoders(device: Device, frames: int, size: tuple[int, int] = FULL_HD) -> Row:
    """The GPU's encoder and the processor's, as a run to a file uses them, on moving texture.

    Args:
        device: of the networks, which says what encoder a run takes.
        frames: to encode with each.
        size: height and width.
    """
    height, width = size
    texture = np.random.default_rng(0).integers(30, 226, (height // 8 + 60, width // 8 + 60, 3), np.uint8)
    scene = texture.repeat(8, axis=0).repeat(8, axis=1)
    info = replace(clip_info(WALKERS), width=width, height=height)
    found: Row = {"what": "encoder", "size": f"{width}x{height}", "frames": frames}
    for name, where in (("gpu", device), ("cpu", "cpu")):
        encoder = FileEncoder(info, where)
        found[f"{name}_encoder"] = encoder.codec
        began = time.perf_counter()
        for number in range(frames):
            y, x = 2 * number % 400, 3 * number % 400
            image = np.ascontiguousarray(scene[y : y + height, x : x + width])
            encoder.encode(Anonymized(Frame(image, pts=number, time_base=info.time_base), Regions.empty()))
        encoder.flush()
        found[f"{name}_fps"] = round(frames / (time.perf_counter() - began), 1)
    return found | {"gain": _ratio(found["gpu_fps"], found["cpu_fps"])}


def side_by_side(device: Device, frames: int) -> Row:
    """Stages of a run of the starter preset: seconds of work for each second that it takes."""
    settings = make_settings(RunSettings, {"preset": "starter", "device": device})
    found = overlap.measure(WALKERS, frames, settings)
    return {"what": "stages side by side", **found, "gain": found["sum_over_wall"]}


def sharing(folder: Path, device: Device, runs: int) -> Row:
    """Clients of one engine process whose pictures are joined, and not."""
    joint, single = (measure_shared(folder / str(rows), CLIENTS, rows, runs, device) for rows in (CLIENTS, 1))
    return {
        "what": "joint runs",
        "clients": CLIENTS,
        "rows_per_run": joint["rows_per_run"],
        "joint_per_second": joint["pictures_per_second"],
        "single_per_second": single["pictures_per_second"],
        "gain": _ratio(joint["pictures_per_second"], single["pictures_per_second"]),
    }


def measure(device: Device, rounds: int, *, say: Callable[[str], None]) -> list[Row]:
    """All that can be measured on a device.

    Args:
        device: see the module.
        rounds: timed runs of each way of a graph; other parts take about as long.
        say: is told what is left out.
    """
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if device == "tensorrt":
            try:
                rows += plans(folder / "plans", rounds)
            except StandinError as error:
                say(f"CUDA graphs are not measured: {error}")
        found = encoders(device, max(2, rounds)) if device in ("cuda", "tensorrt") else None
        if found is None or found["gpu_encoder"] == found["cpu_encoder"]:
            say("the GPU's encoder is not measured: there is none here")
        else:
            rows.append(found)
        rows.append(side_by_side(device, max(20, rounds)))
        rows.append(sharing(folder, device, max(10, rounds // 4)))
    return rows


def main() -> None:
    """Measure and write `results/gpu_gains.json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--device", choices=DEVICES, default="cuda")
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    console = Console(stderr=True)
    rows = measure(options.device, options.rounds, say=lambda text: console.print(text, markup=False))
    for row in rows:
        print(row)
    print(save("gpu_gains", {"device": options.device, "rows": rows}))


if __name__ == "__main__":
    main()
