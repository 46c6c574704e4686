"""Whole, or not at all; what the exports themselves leave behind is tested through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.errors import CheckpointError, ExportError, UsageError
from export.bundle_folder import new_bundle_folder


def test_what_was_written_becomes_the_output(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "new"
    with new_bundle_folder(output) as work:
        (work / "bundle").mkdir()
        (work / "bundle" / "file").write_text("whole")
        (work / "draft").write_text("not wanted")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == [
        "deep", "deep/new", "deep/new/file",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (OSError(28, "No space left on device"), ExportError),
        (CheckpointError("broken"), CheckpointError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_of_a_failure_nothing_stays_not_even_the_folders_above(
    tmp_path: Path, raised: BaseException, expected: type[BaseException]
) -> None:
    def work_and_fail() -> None:
        with new_bundle_folder(tmp_path / "deep" / "new") as work:
            (work / "bundle").mkdir()
            raise raised

    with pytest.raises(expected):
        work_and_fail()
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(UsageError, match="is not an empty folder"), new_bundle_folder(tmp_path):
        pytest.fail("it began to work")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
