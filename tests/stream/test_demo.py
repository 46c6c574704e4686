"""The demo: a newcomer's first minute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np

from engines.bundle import Bundle
from engines.runtime import open_runtime
from stream.demo import demo_frames, write_clip
from stream.detectors.single_stage import SingleStageDetector
from stream.frame import Frame


def test_every_frame_of_the_demo_clip_shows_one_face(centerface: Bundle) -> None:
    detector = SingleStageDetector(centerface, open_runtime(centerface), longest=1280, threshold=0.5)
    counts = [len(detector.detect(Frame(picture))) for picture in list(demo_frames())[::9]]
    detector.close()
    assert len(counts) == 12
    assert set(counts) == {1}


def test_the_demo_clip_is_a_video_of_four_seconds(tmp_path: Path) -> None:
    with av.open(str(write_clip(tmp_path / "clip.mp4"))) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 100
    assert frames[-1].time is not None
    assert abs(frames[-1].time - 3.96) < 1e-6


def test_the_demo_leaves_the_clip_the_report_the_sheet_and_the_comparison(tmp_path: Path, centerface: Bundle) -> None:
    clip = tmp_path / "own.mp4"
    write_clip(clip)
    # The store that the fixture has filled, so that nothing is downloaded here.
    environment = os.environ | {"STANDIN_HOME": str(centerface.path.parents[1])}
    for arguments, extra in (([], {"input.mp4", "before-after.png"}), (["--input", str(clip)], set())):
        output = tmp_path / f"demo{len(arguments)}"
        subprocess.run(
            [sys.executable, "-m", "stream.demo", "--output", str(output), *arguments],
            check=True,
            env=environment,
            capture_output=True,
            timeout=120,
        )
        assert {path.name for path in output.iterdir()} == {
            "anonymized.mp4",
            "report.json",
            "contact-sheet.png",
            *extra,
        }
        report = json.loads((output / "report.json").read_text())
        assert report["summary"]["frames"] == 100
        assert all(entry["detected"] for entry in report["frames"])


def test_the_demo_result_hides_the_face(tmp_path: Path, centerface: Bundle) -> None:
    detector = SingleStageDetector(centerface, open_runtime(centerface), longest=1280, threshold=0.5)
    clip = write_clip(tmp_path / "clip.mp4")
    environment = os.environ | {"STANDIN_HOME": str(centerface.path.parents[1])}
    subprocess.run(
        [sys.executable, "-m", "stream.cli", "run", str(clip), str(tmp_path / "out.mp4"), "--end", "0.4"],
        check=True,
        env=environment,
        capture_output=True,
        timeout=120,
    )
    with av.open(str(tmp_path / "out.mp4")) as container:
        pictures = [np.asarray(f.to_ndarray(format="rgb24"), np.uint8) for f in container.decode(video=0)]
    assert len(pictures) == 10
    assert sum(len(detector.detect(Frame(picture))) for picture in pictures) == 0
    detector.close()
