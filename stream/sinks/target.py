"""Target: an output that appears under its final name only when it is complete."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from engines.errors import SinkError, UsageError

#: Bytes in the name of a file, on all file systems that matter.
_LONGEST_NAME = 255
_LONGEST_STEM = 80


def check_target(path: Path, *, overwrite: bool, inputs: tuple[Path, ...] = ()) -> None:
    """Refuse outputs that cannot be meant.

    Raises:
        UsageError: the folder is missing, the output is an input or a folder, or exists without `overwrite`.
    """
    if not path.parent.is_dir():
        raise UsageError(f"the folder of the output {path} does not exist: create {path.parent} first")
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise UsageError(f"{path} is the input: it is never written, give another output")
    if path.is_dir():
        raise UsageError(f"the output {path} is a folder; a file is expected")
    if os.path.lexists(path) and not overwrite:
        raise UsageError(f"{path} exists; use --overwrite to replace it")


class Target:
    """A temporary file beside the final one, renamed over it by `commit`.

    Args:
        path: the final name.
        overwrite: whether a file of that name may be replaced.

    Raises:
        SinkError: the folder cannot be written.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self.path = path
        self._overwrite = overwrite
        # The ending stays: containers and picture formats are told by it.
        tail = f".{secrets.token_hex(4)}.partial{path.suffix}"
        longest = max(0, min(_LONGEST_STEM, _LONGEST_NAME - len(os.fsencode(f".{tail}"))))
        stem = os.fsencode(path.stem)[:longest].decode("utf-8", "ignore")
        self.temporary = path.with_name(f".{stem}{tail}")
        try:
            os.close(os.open(self.temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except OSError as error:
            raise SinkError(f"cannot write into {path.parent}: {error.strerror}") from error

    def commit(self) -> None:
        """Flush to disk and rename.

        Raises:
            SinkError: the file cannot be flushed or renamed, or another one has appeared meanwhile.
        """
        try:
            with self.temporary.open("rb") as file:
                os.fsync(file.fileno())
            if self._overwrite:
                self.temporary.replace(self.path)
            else:
                self._place()
        except SinkError:
            self.discard()
            raise
        except OSError as error:
            self.discard()
            raise SinkError(f"cannot finish {self.path}: {error.strerror}") from error

    def _place(self) -> None:
        """Give the file its final name without ever replacing another one."""
        try:
            # The one step that is atomic and refuses an existing name.
            os.link(self.temporary, self.path)
        except OSError as error:
            # Some file systems have no hard links; then the time between these two steps stays.
            if isinstance(error, FileExistsError) or os.path.lexists(self.path):
                raise SinkError(
                    f"{self.path} has appeared meanwhile; it is not replaced without --overwrite"
                ) from error
            self.temporary.replace(self.path)
        else:
            self.discard()

    def discard(self) -> None:
        """Delete the temporary file, if it is still there."""
        with contextlib.suppress(OSError):
            self.temporary.unlink()
