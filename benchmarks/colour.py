"""Conversions between decoders' pictures, RGB and encoders' pictures: one thread, and as many as a size is worth.

Both take turns, and each case keeps its least time.

    python benchmarks/colour.py [--rounds 12]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import save
from stream.colour import ColourTags, FromRgb, ToRgb, slices

SIZES: Final = {"360p": (640, 360), "1080p": (1920, 1080), "2160p": (3840, 2160)}
#: What cameras and phones are decoded to, 10 bits among it, what graphics cards decode to, and what encoders take.
DECODED: Final = ("yuv420p", "yuv420p10le", "yuv444p", "nv12", "p010le")
ENCODED: Final = ("yuv420p", "nv12", "yuv444p")


def measure(size: tuple[int, int], rounds: int) -> list[dict[str, Any]]:
    """Milliseconds of each conversion of one size."""
    image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    rgb = av.VideoFrame.from_ndarray(image, format="rgb24")
    ways: dict[tuple[str, str], dict[int, Callable[[], object]]] = {}
    for name in DECODED:
        frame = rgb.reformat(format=name)
        ways["from", name] = {n: _bound(ToRgb(*size, threads=n), frame) for n in (1, slices(*size))}
    for name in ENCODED:
        ways["to", name] = {n: _bound(FromRgb(name, ColourTags(), threads=n), image) for n in (1, slices(*size))}
    best = {(case, threads): float("inf") for case, by in ways.items() for threads in by}
    for _ in range(rounds):
        for case, by in ways.items():
            for threads, way in by.items():
                start = time.perf_counter()
                way()
                best[case, threads] = min(best[case, threads], time.perf_counter() - start)
    return [
        {
            "direction": direction,
            "format": name,
            "milliseconds": {threads: round(1e3 * best[(direction, name), threads], 2) for threads in by},
        }
        for (direction, name), by in ways.items()
    ]


def _bound(convert: Callable[[Any], object], given: object) -> Callable[[], object]:
    return lambda: convert(given)


def main() -> None:
    """Measure and write `results/colour.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    rows = [{"size": name} | row for name, size in SIZES.items() for row in measure(size, options.rounds)]
    for row in rows:
        print(row)
    print(save("colour", {"cores": len(os.sched_getaffinity(0)), "rounds": options.rounds, "rows": rows}))


if __name__ == "__main__":
    main()
