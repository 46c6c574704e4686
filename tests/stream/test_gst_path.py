"""What a shell is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engines.errors import RuntimeUnavailableError
from stream import gst_path
from tests.command import Standin


def bindings(folder: Path, version: str) -> Path:
    (folder / "gi").mkdir(parents=True)
    (folder / "gi" / f"_gi.cpython-{version}-x86_64-linux-gnu.so").touch()
    return folder


@pytest.fixture
def no_own_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gst_path, "find_spec", lambda _: None)


def here() -> str:
    return f"{sys.version_info.major}{sys.version_info.minor}"


@pytest.mark.usefixtures("no_own_bindings")
def test_everything_that_the_element_needs_is_on_the_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gst_path, "_DEBIAN", bindings(tmp_path, here()))
    monkeypatch.setenv("GST_PLUGIN_PATH", "/mine")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    found = gst_path.variables()
    plugins, mine = found["GST_PLUGIN_PATH"].split(":")
    assert (Path(plugins) / "python" / "standin_element.py").is_file()
    assert mine == "/mine"
    packages = found["PYTHONPATH"].split(":")
    assert packages[-1] == str(tmp_path)
    assert (Path(packages[0]) / "stream" / "gst_element.py").is_file()
    assert any((Path(folder) / "numpy").is_dir() for folder in packages)


@pytest.mark.usefixtures("no_own_bindings")
def test_bindings_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gst_path, "_DEBIAN", tmp_path)
    with pytest.raises(RuntimeUnavailableError, match="apt install python3-gi"):
        gst_path.variables()


@pytest.mark.usefixtures("no_own_bindings")
def test_bindings_for_another_python_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gst_path, "_DEBIAN", bindings(tmp_path, "399"))
    with pytest.raises(RuntimeUnavailableError, match="for another Python"):
        gst_path.variables()


def test_the_command_prints_the_plugin_path(standin: Standin) -> None:
    done = standin("gst-path")
    assert done.code == 0
    assert Path(done.out.strip()) == gst_path.PLUGINS


def test_the_command_prints_what_a_shell_can_read(standin: Standin) -> None:
    done = standin("gst-path", "--shell")
    if done.code:
        assert "apt install" in done.err
        return
    shown = subprocess.run(
        ["sh", "-c", f"{done.out}\nprintf %s $GST_PLUGIN_PATH"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.startswith(str(gst_path.PLUGINS))
