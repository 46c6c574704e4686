"""Every stage by its command, for a few steps with a tiny body and tiny networks, one after the other."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from engines.bundle import open_bundle
from export.starter.__main__ import main
from export.starter.body import save_body
from export.starter.crops import open_crops
from export.starter.samples import count_scenes
from export.starter.training import load_checkpoint
from tests.export.starter.bodies import tiny_body
from tests.export.starter.drawing import skip_without_drawing
from tests.export.starter.tiny_settings import DETECTOR, GENERATOR, settings

pytestmark = pytest.mark.usefixtures("one_thread")

_SIZE = ["--size", "96x64"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands made, in order."""
    skip_without_drawing()
    folder = tmp_path_factory.mktemp("made")
    body = ["--body", str(folder / "body.npz")]
    save_body(folder / "body.npz", tiny_body())
    alone = ["--workers", "1"]
    run("scenes", "--count", "6", *_SIZE, *body, *alone, output=folder / "scenes")
    run("scenes", "--count", "3", "--seed", "9", "--views", "portrait", *_SIZE, *body, *alone, output=folder / "close")
    scenes, crops = ["--scenes", str(folder / "scenes")], ["--crops", str(folder / "crops")]
    run("detector", *scenes, *body, "--steps", "2", *settings(*DETECTOR), output=folder / "detector")
    detector = folder / "detector" / "checkpoint.pt"
    run("detector-bundle", *scenes, "--checkpoint", str(detector), output=folder / "detector-bundle")
    run("crops", *scenes, str(folder / "close"), "--size", "16x32", output=folder / "crops")
    words = [*crops, *body, "--detector", str(detector), "--steps", "2", *settings(*GENERATOR)]
    run("generator", *words, output=folder / "generator")
    generator = str(folder / "generator" / "generator.ckpt")
    words = ["--checkpoint", generator, "--detector", str(detector)]
    run("generator-bundle", *words, "--name", "tiny-person", output=folder / "generator-bundle")
    few = ["--steps", "2", *settings("batch=2", "workers=0")]
    words = ["--bundle", str(folder / "generator-bundle"), *crops, *body, *few, "--name", "tiny-narrow"]
    run("narrow", *words, *settings("widths=4,6,8"), output=folder / "narrow")
    words = ["--bundle", str(folder / "narrow" / "tiny-narrow"), *crops, *body, *few, "--name", "tiny-sharp"]
    run("sharpen", *words, *settings("discriminator.widths=4,6,8"), output=folder / "sharp")
    words = ["--detector", str(detector), *scenes, *body, "--threshold", "0.02", "--generator", generator, *crops]
    run("evaluate", *words, output=folder / "figures.json")
    return folder


def run(*words: str, output: Path) -> None:
    assert main([*words, "--output", str(output)]) == 0


def test_scenes_crops_and_their_sheets_are_there(made: Path) -> None:
    assert (count_scenes(made / "scenes"), count_scenes(made / "close")) == (6, 3)
    assert (made / "scenes" / "sheet.png").exists()
    crops = open_crops(made / "crops")
    assert len(crops) >= 3
    assert crops.size == (32, 16)


def test_the_trainings_took_their_settings(made: Path) -> None:
    detector = load_checkpoint(made / "detector" / "checkpoint.pt")
    assert detector["step"] == 2
    assert tuple(detector["task"]["spec"]["widths"]) == (8, 12, 16, 24, 32)
    generator = load_checkpoint(made / "generator" / "checkpoint.pt")
    assert generator["step"] == 2
    assert tuple(generator["task"]["config"]["image_size"]) == (32, 16)
    assert (made / "generator" / "sheet.png").exists()


def test_both_bundles_know_the_same_surface(made: Path) -> None:
    detector, generator = open_bundle(made / "detector-bundle"), open_bundle(made / "generator-bundle")
    assert detector.manifest.kinds == ("person", "face")
    assert generator.manifest.name == "tiny-person"
    first, second = (bundle.array("vertex_embeddings") for bundle in (detector, generator))
    assert first.shape == (len(tiny_body().canonical), 8)
    assert abs(first - second).max() < 1e-5


@pytest.mark.parametrize("stage", ["narrow", "sharp"])
def test_the_bundle_that_learnt_from_another_takes_its_place(made: Path, stage: str) -> None:
    first, learnt = open_bundle(made / "generator-bundle"), open_bundle(made / stage / f"tiny-{stage}")
    assert learnt.manifest.name == f"tiny-{stage}"
    assert learnt.graph("generator").inputs == first.graph("generator").inputs
    assert learnt.manifest.files["mapping.onnx"] == first.manifest.files["mapping.onnx"]


def test_the_figures_are_written(made: Path) -> None:
    figures = json.loads((made / "figures.json").read_text())
    assert figures["detector"]["scenes"] == 6
    assert [part["from_px"] for part in figures["detector"]["by_height"]] == [0, 24, 60]
    assert sum(part["people"] for part in figures["detector"]["by_height"]) > 0
    assert figures["generator"]["crops"] == len(open_crops(made / "crops"))
    assert 0 < figures["generator"]["l1"] < 2


def test_a_stage_goes_on_where_it_stopped(made: Path, tmp_path: Path) -> None:
    words = ["scenes", "--seed", "4", *_SIZE, "--workers", "1", "--body", str(made / "body.npz")]
    run(*words, "--count", "2", output=tmp_path / "scenes")
    before = (tmp_path / "scenes" / "scenes-00000.npz").read_bytes()
    run(*words, "--count", "3", "--resume", output=tmp_path / "scenes")
    assert count_scenes(tmp_path / "scenes") == 3
    assert (tmp_path / "scenes" / "scenes-00000.npz").read_bytes() == before
    words = ["detector", "--scenes", str(tmp_path / "scenes"), "--body", str(made / "body.npz"), *settings(*DETECTOR)]
    run(*words, "--steps", "1", output=tmp_path / "run")
    run(*words, "--steps", "3", "--resume", output=tmp_path / "run")
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["step"] == 3


def test_time_ends_the_drawing(made: Path, tmp_path: Path) -> None:
    words = ["scenes", "--minutes", "0.001", *_SIZE, "--workers", "1", "--body", str(made / "body.npz")]
    run(*words, output=tmp_path / "scenes")
    assert 1 <= count_scenes(tmp_path / "scenes") < 64


def test_an_interrupted_training_leaves_a_checkpoint_and_says_how_to_go_on(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from export.starter.detector_training import DetectorTask

    step = DetectorTask.step

    def pressed(self: DetectorTask, *given: object) -> object:
        if self._step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(DetectorTask, "step", pressed)
    words = ["detector", "--scenes", str(made / "scenes"), "--body", str(made / "body.npz"), *settings(*DETECTOR)]
    words += ["--steps", "50", "--output", str(tmp_path / "run")]
    assert main(words) == 130
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["step"] == 2
    assert "stopped after step 2" in caplog.text
    assert "--resume" in caplog.text
    monkeypatch.undo()
    assert main([*words, "--resume", "--steps", "3"]) == 0
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["step"] == 3


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["scenes", "--body", "{made}/none.npz"], 2, "none.npz does not exist"),
        (["scenes", "--body", "{made}/body.npz", "--output", "{made}/scenes"], 2, "holds 6 scenes already"),
        (["scenes", "--photographs", "{made}/none", "--body", "{made}/body.npz"], 1, "has no photographs"),
        (["detector", "--scenes", "{made}/none", "--body", "{made}/body.npz", "--steps", "1"], 1, "no files of scenes"),
        (["detector", "--scenes", "{made}/scenes", "--body", "{made}/body.npz"], 2, "training has no end"),
        (
            ["detector", "--scenes", "{made}/scenes", "--body", "{made}/body.npz", "--steps", "1", "--set", "bach=3"],
            2,
            "there is no setting 'bach'",
        ),
        (
            ["detector", "--scenes", "x", "--body", "{made}/body.npz", "--steps", "1", "--output", "{made}/detector"],
            2,
            "holds a training already",
        ),
        (["detector-bundle", "--checkpoint", "{made}/none.pt"], 1, "is no checkpoint"),
        (["detector-bundle", "--checkpoint", "x", "--output", "{made}/scenes"], 2, "is not an empty folder"),
        (["crops", "--scenes", "{made}/none"], 1, "no files of scenes"),
        (["crops", "--scenes", "{made}/scenes", "--output", "{made}/crops"], 2, "holds crops already"),
        (
            [
                "generator",
                "--crops",
                "{made}/none",
                "--detector",
                "{made}/detector/checkpoint.pt",
                "--body",
                "{made}/body.npz",
                "--steps",
                "1",
            ],
            1,
            "holds no crops",
        ),
        (
            [
                "generator",
                "--crops",
                "{made}/crops",
                "--detector",
                "{made}/none",
                "--body",
                "{made}/body.npz",
                "--steps",
                "1",
            ],
            2,
            "none is no file",
        ),
        (["generator-bundle", "--checkpoint", "x", "--detector", "{made}/none"], 2, "none is no file"),
        (["evaluate", "--detector", "{made}/detector/checkpoint.pt"], 2, "nothing to evaluate"),
        (["body", "--output", "{made}/body.npz"], 2, "exists already"),
    ],
)
def test_wrong_use_is_one_line(
    words: list[str], code: int, message: str, made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filled = [word.format(made=made) for word in words]
    if filled[0] == "generator":
        filled += ["--body", str(made / "body.npz")]
    if "--output" not in filled:
        filled += ["--output", str(tmp_path / "out")]
    assert main(filled) == code
    last = caplog.records[-1].getMessage()
    assert message in last
    assert "\n" not in last


def test_a_gpu_that_is_not_there_is_said_at_once(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = ["detector", "--scenes", str(made / "scenes"), "--body", str(made / "body.npz"), "--steps", "1"]
    assert main([*words, "--device", "cuda", "--output", str(tmp_path / "run")]) == 1
    assert "finds no GPU here" in caplog.text
    assert not (tmp_path / "run").exists()


def test_a_body_cannot_be_made_without_anny(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "anny", None)
    assert main(["body", "--output", str(tmp_path / "body.npz")]) == 1
    assert "anny" in caplog.records[-1].getMessage()
    assert not (tmp_path / "body.npz").exists()


def test_no_stage_named_wants_minutes_for_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--output", "somewhere"])
    assert ended.value.code == 2
    assert "--minutes" in capsys.readouterr().err
