from __future__ import annotations

import sys

import pytest

from stream import check


def test_a_probe_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_PROBE_SECONDS", 0.5)
    code = "import time; print('first', flush=True); time.sleep(60)"
    status, out, err = check.run_probe([sys.executable, "-c", code])
    assert status == -1
    assert "did not finish" in err
    assert out in ("", "first\n")


def test_a_command_that_does_not_start_is_reported() -> None:
    assert check.run_probe(["/no/such/command"]) == (-1, "", "No such file or directory")


@pytest.mark.parametrize(
    ("text", "expected"), [("one\n two \n\n", "two"), ("", "nothing was said"), (" \n", "nothing was said")]
)
def test_the_last_line_is_what_counts(text: str, expected: str) -> None:
    assert check.last_line(text, "nothing was said") == expected


def test_a_package_that_is_not_there_has_no_version() -> None:
    assert check.version_of("no-such-package-anywhere") is None
    assert check.version_of("pytest") is not None
