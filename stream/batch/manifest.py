"""The manifest: what a batch has done and what is left, in the output folder, in SQLite.

Everything about single files is asked of the database, so that a batch of any size needs the same memory. A row is
written before its files get their final names and once more after that: whatever moment a crash comes at, the next call
knows which of them it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Self

from engines.errors import SinkError, UsageError
from stream.batch import statements
from stream.batch.inputs import HIDDEN, REPORT, Found, is_image

#: In the hidden part of the output folder.
NAME: Final = "manifest.sqlite"
_ROWS: Final = 1000
_CACHE: Final = 16_000
#: What is known of a result that has its final name.
_MADE: Final = ("placed", "content", "settings", "frames", "withheld", "seconds")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that is to be done.

    Attributes:
        name: of its result, below the output folder.
        at: where the input is.
        content: sha256 of the input that the result was made of, None where it would be no use to know.
        made_of: place and sha256 of the input that its result was made of, where that lay elsewhere and only the same
            content may replace it.
    """

    name: str
    at: str
    content: str | None
    made_of: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """What a finished file was made of, and what was done.

    Attributes:
        content: sha256 of the input.
        frames: written.
        withheld: of them.
        seconds: that it took.
        error: what could not be read of it, None if all could.
    """

    content: str
    frames: int
    withheld: int
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """How a call stands.

    Attributes:
        total: inputs.
        waiting: not done yet.
        done: in this call.
        kept: done in an earlier call, and nothing has changed.
        incomplete: whose input cannot be read to its end.
        failed: set aside.
        frames: written in this call.
        withheld: of all that is there.
        grey: files with such frames.
    """

    total: int
    waiting: int
    done: int
    kept: int
    incomplete: int
    failed: int
    frames: int
    withheld: int
    grey: int


class Manifest:
    """The manifest of one output folder; used by one process at a time, which holds the folder's lock.

    Args:
        path: of the database; made where there is none.
        output: the folder that names are below.

    Raises:
        UsageError: the file is another program's, or of a newer release.
        SinkError: it cannot be read or written.
    """

    def __init__(self, path: Path, output: Path) -> None:
        self._path = path
        self._below = str(output)
        self._call = 0
        self._settings = ""
        self._overwrite = False
        self._taken = self._last = 0
        with self._errors():
            self._database = sqlite3.connect(path, isolation_level=None)
            try:
                self._open()
            except BaseException:
                self._database.close()
                raise

    @classmethod
    def copy(cls, output: Path) -> Self:
        """The manifest of an output folder, in memory, whether there is one or not; nothing is changed.

        Raises:
            StandinError: as for the constructor.
        """
        made = cls(Path(":memory:"), output)
        path = output / HIDDEN / NAME
        if path.exists():
            with made._errors(), contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as there:
                there.backup(made._database)
                made._path = path
                made._make()
        return made

    def begin(self, found: Iterable[Found], settings: str, *, overwrite: bool, reports: bool = False) -> None:
        """Another call: what is there is compared with what should be.

        Args:
            found: the inputs.
            settings: key of the settings that results depend on.
            overwrite: whether results may replace files that are not of this batch.
            reports: whether a result is whole only with its report.

        Raises:
            UsageError: two inputs would have one result, or one input two.
        """
        self._settings, self._overwrite = settings, overwrite
        ending = REPORT if reports else None
        with self._errors(), self._transaction():
            self._call = self._one("INSERT INTO calls VALUES (NULL) RETURNING id")
            self._database.execute(statements.FOUND)
            rows = ((item.name, item.at, item.size, item.mark, item.error, ending) for item in found)
            while some := list(islice(rows, _ROWS)):
                self._database.executemany(statements.NOTE, some)
            self._check_names()
            values = {"call": self._call, "settings": settings, "overwrite": overwrite, "reports": reports}
            values |= {"foreign": statements.FOREIGN, "changed": statements.CHANGED, "other": statements.OTHER_REPORT}
            self._database.execute(statements.KNOWN, values)
            self._database.execute(statements.NEW, values)
            self._database.execute("DROP TABLE found")

    def unknown(self) -> Iterator[tuple[str, str]]:
        """Name and place of waiting files whose length is not known, the largest first."""
        query = "SELECT name, at FROM files WHERE call = ? AND state = 'waiting' AND length IS NULL"
        with self._errors():
            yield from self._database.execute(f"{query} ORDER BY size DESC", (self._call,))

    def line_up(self, lengths: Mapping[str, float]) -> None:
        """Put what waits in order.

        Args:
            lengths: frames of files, by name; the others are judged by their size.
        """
        with self._errors(), self._transaction():
            self._database.executemany(
                "UPDATE files SET length = ? WHERE name = ?", [(count, name) for name, count in lengths.items()]
            )
            self._database.execute("DROP TABLE IF EXISTS queue")
            self._taken = 0
            ratio = self._one(statements.RATIO, self._call)
            values = {"call": self._call, "settings": self._settings, "overwrite": self._overwrite, "ratio": ratio}
            self._database.execute(statements.QUEUE, values)
            self._last = self._one("SELECT coalesce(max(rowid), 0) FROM queue")

    def take(self) -> Entry | None:
        """The longest file that nobody has taken yet; None where there is none."""
        entry = self.longest()
        self._taken += entry is not None
        return entry

    def longest(self) -> Entry | None:
        """The file that would be taken next."""
        with self._errors():
            row = self._database.execute(
                "SELECT name, at, content, source, made FROM queue WHERE rowid = ?", (self._taken + 1,)
            ).fetchone()
        if row is None:
            return None
        name, at, content, source, made = row
        return Entry(name, at, content, (source, made) if source is not None else None)

    @property
    def untaken(self) -> int:
        """How many files nobody has taken yet."""
        return self._last - self._taken

    def kept(self) -> Iterator[Entry]:
        """What was done in an earlier call and holds; each may be changed meanwhile."""
        last = ""
        while True:
            with self._errors():
                rows = self._database.execute(statements.KEPT, (self._call, last, _ROWS)).fetchall()
            if not rows:
                return
            yield from (Entry(name, at, None) for name, at in rows)
            last = rows[-1][0]

    def was_made(self, name: str) -> bool:
        """Whether this batch has ever made a result of this name."""
        with self._errors():
            return bool(self._one("SELECT content NOTNULL FROM files WHERE name = ?", name))

    def placing(self, name: str, made: Made, moves: Mapping[Path, Path]) -> dict[str, Any]:
        """A file's results are whole and about to get their final names.

        Args:
            name: of the result.
            made: what was done.
            moves: by where they are, where they belong; the result itself comes last.

        Returns:
            What was known of the result that is there until then.
        """
        with self._errors():
            row = self._database.execute(f"SELECT {', '.join(_MADE)} FROM files WHERE name = ?", (name,)).fetchone()  # noqa: S608
        self._change(
            name,
            state="placing",
            error=made.error,
            moves=json.dumps({str(staged): str(final) for staged, final in moves.items()}),
            placed=self._there(str(list(moves)[-1])),
            content=made.content,
            settings=self._settings,
            frames=made.frames,
            withheld=made.withheld,
            seconds=made.seconds,
        )
        return dict(zip(_MADE, row, strict=True))

    def taken_back(self, name: str, before: Mapping[str, Any]) -> None:
        """A file's results could not get their final names; what is there is what was there before."""
        self._change(name, state="waiting", moves=None, **before)

    def placed(self, name: str) -> None:
        """A file's results have their final names."""
        with self._errors():
            self._database.execute(statements.PLACED, (self._call, name))

    def same(self, name: str) -> None:
        """A file only looked changed; its result holds."""
        with self._errors():
            self._database.execute(statements.SAME, (name,))

    def touched(self, name: str) -> None:
        """This batch itself has changed a result's time."""
        with self._errors():
            self._database.execute("UPDATE files SET placed = there(name) WHERE name = ?", (name,))

    def lacks(self, name: str, error: str) -> None:
        """A result holds, and what should be beside it is not; the next call tries again."""
        with self._errors():
            self._database.execute(
                "UPDATE files SET state = 'failed', error = ? WHERE name = ? AND state = 'done'", (error, name)
            )

    def failed(self, name: str, error: str, attempts: int) -> None:
        """A file is set aside."""
        self._change(name, state="failed", error=error, attempts=attempts)

    def counts(self) -> Counts:
        """How this call stands."""
        with self._errors():
            row = self._database.execute(statements.COUNTS, {"call": self._call}).fetchone()
        return Counts(*map(int, row))

    def troubles(self, limit: int = -1) -> list[tuple[str, str]]:
        """Name and error of files that failed or are incomplete, so many of them."""
        with self._errors():
            return self._database.execute(statements.TROUBLES, (self._call, limit)).fetchall()

    def withheld(self, limit: int = -1) -> list[tuple[str, int]]:
        """Name and withheld frames of files that have some, the most first, so many of them."""
        with self._errors():
            return self._database.execute(statements.WITHHELD, (self._call, limit)).fetchall()

    def left(self) -> float:
        """Frames of all that nobody has taken yet, as far as that is known."""
        with self._errors():
            return float(self._one("SELECT total(cost) FROM queue WHERE rowid > ?", self._taken))

    def speed(self) -> float | None:
        """Frames per second of a worker, with these settings, so far; None where nothing is known."""
        query = "SELECT total(frames) / sum(seconds) FROM files WHERE settings = ? AND seconds > 0 AND frames > 0"
        with self._errors():
            return self._database.execute(query, (self._settings,)).fetchone()[0]  # type: ignore[no-any-return]

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _make(self) -> None:
        """Make of an empty file, or of a manifest of an earlier version, one of this version."""
        number = self._one("PRAGMA application_id")
        tables = self._one("SELECT count(*) FROM sqlite_master")
        if number != statements.APPLICATION_ID and (number or tables):
            raise UsageError(f"{self._path} is not the manifest of a batch: choose another --output")
        version = self._one("PRAGMA user_version")
        if version > statements.VERSION:
            raise UsageError(
                f"{self._path} is of version {version}, this release knows {statements.VERSION}: update Standin"
            )
        if not tables:
            self._database.executescript(statements.CREATE)
        elif version < statements.VERSION:
            self._database.executescript(statements.UPGRADE)

    def _open(self) -> None:
        for schema in ("main", "temp"):
            # KiB. With SQLite's own two megabytes, tables of a hundred thousand rows are written more than once.
            self._database.execute(f"PRAGMA {schema}.cache_size = -{_CACHE}")
        self._database.create_function("there", 1, self._there)
        self._database.create_function("still", 1, is_image)
        self._make()
        self._recover()

    def _recover(self) -> None:
        """After a crash: what was whole gets its name."""
        for name, moves in self._database.execute("SELECT name, moves FROM files WHERE state = 'placing'").fetchall():
            place(json.loads(moves))
            self._database.execute(statements.PLACED_BEFORE, (name,))

    def _check_names(self) -> None:
        for query, message in statements.CONFLICTS:
            if (row := self._database.execute(query).fetchone()) is not None:
                raise UsageError(message.format(*row))

    def _there(self, name: str) -> str | None:
        """What becomes another one when a result is changed; None where there is none."""
        try:
            facts = os.lstat(os.path.join(self._below, name))
        except OSError:
            return None
        return f"{facts.st_size}-{facts.st_mtime_ns}"

    def _change(self, name: str, **values: Any) -> None:
        columns = ", ".join(f"{column} = ?" for column in values)
        with self._errors():
            self._database.execute(f"UPDATE files SET {columns} WHERE name = ?", (*values.values(), name))  # noqa: S608

    def _one(self, query: str, *values: Any) -> Any:
        return self._database.execute(query, values).fetchone()[0]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.rollback()
            raise
        self._database.execute("COMMIT")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise SinkError(f"the manifest {self._path} cannot be used: {error}") from error


def place(moves: Mapping[str, str]) -> None:
    """Give staged files their final names; what has its name already keeps it.

    Raises:
        OSError: one cannot be renamed.
    """
    for staged, final in moves.items():
        if os.path.lexists(staged):
            os.replace(staged, final)
