from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from engines.errors import StandinError
from engines.store import Store
from stream.cli_verify import verify_command
from stream.config import RunSettings, make_settings
from stream.run import run
from stream.terminal import EXIT_USAGE
from tests.command import Ended
from tests.stream.evaluate.made import map_network
from tests.stream.verify.clips import FIRST, SECOND, add_sound, following, planted, write_scenes
from tests.stream.verify.test_identity import network

pytest.importorskip("onnxruntime", reason="detectors run in ONNX Runtime")
Verify = Callable[..., Ended]
COUNT = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An original, a clean result and one with faults, and two detectors."""
    folder = tmp_path_factory.mktemp("verify")
    store = Store(folder / "home", known={}, built_in=folder / "none")
    for name in ("of-the-run", "other"):
        following(store.path(name), name, (FIRST, SECOND))
    original = write_scenes(folder / "in.mp4", COUNT)
    detector = str(store.path("of-the-run"))
    settings = {"preset": "faces", "detector": [detector], "face": "mask", "report": folder / "run.json"}
    run(original, folder / "clean.mp4", make_settings(RunSettings, settings))
    bad = planted(folder / "clean.mp4", original, folder / "raw.mp4", lambda i, good, raw: raw if i in (4, 5) else good)
    add_sound(bad, folder / "bad.mp4")
    return folder


@pytest.fixture
def verify(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Verify:
    """The command with its errors turned into exit codes and lines, as the command line does it."""
    monkeypatch.setenv("STANDIN_HOME", str(folder / "home"))
    monkeypatch.setenv("COLUMNS", "300")
    app = typer.Typer()
    app.command()(verify_command)

    def call(*arguments: object) -> Ended:
        capsys.readouterr()
        errors = ""
        try:
            code = app([str(argument) for argument in arguments], standalone_mode=False) or 0
        except StandinError as error:
            code, errors = error.exit_code, f"standin: {error}\n"
        except Exception as error:
            # Typer's own complaints, as `stream.cli` tells them.
            if not hasattr(error, "format_message"):
                raise
            code, errors = EXIT_USAGE, f"standin: {error.format_message()}\n"
        captured = capsys.readouterr()
        return Ended(int(code), captured.out, errors)

    return call


def test_a_clean_result_ends_with_0(verify: Verify, folder: Path) -> None:
    ended = verify(folder / "in.mp4", folder / "clean.mp4", "--run-report", folder / "run.json")
    assert ended.code == 0, ended.out
    assert "nothing over its limit" in ended.out
    assert "24 faces and persons, seen by other" in ended.out


def test_a_result_with_faults_ends_with_1_and_says_which(verify: Verify, folder: Path, tmp_path: Path) -> None:
    page, numbers = tmp_path / "page.html", tmp_path / "numbers.json"
    ended = verify(
        folder / "in.mp4", folder / "bad.mp4", "--detector", "other", "--report", page, "--json", numbers,
    )  # fmt: skip
    assert ended.code == 1
    assert "2 frames left raw: nobody in frames 4 to 5" in ended.out
    assert "left in the output: audio" in ended.out
    assert "over: raw_area, raw_frames, streams_left" in ended.out
    assert json.loads(numbers.read_text())["faults"] == ["raw_area", "raw_frames", "streams_left"]
    assert "Over the limit: raw area, raw frames, streams left" in page.read_text()


def test_limits_can_be_moved_and_taken_away(verify: Verify, folder: Path) -> None:
    limits = ("--fail-over", "raw_area=0.5", "--fail-over", "raw-frames=2", "--fail-over", "streams_left=off")
    ended = verify(folder / "in.mp4", folder / "bad.mp4", "--detector", "other", *limits, "--quiet")
    assert ended.code == 0
    assert ended.out == ""


def test_identity_is_measured_with_a_network_of_ones_own(verify: Verify, folder: Path, tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.json"
    embedding = ("--embedding", f"{network(tmp_path / 'x.onnx', size=('h', 'w'))},size=8x8")
    ended = verify(folder / "in.mp4", folder / "clean.mp4", "--detector", "other", *embedding, "--json", numbers)
    assert ended.code == 0, ended.err
    identity = json.loads(numbers.read_text())["files"][0]["identity"]
    assert identity["tracks"] == 2
    assert identity["pictures"] == 10
    assert -1 <= identity["similarity"] < 0.9
    assert identity["rank1_original"] == 1


def test_perceptual_consistency_is_measured_with_a_network_of_ones_own(
    verify: Verify, folder: Path, tmp_path: Path
) -> None:
    numbers, page = tmp_path / "numbers.json", tmp_path / "page.html"
    perceptual = ("--perceptual", f"{map_network(tmp_path / 'x.onnx')},mean=0,std=255")
    reports = ("--json", numbers, "--report", page)
    ended = verify(folder / "in.mp4", folder / "clean.mp4", "--detector", "other", *perceptual, *reports)
    assert ended.code == 0, ended.err
    content = json.loads(numbers.read_text())
    found = content["files"][0]["perceptual"]
    assert content["measures"]["tlp"]["value"] == found["tlp"] > 0
    assert "tlp" in ended.out
    assert "Perceptual steps" in page.read_text()


def test_only_faces_are_looked_for_if_asked(verify: Verify, folder: Path) -> None:
    ended = verify(folder / "in.mp4", folder / "clean.mp4", "--detector", "other", "--kind", "person")
    assert ended.code == EXIT_USAGE
    assert ended.line() == "other finds no persons; choose another --detector"
    assert verify(folder / "in.mp4", folder / "clean.mp4", "--detector", "other", "--kind", "face").code == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("nothing.mp4", "clean.mp4"), "no such file or folder"),
        (("in.mp4", "in.mp4"), "are the same"),
        (("in.mp4", "clean.mp4", "--fail-over", "raw=1"), "nothing measured is called 'raw'"),
        (("in.mp4", "clean.mp4", "--detector", "nobody"), "nobody"),
        (("in.mp4", "clean.mp4", "--run-report", "clean.mp4"), "is not the report of a run"),
        (("in.mp4", "clean.mp4", "--report", "missing/x.html"), "does not exist"),
        (("in.mp4", "clean.mp4", "--report", "in.mp4"), "is the input"),
        (("in.mp4", "clean.mp4", "--json", "run.json"), "use --overwrite"),
        (("in.mp4", "clean.mp4", "--json", "run.json", "--run-report", "run.json", "--overwrite"), "is the input"),
        (("in.mp4", "clean.mp4", "--json", "x.json", "--report", "x.json"), "give them different names"),
        (("in.mp4", "clean.mp4", "--embedding", "x,size=0x5"), "--embedding: size=0x5"),
        (("in.mp4", "clean.mp4", "--perceptual", "x,std=0"), "--perceptual: std=0"),
        (("in.mp4", "clean.mp4", "--every", "0"), "every"),
        (("in.mp4", "clean.mp4", "--tiles", "9"), "tiles"),
        (("in.mp4", "clean.mp4", "--kind", "dog"), "--kind dog: expected face or person"),
        (("in.mp4",), "ANONYMIZED"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_line(
    verify: Verify, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], line: str
) -> None:
    monkeypatch.chdir(folder)
    ended = verify(*arguments)
    assert ended.code == EXIT_USAGE
    assert line in ended.line()


def test_a_file_that_is_no_video_ends_with_1_and_one_line(verify: Verify, folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    ended = verify(folder / "in.mp4", text, "--detector", "other")
    assert ended.code == 1
    assert "cannot be opened as video" in ended.line()


def test_names_of_files_are_no_markup(verify: Verify, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in ("x[bold].mp4", "y.mp4"):
        (tmp_path / "a" / name).write_bytes((folder / "in.mp4").read_bytes())
        (tmp_path / "b" / name).write_bytes((folder / "raw.mp4").read_bytes())
    ended = verify(tmp_path / "a", tmp_path / "b", "--detector", "other")
    assert ended.code == 1
    assert "x[bold].mp4: 2 frames left raw" in ended.out
