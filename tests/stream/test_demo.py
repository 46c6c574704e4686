"""The demo: a newcomer's first minute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from engines.bundle import Bundle
from engines.errors import UsageError
from engines.runtime import open_runtime
from stream.demo import WALKERS, demo_frames, own_clips, write_before_after, write_clip
from stream.detectors.single_stage import SingleStageDetector
from stream.frame import Frame
from tests.command import RUN
from tests.fakes import install_bundle, noise, write_lossless


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


def demo(output: Path, home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`make demo` with a store of its own."""
    return subprocess.run(
        [sys.executable, "-m", "stream.demo", "--output", str(output), *map(str, arguments)],
        env=os.environ | {"STANDIN_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_the_demo_leaves_clips_reports_sheets_and_comparisons(tmp_path: Path) -> None:
    # Seen by a detector made in code, so that nothing is downloaded here.
    install_bundle(tmp_path / "home", (20, 10, 40, 34))
    ended = demo(tmp_path / "demo", tmp_path / "home", "--preset", "faces")
    assert ended.returncode == 0, ended.stderr
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {
        f"{thing}{name}.{ending}"
        for name in ("", "-face")
        for thing, ending in (
            ("input", "mp4"),
            ("anonymized", "mp4"),
            ("report", "json"),
            ("contact-sheet", "png"),
            ("before-after", "png"),
        )
    }
    for name in ("", "-face"):
        report = json.loads((tmp_path / "demo" / f"report{name}.json").read_text())
        assert report["summary"]["frames"] == len(report["frames"]) >= 50
        assert all(entry["detected"] for entry in report["frames"])
    # Long paths are wrapped.
    assert "before-after-face.png" in ended.stdout.replace("\n", "")


def test_of_a_clip_of_the_users_nothing_raw_is_left(tmp_path: Path) -> None:
    install_bundle(tmp_path / "home", (20, 10, 40, 34))
    clip = write_lossless(tmp_path / "own.mkv", noise(12))
    ended = demo(tmp_path / "demo", tmp_path / "home", "--preset", "faces", "--input", clip)
    assert ended.returncode == 0, ended.stderr
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    assert names == {"anonymized.mkv", "report.json", "contact-sheet.png"}


def test_the_demo_fails_as_the_run_does(tmp_path: Path) -> None:
    ended = demo(tmp_path / "demo", tmp_path / "home", "--preset", "sg-gam")
    assert ended.returncode == 2
    assert ended.stderr == "standin: unknown preset 'sg-gam': did you mean 'sg-gan'?\n"
    ended = demo(tmp_path / "demo", tmp_path / "home", "--preset", "deepprivacy2", "--input", tmp_path / "none.mp4")
    assert ended.returncode == 2
    assert "no such file" in ended.stderr


def test_walking_people_come_with_the_package() -> None:
    assert WALKERS.stat().st_size <= 600_000
    with av.open(str(WALKERS)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) >= 50


def test_our_clips_are_two_and_the_first_has_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "walkers.mp4").write_bytes(b"a clip")
    clips = own_clips(tmp_path, tmp_path / "walkers.mp4")
    assert {name: path.name for name, path in clips.items()} == {"": "input.mp4", "-face": "input-face.mp4"}
    assert clips[""].read_bytes() == b"a clip"
    with pytest.raises(UsageError, match="give one with --input"):
        own_clips(tmp_path, tmp_path / "none.mp4")


def test_the_comparison_shows_moments_of_both(tmp_path: Path) -> None:
    before, after = noise(20), noise(20, seed=1)
    source, result = write_lossless(tmp_path / "in.mkv", before), write_lossless(tmp_path / "out.mkv", after)
    sheet = cv2.imread(str(write_before_after(source, result, tmp_path / "sheet.png")))
    assert sheet is not None
    assert sheet.shape == (48, 96, 3)
    rows = [np.concatenate([images[index] for index in (0, 10, 18)], axis=1) for images in (before, after)]
    wanted = cv2.resize(np.concatenate(rows), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    assert np.array_equal(sheet[..., ::-1], wanted)


def test_the_demo_result_hides_the_face(tmp_path: Path, centerface: Bundle) -> None:
    detector = SingleStageDetector(centerface, open_runtime(centerface), longest=1280, threshold=0.5)
    clip = write_clip(tmp_path / "clip.mp4")
    environment = os.environ | {"STANDIN_HOME": str(centerface.path.parents[1])}
    subprocess.run(
        [sys.executable, "-m", "stream.cli", *RUN, str(clip), str(tmp_path / "out.mp4"), "--end", "0.4"],
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
