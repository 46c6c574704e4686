from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stream.cli import main
from stream.frame import Image
from tests.closed import COUNT
from tests.command import FACE, Ended, Standin
from tests.fakes import Box, install_bundle, noise, read_pictures, write_lossless
from tests.stream.sinks.feeding import Feeding


@pytest.fixture(scope="module")
def face() -> Box:
    """What the store's one detector sees in every picture."""
    return FACE


@pytest.fixture(scope="module")
def store(face: Box, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    install_bundle(home, face)
    return home


@pytest.fixture(autouse=True)
def fed_sinks_end() -> Iterator[None]:
    """A test that fails before it has ended its sinks must not fail others that count threads."""
    yield
    while Feeding.sinks:
        Feeding.sinks.pop().abort()


@pytest.fixture
def at_home(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is the user's own."""
    monkeypatch.setenv("STANDIN_HOME", str(store))


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Standin:
    """Runs the command in this process."""

    def call(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["standin", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, captured.out, captured.err)

    return call


@pytest.fixture(scope="module")
def images() -> list[Image]:
    """Pictures that cannot be mistaken for one another, nor for anything flat."""
    return noise(COUNT)


@pytest.fixture(scope="module")
def clip(images: list[Image], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lossless clip of them."""
    path = write_lossless(tmp_path_factory.mktemp("clip") / "in.mkv", images)
    assert all(np.array_equal(a, b) for a, b in zip(read_pictures(path), images, strict=True)), "the clip is not exact"
    return path
