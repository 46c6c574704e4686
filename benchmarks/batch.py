"""Many short clips on Ray: nodes and the command are killed in the middle; and what several workers gain over one.

    python -m benchmarks.batch --save
    python -m benchmarks.batch --clips 40 --only efficiency

`kill` starts a cluster of two nodes on this machine, gives it a batch, takes one node away by SIGKILL, ends the command
by SIGKILL, starts it again, and compares every result with a run of that clip alone. `efficiency` is the rate of two
workers with a core each over that of one worker with two cores, each from its first finished file to its last.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.stream import VideoStream

from benchmarks.common import save
from stream.batch.batch import Batch, Where, run_batch
from stream.batch.dispatch import Rules
from stream.batch.folder import Extras
from stream.batch.inputs import Layout
from stream.config import RunSettings, make_settings
from stream.frame import Image
from stream.run import run

_CLIP = Path(__file__).resolve().parents[1] / "stream" / "media" / "walkers.mp4"
_SETTINGS = {"preset": "faces", "codec": "ffv1", "seed": 5}
_STORE = 80 * 2**20


def main() -> None:
    """Measure, print, and save if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--frames", type=int, default=12, help="of each clip")
    parser.add_argument("--repeat", type=int, default=3, help="of the efficiency")
    parser.add_argument("--only", choices=("kill", "efficiency"))
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    _keep_ray_to_itself()
    result: dict[str, Any] = {"clips": given.clips, "frames": given.frames}
    with tempfile.TemporaryDirectory(prefix="batch-") as name:
        folder = Path(name)
        make_clips(folder / "in", given.clips, given.frames)
        if given.only != "efficiency":
            result["kill"] = kill(folder, given.clips)
        if given.only != "kill":
            result["efficiency"] = efficiency(folder, given.repeat)
    print(json.dumps(result, indent=1))
    if given.save:
        print(save("batch", result))


def make_clips(folder: Path, count: int, frames: int) -> None:
    """Short clips of synthetic people: each begins elsewhere, and is moved by another distance."""
    with av.open(str(_CLIP)) as container:
        pictures = [frame.to_ndarray(format="rgb24", width=320, height=180) for frame in container.decode(video=0)]
    for number in range(count):
        path = folder / f"day{number % 5}" / f"{number:04d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        begin = 7 * number % (len(pictures) - frames)
        write(path, [np.roll(picture, 3 * number, axis=1) for picture in pictures[begin : begin + frames]])


def write(path: Path, pictures: list[Image]) -> None:
    """A clip in H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))


def kill(folder: Path, count: int) -> dict[str, Any]:
    """A node and the command are killed; what is there in the end, and how it compares with single runs."""
    output = folder / "killed"
    began = time.monotonic()
    with two_nodes() as (cluster, node):
        with batch_command(folder / "in", output, cluster.address) as first:
            wait_for(lambda: len(finished(output)) >= count // 4)
            cluster.remove_node(node, allow_graceful=False)
            wait_for(lambda: len(finished(output)) >= count // 2)
            first.send_signal(signal.SIGKILL)
        early = {path: path.stat().st_mtime_ns for path in finished(output)}
        with batch_command(folder / "in", output, cluster.address) as again:
            pass
        seconds = time.monotonic() - began
    results = finished(output)
    other = [path for path in output.rglob("*") if path.is_file() and path.suffix not in (".mp4", ".json")]
    with contextlib.closing(sqlite3.connect(output / ".standin" / "manifest.sqlite")) as database:
        states = dict(database.execute("SELECT state, count(*) FROM files GROUP BY state"))
    return {
        "exit_code": again.returncode,
        "done_before_the_command_was_killed": len(early),
        "results": len(results),
        "done_twice": sum(path.stat().st_mtime_ns != at for path, at in early.items()),
        "states": states,
        "other_files": sorted(path.name for path in other),
        "unlike_a_single_run": sum(differs(folder / "in" / path.relative_to(output), path) for path in results),
        "seconds": round(seconds, 1),
    }


def efficiency(folder: Path, repeat: int) -> dict[str, Any]:
    """Rates of one and of two workers on two cores, by turns."""
    if len(os.sched_getaffinity(0)) > 2:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    rates: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(repeat):
        for workers in (1, 2):
            rates[workers].append(rate(folder / "in", folder / f"out-{turn}-{workers}", workers))
    middle = {workers: statistics.median(values) for workers, values in rates.items()}
    return {
        "files_per_second": {str(workers): [round(value, 3) for value in values] for workers, values in rates.items()},
        "two_workers_over_one": round(middle[2] / middle[1], 3),
    }


def rate(inputs: Path, output: Path, workers: int) -> float:
    """Files per second of a batch, from the first that is finished to the last."""
    ends: list[float] = []
    batch = Batch(
        [str(inputs)],
        Layout(output),
        make_settings(RunSettings, _SETTINGS),
        Extras(),
        Rules(1),
        Where(workers=workers),
    )
    ended = run_batch(batch, on_end=lambda *_: ends.append(time.monotonic()))
    assert ended.counts.done == ended.counts.total, ended
    return (len(ends) - workers) / (ends[-1] - ends[workers - 1])


def differs(clip: Path, result: Path) -> bool:
    """Whether a result has other pictures, or another report, than a run of that clip alone."""
    with tempfile.TemporaryDirectory() as folder:
        alone, report = Path(folder, result.name), Path(folder, "report.json")
        run(clip, alone, make_settings(RunSettings, _SETTINGS | {"report": report}))
        own = result.with_name(f"{result.name}.report.json")
        frames = [json.loads(path.read_text())["frames"] for path in (own, report)]
        pictures = [list(decoded(path)) for path in (result, alone)]
    same = len(pictures[0]) == len(pictures[1]) and all(map(np.array_equal, *pictures))
    return not same or frames[0] != frames[1]


def decoded(path: Path) -> Iterator[Image]:
    """All pictures of a clip."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


@contextlib.contextmanager
def two_nodes() -> Iterator[tuple[Any, Any]]:
    """A cluster of two nodes with a core each, and the one that will go."""
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        os.environ["RAY_TMPDIR"] = folder
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "object_store_memory": _STORE, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            nodes = [cluster.add_node(num_cpus=1, object_store_memory=_STORE) for _ in range(2)]
            yield cluster, nodes[1]
        finally:
            cluster.shutdown()  # type: ignore[no-untyped-call]
            del os.environ["RAY_TMPDIR"]


@contextlib.contextmanager
def batch_command(inputs: Path, output: Path, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command, waited for."""
    options = [f"--{name}={value}" for name, value in _SETTINGS.items()]
    command = [sys.executable, "-m", "stream", "batch", str(inputs), "--output", str(output), "--address", address]
    with subprocess.Popen([*command, *options, "--cpus-per-worker", "1"], stderr=subprocess.DEVNULL) as process:
        yield process


def finished(output: Path) -> list[Path]:
    """What has a final name."""
    return sorted(output.glob("day*/*.mp4"))


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds."""
    limit = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < limit, "it took too long"
        time.sleep(0.05)


def _keep_ray_to_itself() -> None:
    """Nothing listens on anything but this machine's own address, and nobody else may give it work."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


if __name__ == "__main__":
    main()
