"""The output folder: one batch at a time, partial results apart, final names only for what is whole."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import filelock

from engines.errors import SinkError, SourceError, StandinError, UsageError
from stream.batch import sidecars
from stream.batch.inputs import HIDDEN, REPORT, check_name
from stream.batch.manifest import NAME, Entry, Made, Manifest, place
from stream.batch.remote import is_remote
from stream.batch.sidecars import Sidecars

_SCRATCH: Final = "standin-ray-"
#: What says that there is no room for anything else either.
FULL: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Extras:
    """What lies beside a result.

    Attributes:
        reports: what was covered, as `NAME.report.json`.
        sidecars: patterns of texts beside an input that are copied as they are, such as `*.srt`.
        times: whether results have the times of their inputs.
        overwrite: whether sidecars may replace other files.
    """

    reports: bool = True
    sidecars: tuple[str, ...] = ()
    times: bool = False
    overwrite: bool = False


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
        if path.exists() and not path.is_dir():
            raise UsageError(f"the output {path} is a file; a folder is expected")
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
        self._sidecars: Sidecars | None = None

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

    def put(self, entry: Entry, made: Made, staging: Path, extras: Extras) -> str | None:
        """Give a file's results, which are whole, their final names.

        Args:
            entry: the file.
            made: what was done.
            staging: where its results are.
            extras: what lies beside them.

        Returns:
            What is not as it should be beside the result; None if all is.

        Raises:
            SinkError: they cannot be placed; what was there before is there still.
            UsageError: the result would lie elsewhere than in the folder, or replace its input.
        """
        check_name(entry.name)
        final = self.path / entry.name
        with _errors(final.parent), contextlib.ExitStack() as stack:
            final.parent.mkdir(parents=True, exist_ok=True)
            _check_final(final, entry)
            staged, moves, troubles = staging / final.name, dict[Path, Path](), list[str]()
            if not is_remote(entry.at):
                moves, troubles = stack.enter_context(self._copied(Path(entry.at), final.parent, extras))
                if extras.times:
                    _take_times(Path(entry.at), staged, troubles)
            # A result without its report must not count as whole, so the report comes before it; and one of an
            # earlier result would say what is not so.
            report = final.with_name(f"{final.name}{REPORT}")
            if (fresh := staging / report.name).exists():
                moves[fresh] = report
            elif self.manifest.was_made(entry.name):
                report.unlink(missing_ok=True)
            moves[staged] = final
            before = self.manifest.placing(entry.name, made, moves)
            try:
                place({str(old): str(new) for old, new in moves.items()})
            except OSError:
                self.manifest.taken_back(entry.name, before)
                raise
            self.manifest.placed(entry.name)
        self.drop(staging)
        return "; ".join(troubles) or None

    def complete(self, entry: Entry, extras: Extras) -> str | None:
        """Lay beside a result that holds what should be there and is not.

        Args:
            entry: the file.
            extras: what lies beside it.

        Returns:
            What is not as it should be still; None if all is.

        Raises:
            SinkError: the folder cannot be written.
        """
        if is_remote(entry.at):
            return None
        source, final = Path(entry.at), self.path / entry.name
        with _errors(final.parent), self._copied(source, final.parent, extras) as (moves, troubles):
            place({str(old): str(new) for old, new in moves.items()})
            if extras.times and _take_times(source, final, troubles):
                self.manifest.touched(entry.name)
        return "; ".join(troubles) or None

    @contextlib.contextmanager
    def _copied(self, source: Path, folder: Path, extras: Extras) -> Iterator[tuple[dict[Path, Path], list[str]]]:
        """Copies of the sidecars that a folder lacks, by where they belong, and why there are no others."""
        if self._sidecars is None or self._sidecars.patterns != extras.sidecars:
            self._sidecars = Sidecars(extras.sidecars)
        wanted, troubles = self._sidecars.missing(source, folder, overwrite=extras.overwrite)
        if not wanted:
            yield {}, troubles
            return
        moves, staging = {}, self.stage()
        try:
            for sidecar in wanted:
                try:
                    sidecars.copy(sidecar, staging / sidecar.name)
                    moves[staging / sidecar.name] = folder / sidecar.name
                except SourceError as error:
                    troubles.append(str(error))
            yield moves, troubles
        finally:
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


def _check_final(final: Path, entry: Entry) -> None:
    """Refuse what is there and must not be replaced, before anything is.

    Raises:
        SinkError: it is a folder.
        UsageError: it is the input.
    """
    if final.is_dir() and not final.is_symlink():
        raise SinkError(f"cannot write {final}: a folder has that name")
    if not is_remote(entry.at) and final.exists() and os.path.exists(entry.at) and final.samefile(entry.at):
        raise UsageError(f"{final} is the input: it is never written, give another --output")


def _take_times(source: Path, result: Path, troubles: list[str]) -> bool:
    """Give a result the times of its input; whether it had others."""
    try:
        facts = source.stat()
    except OSError as error:
        troubles.append(f"cannot read the times of {source}: {error.strerror or error}")
        return False
    if result.stat().st_mtime_ns == facts.st_mtime_ns:
        return False
    os.utime(result, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    return True


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except StandinError:
        raise
    except OSError as error:
        raise SinkError(f"cannot write into {path}: {error.strerror or error}") from error
