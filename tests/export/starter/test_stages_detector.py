from __future__ import annotations

import logging
from pathlib import Path

import av
import numpy as np
import pytest

from engines.bundle import open_bundle
from export.starter.samples import Scene, write_scenes
from export.starter.stages_detector import add_integers, seen
from tests.detector_bundles import without_integers

CLIP = Path("stream/media/walkers.mp4")


def write_frames(folder: Path, count: int) -> None:
    """Frames of the demonstration's clip as scenes."""
    scenes = []
    with av.open(str(CLIP)) as container:
        for _, frame in zip(range(count), container.decode(video=0), strict=False):
            image = frame.to_ndarray(format="rgb24")
            nobody = np.zeros(image.shape[:2], np.uint8)
            scenes.append(Scene(image, nobody, np.full(nobody.shape, -1, np.int32), np.zeros((0, 3), np.float32)))
    write_scenes(folder, scenes)


def test_a_picture_is_normalised_and_padded() -> None:
    picture = np.full((40, 70, 3), 200, np.uint8)
    plain = seen(picture, None)
    assert plain["image"].shape == (1, 3, 64, 96)
    assert plain["image_size"].tolist() == [[40, 70]]
    assert len(np.unique(plain["image"][..., :40, :70])) == 1
    assert not plain["image"][..., 40:, :].any()
    assert not plain["image"][..., 70:].any()


def test_a_picture_is_looked_at_as_large_as_both_sides_allow() -> None:
    tall, wide = np.zeros((90, 60, 3), np.uint8), np.zeros((60, 300, 3), np.uint8)
    assert seen(tall, (120, 240))["image_size"].tolist() == [[180, 120]]
    assert seen(wide, (120, 240))["image_size"].tolist() == [[48, 240]]


def test_a_bundle_gets_integers_in_its_place(tmp_path: Path) -> None:
    write_frames(tmp_path / "scenes", 40)
    bundle = without_integers(tmp_path / "bundle")
    made = add_integers(bundle, tmp_path / "scenes", (288, 512))
    assert made.path == bundle.path
    assert open_bundle(bundle.path).manifest.quantized["detector_int8"].found >= 0.99
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_integers_that_cannot_be_judged_leave_the_bundle_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_frames(tmp_path / "scenes", 4)
    bundle = without_integers(tmp_path / "bundle")
    with caplog.at_level(logging.WARNING):
        made = add_integers(bundle, tmp_path / "scenes", (288, 512))
    assert "no 8-bit integers: only" in caplog.text
    assert made.digest == open_bundle(bundle.path).digest == bundle.digest
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
