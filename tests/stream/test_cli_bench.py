from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from typer.testing import Result as Ended

from engines.errors import RuntimeUnavailableError, StandinError, UsageError
from stream.bench.records import Result, read_record
from stream.cli_bench import app
from tests.detector_bundles import install_presets
from tests.fakes import noise, write_lossless
from tests.stream.bench.samples import case, figures, record

QUICK = ("--preset", "faces", "--seconds", "0.1", "--runs", "2", "--threads", "1")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("home")
    install_presets(root)
    return root


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lossless(tmp_path_factory.mktemp("clip") / "in.mkv", noise(6, 96, 64))


def call(*arguments: object, **environment: str) -> Ended:
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200", **environment})


def written(path: Path, rate: float, **changes: Any) -> Path:
    made = record(Result(case=case(2), figures=figures(rate, noise=0.01)))
    path.write_text(made.model_copy(update=changes).model_dump_json())
    return path


def test_figures_are_shown_and_written(home: Path, clip: Path, tmp_path: Path) -> None:
    made, page = tmp_path / "a.json", tmp_path / "a.html"
    ended = call(
        *QUICK, "--video", clip, "--persons", "found,1", "--detector-precision", "fp32", "--detect-size", 96,
        "--json", made, "--html", page,
        STANDIN_HOME=str(home),
    )  # fmt: skip
    assert ended.exit_code == 0, ended.output
    found = read_record(made)
    assert found.settings.detector_precision == "fp32"
    assert (found.settings.detect_size, found.settings.tiles) == (96, 1)
    assert [c.persons for c, _ in found.measured] == [None, 1]
    assert found.clip.about == "a video of the user's"
    assert page.read_text().startswith("<!doctype html>")
    assert "96 pixels at most<" in page.read_text()
    for part in ("2 of 2: faces, cpu, fp32, 1 person", "as found", "CPU", "not measured: GPU memory"):
        assert part in ended.output, part
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "a.json"]


def test_a_device_that_is_not_there_is_listed_and_fails_alone(home: Path, clip: Path) -> None:
    ended = call(*QUICK, "--video", clip, "--device", "tensorrt", STANDIN_HOME=str(home))
    assert ended.exit_code == 1
    assert "Not measured" in ended.output
    assert "TensorrtExecutionProvider" in ended.output


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--device", "gpu"), "'gpu' is not known; expected cpu, openvino, cuda, tensorrt"),
        (("--precision", "int8"), "'int8' is not known"),
        (("--persons", "0,x"), "'x' is no whole number"),
        (("--persons", "1,,2"), "no list"),
        (("--persons", "1,1"), "different"),
        (("--persons", "200"), "0 to 100"),
        (("--batch", "0"), "batch must be"),
        (("--preset", "startr"), "did you mean 'starter'"),
        (("--size", "big"), "no size"),
        (("--size", "640x360", "--video", "a.mp4"), "--size"),
        (("--engine", "x"), "NAME=FOLDER"),
        (("--json", "nowhere/a.json"), "does not exist"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: tuple[str, ...], part: str) -> None:
    ended = call(*arguments)
    assert isinstance(ended.exception, UsageError)
    assert part in str(ended.exception)


def test_random_weights_are_made_once_and_said(home: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = pytest.importorskip("export.seeded", reason="PyTorch is not installed")
    made: list[str] = []

    def kept(name: str, root: Path, *, progress: Any) -> Path:
        progress("exporting")
        made.append(name)
        path = root / "bundles" / name
        manifest = json.loads((path / "bundle.json").read_text())
        manifest["provenance"]["artefact"] = f"{seeded.LABEL}-{name}.pth"
        (path / "bundle.json").write_text(json.dumps(manifest))
        return path

    monkeypatch.setattr(seeded, "kept_bundle", kept)
    quick = ("--seconds", "0.1", "--runs", "1", "--threads", "1")
    ended = call("--seeded", "--preset", "deepprivacy2-face", *quick, "--video", clip, STANDIN_HOME=str(home))
    assert ended.exit_code == 0, ended.output
    assert made == ["dsfd", "dp2-face"]
    assert "Random weights, not trained ones: dsfd, tiny-unet" in ended.output
    assert "deepprivacy2-face, cpu, fp32, 4 persons" in ended.output


def test_random_weights_for_a_preset_that_needs_none_are_refused() -> None:
    pytest.importorskip("export.seeded", reason="PyTorch is not installed")
    ended = call("--seeded", "--preset", "starter")
    assert isinstance(ended.exception, UsageError)
    assert "deepprivacy2" in str(ended.exception)


def test_without_pytorch_random_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "export.seeded", None)
    ended = call("--seeded")
    assert isinstance(ended.exception, RuntimeUnavailableError)
    assert "standin[export]" in str(ended.exception)


def test_outputs_are_not_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    ended = call("--json", path)
    assert isinstance(ended.exception, UsageError)
    assert "--overwrite" in str(ended.exception)
    assert path.read_text() == "old"


def test_the_video_is_never_written(tmp_path: Path, clip: Path) -> None:
    ended = call("--video", clip, "--json", clip, "--overwrite")
    assert isinstance(ended.exception, UsageError)


def test_two_results_are_compared(tmp_path: Path) -> None:
    first, second = written(tmp_path / "a.json", 40), written(tmp_path / "b.json", 30)
    ended = call("compare", first, second)
    assert ended.exit_code == 0
    for part in ("0.750", "worse", "within the noise", "starter, cpu, fp32, 2 persons"):
        assert part in ended.output


@pytest.mark.parametrize(("below", "fails"), [(0.7, False), (0.8, True)])
def test_a_gate_fails_below_its_ratio(tmp_path: Path, below: float, fails: bool) -> None:
    first, second = written(tmp_path / "a.json", 40), written(tmp_path / "b.json", 30)
    ended = call("compare", first, second, "--fail-below", below)
    if fails:
        assert isinstance(ended.exception, StandinError)
        assert ended.exception.exit_code == 1
        assert "2 persons" in str(ended.exception)
    else:
        assert ended.exit_code == 0


def test_another_machine_is_named(tmp_path: Path) -> None:
    first = written(tmp_path / "a.json", 40)
    second = written(tmp_path / "b.json", 40, machine=record().machine.model_copy(update={"processor": "[red]fast"}))
    assert "processor was a processor, is [red]fast" in call("compare", first, second).output


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text("{}")
    ended = call("compare", written(tmp_path / "a.json", 40), tmp_path / "b.json")
    assert isinstance(ended.exception, UsageError)
