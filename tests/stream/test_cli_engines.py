from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from engines.bundle import Bundle, write_bundle
from engines.checkpoints import checkpoints
from engines.errors import BundleError, BundleMissingError, BundleTamperedError, HashMismatchError, UsageError
from engines.manifest import Activation, ManifestDraft, Parity
from engines.store import Store
from stream import cli_engines
from stream.cli_engines import app
from tests.engines.helpers import doubler, tiny_draft
from tests.engines.importers.networks import columns, fixed_answer, save, ultralytics
from tests.generator_bundles import write_unet

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty default store, in a folder whose name is markup to rich."""
    root = tmp_path / "[red]store[/]"
    monkeypatch.setenv("STANDIN_HOME", str(root))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return root


@pytest.fixture
def tiny(store: Path) -> Bundle:
    return write_bundle(store / "bundles" / "tiny", tiny_draft(), {"detector.onnx": doubler()})


def output(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_list_shows_known_bundles_with_licence_and_state(store: Path) -> None:
    text = output("list")
    assert str(store) in text
    row = next(line for line in text.splitlines() if "centerface" in line)
    for word in ("face", "MIT", "7.3 MB", "no", "CenterFace"):
        assert word in row


def test_list_shows_installed_bundles_that_are_not_in_the_registry(tiny: Bundle) -> None:
    row = next(line for line in output("list").splitlines() if "tiny" in line)
    assert "yes" in row
    assert "not in the registry" in row


def test_list_shows_what_can_be_exported(store: Path) -> None:
    text = output("list")
    rows = {line.split("│")[1].strip(): line for line in text.splitlines() if line.startswith("│")}
    assert set(checkpoints()) <= set(rows)
    for word in ("face", "as its data set FDF256 ...", "?", "no", "export", "DeepPrivacy2: generates faces"):
        assert word in rows["dp2-face"]
    assert "pull" in rows["centerface"]
    assert "standin engines verify NAME" in text
    with pytest.raises(BundleMissingError, match="standin export dp2-face --checkpoint FILE"):
        output("verify", "dp2-face")


def test_list_shows_an_exported_bundle_with_its_size_once_it_is_installed(store: Path) -> None:
    write_bundle(store / "bundles" / "dsfd", tiny_draft(), {"detector.onnx": doubler()})
    (row,) = (line for line in output("list").splitlines() if "dsfd" in line)
    for word in ("MIT", "yes", "export", "DSFD"):
        assert word in row
    assert "?" not in row


@pytest.fixture
def built_in(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """The detector that comes with the project, tiny."""
    shipped = tmp_path / "package"
    monkeypatch.setattr(cli_engines, "Store", partial(Store, built_in=shipped))
    return write_bundle(shipped / "starter-detector", tiny_draft("starter-detector"), {"detector.onnx": doubler()})


def test_what_comes_with_the_project_is_shown_as_built_in(built_in: Bundle, store: Path) -> None:
    rows = {line.split("│")[1].strip(): line for line in output("list").splitlines() if line.startswith("│")}
    for word in ("built in", "MIT", "our own, small: finds persons"):
        assert word in rows["starter-detector"]
    assert "built in" not in rows["starter-generator"]
    assert "no" in rows["starter-generator"]
    assert f"{built_in.path} (built in)" in " ".join(output("inspect", "starter-detector").split())
    assert output("verify", "starter-detector") == "ok (built in)\n"
    assert output("pull", "starter-detector").startswith(f"starter-detector: installed in {built_in.path}")
    with pytest.raises(BundleMissingError, match="starter-generator"):
        output("verify", "starter-generator")
    # One that is installed under that name is used instead.
    write_bundle(store / "bundles" / "starter-detector", tiny_draft("mine"), {"detector.onnx": doubler()})
    assert output("verify", "starter-detector") == "ok\n"
    assert "built in" not in next(line for line in output("list").splitlines() if "starter-detector" in line)


def test_list_shows_damage(tiny: Bundle) -> None:
    tiny.file("detector.onnx").write_bytes(b"changed")
    row = next(line for line in output("list").splitlines() if "tiny" in line)
    assert "damaged" in row


def test_inspect_shows_everything_that_the_manifest_says(tiny: Bundle) -> None:
    text = output("inspect", "tiny")
    for word in ("x", "float32", "N, 2, w", "2 x + n", "MIT", tiny.digest, *tiny.manifest.files.values()):
        assert word in text
    assert "not measured" in text
    assert str(tiny.path) in text


def test_inspect_shows_what_a_generator_is_and_how_it_was_verified(tmp_path: Path, store: Path) -> None:
    bundle = write_unet(
        tmp_path / "unet", activations=(Activation(layer="quiet", largest=1), Activation(layer="loud", largest=29))
    )
    kept = bundle.manifest.model_dump(exclude={"files"})
    result = Parity(
        graph="generator_fp16",
        output="output",
        largest_difference=0.019,
        measure="rms",
        measured=0.0021,
        tolerance=0.0155,
        cases=2,
    )
    files: dict[str, bytes | Path] = {name: bundle.file(name) for name in bundle.manifest.files}
    write_bundle(tmp_path / "measured", ManifestDraft(**kept | {"parity": (result,)}), files)
    text = output("inspect", str(tmp_path / "measured"))
    for word in ("style-unet", "24 x 16", "29 in loud", "w_avg", "rms", "0.0021", "0.0155", "0.019"):
        assert word in text


def test_inspect_writes_json(tiny: Bundle) -> None:
    data = json.loads(output("inspect", str(tiny.path), "--json"))
    assert data["digest"] == tiny.digest
    assert data["manifest"] == tiny.manifest.model_dump(mode="json")


def test_verify_says_ok_for_a_name_or_a_folder(tiny: Bundle, tmp_path: Path) -> None:
    write_bundle(tmp_path / "here", tiny_draft(), {"detector.onnx": doubler()})
    for which in ("tiny", str(tiny.path), "./here", "here"):
        assert output("verify", which) == "ok\n"


def test_verify_names_the_changed_file(tiny: Bundle) -> None:
    tiny.file("detector.onnx").write_bytes(b"changed")
    with pytest.raises(BundleTamperedError, match=r"detector\.onnx") as caught:
        output("verify", "tiny")
    assert caught.value.exit_code == 1


def test_what_is_not_there_is_told_apart(store: Path) -> None:
    with pytest.raises(BundleMissingError, match="standin engines pull centerface"):
        output("verify", "centerface")
    with pytest.raises(UsageError, match="did you mean 'centerface'"):
        output("verify", "centreface")
    with pytest.raises(BundleMissingError, match="not a folder"):
        output("verify", "./nothing")


def test_pull_refuses_a_source_with_other_bytes(store: Path, tmp_path: Path) -> None:
    (tmp_path / "fake.onnx").write_bytes(b"fake")
    with pytest.raises(HashMismatchError):
        output("pull", "centerface", "--source", str(tmp_path / "fake.onnx"))
    assert not (store / "bundles" / "centerface").exists()


def test_pull_refuses_an_unknown_name(store: Path) -> None:
    with pytest.raises(UsageError, match="did you mean"):
        output("pull", "[/]centerface")


def test_pull_of_an_installed_bundle_says_where_it_is(centerface: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(centerface.path.parent.parent))
    assert output("pull", "centerface") == f"centerface: installed in {centerface.path} (licence: MIT)\n"


def _own_detector(folder: Path) -> Path:
    answer = columns([[20, 30, 10, 20, 0.9, 0.1]])
    return save(fixed_answer({"o": answer}, metadata=ultralytics(["person", "dog"])), folder)


def test_import_makes_and_installs_a_bundle_of_ones_own_detector(store: Path, tmp_path: Path) -> None:
    file = _own_detector(tmp_path)
    text = output("import", str(file), "--kind", "yolo", "--name", "own")
    assert text == f"own: finds person; installed in {store}/bundles/own (licence: unknown)\n"
    assert output("verify", "own") == "ok\n"
    assert "person" in next(line for line in output("list").splitlines() if "own" in line)


def test_import_replaces_only_when_told(store: Path, tmp_path: Path) -> None:
    file = _own_detector(tmp_path)
    call = ("import", str(file), "--kind", "yolo", "--name", "own")
    output(*call)
    with pytest.raises(UsageError, match="--force"):
        output(*call)
    output(*call, "--classes", "dog=face", "--force")
    assert json.loads(output("inspect", "own", "--json"))["manifest"]["kinds"] == ["face"]


def test_a_failed_import_leaves_nothing_and_keeps_what_was_there(store: Path, tmp_path: Path) -> None:
    file = _own_detector(tmp_path)
    output("import", str(file), "--kind", "yolo", "--name", "own")
    with pytest.raises(BundleError, match="ultraface"):
        output("import", str(file), "--kind", "ultraface", "--name", "own", "--force")
    assert output("verify", "own") == "ok\n"
    assert [path.name for path in (store / "bundles").iterdir()] == ["own"]


@pytest.mark.parametrize("name", ["centerface", "Own", "../own", ""])
def test_import_refuses_names_of_known_bundles_and_of_none(store: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="name"):
        output("import", str(_own_detector(tmp_path)), "--kind", "yolo", "--name", name)


def test_help_names_every_command() -> None:
    text = output("--help")
    for command in ("list", "pull", "import", "inspect", "verify"):
        assert command in text
