"""The detections file (`--detections`): what was found in which picture, so that it need not be found again.

An SQLite database; docs/detections.md describes every table. It holds boxes, masks and dense poses as vertices, never
embeddings and never pixels. An entry whose check sum does not agree counts as no entry, and a frame without an entry
is looked at afresh: it is never taken as empty.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engines.bundle import Bundle
from engines.errors import UsageError
from stream.frame import Frame
from stream.surface import Surface

FORMAT = "standin-detections"
#: Of the file: counts up when a reader of the old one would misread the new one.
VERSION = 1
#: "SIdt", at its place in the head of the file, so that no other SQLite database is taken for ours.
APPLICATION_ID = 0x53496474
#: Of our own code between a detector's tensors and its regions: counts up when it finds anything else than before.
POST_PROCESSING = 1

_SCHEMA = {
    "meta": "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "frames": "CREATE TABLE frames (id INTEGER PRIMARY KEY, time TEXT NOT NULL, picture BLOB NOT NULL, "
    "regions INTEGER NOT NULL, checksum BLOB NOT NULL, UNIQUE (time, picture))",
    "regions": "CREATE TABLE regions (frame INTEGER NOT NULL, place INTEGER NOT NULL, kind TEXT NOT NULL, "
    "score REAL NOT NULL, x0 REAL NOT NULL, y0 REAL NOT NULL, x1 REAL NOT NULL, y1 REAL NOT NULL, "
    "mask_x INTEGER, mask_y INTEGER, mask_width INTEGER, mask_height INTEGER, mask BLOB, "
    "pose_x0 INTEGER, pose_y0 INTEGER, pose_x1 INTEGER, pose_y1 INTEGER, grid_width INTEGER, grid_height INTEGER, "
    "body BLOB, vertices BLOB, PRIMARY KEY (frame, place))",
}
#: Seconds between commits, and seconds to wait for another program that is writing.
_COMMIT_EVERY = 1.0
_PATIENCE = 1.0

_log = logging.getLogger(__name__)


class Place(NamedTuple):
    """What an entry is found by.

    Attributes:
        time: presentation time in seconds, an exact fraction such as `1001/30000`.
        picture: blake2b (32 bytes) of all that a detector sees of the frame.
    """

    time: str
    picture: bytes

    @classmethod
    def of(cls, frame: Frame) -> Place:
        """Where a frame's detections are kept."""
        head = f"{frame.height}x{frame.width} {frame.transfer.value} {Fraction(frame.pixel_aspect)}\n"
        digest = hashlib.blake2b(head.encode(), digest_size=32)
        digest.update(np.ascontiguousarray(frame.image).data)
        return cls(str(Fraction(frame.pts) * frame.time_base), digest.digest())


class Row(NamedTuple):
    """One region, in the order of the table's columns after `frame`; None for what it does not have."""

    place: int
    kind: str
    score: float
    x0: float
    y0: float
    x1: float
    y1: float
    mask_x: int | None = None
    mask_y: int | None = None
    mask_width: int | None = None
    mask_height: int | None = None
    mask: bytes | None = None
    pose_x0: int | None = None
    pose_y0: int | None = None
    pose_x1: int | None = None
    pose_y1: int | None = None
    grid_width: int | None = None
    grid_height: int | None = None
    body: bytes | None = None
    vertices: bytes | None = None


Rows = Sequence[Row]


@dataclass(frozen=True, slots=True)
class Detectors:
    """What made the detections: entries of other detectors are of no use.

    Attributes:
        bundles: that look at the frames, in their order.
        settings: thresholds, sizes and whatever else changes what is found, as text.
        surface: whose vertices stand for embeddings; None where no detector gives dense poses.
    """

    bundles: Sequence[Bundle]
    settings: Mapping[str, str]
    surface: Surface | None = None

    @property
    def key(self) -> str:
        """sha256 over bundles, settings, surface and our own code's version, as hex digits."""
        facts = {
            "post_processing": POST_PROCESSING,
            # The manifest's own digest too: normalisation and kinds stand in no other file.
            "bundles": [[b.manifest.name, b.digest, dict(b.manifest.files)] for b in self.bundles],
            "settings": dict(self.settings),
            "surface": None if self.surface is None else _surface_digest(self.surface),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def __str__(self) -> str:
        settings = (f"{name}={value}" for name, value in sorted(self.settings.items()))
        return ", ".join([*(bundle.manifest.name for bundle in self.bundles), *settings])


class DetectionsFile:
    """Reads and writes one detections file; may be used from several threads at once.

    The last second of a killed process is lost, the file stays valid. Where it cannot be written any more, that is
    said once and it is only read. A file that is new is made with its first entry, so that a run that fails before
    leaves none.

    Args:
        path: the file; made where there is none.
        detectors: that the detections are of.

    Raises:
        UsageError: the folder does not exist or a new file cannot be made there, or the file is another program's (it
            is not changed then), damaged, of a newer release or of other detectors.
    """

    def __init__(self, path: Path, detectors: Detectors) -> None:
        self._path = path
        self._detectors = detectors
        self._connection: sqlite3.Connection | None = _open(path, detectors) if _holds_anything(path) else None
        self._closed = False
        self._lock = threading.Lock()
        self._pending: dict[Place, Rows] = {}
        self._committed = time.monotonic()
        self._writing = True
        self._told: set[str] = set()

    def find(self, place: Place) -> Rows | None:
        """The regions of a picture; None where it has no entry, or one that does not add up."""
        with self._lock:
            pending = self._pending.get(place)
            return self._read(place) if pending is None else pending

    def add(self, place: Place, rows: Rows) -> None:
        """Keep the regions of a picture, in the place of what was known of it before."""
        with self._lock:
            if self._writing and not self._closed:
                self._pending[place] = rows
                if time.monotonic() - self._committed >= _COMMIT_EVERY:
                    self._commit()

    def distrust(self, what: str) -> None:
        """Say once why an entry does not count."""
        with self._lock:
            self._tell_once(what)

    def close(self) -> None:
        """Write what is not yet written and close the file; further calls do nothing."""
        with self._lock:
            self._closed = True
            try:
                self._commit()
            finally:
                connection, self._connection = self._connection, None
                if connection is not None:
                    connection.close()

    def _read(self, place: Place) -> Rows | None:
        if self._connection is None:
            return None
        try:
            entry = self._connection.execute(_FIND_FRAME, place).fetchone()
            if entry is None:
                return None
            number, count, checksum = entry
            rows = [Row(*row) for row in self._connection.execute(_FIND_REGIONS, (number,))]
        except sqlite3.Error as error:
            self._tell_once(f"it cannot be read ({error})")
            return None
        if count != len(rows) or checksum != _checksum(place, rows):
            self._tell_once("an entry does not add up")
            return None
        return rows

    def _commit(self) -> None:
        """All pending entries in one transaction, the first of which makes the file; called with the lock held."""
        try:
            if self._pending:
                # Another process may have made the file meanwhile: it is looked at like any other.
                connection = self._connection = self._connection or _open(self._path, self._detectors)
                with connection:
                    for place, rows in self._pending.items():
                        _write(connection, place, rows)
        except (sqlite3.Error, UsageError) as error:
            self._writing = False
            _log.warning("%s cannot be written (%s): what is found from now on is not kept", self._path, error)
        self._pending.clear()
        self._committed = time.monotonic()

    def _tell_once(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            _log.warning("%s: %s: such frames are looked at afresh", self._path, what)


_COLUMNS = ", ".join(Row._fields)
_FIND_FRAME = "SELECT id, regions, checksum FROM frames WHERE time = ? AND picture = ?"
_FIND_REGIONS = f"SELECT {_COLUMNS} FROM regions WHERE frame = ? ORDER BY place"  # noqa: S608  names of our own
_ADD_REGION = f"INSERT INTO regions (frame, {_COLUMNS}) VALUES (?{', ?' * len(Row._fields)})"  # noqa: S608


def _open(path: Path, detectors: Detectors) -> sqlite3.Connection:
    _holds_anything(path)
    try:
        # Not "rw": it is made where there is none. A file that may only be read is opened for reading all the same.
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=rwc",
            uri=True,
            timeout=_PATIENCE,
            isolation_level="IMMEDIATE",
            check_same_thread=False,
        )
    except sqlite3.Error as error:
        raise UsageError(f"cannot open the detections file {path}: {error}") from None
    try:
        if not _tables(connection):
            _create(connection, detectors)
        _check_content(connection, path, detectors)
    except sqlite3.OperationalError as error:
        connection.close()
        raise UsageError(f"cannot use the detections file {path} ({error}): choose another one") from None
    except sqlite3.Error as error:
        connection.close()
        raise _damaged(path, str(error)) from None
    except UsageError:
        connection.close()
        raise
    return connection


def _holds_anything(path: Path) -> bool:
    """Whether it is a file of ours rather than an empty one or none; without SQLite, which might write to it.

    Raises:
        UsageError: it cannot be used, or cannot be made.
    """
    if not path.parent.is_dir():
        raise UsageError(f"the folder of the detections file {path} does not exist: create {path.parent} first")
    try:
        head = _head(path)
    except OSError as error:
        raise UsageError(f"cannot read the detections file {path}: {error.strerror}") from None
    if not head:
        _check_room(path.resolve())
        return False
    if not head.startswith(b"SQLite format 3\0") or head[68:72] != APPLICATION_ID.to_bytes(4, "big"):
        raise UsageError(f"{path} exists and is no detections file (it stays as it is): choose another --detections")
    version = int.from_bytes(head[60:64], "big")
    if version > VERSION:
        raise UsageError(
            f"{path} is a detections file of version {version}, this release knows {VERSION}: "
            "update Standin, or choose another --detections"
        )
    return True


def _head(path: Path) -> bytes:
    """A file's first bytes; none where there is no file."""
    if not path.exists():
        return b""
    if not path.is_file():
        raise UsageError(f"the detections file {path} is no file: choose another --detections")
    with path.open("rb") as file:
        return file.read(100)


def _check_room(path: Path) -> None:
    """Whether a new file can be made, as far as that can be told without making it."""
    effective = os.access in os.supports_effective_ids
    allowed = os.access(path.parent, os.W_OK | os.X_OK, effective_ids=effective)
    if not allowed or (path.exists() and not os.access(path, os.W_OK, effective_ids=effective)):
        raise UsageError(f"cannot open the detections file {path}: it may not be written there, choose another one")


def _create(connection: sqlite3.Connection, detectors: Detectors) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        if _tables(connection):
            return  # Another process was faster.
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        for statement in _SCHEMA.values():
            connection.execute(statement)
        vertices = 0 if detectors.surface is None else detectors.surface.count
        meta = {
            "format": FORMAT,
            "version": str(VERSION),
            "key": detectors.key,
            "detectors": str(detectors),
            "vertices": str(vertices),
        }
        connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())


def _check_content(connection: sqlite3.Connection, path: Path, detectors: Detectors) -> None:
    if _tables(connection) != _SCHEMA:
        raise _damaged(path, "its tables are others")
    meta = dict(connection.execute("SELECT name, value FROM meta"))
    if (meta.get("format"), meta.get("version")) != (FORMAT, str(VERSION)) or "key" not in meta:
        raise _damaged(path, "its description is missing")
    if meta["key"] != detectors.key:
        made = meta.get("detectors", "unknown")
        raise UsageError(
            f"{path} was made with other detectors or thresholds ({made}; now {detectors}): "
            "choose another --detections, or delete it"
        )


def _tables(connection: sqlite3.Connection) -> dict[str, str]:
    """Names and definitions; without SQLite's own tables, which other programs may have left."""
    wanted = "type = 'table' AND name NOT LIKE 'sqlite@_%' ESCAPE '@'"
    return dict(connection.execute(f"SELECT name, sql FROM sqlite_master WHERE {wanted}"))  # noqa: S608  a constant


def _damaged(path: Path, why: str) -> UsageError:
    return UsageError(f"the detections file {path} is damaged ({why}): delete it, or choose another --detections")


def _write(connection: sqlite3.Connection, place: Place, rows: Rows) -> None:
    """Replaces the entry of a place, and whatever a damaged file holds under its number."""
    for (number,) in connection.execute("SELECT id FROM frames WHERE time = ? AND picture = ?", place).fetchall():
        connection.execute("DELETE FROM frames WHERE id = ?", (number,))
        connection.execute("DELETE FROM regions WHERE frame = ?", (number,))
    added = connection.execute(
        "INSERT INTO frames (time, picture, regions, checksum) VALUES (?, ?, ?, ?)",
        (*place, len(rows), _checksum(place, rows)),
    )
    connection.execute("DELETE FROM regions WHERE frame = ?", (added.lastrowid,))
    connection.executemany(_ADD_REGION, [(added.lastrowid, *row) for row in rows])


def _checksum(place: Place, rows: Rows) -> bytes:
    """Over everything that is stored for a frame, 16 bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for value in chain(place, (len(rows),), *rows):
        if value is None:
            digest.update(b"n")
        elif isinstance(value, int):
            digest.update(b"i" + struct.pack("<q", value))
        elif isinstance(value, float):
            digest.update(b"f" + struct.pack("<d", value))
        else:
            data = value.encode() if isinstance(value, str) else value
            digest.update((b"t" if isinstance(value, str) else b"b") + struct.pack("<q", len(data)) + data)
    return digest.digest()


def _surface_digest(surface: Surface) -> str:
    return hashlib.sha256(surface.vertex_embeddings.T.tobytes()).hexdigest()
