"""Overlap: the wall time of a run against the slowest stage's own time, with a core free for it.

The engine gets one thread, so that of two cores one is free for decoding, covering and encoding.

    python benchmarks/overlap.py CLIP
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import loop_clip, save
from stream.config import RunSettings
from stream.run import run


def main() -> None:
    """Measure and write `results/overlap.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--frames", type=int, default=300)
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    with tempfile.TemporaryDirectory() as name:
        looped = loop_clip(options.clip, Path(name) / f"looped{options.clip.suffix}", options.frames)
        summary = run(looped, Path(name) / "out.mp4", RunSettings(preset="faces", threads=1)).summary
    slowest = max(summary.busy, key=lambda stage: summary.busy[stage])
    result = {
        "clip": options.clip.name,
        "frames": summary.frames,
        "seconds": round(summary.seconds, 3),
        "stage_seconds": {stage: round(busy, 3) for stage, busy in summary.busy.items()},
        "slowest": slowest,
        "wall_over_slowest": round(summary.seconds / summary.busy[slowest], 4),
        "sum_over_wall": round(sum(summary.busy.values()) / summary.seconds, 4),
    }
    print(result)
    print(save("overlap", result))


if __name__ == "__main__":
    main()
