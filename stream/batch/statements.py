"""What the manifest says to SQLite."""

from __future__ import annotations

from typing import Final

#: "SIbm", at its place in the head of the file, so that no other SQLite database is taken for ours.
APPLICATION_ID: Final = 0x5349626D
VERSION: Final = 2

CREATE: Final = f"""
BEGIN;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
CREATE TABLE calls (id INTEGER PRIMARY KEY);
CREATE TABLE files (
    name TEXT PRIMARY KEY,
    at TEXT NOT NULL,
    size INTEGER NOT NULL,
    mark TEXT NOT NULL,
    length REAL,
    call INTEGER NOT NULL,
    state TEXT NOT NULL,
    error TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    finished INTEGER,
    content TEXT,
    settings TEXT,
    placed TEXT,
    source TEXT,
    moves TEXT,
    frames INTEGER,
    withheld INTEGER,
    seconds REAL
) WITHOUT ROWID;
COMMIT;
"""
#: From the version before, which did not tell the place of an input from that which its result was made of.
UPGRADE: Final = f"""
BEGIN;
ALTER TABLE files ADD COLUMN source TEXT;
UPDATE files SET source = at WHERE placed NOTNULL;
PRAGMA user_version = {VERSION};
COMMIT;
"""  # noqa: S608  no part of it comes from outside
#: What inputs that are found are held against; in a file of its own that vanishes with the connection.
FOUND: Final = """
CREATE TEMP TABLE found (
    name TEXT PRIMARY KEY, at TEXT, size INTEGER, mark TEXT, error TEXT, there TEXT, report TEXT, other TEXT
) WITHOUT ROWID
"""
NOTE: Final = """
INSERT INTO found VALUES (?, ?, ?, ?, ?, there(?1), iif(?6 ISNULL, NULL, there(?1 || ?6)), NULL)
ON CONFLICT (name) DO UPDATE SET other = excluded.at WHERE at <> excluded.at
"""
#: Why a file that is new is set aside at once.
_NEW_TROUBLE: Final = """
    CASE WHEN error NOTNULL THEN error WHEN :overwrite THEN NULL
    WHEN there NOTNULL THEN :foreign WHEN report NOTNULL THEN :other END
"""
NEW: Final = f"""
INSERT INTO files (name, at, size, mark, call, state, error)
SELECT name, at, size, mark, :call, iif({_NEW_TROUBLE} ISNULL, 'waiting', 'failed'), {_NEW_TROUBLE}
FROM found WHERE name NOT IN (SELECT name FROM files)
"""  # noqa: S608  no part of it comes from outside
_TROUBLE: Final = """
    CASE WHEN found.error NOTNULL THEN found.error WHEN :overwrite THEN NULL
    WHEN there NOTNULL AND there IS NOT placed THEN iif(placed ISNULL, :foreign, :changed)
    WHEN report NOTNULL AND content ISNULL THEN :other END
"""
#: What is there stays what it is where neither the input, nor the settings, nor the result have changed, and its report
#: is there if one is wanted.
KNOWN: Final = f"""
UPDATE files SET
    state = iif({_TROUBLE} NOTNULL, 'failed',
        iif(state IN ('done', 'incomplete') AND files.mark = found.mark AND files.at = found.at
            AND settings = :settings AND there IS placed AND (report NOTNULL OR NOT :reports), state, 'waiting')),
    error = coalesce({_TROUBLE}, iif(state = 'incomplete', files.error, NULL)),
    placed = iif(there IS NULL OR :overwrite AND there IS NOT placed, NULL, placed),
    settings = iif(report ISNULL AND :reports, NULL, settings),
    length = iif(files.mark = found.mark, length, NULL),
    at = found.at, size = found.size, mark = found.mark, call = :call, attempts = 0
FROM found WHERE found.name = files.name
"""  # noqa: S608  no part of it comes from outside
#: What must not be among the inputs, and what is said about it.
CONFLICTS: Final = (
    (
        "SELECT at, other, name FROM found WHERE other NOTNULL LIMIT 1",
        "{} and {} would both become {}: give the folder that they have in common, or --base",
    ),
    (
        "SELECT at, min(name), max(name) FROM found GROUP BY at HAVING count(*) > 1 LIMIT 1",
        "{} is given twice, and would become both {} and {}: give it once, or --base",
    ),
)
FOREIGN: Final = "its output exists, and is not of this batch: use --overwrite to replace it"
CHANGED: Final = "its output was changed after it was written: use --overwrite to replace it"
OTHER_REPORT: Final = "its report's name is taken by a file that is not of this batch: use --overwrite to replace it"
#: In the order in which it will be done: the longest first.
QUEUE: Final = """
CREATE TEMP TABLE queue AS
SELECT name, at, iif(settings = :settings AND placed NOTNULL, content, NULL) AS content,
    iif(placed NOTNULL AND source <> at AND NOT :overwrite, source, NULL) AS source, content AS made,
    coalesce(length, iif(still(name), 1, size * :ratio)) AS cost
FROM files WHERE call = :call AND state = 'waiting' ORDER BY cost DESC, name
"""
#: Frames of a byte. Files of one batch mostly come from the same cameras; without any that is known, sizes alone give
#: the order.
RATIO: Final = "SELECT coalesce(sum(length) / sum(size), 1e-4) FROM files WHERE call = ? AND length > 1"
PLACED: Final = """
UPDATE files SET state = iif(error IS NULL, 'done', 'incomplete'), moves = NULL, source = at, finished = ?
WHERE name = ?
"""
#: After an end in the middle of it: it is known what the result should look like.
PLACED_BEFORE: Final = """
UPDATE files SET state = iif(there(name) IS NOT placed, 'waiting', iif(error IS NULL, 'done', 'incomplete')),
    placed = iif(there(name) IS NOT placed, NULL, placed), source = at, moves = NULL
WHERE name = ?
"""
SAME: Final = """
UPDATE files SET state = iif(error IS NULL, 'done', 'incomplete'), source = at WHERE name = ?
"""
KEPT: Final = """
SELECT name, at FROM files WHERE call = ? AND state IN ('done', 'incomplete') AND name > ? ORDER BY name LIMIT ?
"""
COUNTS: Final = """
SELECT count(*), total(state IN ('waiting', 'placing')),
    total(state = 'done' AND finished IS :call), total(state = 'done' AND finished IS NOT :call),
    total(state = 'incomplete'), total(state = 'failed'),
    total(iif(finished = :call, frames, 0)), total(iif(state IN ('done', 'incomplete'), withheld, 0)),
    total(state IN ('done', 'incomplete') AND withheld > 0)
FROM files WHERE call = :call
"""
TROUBLES: Final = """
SELECT name, error FROM files WHERE call = ? AND state IN ('failed', 'incomplete') ORDER BY name LIMIT ?
"""
WITHHELD: Final = """
SELECT name, withheld FROM files WHERE call = ? AND state IN ('done', 'incomplete') AND withheld > 0
ORDER BY withheld DESC, name LIMIT ?
"""
