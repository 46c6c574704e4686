"""Segments: the files of a recording. Their names, the hidden partial file that becomes one, and its recovery.

A partial file is locked for as long as somebody writes it, so that several runs may share a folder: what is locked is
in use, what is not was left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import re
import secrets
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from engines.errors import SinkError
from stream.sinks.fragments import whole_length

_log = logging.getLogger(__name__)

_TIME: Final = r"(\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}\.\d{3})Z"
_NAME: Final = re.compile(rf"{_TIME}\.(?:mp4|mkv)", re.ASCII)
_PARTIAL: Final = re.compile(rf"\.{_TIME}\.[0-9a-f]{{8}}\.partial(\.(?:mp4|mkv))", re.ASCII)
_FORMAT: Final = "%Y-%m-%dT%H-%M-%S.%f"
#: Bytes of a fragment that are gathered before they are written in any case.
_MOST_PENDING: Final = 8 * 2**20


def segment_name(time: datetime, ending: str) -> str:
    """Such as `2026-11-21T20-00-00.000Z.mp4`.

    Args:
        time: UTC.
        ending: with the dot.
    """
    return f"{time.strftime(_FORMAT)[:-3]}Z{ending}"


def named_time(name: str) -> datetime | None:
    """The time in a segment's name, None where it is no such name."""
    found = _NAME.fullmatch(name)
    return None if found is None else _parsed(found.group(1))


def recover(folder: Path) -> tuple[Path, ...]:
    """Make segments of the partial files that nobody writes any more.

    Whole fragments are kept and a torn tail is cut off. What holds none is deleted.

    Args:
        folder: of the recording.

    Returns:
        The segments that are there now.

    Raises:
        SinkError: the folder cannot be read, or a file cannot be recovered.
    """
    recovered = []
    try:
        with os.scandir(folder) as entries:
            left = sorted(e.name for e in entries if _PARTIAL.fullmatch(e.name) and e.is_file(follow_symlinks=False))
        for name in left:
            try:
                path = _recover(folder / name)
            except FileNotFoundError:
                # Another run was faster.
                continue
            except PermissionError as error:
                _log.warning("cannot recover %s: %s", name, error.strerror)
                continue
            recovered += [] if path is None else [path]
    except SinkError:
        raise
    except OSError as error:
        raise SinkError(f"cannot recover what an earlier run left in {folder}: {error.strerror}") from error
    return tuple(recovered)


def _recover(partial: Path) -> Path | None:
    found = _PARTIAL.fullmatch(partial.name)
    began = _parsed(found.group(1)) if found else None
    if found is None or began is None:
        return None
    descriptor = os.open(partial, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    file = PartialFile(partial, descriptor, began, found.group(2))
    if not file.lock():
        file.let_go()
        return None
    path = file.salvage()
    if path is None:
        _log.warning("%s held nothing that can be played and was deleted", partial.name)
    else:
        _log.warning("recovered %s (%d bytes)", path.name, path.stat().st_size)
    return path


class PartialFile:
    """A segment that is being written: a file object for PyAV, which becomes a segment by `place` or `salvage`.

    What is written is gathered until `flush`, so that nothing of ours raises inside a call into FFmpeg.

    Args:
        path: of the file, hidden.
        descriptor: of the same, open for reading and writing; it is owned from now on.
        began: UTC, for the final name.
        ending: with the dot.
    """

    def __init__(self, path: Path, descriptor: int, began: datetime, ending: str) -> None:
        self.path = path
        self._descriptor = descriptor
        self._began = began
        self._ending = ending
        self._pending = bytearray()
        self._frozen = False
        self._error: OSError | None = None
        self._syncing: Future[None] | None = None

    @classmethod
    def create(cls, folder: Path, began: datetime, ending: str) -> PartialFile:
        """A new one.

        Raises:
            OSError: the folder cannot be written.
        """
        while True:
            name = f".{segment_name(began, '')}.{secrets.token_hex(4)}.partial{ending}"
            descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            file = cls(folder / name, descriptor, began, ending)
            try:
                if file.lock():
                    # Without its name on disk, nothing that reaches the disk later could be found.
                    _sync_folder(folder)
                    return file
            except OSError:
                file.discard()
                raise
            # Before it was locked, another run took it for one that was left behind.
            file.let_go()

    def lock(self) -> bool:
        """Whether the file is ours alone, and still the one of that name."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(self._descriptor), os.lstat(self.path))
        except (BlockingIOError, FileNotFoundError):
            return False

    def write(self, content: bytes) -> int:
        """Gather what is to be written."""
        if not self._frozen:
            self._pending += content
        if len(self._pending) > _MOST_PENDING:
            self.flush()
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        self.flush()
        return os.lseek(self._descriptor, offset, whence)

    def tell(self) -> int:
        """The place where the next write goes."""
        return os.lseek(self._descriptor, 0, os.SEEK_CUR) + len(self._pending)

    def flush(self) -> bool:
        """Write what was gathered; whether there was anything.

        Raises:
            OSError: the disk is full, or the like.
        """
        if self._error is not None:
            raise self._error
        some = bool(self._pending)
        try:
            while self._pending:
                del self._pending[: os.write(self._descriptor, self._pending)]
        except OSError as error:
            # A library may go on after this, and must not write behind a gap.
            self._error = error
            self.freeze()
            raise
        return some

    def freeze(self) -> None:
        """From now on nothing is written any more, and what was gathered is forgotten."""
        self._frozen = True
        self._pending.clear()

    def sync(self, pool: ThreadPoolExecutor) -> None:
        """Let what was written reach the disk, beside whatever comes next; waits if the last time is not over yet.

        Raises:
            OSError: it did not reach the disk the last time.
        """
        self._settle()
        self._syncing = pool.submit(os.fdatasync, self._descriptor)

    def place(self) -> Path:
        """Give the finished file its final name, which is on disk afterwards.

        Raises:
            OSError: it cannot be done; the partial file stays for `salvage`.
        """
        self.flush()
        self._settle()
        os.fsync(self._descriptor)
        final = next(path for path in self._names() if _claim(self.path, path))
        _sync_folder(self.path.parent)
        self.let_go()
        return final

    def salvage(self) -> Path | None:
        """Keep whole fragments and cut off the rest; without any, delete the file.

        Raises:
            OSError: it cannot be done; the partial file stays for another attempt.
        """
        self.freeze()
        self._error = None
        with contextlib.suppress(OSError):
            # The reason for which it is given up, perhaps; what counts is whether the next one works.
            self._settle()
        try:
            if length := whole_length(self._descriptor):
                os.ftruncate(self._descriptor, length)
                return self.place()
            self.path.unlink(missing_ok=True)
            return None
        finally:
            self.let_go()

    def discard(self) -> None:
        """Delete the file. Never raises."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.let_go()

    def let_go(self) -> None:
        """Close the file; harmless when that is done."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                self._settle()
            os.close(self._descriptor)
            self._descriptor = -1

    def _settle(self) -> None:
        syncing, self._syncing = self._syncing, None
        if syncing is not None:
            syncing.result()

    def _names(self) -> Iterator[Path]:
        """Names from its time on: two segments may have begun within a millisecond."""
        for later in itertools.count():
            time = self._began + timedelta(milliseconds=later)
            yield self.path.parent / segment_name(time, self._ending)


def _claim(partial: Path, final: Path) -> bool:
    """Rename without ever replacing another file; whether the name was free."""
    try:
        # The one step that is atomic and refuses an existing name.
        os.link(partial, final)
    except FileExistsError:
        if partial.samefile(final):
            # An earlier run was ended between these two steps.
            partial.unlink()
            return True
        return False
    except OSError:
        # Some file systems, those of memory cards among them, have no hard links: an empty file holds the name.
        try:
            os.close(os.open(final, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666))
        except FileExistsError:
            return False
        partial.replace(final)
    else:
        partial.unlink()
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parsed(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, _FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
