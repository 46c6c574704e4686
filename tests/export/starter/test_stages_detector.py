from __future__ import annotations

import logging
from pathlib import Path

import av
import numpy as np
import pytest

from engines.bundle import Bundle, open_bundle
from export.starter import stages_detector
from export.starter.detector_export import BundleOptions
from export.starter.samples import Scene, write_scenes
from export.starter.stages_detector import detector_options, make_detector_bundle, seen, with_integers
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


def test_a_second_look_is_at_a_part_of_the_size() -> None:
    assert seen(np.zeros((60, 300, 3), np.uint8), (120, 240), 0.5)["image_size"].tolist() == [[24, 120]]


OPTIONS = BundleOptions(view=(288, 512))


def test_a_bundle_gets_integers(tmp_path: Path) -> None:
    write_frames(tmp_path / "scenes", 40)
    made = with_integers(without_integers(tmp_path / "bundle"), tmp_path / "scenes", OPTIONS, tmp_path / "made")
    measured = open_bundle(tmp_path / "made").manifest.quantized["detector_int8"]
    assert made.path == tmp_path / "made"
    assert measured.found >= 0.99
    assert measured.masks is not None
    assert measured.masks > 0.95


def test_integers_that_cannot_be_judged_leave_the_bundle_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_frames(tmp_path / "scenes", 4)
    bundle = without_integers(tmp_path / "bundle")
    with caplog.at_level(logging.WARNING):
        made = with_integers(bundle, tmp_path / "scenes", OPTIONS, tmp_path / "made")
    assert "no 8-bit integers: only" in caplog.text
    assert made is bundle
    assert not (tmp_path / "made").exists()


def test_a_bundle_comes_to_its_place_when_all_of_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, there = tmp_path / "out", list[bool]()

    def exported(_: Path, folder: Path, *__: object, **___: object) -> Bundle:
        return without_integers(folder)

    def interrupted(*_: object) -> Bundle:
        there.append(output.exists())
        raise KeyboardInterrupt

    write_frames(tmp_path / "scenes", 4)
    monkeypatch.setattr(stages_detector, "export_starter_detector", exported)
    with monkeypatch.context() as patch:
        patch.setattr(stages_detector, "with_integers", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_detector_bundle(tmp_path / "none.pt", output, OPTIONS, scenes=tmp_path / "scenes")
    assert there == [False]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scenes"]
    make_detector_bundle(tmp_path / "none.pt", output, OPTIONS, scenes=tmp_path / "scenes", resume=True)
    assert "detector_int8" not in open_bundle(output).manifest.graphs
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "scenes"]


@pytest.mark.parametrize("has", [True, False])
def test_a_processor_computes_in_bfloat16_if_it_can(has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages_detector, "computes_bfloat16", lambda: has)
    assert detector_options([], "cpu").mixed == has
    assert detector_options(["mixed=true"], "cpu").mixed
    assert detector_options([], "cuda").mixed
