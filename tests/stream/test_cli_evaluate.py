from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from stream.evaluate.synthetic import ANNOTATIONS, IMAGES, MARKET
from tests.command import Standin
from tests.stream.evaluate.made import map_network, vector_network, write_store

pytest.importorskip("onnxruntime", reason="networks run in ONNX Runtime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    write_store(folder / "home")
    vector_network(folder / "vector.onnx")
    map_network(folder / "maps.onnx")
    return folder


@pytest.fixture(autouse=True)
def at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(folder / "home"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def its(folder: Path, standin: Standin) -> Path:
    """The synthetic set, made by the command."""
    made = folder / "set"
    if not made.exists():
        ended = standin("evaluate", "synthetic", made, "--pictures", 3, "--people", 2)
        assert ended.code == 0
        assert ended.out.splitlines() == [str(made / name) for name in (IMAGES, ANNOTATIONS, MARKET)]
    return made


def test_the_whole_table_is_measured_on_the_synthetic_set(
    standin: Standin, folder: Path, its: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pycocotools", reason="average precision is pycocotools'")
    pytest.importorskip("torchmetrics", reason="FID is torchmetrics'")
    ended = standin(
        "evaluate", "table", "--preset", "sg-gan", "--images", its / IMAGES, "--annotations", its / ANNOTATIONS,
        "--market", its / MARKET, "--features", f"{folder / 'vector.onnx'},mean=0,std=255", "--perceptual",
        folder / "maps.onnx", "--identity", folder / "vector.onnx", "--detector", "judge", "--json",
        tmp_path / "x.json", "--markdown", tmp_path / "x.md",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert ended.err == ""
    content = json.loads((tmp_path / "x.json").read_text())
    methods = ["original", "mask-out", "pixelate-8", "pixelate-16", "blur", "sg-gan"]
    assert [row["method"] for row in content["rows"]] == methods
    assert content["settings"]["presets"] == ["sg-gan"]
    assert {"fid", "lpips", "diversity", "ppl", "ap", "rank1"} <= set(content["rows"][-1]["figures"])
    assert "vector.onnx (sha256 " in content["rows"][-1]["figures"]["fid"]["network"]
    assert (tmp_path / "x.md").read_text().startswith("| method | FID ↓ |")
    assert "full rank" in ended.out
    assert all(name in ended.out for name in methods)


def test_a_narrow_terminal_gets_the_table_turned_round(
    standin: Standin, folder: Path, its: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    options = ("--perceptual", folder / "maps.onnx", "--preset", "sg-gan", "--method", "none", "--limit", 2)
    ended = standin("evaluate", "table", "--images", its / IMAGES, *options)
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0].split() == ["method", "sg-gan"]
    assert [line.split()[0] for line in lines[1:5]] == ["LPIPS", "diversity", "PPL", "PPL"]


def test_results_in_folders_are_measured_as_they_are(standin: Standin, folder: Path, its: Path) -> None:
    pytest.importorskip("torchmetrics", reason="FID is torchmetrics'")
    pytest.importorskip("pycocotools", reason="average precision is pycocotools'")
    images, market, vector = its / IMAGES, its / MARKET, folder / "vector.onnx"
    fid = standin("evaluate", "fid", images, images, "--features", vector)
    assert fid.out.splitlines()[1].split() == ["anonymized", "0.000"]
    distance = standin("evaluate", "distance", images, images, "--perceptual", folder / "maps.onnx")
    assert distance.out.splitlines()[1].split() == ["anonymized", "0.000"]
    ap = standin("evaluate", "ap", images, images, "--annotations", its / ANNOTATIONS, "--detector", "judge")
    assert ap.out.splitlines()[1].split()[1:] == ap.out.splitlines()[2].split()[1:]
    reid = standin("evaluate", "reid", market, market, "--identity", vector)
    assert reid.out.splitlines()[0].split() == ["method", "rank-1", "↓", "mAP", "↓", "rank-1", "both", "mAP", "both"]
    assert [ended.code for ended in (fid, distance, ap, reid)] == [0, 0, 0, 0]


def test_bad_input_is_one_line_and_an_exit_code(standin: Standin, folder: Path, its: Path, tmp_path: Path) -> None:
    images, vector = its / IMAGES, folder / "vector.onnx"
    (tmp_path / "text.onnx").write_text("no network")
    (tmp_path / "x.json").write_text("{}")
    wrong = {
        ("table",): (2, "nothing to measure on"),
        ("table", "--images", tmp_path / "none", "--features", vector): (2, "no such folder"),
        ("table", "--images", images, "--features", f"{vector},size=3"): (2, "size=3 is no width and height"),
        ("table", "--images", images, "--features", tmp_path / "text.onnx"): (1, "not an ONNX file"),
        ("table", "--images", images, "--annotations", tmp_path / "x.json"): (1, "no file of COCO annotations"),
        ("table", "--method", "blurr"): (2, "did you mean 'blur'"),
        ("table", "--engine", "x"): (2, "is not NAME=FOLDER"),
        ("fid", images, images, "--features", vector, "--json", tmp_path / "x.json"): (2, "exists"),
        ("fid", images, images, "--features", vector, "--json", tmp_path / "no" / "x.json"): (2, "does not exist"),
        ("ap", images, its / MARKET, "--annotations", its / ANNOTATIONS): (2, "lacks 3 annotated pictures"),
        ("reid", its, its, "--identity", vector): (2, "no folder 'query'"),
        ("synthetic", its): (2, "holds something already"),
    }
    for arguments, (code, words) in wrong.items():
        ended = standin("evaluate", *arguments)
        assert ended.code == code, arguments
        assert words in ended.line(), arguments


@pytest.mark.parametrize("missing", ["torchmetrics.image.fid", "pycocotools"])
def test_what_is_not_installed_is_named_with_the_command_that_installs_it(
    standin: Standin, folder: Path, its: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "export.measures", raising=False)
    images = its / IMAGES
    arguments = {
        "torchmetrics.image.fid": ["fid", images, images, "--features", folder / "vector.onnx"],
        "pycocotools": ["ap", images, images, "--annotations", its / ANNOTATIONS],
    }[missing]
    ended = standin("evaluate", *arguments)
    assert ended.code == 1
    assert 'pip install "standin[evaluate]"' in ended.line()
