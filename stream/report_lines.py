"""Report lines: the report of a run that does not end, as lines of JSON in files that are rotated.

Every line is an object with a `type`. `head` says what `stream.report` says before its first frame; it begins each file
and each run. `frame` is a frame's entry. `summary` ends a run that came to its end.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from engines.errors import SinkError, UsageError
from stream.anonymizer import Anonymized, Anonymizer
from stream.config import RunSettings
from stream.metrics import Snapshot
from stream.pipeline import Summary
from stream.report import report_entry, report_head, report_tail
from stream.sources.base import StreamInfo

_HEAD: Final = b'{"type": "head"'


class ReportLines:
    """Writes a line for every frame at once, to the end of the file.

    A file that has grown beyond `rotate` becomes `NAME.1`, the one of that name `NAME.2`, and so on; the oldest goes.

    Args:
        path: of the report. An earlier run's is continued.
        settings: of the run.
        info: of the input.
        anonymizer: whose bundles are named, and whose margin and shape say what was covered.
        rotate: bytes of a file, None for a single one.
        keep: files beside the one that is being written.

    Raises:
        UsageError: there is a file of that name that is no such report.
        SinkError: the report cannot be created, or another run writes it.
    """

    def __init__(
        self,
        path: Path,
        settings: RunSettings,
        info: StreamInfo,
        anonymizer: Anonymizer,
        *,
        rotate: int | None = 64_000_000,
        keep: int = 10,
    ) -> None:
        if keep < 1:
            raise ValueError(f"expected to keep at least one file, got {keep}")
        self._path = path
        self._covering = anonymizer.settings
        self._name = info.name
        self._rotate = rotate
        self._keep = keep
        self._head = report_head(settings, info, anonymizer)
        self._descriptor = -1
        self._size = 0
        self._begun = 0  # bytes before the first frame
        try:
            self._open()
            self._begin()
        except BaseException:
            self.abort()
            raise

    def add(self, item: Anonymized) -> None:
        """Write one frame's line.

        Raises:
            SinkError: it cannot be written.
        """
        line = _line("frame", report_entry(item, self._covering, self._name))
        full = self._rotate is not None and self._size + len(line) > self._rotate
        if full and self._size > self._begun:
            self._turn()
        self._write(line)

    def close(
        self, summary: Summary, problems: tuple[str, ...], dropped: tuple[str, ...], last: Snapshot | None = None
    ) -> None:
        """Write the summary.

        Raises:
            SinkError: it cannot be written.
        """
        self._write(_line("summary", report_tail(summary, problems, dropped, last)))
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._failed(error) from error
        self.abort()

    def abort(self) -> None:
        """Close the file as it is; harmless after `close`."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _open(self) -> None:
        try:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o666)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._size = os.fstat(self._descriptor).st_size
        except BlockingIOError as error:
            raise SinkError(f"another run writes the report {self._path}; give each a file of its own") from error
        except OSError as error:
            raise self._failed(error) from error

    def _begin(self) -> None:
        """The head, at the beginning of a file or behind what an earlier run wrote."""
        if self._size:
            if not os.pread(self._descriptor, len(_HEAD), 0).startswith(_HEAD):
                raise UsageError(f"{self._path} exists and is no report in JSON lines; give another name")
            if os.pread(self._descriptor, 1, self._size - 1) != b"\n":
                # Whatever ended that run ended it within a line.
                self._write(b"\n")
        utc = datetime.now(UTC).isoformat(timespec="seconds")
        self._write(_line("head", {"utc": utc} | self._head))
        self._begun = self._size

    def _turn(self) -> None:
        """Begin the next file. In this order no line is lost, wherever it is interrupted."""
        try:
            os.fsync(self._descriptor)
            for number in range(self._keep, 0, -1):
                older = self._numbered(number - 1)
                if older.exists():
                    older.replace(self._numbered(number))
        except OSError as error:
            raise self._failed(error) from error
        self.abort()
        self._open()
        self._begin()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

    def _write(self, line: bytes) -> None:
        done = 0
        try:
            while done < len(line):
                done += os.write(self._descriptor, line[done:])
        except OSError as error:
            with contextlib.suppress(OSError):
                # A part of a line is none.
                os.ftruncate(self._descriptor, self._size)
            raise self._failed(error) from error
        self._size += len(line)

    def _failed(self, error: OSError) -> SinkError:
        return SinkError(f"cannot write the report {self._path}: {error.strerror or error}")


def _line(kind: str, content: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind} | content).encode() + b"\n"
