"""What each thing that is done for a GPU gains there: with it and without it in turns, medians of all turns.

- CUDA graphs: TensorRT plans of the starter set, recorded and not, in milliseconds a run.
- The GPU's encoder: frames per second of 1080p that it encodes, and the processor's; colours are converted before.
- The GPU's decoder: frames per second of 1080p that it decodes, and the processor's; both end with RGB on the host.
- Stages side by side: frames per second of a run, and of the same stages one after the other.
- Frames in one run: persons per second of frames that are painted side by side, in runs that they share and not.
- Sharing: pictures per second of four clients of an engine process, in joint runs and one by one.

    python benchmarks/gpu_gains.py --device tensorrt [--rounds 200]

What cannot be measured is left out, with a line that says why. Plans are built first, which takes minutes, in a folder
of their own: they suit this benchmark alone. `--device cpu` measures the last three, to see that it works.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import loop_clip, save
from benchmarks.engine_process import measure_shared
from engines.errors import RuntimeUnavailableError, StandinError
from engines.manifest import Graph
from engines.plan_build import PlanBuilder
from engines.plan_serialize import BuildOptions
from engines.plan_shapes import Range, dimension_ranges, input_shapes
from engines.plans import Plan, plans_folder
from engines.runtime import DEVICES, Device, Runtime, open_runtime
from engines.runtime_joined import JoinedRuntime
from engines.runtime_tensorrt import TensorrtRuntime
from engines.splitting import row_inputs
from engines.store import Store, home
from stream.address import input_address, output_address
from stream.anonymizer import Anonymized, Anonymizer
from stream.bench.encode import FileEncoder
from stream.bench.engines import example_feeds
from stream.bench.frames import clip_info
from stream.bench.machine import Gpu
from stream.config import DecoderDevice, RunSettings, make_settings
from stream.cores import MOST_PARALLEL
from stream.demo import WALKERS
from stream.endpoints import open_sinks
from stream.frame import Frame, Image
from stream.generators.base import MOST_CROPS
from stream.regions import Regions
from stream.run import run
from stream.sources.describe import step
from stream.sources.hardware import check_decoder
from stream.sources.video import VideoSource

if TYPE_CHECKING:
    from engines.resident import Feeds

Row = dict[str, Any]

WARM_UP, CLIENTS = 10, 4
#: In each frame.
PERSONS = 2
FULL_HD = (1080, 1920)
#: Turns of what takes seconds.
TURNS = 3
#: Pictures and persons that plans take at once, tracks that they know, and sizes of pictures from a second look's on.
ROWS, TRACKS = Range(1, 2, MOST_CROPS), Range(1, 2, 8)
SIZES = (Range(224, 384, 384), Range(384, 640, 640))
BUNDLES = ("starter-detector", "starter-generator")
#: The graphs that run in every frame, with what their inputs' free sides are.
GRAPHS: Mapping[tuple[str, str], Mapping[str, int]] = {
    ("starter-detector", "detector"): {"N": 1, "h": 384, "w": 640},
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


def recorded(graph: str, feeds: Mapping[str, Any], rounds: int, open_plan: Callable[[bool], TensorrtRuntime]) -> Row:
    """A plan with its runs recorded as CUDA graphs, and without.

    Args:
        graph: what it is called in the result.
        feeds: of each run.
        rounds: timed runs of each.
        open_plan: gives the plan's runtime, which records or does not.
    """
    with open_plan(True) as with_graphs, open_plan(False) as without:
        ways = {"recorded_ms": with_graphs, "enqueued_ms": without}
        found = in_turns({name: partial(runtime.run, dict(feeds)) for name, runtime in ways.items()}, rounds)
        # Where recording fails, both ways are the same one, and a gain would be noise.
        was_recorded = with_graphs.recorded > 0
    gain = _ratio(found["enqueued_ms"], found["recorded_ms"]) if was_recorded else None
    return {"what": "CUDA graphs", "graph": graph, "recorded": was_recorded, **found, "gain": gain}


def _ratio(one: float, other: float) -> float:
    return round(one / other, 3)


def plans(rounds: int) -> Iterator[Row]:
    """CUDA graphs, for plans of the starter set, which are built first, all of them: runs further down need them.

    Raises:
        StandinError: there is no TensorRT here, or it does not build them.
    """
    builder, store, built = PlanBuilder(), Store(home()), dict[tuple[str, str], tuple[Plan, Graph]]()
    for name in BUNDLES:
        bundle = store.find(name)
        for graph, declared in bundle.manifest.graphs.items():
            if graph in bundle.manifest.quantized:
                continue
            given = {"S": TRACKS} if "S" in _sides(declared) else {}
            ranges = dimension_ranges(bundle.manifest, declared, batch=ROWS, sizes=SIZES, given=given)
            shapes = input_shapes(declared, ranges)
            plan = builder.build(bundle, graph, shapes, BuildOptions("fp32"), plans_folder(bundle, home())).plan
            built[name, graph] = plan, declared
    for (name, graph), sizes in GRAPHS.items():
        plan, declared = built[name, graph]
        feeds = example_feeds(declared, sizes)
        if "image_size" in feeds:
            feeds["image_size"][:] = sizes["h"], sizes["w"]
        yield recorded(f"{name} {graph}", feeds, rounds, partial(_opened, plan, declared))


def _sides(declared: Graph) -> set[str]:
    return {side for tensor in declared.inputs for side in tensor.shape if isinstance(side, str)}


def _opened(plan: Plan, declared: Graph, record: bool) -> TensorrtRuntime:
    return TensorrtRuntime(plan, declared, recorded=record)


def encoders(device: Device, frames: int, size: tuple[int, int] = FULL_HD) -> Row:
    """The GPU's encoder and the processor's, as a run to a file uses them, on moving texture.

    Args:
        device: of the networks, which says what encoder a run takes.
        frames: to encode in a turn.
        size: height and width.
    """
    height, width = size
    info = replace(clip_info(WALKERS), width=width, height=height)
    where: dict[str, Device] = {"gpu": device, "cpu": "cpu"}
    rates: dict[str, list[float]] = {name: [] for name in where}
    found: Row = {"what": "encoder", "size": f"{width}x{height}", "frames": frames}
    for _ in range(TURNS):
        for name, used in where.items():
            encoder = FileEncoder(info, used)
            pictures = []
            for number, image in enumerate(_moving(WARM_UP + frames, size)):
                shown = Anonymized(Frame(image, pts=number, time_base=info.time_base), Regions.empty())
                pictures.append(encoder.picture(shown))
            # The first picture opens the encoder, which on a GPU takes longer than many pictures.
            for picture in pictures[:WARM_UP]:
                encoder.encode_picture(picture)
            began = time.perf_counter()
            for picture in pictures[WARM_UP:]:
                encoder.encode_picture(picture)
            encoder.flush()
            rates[name].append(frames / (time.perf_counter() - began))
            found[f"{name}_encoder"] = encoder.codec
    medians = {name: round(statistics.median(values), 1) for name, values in rates.items()}
    gain = _ratio(medians["gpu"], medians["cpu"])
    return found | {f"{name}_fps": rate for name, rate in medians.items()} | {"gain": gain}


def _moving(count: int, size: tuple[int, int]) -> Iterator[Image]:
    """Pictures of texture that moves, of a height and width."""
    height, width = size
    texture = np.random.default_rng(0).integers(30, 226, (height // 8 + 60, width // 8 + 60, 3), np.uint8)
    scene = texture.repeat(8, axis=0).repeat(8, axis=1)
    for number in range(count):
        y, x = 2 * number % 400, 3 * number % 400
        yield np.ascontiguousarray(scene[y : y + height, x : x + width])


def decoders(frames: int, size: tuple[int, int] = FULL_HD) -> Row:
    """The GPU's decoder and the processor's, as a run from a file uses them, on moving texture in H.264.

    Args:
        frames: to decode in a turn.
        size: height and width.

    Raises:
        RuntimeUnavailableError: no GPU decodes here.
    """
    check_decoder("cuda")
    where: dict[str, DecoderDevice] = {"gpu": "cuda", "cpu": "cpu"}
    rates: dict[str, list[float]] = {name: [] for name in where}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "moving.mp4"
        info = replace(clip_info(WALKERS), width=size[1], height=size[0])
        settings = make_settings(RunSettings, {"codec": "libx264"})
        (sink,) = open_sinks(input_address(str(WALKERS)), [output_address(str(path))], info, settings, still=False)
        for number, image in enumerate(_moving(frames, size)):
            frame = Frame(image, pts=number * step(info), time_base=info.time_base)
            sink.write(Anonymized(frame, Regions.empty()))
        sink.close()
        for _ in range(TURNS):
            for name, decoder in where.items():
                with contextlib.closing(VideoSource(path, strict=False, decoder=decoder)) as source:
                    began = time.perf_counter()
                    count = sum(frame.damaged is None for frame in source)
                    rates[name].append(count / (time.perf_counter() - began))
    medians = {name: round(statistics.median(values), 1) for name, values in rates.items()}
    found: Row = {"what": "decoder", "size": f"{size[1]}x{size[0]}", "frames": frames}
    return found | {f"{n}_fps": rate for n, rate in medians.items()} | {"gain": _ratio(medians["gpu"], medians["cpu"])}


def side_by_side(device: Device, frames: int) -> Row:
    """A run of the starter preset, and the same frames through the same stages one after the other.

    Args:
        device: of the networks.
        frames: that each turn has at least.
    """
    settings = make_settings(RunSettings, {"preset": "starter", "device": device})
    rates: dict[str, list[float]] = {"run_fps": [], "in_turn_fps": []}
    with tempfile.TemporaryDirectory() as name:
        clip = loop_clip(WALKERS, Path(name) / "looped.mp4", frames)
        for _ in range(TURNS):
            summary = run(clip, Path(name) / "out.mp4", settings.model_copy(update={"overwrite": True})).summary
            rates["run_fps"].append(summary.frames / summary.seconds)
            rates["in_turn_fps"].append(_in_turn(clip, settings))
    medians = {name: round(statistics.median(values), 2) for name, values in rates.items()}
    gain = _ratio(medians["run_fps"], medians["in_turn_fps"])
    return {"what": "stages side by side", "frames": summary.frames, **medians, "gain": gain}


def _in_turn(clip: Path, settings: RunSettings) -> float:
    """Frames per second where a frame is encoded before the next one is decoded."""
    with (
        contextlib.closing(VideoSource(clip)) as source,
        Anonymizer.from_settings(settings, offline=True) as anonymizer,
    ):
        anonymizer.prepare(source.info.width, source.info.height)
        encoder = FileEncoder(source.info, settings.device)
        began, count = time.perf_counter(), 0
        for item in anonymizer.iterate(source):
            encoder.encode(item)
            count += 1
        encoder.flush()
        return count / (time.perf_counter() - began)


def frames_in_one_run(device: Device, runs: int) -> Row:
    """Persons of frames that are painted side by side: in runs that they share, frame by frame, and frames at once.

    Args:
        device: of the generator.
        runs: of each frame's thread in a turn.
    """
    bundle = Store(home()).find("starter-generator")
    graph = bundle.graph("generator")
    in_rows = row_inputs(graph.inputs, graph.outputs)
    rates: dict[str, list[float]] = {"joint": [], "single": [], "at_once": []}
    rows: list[float] = []
    with open_runtime(bundle, "generator", device=device) as inner:

        def feeds_of(count: int) -> Feeds:
            made = example_feeds(graph, {"N": count, "S": PERSONS})
            # Tables stay where the generator runs, and all frames look into the same ones.
            return {name: array if name in in_rows else tables[name] for name, array in made.items()}

        example = example_feeds(graph, {"N": PERSONS, "S": PERSONS})
        tables = {name: inner.hold(array) for name, array in example.items() if name not in in_rows}
        for count in range(PERSONS, MOST_CROPS + 1, PERSONS):
            # What comes for the first time is prepared for, and recorded when it comes again.
            _again(inner, feeds_of(count), 3)
        feeds = feeds_of(PERSONS)
        for _ in range(TURNS):
            for way, values in rates.items():
                runtime = inner if way == "at_once" else JoinedRuntime(inner, MOST_CROPS if way == "joint" else 1)
                began = time.perf_counter()
                with ThreadPoolExecutor(MOST_PARALLEL) as pool:
                    for done in [pool.submit(_again, runtime, feeds, runs) for _ in range(MOST_PARALLEL)]:
                        done.result()
                values.append(MOST_PARALLEL * runs * PERSONS / (time.perf_counter() - began))
                if way == "joint" and isinstance(runtime, JoinedRuntime):
                    rows.append(runtime.counts.rows / runtime.counts.runs)
    medians = {way: round(statistics.median(values), 1) for way, values in rates.items()}
    return {
        "what": "frames in one run",
        "frames": MOST_PARALLEL,
        "persons": PERSONS,
        "rows_per_run": round(statistics.median(rows), 2),
        **{f"{way}_per_second": rate for way, rate in medians.items()},
        "gain": _ratio(medians["joint"], max(medians["single"], medians["at_once"])),
    }


def _again(runtime: Runtime, feeds: Feeds, times: int) -> None:
    for _ in range(times):
        runtime.run(feeds)


def sharing(device: Device, runs: int) -> Row:
    """Clients of one engine process whose pictures are joined, and not.

    Args:
        device: of the engine process.
        runs: of each client in a turn.
    """
    rates: dict[int, list[float]] = {CLIENTS: [], 1: []}
    rows = 0.0
    with tempfile.TemporaryDirectory() as name:
        for turn in range(TURNS):
            for most, values in rates.items():
                found = measure_shared(Path(name) / f"{turn}-{most}", CLIENTS, most, runs, device)
                values.append(found["pictures_per_second"])
                rows = max(rows, found["rows_per_run"])
    joint, single = (statistics.median(values) for values in rates.values())
    return {
        "what": "joint runs",
        "clients": CLIENTS,
        "rows_per_run": rows,
        "joint_per_second": joint,
        "single_per_second": single,
        "gain": _ratio(joint, single),
    }


def measure(device: Device, rounds: int, *, say: Callable[[str], None]) -> list[Row]:
    """All that can be measured on a device.

    Args:
        device: see the module.
        rounds: timed runs of each way of a graph; other parts take about as long.
        say: is told what is left out.
    """
    rows: list[Row] = []

    def attempt(what: str, part: Callable[[], Iterable[Row]]) -> None:
        try:
            rows.extend(part())
        except StandinError as error:
            say(f"{what}: not measured, {error}")

    if device == "tensorrt":
        attempt("CUDA graphs", lambda: plans(rounds))
    else:
        say("CUDA graphs: not measured, they are made of TensorRT plans (--device tensorrt)")
    if device in ("cuda", "tensorrt"):
        attempt("the GPU's decoder", lambda: [decoders(rounds)])
        attempt("the GPU's encoder", lambda: _with_encoder(encoders(device, rounds)))
    attempt("stages side by side", lambda: [side_by_side(device, rounds)])
    attempt("frames in one run", lambda: [frames_in_one_run(device, max(10, rounds // 4))])
    attempt("joint runs", lambda: [sharing(device, max(10, rounds // 4))])
    return rows


def _with_encoder(row: Row) -> list[Row]:
    if row["gpu_encoder"] == row["cpu_encoder"]:
        raise RuntimeUnavailableError(f"runs here encode with {row['cpu_encoder']} whatever the device")
    return [row]


def main() -> int:
    """Measure and write `results/gpu_gains.json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--device", choices=DEVICES, default="cuda")
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    console, left_out = Console(stderr=True), list[str]()

    def say(text: str) -> None:
        left_out.append(text)
        console.print(text, markup=False)

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        # Plans for nothing but these pictures must not take the place of others.
        os.environ["STANDIN_HOME"] = folder
        gpu = stack.enter_context(Gpu.opened())
        name = gpu.name() if gpu is not None else None
        rows = measure(options.device, options.rounds, say=say)
    for row in rows:
        print(row)
    if rows:
        print(save("gpu_gains", {"device": options.device, "gpu": name, "rows": rows, "left_out": left_out}))
    return 0 if rows else 1


if __name__ == "__main__":
    sys.exit(main())
