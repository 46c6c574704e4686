"""The output folder: one batch at a time, partial results apart, final names only for what is whole."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import filelock

from engines.errors import SinkError, StandinError
from stream.batch.inputs import MEDIA
from stream.batch.manifest import HIDDEN, NAME, Entry, Made, Manifest, place
from stream.batch.remote import is_remote
from stream.sinks.target import Target

_log = logging.getLogger(__name__)

REPORT: Final = ".report.json"
_SCRATCH: Final = "standin-ray-"
#: How cameras call small copies of their recordings.
_PREVIEWS: Final = {".lrv", ".thm", ".heic", ".heif", ".avif", ".dng", ".insv", ".360"}
#: What says that there is no room for anything else either.
FULL: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Extras:
    """What lies beside a result.

    Attributes:
        reports: what was covered, as `NAME.report.json`.
        sidecars: patterns of files beside an input that are copied as they are, such as `*.srt`.
        times: whether results have the times of their inputs.
    """

    reports: bool = True
    sidecars: tuple[str, ...] = ()
    times: bool = False


class OutputFolder:
    """The folder that results go to, locked while it is open.

    Args:
        path: of the folder; made where there is none.

    Attributes:
        manifest: of the folder.

    Raises:
        StandinError: another batch writes into it.
        SinkError: it cannot be made or written.
        UsageError: it is a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hidden = path / HIDDEN
        with _errors(path), contextlib.ExitStack() as stack:
            self._hidden.mkdir(parents=True, exist_ok=True)
            self._lock = filelock.FileLock(self._hidden / "lock", blocking=False)
            try:
                stack.enter_context(self._lock)
            except filelock.Timeout:
                raise StandinError(
                    f"another batch is writing into {path}: wait for its end, or give another --output"
                ) from None
            self.manifest = stack.enter_context(contextlib.closing(Manifest(self._hidden / NAME, path)))
            # Of batches that ended in the middle. Where one of their workers is still alive, it now has no place to
            # write to.
            shutil.rmtree(self._hidden / "staging", ignore_errors=True)
            self._staging = self._hidden / "staging" / secrets.token_hex(4)
            self._staging.mkdir(parents=True)
            stack.callback(self._clean)
            self._stack = stack.pop_all()
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Delete what is not whole, and give the folder free."""
        self._stack.close()

    def scratch(self) -> Path:
        """An empty folder with a short name for sockets, which goes when this one is closed.

        Raises:
            SinkError: it cannot be made.
        """
        note = self._hidden / "scratch"
        with _errors(self.path):
            with contextlib.suppress(FileNotFoundError):
                # Of a batch that was killed.
                _remove_scratch(Path(note.read_text(encoding="utf-8")))
            made = Path(tempfile.mkdtemp(prefix=_SCRATCH))
            self._stack.callback(shutil.rmtree, made, ignore_errors=True)
            note.write_text(str(made), encoding="utf-8")
            self._stack.callback(note.unlink, missing_ok=True)
        return made

    def stage(self) -> Path:
        """A new folder for one attempt at one file.

        Raises:
            SinkError: it cannot be made.
        """
        self._count += 1
        staging = self._staging / str(self._count)
        with _errors(self.path):
            staging.mkdir()
        return staging

    def drop(self, staging: Path) -> None:
        """Delete what an attempt has left."""
        shutil.rmtree(staging, ignore_errors=True)

    def put(self, entry: Entry, made: Made, staging: Path, extras: Extras) -> None:
        """Give a file's results, which are whole, their final names.

        Args:
            entry: the file.
            made: what was done.
            staging: where its results are.
            extras: what lies beside them.

        Raises:
            SinkError: they cannot be placed.
        """
        final = self.path / entry.name
        with _errors(self.path):
            final.parent.mkdir(parents=True, exist_ok=True)
            staged = staging / final.name
            if not is_remote(entry.at):
                _copy_sidecars(Path(entry.at), final.parent, extras.sidecars)
                if extras.times:
                    facts = os.stat(entry.at)
                    os.utime(staged, ns=(facts.st_atime_ns, facts.st_mtime_ns))
            moves = {staged: final}
            if (report := staging / f"{final.name}{REPORT}").exists():
                # First: a result without its report must not count as whole.
                moves = {report: final.with_name(report.name)} | moves
            self.manifest.placing(entry.name, made, moves)
            place({str(old): str(new) for old, new in moves.items()})
            self.manifest.placed(entry.name)
        self.drop(staging)

    def _clean(self) -> None:
        shutil.rmtree(self._hidden / "staging", ignore_errors=True)


def _remove_scratch(path: Path) -> None:
    """Delete a folder that this module has made; whatever else stands in a note stays."""
    ours = path.parent == Path(tempfile.gettempdir()) and path.name.startswith(_SCRATCH) and not path.is_symlink()
    if ours and path.is_dir() and path.stat().st_uid == os.getuid():
        shutil.rmtree(path, ignore_errors=True)


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, says that there is no room left."""
    while error is not None:
        if getattr(error, "errno", None) in FULL or any(os.strerror(code) in str(error) for code in FULL):
            return True
        error = error.__cause__
    return False


def _copy_sidecars(source: Path, folder: Path, patterns: Sequence[str]) -> None:
    """Files beside an input that begin with its name, with or without ending."""
    if not patterns:
        return
    begins = (f"{source.stem}.", f"{source.name}.")
    for beside in source.parent.iterdir():
        wanted = beside.name.startswith(begins) and any(fnmatch.fnmatch(beside.name, one) for one in patterns)
        if wanted and not _holds_pictures(beside) and not beside.name.endswith(REPORT) and beside.is_file():
            target = Target(folder / beside.name, overwrite=True)
            try:
                shutil.copyfile(beside, target.temporary)
            except OSError:
                target.discard()
                raise
            target.commit()


def _holds_pictures(path: Path) -> bool:
    """Whatever a pattern says: pictures beside an input are most likely of the people in it."""
    return path.suffix.lower() in MEDIA | _PREVIEWS


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except StandinError:
        raise
    except OSError as error:
        raise SinkError(f"cannot write into {path}: {error.strerror or error}") from error
