"""Where an export works, and how the finished bundle comes to its place: whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from engines.bundle import MANIFEST_NAME
from engines.errors import ExportError, StandinError, UsageError


@contextlib.contextmanager
def new_bundle_folder(output: Path) -> Iterator[Path]:
    """A folder to work in; the bundle that was written to `bundle` inside it becomes `output` at the end.

    It lies beside the output, so that the bundle can be moved into place in one step. Of a failure nothing stays.

    Args:
        output: must not exist, or be an empty folder.

    Raises:
        UsageError: there is something at the output already.
        ExportError: a folder cannot be made, or something could not be written while working.
    """
    with _work_folder(output) as work:
        try:
            yield work
            # Replaces an empty folder, and nothing else.
            (work / "bundle").rename(os.path.realpath(output))
        except OSError as error:
            if isinstance(error, StandinError):
                raise
            raise ExportError(
                f"{output} cannot be written ({error.strerror or error}); nothing was left behind; "
                "give a folder with space that you may write"
            ) from error


@contextlib.contextmanager
def _work_folder(output: Path) -> Iterator[Path]:
    """A folder beside the output, so that the bundle can be moved into place in one step. Of a failure nothing stays.

    Raises:
        UsageError: there is something at the output already.
        ExportError: a folder cannot be made.
    """
    missing: list[Path] = []
    work = None
    try:
        try:
            if output.exists() and (not output.is_dir() or any(output.iterdir())):
                what = "holds a bundle already" if (output / MANIFEST_NAME).exists() else "is not an empty folder"
                raise UsageError(f"{output} {what}; give a new folder")
            # A link to an empty folder stays one, and a name like "." becomes one that has a parent.
            target = Path(os.path.realpath(output))
            missing = [folder for folder in target.parents if not folder.exists()]
            target.parent.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        except OSError as error:
            raise ExportError(
                f"{output} cannot be made ({error.strerror or error}); give a folder that you may write"
            ) from error
        yield work
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
        _remove_empty(missing)


def _remove_empty(folders: Sequence[Path]) -> None:
    """Removes folders that we made, innermost first, unless somebody else has put something there meanwhile."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
