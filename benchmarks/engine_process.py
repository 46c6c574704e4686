"""Engine process: what a run costs more there than here, and what joint runs of several clients gain on a CPU.

python benchmarks/engine_process.py [--runs 300]
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import save
from engines.batching import Limits
from engines.bundle import Bundle, write_bundle
from engines.engine_client import ping
from engines.engine_process import settings_for, start_engine_process
from engines.manifest import Graph, ManifestDraft, Normalisation, Provenance, Tensor
from engines.runtime import Device, Runtime, open_runtime
from engines.store import Store, home

#: How much of its input a graph gives back, and the operator that does so.
GRAPHS = {"one number": "ReduceMax", "as much": "Identity"}
SIDES = (3, 640, 640)
#: Of the starter set's detector.
PICTURE = (288, 512)
CLIENTS = (1, 2, 4)
WARM_UP = 10


def main() -> None:
    """Measure and write `results/engine_process.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        overhead = [_overhead(Path(name), gives, options.runs) for gives in GRAPHS]
        shared = [
            measure_shared(Path(name), clients, rows, max(10, options.runs // 5))
            for clients in CLIENTS
            for rows in (1, 4)
        ]
    for row in (*overhead, *shared):
        print(row)
    print(save("engine_process", {"input": ["float32", 1, *SIDES], "overhead": overhead, "shared": shared}))


def _overhead(folder: Path, gives: str, runs: int) -> dict[str, Any]:
    """Milliseconds of a run that computes next to nothing."""
    bundle = _trivial(folder / gives.replace(" ", "-"), GRAPHS[gives])
    feeds = {"x": np.random.default_rng(0).random((1, *SIDES), np.float32)}
    with open_runtime(bundle, threads=1) as here, _remote(folder, bundle, clients=1, rows=1) as (there,):
        # In turns, so that whatever else the machine does meets both.
        times = [(_milliseconds(here, feeds), _milliseconds(there, feeds)) for _ in range(runs + WARM_UP)][WARM_UP:]
    more = sorted(there - here for here, there in times)
    return {
        "gives": gives,
        "here_ms": round(statistics.median(here for here, _ in times), 3),
        "there_ms": round(statistics.median(there for _, there in times), 3),
        "more_ms": round(statistics.median(more), 3),
        "more_p95_ms": round(more[int(0.95 * len(more))], 3),
    }


def measure_shared(folder: Path, clients: int, rows: int, runs: int, device: Device = "cpu") -> dict[str, Any]:
    """Pictures per second of a real detector that several clients ask at a time.

    Args:
        folder: for the socket.
        clients: that ask at a time.
        rows: most pictures in a run; 1 joins nothing.
        runs: of each client.
        device: of the engine process; on a CPU it has all cores.
    """
    bundle = Store(home()).find("starter-detector")
    rng = np.random.default_rng(0)
    feeds: dict[str, Any] = {
        "image": rng.standard_normal((1, 3, *PICTURE)).astype(np.float32),
        "image_size": np.array([PICTURE], np.int64),
    }
    with (
        _remote(folder, bundle, clients=clients, rows=rows, device=device) as runtimes,
        ThreadPoolExecutor(clients) as pool,
    ):

        def ask(runtime: Runtime, count: int = runs) -> None:
            for _ in range(count):
                runtime.run(feeds)

        for runtime in runtimes:
            runtime.run(feeds)
        # Engines measure their ways anew for every number of rows that comes for the first time.
        list(pool.map(partial(ask, count=WARM_UP), runtimes))
        before, began = ping(folder / "run" / "engine"), time.monotonic()
        list(pool.map(ask, runtimes))
        seconds, after = time.monotonic() - began, ping(folder / "run" / "engine")
    return {
        "clients": clients,
        "most_rows": rows,
        "rows_per_run": round((after.rows - before.rows) / (after.runs - before.runs), 2),
        "pictures_per_second": round(clients * runs / seconds, 1),
    }


@contextlib.contextmanager
def _remote(
    folder: Path, bundle: Bundle, *, clients: int, rows: int, device: Device = "cpu"
) -> Iterator[list[Runtime]]:
    """One runtime for each client, all in one engine process of their own."""
    path = folder / "run" / "engine"
    settings = replace(settings_for(device), limits=Limits(rows, 0.002 if rows > 1 else 0.0, 1 if rows > 1 else 2))
    process = start_engine_process(path, settings)
    with contextlib.ExitStack() as stack:
        stack.callback(process.close)
        yield [
            stack.enter_context(open_runtime(bundle, device=device, server=path, timeout=60)) for _ in range(clients)
        ]


def _milliseconds(runtime: Runtime, feeds: dict[str, Any]) -> float:
    began = time.perf_counter()
    runtime.run(feeds)
    return (time.perf_counter() - began) * 1000


def _trivial(folder: Path, operator: str) -> Bundle:
    """A bundle whose graph takes pictures and does next to nothing."""
    sides: tuple[int, ...] = SIDES if operator == "Identity" else (1, 1, 1)
    axes: dict[str, Any] = {} if operator == "Identity" else {"axes": [1, 2, 3]}
    node = onnx.helper.make_node(operator, ["x"], ["y"], **axes)
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [node],
            "trivial",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", *SIDES])],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", *sides])],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    graph = Graph(
        file="detector.onnx",
        inputs=(Tensor(name="x", dtype="float32", shape=("N", *SIDES), meaning="pictures"),),
        outputs=(Tensor(name="y", dtype="float32", shape=("N", *sides), meaning="what is given back"),),
    )
    draft = ManifestDraft(
        name="trivial",
        task="detection",
        family="benchmark",
        kinds=("face",),
        graphs={"detector": graph},
        normalisation=Normalisation(colour="rgb", mean=(0, 0, 0), std=(1, 1, 1), multiple=32),
        licence="MIT",
        provenance=Provenance(artefact="trivial", source="code", sha256="0" * 64, homepage="https://example.org"),
        exporter="benchmark",
    )
    return write_bundle(folder, draft, {"detector.onnx": model.SerializeToString()})


if __name__ == "__main__":
    main()
