"""Recall: what share of CenterFace's reference boxes does a whole run cover, and what does a smaller view cost?

Reference boxes are CenterFace's at full resolution, threshold 0.5, frame by frame on the original. A box is covered if
at least 95 % of its area lies under what the run's report says was covered. For clips without faces, the share of
frames that differ from a control run with nothing to cover (any 16x16 block by more than 12 levels on average).

The second table bins the reference faces by their size in the detector's view (square root of the area, in pixels) when
whole frames are looked at smaller and smaller, at the default threshold and without tracker: it is what the default
of `--detect-size` rests on. The third enlarges one face until it fills the frame.

    python benchmarks/recall.py CLIP...
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table
from skimage import data

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import Boxes, covered_share, face_detector, frames_of, reference_boxes, save
from stream import geometry
from stream.anonymizer import Anonymized
from stream.config import RunSettings
from stream.frame import Frame
from stream.regions import Regions
from stream.run import run
from stream.sinks.video import VideoSink
from stream.sources.video import VideoSource

_SCALES = (1.0, 0.85, 0.75, 0.66, 0.5, 0.4)
_BINS = (0, 8, 10, 13, 16, 20, 30, 10_000)


def main() -> None:
    """Measure and write `results/recall.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="+", type=Path)
    options = parser.parse_args()
    clips, sightings = [], []
    for clip in options.clips:
        reference = reference_boxes(clip)
        clips.append(_whole_run(clip, reference))
        sightings += _smaller_views(clip, reference)
    bins = _binned(sightings)
    large = _large_faces()
    path = save("recall", {"clips": clips, "views": bins, "costs": _costs(options.clips[0]), "large_faces": large})
    _print(clips, bins, large)
    print(path)


def _whole_run(clip: Path, reference: list[Boxes]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        report, output = Path(name) / "report.json", Path(name) / "out.mkv"
        summary = run(clip, output, RunSettings(preset="faces", report=report)).summary
        entries = json.loads(report.read_text())["frames"]
        shares = [
            covered_share(box, [region["box"] for region in entry["regions"]])
            for boxes, entry in zip(reference, entries, strict=True)
            for box in boxes
        ]
        covered = float(np.mean(np.array(shares) >= 0.95)) if shares else None
        return {
            "clip": clip.name,
            "frames": summary.frames,
            "reference_boxes": len(shares),
            "covered": covered,
            "frames_with_regions": sum(bool(entry["regions"]) for entry in entries) / len(entries),
            "frames_changed": _changed(clip, output, Path(name) / "control.mkv"),
        }


def _changed(clip: Path, output: Path, control: Path) -> float:
    """Share of frames that differ from a run that covers nothing."""
    source = VideoSource(clip)
    sink = VideoSink(control, source.info)
    for frame in source:
        sink.write(Anonymized(frame, Regions.empty()))
    sink.close()
    pairs = zip(VideoSource(control), VideoSource(output), strict=True)
    return float(np.mean([_differs(a, b) for a, b in pairs]))


def _differs(first: Frame, second: Frame) -> bool:
    gap = np.abs(first.image.astype(np.int16) - second.image).mean(axis=2)
    height, width = (side // 16 * 16 for side in gap.shape)
    blocks = gap[:height, :width].reshape(height // 16, 16, width // 16, 16).mean(axis=(1, 3))
    return bool((blocks > 12).any())


def _smaller_views(clip: Path, reference: list[Boxes]) -> list[tuple[float, float, bool]]:
    """(scale, size in the view, found) of every reference face at every scale."""
    defaults = RunSettings()
    frames = frames_of(clip)
    longest = max(frames[0].width, frames[0].height)
    seen = []
    for scale in _SCALES:
        detector = face_detector(longest=round(longest * scale), threshold=defaults.threshold)
        for frame, boxes in zip(frames, reference, strict=True):
            if len(boxes) == 0:
                continue
            found = geometry.grow(detector.detect(frame).boxes, defaults.margin)
            for box in boxes:
                size = float(np.sqrt(geometry.area(box)[0])) * scale
                seen.append((scale, size, covered_share(box, list(found)) >= 0.95))
        detector.close()
    return seen


def _binned(sightings: list[tuple[float, float, bool]]) -> list[dict[str, Any]]:
    rows = []
    for low, high in itertools.pairwise(_BINS):
        inside = [found for _, size, found in sightings if low <= size < high]
        if inside:
            rows.append({"from": low, "to": high, "faces": len(inside), "found": round(float(np.mean(inside)), 4)})
    return rows


def _costs(clip: Path) -> list[dict[str, float]]:
    """Milliseconds a frame of the detector alone, by size of the view, on the first clip."""
    frames = frames_of(clip)[:30]
    longest = max(frames[0].width, frames[0].height)
    rows = []
    for scale in _SCALES:
        detector = face_detector(longest=round(longest * scale), threshold=0.2)
        for frame in frames[:5]:
            detector.detect(frame)
        began = time.perf_counter()
        for frame in frames:
            detector.detect(frame)
        rows.append({"longest": round(longest * scale), "ms": 1e3 * (time.perf_counter() - began) / len(frames)})
        detector.close()
    return rows


def _large_faces() -> list[dict[str, float]]:
    """Share of a face's box that is covered as it fills more and more of a 1280x720 frame."""
    photograph = np.ascontiguousarray(data.astronaut())  # type: ignore[no-untyped-call]
    detector = face_detector(longest=1280, threshold=RunSettings().threshold)
    (face,) = detector.detect(Frame(photograph)).boxes
    centre, high = (face[:2] + face[2:]) / 2, face[3] - face[1]
    rows = []
    for wanted in (20, 50, 100, 200, 300, 400, 500, 600, 700, 900):
        scale = wanted / high
        shift = np.array([640, 360]) - centre * scale
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float32)
        picture = cv2.warpAffine(photograph, matrix, (1280, 720), flags=cv2.INTER_AREA, borderValue=(128, 128, 128))
        shown = np.clip(face * scale + np.tile(shift, 2), 0, [1280, 720, 1280, 720])
        found = geometry.grow(detector.detect(Frame(np.asarray(picture, np.uint8))).boxes, RunSettings().margin)
        rows.append({"face_px": wanted, "covered": round(covered_share(shown, list(found)), 4)})
    detector.close()
    return rows


def _print(clips: list[dict[str, Any]], bins: list[dict[str, Any]], large: list[dict[str, float]]) -> None:
    console = Console()
    table = Table("clip", "frames", "reference boxes", "covered", "frames with regions", "frames changed")
    for row in clips:
        covered = "-" if row["covered"] is None else f"{row['covered']:.2%}"
        shares = (f"{row['frames_with_regions']:.2%}", f"{row['frames_changed']:.2%}")
        table.add_row(row["clip"], str(row["frames"]), str(row["reference_boxes"]), covered, *shares)
    console.print(table)
    table = Table("face in the view, px", "reference faces", "found")
    for row in bins:
        table.add_row(f"{row['from']} to {row['to']}", str(row["faces"]), f"{row['found']:.1%}")
    console.print(table)
    table = Table("face in a 1280x720 frame, px high", "its box covered")
    for face in large:
        table.add_row(f"{face['face_px']:g}", f"{face['covered']:.1%}")
    console.print(table)


if __name__ == "__main__":
    main()
