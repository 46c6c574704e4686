from __future__ import annotations

import sys

import pytest

from stream.cli import main
from tests.command import Ended, Standin


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
