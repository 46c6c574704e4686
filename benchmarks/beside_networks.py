"""What is computed beside the networks, on the processor and by a small graph on a device, alternately, in one run.

A detector's input made of a frame (1080p to 800 by 1333 pixels at most, as Mask R-CNN and CSE take it), a crop of
five eighths of the frame's height for a generator and its answer back (288x160 pixels), and the nearest vertices of a
person's pixels on a surface of SMPL's 27,554 vertices, and what of the inputs of DeepPrivacy2's generator with dense
poses and of SG-GAN's shows a crop. Of the graph, times are from arrays on the host to what is
needed next: inputs of networks stay on the device, everything else comes back.

    python benchmarks/beside_networks.py --device cuda [--rounds 20]

`--device cpu` runs the graphs on the processor, where runs do not use them: to see that they work, and no more.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import save
from benchmarks.vertex_search import CHANNELS, HEIGHT, VERTICES, WIDTH, smooth_surface
from engines.errors import StandinError
from engines.manifest import Normalisation
from engines.resident import as_numpy
from engines.runtime import Device
from stream import resample
from stream.compose.resampler import HOST, DeviceResampler, levels_graph
from stream.detectors.pictures import DevicePictures, Form, HostPictures, pictures_graph
from stream.detectors.view import shortest_edge, show_full, show_limited
from stream.frame import Frame
from stream.generators.base import Crops
from stream.generators.inputs import HostInputs, RawInputs, crops_graph
from stream.surface import Surface
from stream.surface_search import search_graph

_HALVES = Normalisation(colour="rgb", mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5), multiple=1)
_NORMAL = Normalisation(colour="rgb", mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0), multiple=32)
#: Of a person's crop.
_BODY = 0.35


def measure(device: Device, rounds: int, *, height: int = 1080, vertices: int = VERTICES) -> list[dict[str, Any]]:
    """One row for each operation: medians in milliseconds, and how far both results are apart.

    Args:
        device: of the graphs.
        rounds: timed calls of each.
        height: of the frame, at 16:9.
        vertices: of the surface.
    """
    return [
        _pictures(device, rounds, height, one_stage=False),
        _pictures(device, rounds, height, one_stage=True),
        _crop(device, rounds, height),
        _answer(device, rounds, height),
        _search(device, rounds, vertices),
        _inputs(device, rounds, "DeepPrivacy2", ("image", "mask", "embedding", "embedding_mask"), vertices),
        _inputs(device, rounds, "SG-GAN", ("image", "mask", "embedding", "vertices"), vertices),
    ]


def _pictures(device: Device, rounds: int, height: int, *, one_stage: bool) -> dict[str, Any]:
    frame = Frame(np.random.default_rng(0).integers(0, 256, (height, height * 16 // 9, 3), np.uint8))
    full = show_full(frame, lambda high, wide: shortest_edge(high, wide, 800, 1333))
    shown, form = show_limited(frame, 1280) if one_stage else full, Form(_NORMAL, one_stage=one_stage)
    host, there = HostPictures(form), DevicePictures(pictures_graph().open(device), form)
    apart = np.abs(host.make(frame, shown) - as_numpy(there.make(frame, shown)))
    times = _alternately(lambda: host.make(frame, shown), lambda: there.make(frame, shown), rounds)
    there.close()
    stages = "one stage" if one_stage else "two stages"
    return {
        "operation": f"the input of a detector in {stages} of {frame.width}x{frame.height}",
        **times,
        "within_2_levels": round(float((apart <= 2).mean()), 6),
    }


def _crop(device: Device, rounds: int, height: int) -> dict[str, Any]:
    high, wide = height * 5 // 8, height * 3 // 8
    patch = np.random.default_rng(2).integers(0, 256, (high, wide, 3), np.uint8)
    rows, columns = resample.axis("bicubic", high, HEIGHT), resample.axis("bicubic", wide, WIDTH)
    return _levels(device, rounds, f"a crop of {wide}x{high}", patch, rows, columns)


def _answer(device: Device, rounds: int, height: int) -> dict[str, Any]:
    high, wide = height * 5 // 8, height * 3 // 8
    answer = np.random.default_rng(3).uniform(0, 255, (HEIGHT, WIDTH, 3)).astype(np.float32)
    rows, columns = resample.axis("bicubic", HEIGHT, high), resample.axis("bicubic", WIDTH, wide)
    return _levels(device, rounds, f"an answer to {wide}x{high}", answer, rows, columns)


def _levels(
    device: Device, rounds: int, operation: str, values: Any, rows: resample.Axis, columns: resample.Axis
) -> dict[str, Any]:
    there = DeviceResampler({values.dtype.name: levels_graph(values.dtype.name).open(device)})
    apart = HOST.levels(values, rows, columns).astype(int) - there.levels(values, rows, columns)
    times = _alternately(
        lambda: HOST.levels(values, rows, columns), lambda: there.levels(values, rows, columns), rounds
    )
    there.close()
    return {"operation": operation, **times, "within_2_levels": round(float((np.abs(apart) <= 2).mean()), 6)}


def _search(device: Device, rounds: int, vertices: int) -> dict[str, Any]:
    draw = np.random.default_rng(1)
    # Random points would make the processor's way look worse than it is.
    points = smooth_surface(vertices, 0)
    pixels = round(_BODY * HEIGHT * WIDTH)
    noise = draw.normal(0, 0.01, (pixels, CHANNELS))
    queries = np.asarray(points[np.sort(draw.integers(0, vertices, pixels))] + noise, np.float32)
    host, there = Surface(points), Surface(points, runtime=search_graph().open(device))
    same = host.nearest(queries) == there.nearest(queries)
    times = _alternately(lambda: host.nearest(queries), lambda: there.nearest(queries), rounds)
    there.close()
    return {
        "operation": f"nearest of {vertices} vertices for {pixels} pixels",
        **times,
        "same_vertex": round(float(same.mean()), 6),
    }


def _inputs(device: Device, rounds: int, whose: str, names: Sequence[str], vertices: int) -> dict[str, Any]:
    draw = np.random.default_rng(4)
    plane = (1, HEIGHT, WIDTH)
    body = np.zeros(plane, np.bool_)
    body[:, HEIGHT // 8 : -HEIGHT // 8, WIDTH // 4 : -WIDTH // 4] = True
    crop = Crops(
        images=draw.integers(0, 256, (*plane, 3), np.uint8),
        known=~body,
        track_ids=np.zeros(1, np.int64),
        body=body,
        vertices=draw.integers(0, vertices, plane),
    )
    embeddings = smooth_surface(vertices, 0)
    host, raw = HostInputs(names, _HALVES, embeddings), RawInputs(vertices)
    there = crops_graph(names, (HEIGHT, WIDTH), _HALVES, embeddings).open(device)
    made = there.run(raw.of(crop), names)
    apart = [np.abs(array - as_numpy(made[name])).ravel() for name, array in host.of(crop).items()]
    times = _alternately(lambda: host.of(crop), lambda: there.run(raw.of(crop), names), rounds)
    there.close()
    # In the image's levels: the network takes -1 to 1.
    same = float((np.concatenate(apart) * 127.5 <= 2).mean())
    return {"operation": f"what {whose} is shown of a crop", **times, "within_2_levels": round(same, 6)}


def _alternately(host: Callable[[], object], there: Callable[[], object], rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {"host_ms": [], "graph_ms": []}
    for _ in range(rounds):
        for name, call in zip(seconds, (host, there), strict=True):
            began = time.perf_counter()
            call()
            seconds[name].append(1000 * (time.perf_counter() - began))
    return {name: round(statistics.median(values), 2) for name, values in seconds.items()}


def main() -> None:
    """Measure, print a table, and keep what a GPU gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    rows = measure(given.device, given.rounds)
    table = Table("operation", "processor ms", f"graph on {given.device} ms", "agreement")
    for row in rows:
        agreement = row.get("within_2_levels", row.get("same_vertex"))
        table.add_row(row["operation"], str(row["host_ms"]), str(row["graph_ms"]), str(agreement))
    Console().print(table)
    if given.device == "cuda":
        save("beside_networks", {"device": given.device, "rounds": given.rounds, "operations": rows})


if __name__ == "__main__":
    try:
        main()
    except StandinError as error:
        sys.exit(str(error))
