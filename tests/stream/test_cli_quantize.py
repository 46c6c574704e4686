from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import pytest
from PIL import Image

from engines.bundle import Bundle
from tests.command import Standin
from tests.detector_bundles import without_integers

CLIP = Path("stream/media/walkers.mp4")


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return without_integers(tmp_path_factory.mktemp("float"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every second frame of the clip's first eighty: two persons and their heads in each."""
    folder = tmp_path_factory.mktemp("pictures")
    with av.open(str(CLIP)) as container:
        for number, frame in zip(range(80), container.decode(video=0), strict=False):
            if not number % 2:
                Image.fromarray(frame.to_ndarray(format="rgb24")).save(folder / f"{number:02}.png")
    return folder


def test_a_detector_is_quantized_and_runs_take_it(
    detector: Bundle, pictures: Path, tmp_path: Path, standin: Standin
) -> None:
    made = tmp_path / "made"
    ended = standin("engines", "quantize", detector.path, "--pictures", pictures, "--output", made)
    assert (ended.code, ended.out.strip()) == (0, str(made))
    assert "measuring ranges on 20 pictures" in ended.err
    assert "100.00 % of" in ended.err
    assert "of their masks" in ended.err
    shown = standin("engines", "inspect", made).out
    assert "detector_int8 against detector" in shown
    reports = []
    for precision in ("auto", "fp32"):
        report = tmp_path / f"{precision}.jsonl"
        ended = standin(
            "run", CLIP, tmp_path / f"{precision}.mp4", "--detector", made, "--person", "mask", "--face", "mask",
            "--detector-precision", precision, "--end", "0.5", "--report", report,
        )  # fmt: skip
        assert ended.code == 0, ended.err
        reports.append([json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()])
    assert len(reports[0]) == len(reports[1]) > 5
    # They see nearly, but not quite, the same.
    assert reports[0] != reports[1]


def test_too_few_regions_are_no_ground_to_judge_by(
    detector: Bundle, pictures: Path, tmp_path: Path, standin: Standin
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(pictures.iterdir())[:6]:
        shutil.copy(path, few)
    ended = standin("engines", "quantize", detector.path, "--pictures", few, "--output", tmp_path / "made")
    assert ended.code == 1
    assert "regions with a score of 0.5 or more in 3 pictures, expected 50; nothing was written" in ended.err
    assert not (tmp_path / "made").exists()


def test_what_is_no_folder_of_pictures_is_refused(detector: Bundle, tmp_path: Path, standin: Standin) -> None:
    for folder, text in ((tmp_path / "none", "no such folder"), (tmp_path, "holds no picture")):
        ended = standin("engines", "quantize", detector.path, "--pictures", folder, "--output", tmp_path / "made")
        assert ended.code == 2
        assert text in ended.err


def test_a_file_that_is_no_picture_is_named(detector: Bundle, tmp_path: Path, standin: Standin) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_text("text", encoding="utf-8")
    ended = standin("engines", "quantize", detector.path, "--pictures", folder, "--output", tmp_path / "made")
    assert ended.code != 0
    assert "a.png" in ended.err
    assert "cannot be quantized" not in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "made").exists()


def test_a_generator_is_no_detector(tmp_path: Path, pictures: Path, standin: Standin) -> None:
    ended = standin("engines", "quantize", "starter-generator", "--pictures", pictures, "--output", tmp_path / "made")
    assert ended.code == 2
    assert "starter-generator is for generation; only detectors are quantized" in ended.err


@pytest.mark.parametrize("option", [("--threshold", "1.6"), ("--sure", "nan"), ("--most-lost", "1")])
def test_limits_that_cannot_be_are_refused(
    option: tuple[str, str], detector: Bundle, pictures: Path, tmp_path: Path, standin: Standin
) -> None:
    made = tmp_path / "made"
    ended = standin("engines", "quantize", detector.path, "--pictures", pictures, "--output", made, *option)
    assert ended.code == 2
    assert "Traceback" not in ended.err
