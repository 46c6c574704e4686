"""The detections file: what it gives back, what it does not trust, and what it never touches."""

from __future__ import annotations

import logging
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from engines.bundle import Bundle
from engines.errors import UsageError
from stream import detections
from stream.detections import DetectionsFile, Detectors, Place, Row, Rows
from stream.frame import Frame, Transfer
from stream.surface import Surface
from tests.fakes import install_bundle, noise

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
ANY = Detectors((), {"threshold": "0.2"})
FRAME = Frame(noise(1)[0], pts=3, time_base=Fraction(1, 25))
PLACE = Place.of(FRAME)
OTHER = Place.of(replace(FRAME, pts=4))
MIRRORED = Place.of(replace(FRAME, image=FRAME.image[:, ::-1]))
ROWS = (
    Row(0, "face", 0.5, 1.25, 2.0, 30.5, 40.0),
    Row(1, "person", 0.75, -3.0, 0.0, 20.0, 25.0, mask_x=-3, mask_y=0, mask_width=8, mask_height=1, mask=b"bits"),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "clip.detections"


def write(path: Path, rows: Rows = ROWS, place: Place = PLACE) -> None:
    with closing(DetectionsFile(path, ANY)) as file:
        file.add(place, rows)


def read(path: Path, place: Place = PLACE) -> Rows | None:
    with closing(DetectionsFile(path, ANY)) as file:
        return file.find(place)


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement).rowcount == 1, "the test changed nothing"


def test_what_was_written_is_read() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a % ? # name")
        write(path)
        assert read(path) == list(ROWS)
        assert [item.name for item in Path(folder).iterdir()] == [path.name]


def test_a_frame_without_an_entry_is_not_an_empty_frame(path: Path) -> None:
    write(path, ())
    found = read(path)
    assert found is not None
    assert len(found) == 0
    assert read(path, OTHER) is None


def test_an_entry_is_known_before_it_is_on_disk(path: Path) -> None:
    with closing(DetectionsFile(path, ANY)) as file:
        file.add(PLACE, ROWS)
        assert file.find(PLACE) == ROWS
        assert not path.exists()
    assert read(path) == list(ROWS)


def test_a_new_file_is_made_with_its_first_entry(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detections, "_COMMIT_EVERY", 0.0)
    file = DetectionsFile(path, ANY)
    assert file.find(PLACE) is None
    assert list(path.parent.iterdir()) == []
    file.close()
    assert list(path.parent.iterdir()) == []
    with closing(DetectionsFile(path, ANY)) as file:
        file.add(PLACE, ())
        assert path.exists()
    assert read(path) == []


def test_a_file_that_gets_no_entry_stays_as_it_is(path: Path) -> None:
    path.touch()
    assert read(path) is None
    assert path.read_bytes() == b""
    write(path)
    before = path.read_bytes()
    assert read(path, OTHER) is None
    assert path.read_bytes() == before


def test_two_runs_that_begin_without_a_file_share_one(path: Path) -> None:
    with closing(DetectionsFile(path, ANY)) as one, closing(DetectionsFile(path, ANY)) as other:
        one.add(PLACE, ROWS)
        other.add(OTHER, ROWS[:1])
    assert read(path) == list(ROWS)
    assert read(path, OTHER) == list(ROWS[:1])


@pytest.mark.parametrize("who", ["another program", "another detector"])
def test_a_file_that_others_made_meanwhile_stays_as_it_is(
    who: str, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(detections, "_COMMIT_EVERY", 0.0)
    with closing(DetectionsFile(path, ANY)) as file, caplog.at_level(logging.WARNING):
        if who == "another program":
            path.write_text("mine")
        else:
            with closing(DetectionsFile(path, Detectors((), {"threshold": "0.9"}))) as other:
                other.add(PLACE, ROWS[:1])
        before = path.read_bytes()
        for number in range(3):
            file.add(Place(str(number), PLACE.picture), ROWS)
        assert file.find(PLACE) is None
    assert path.read_bytes() == before
    assert len(caplog.records) == 1
    assert "cannot be written" in caplog.text
    assert "\n" not in caplog.records[0].getMessage()


def test_entries_are_committed_while_the_file_is_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detections, "_COMMIT_EVERY", 0.0)
    with closing(DetectionsFile(path, ANY)) as file, closing(sqlite3.connect(path)) as other:
        file.add(PLACE, ROWS)
        assert other.execute("SELECT regions FROM frames").fetchall() == [(2,)]


def test_a_new_answer_takes_the_place_of_the_old_one(path: Path) -> None:
    write(path)
    write(path, ROWS, OTHER)
    write(path, ROWS[:1])
    assert read(path) == list(ROWS[:1])
    assert read(path, OTHER) == list(ROWS)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM frames").fetchone() == (2,)
        assert connection.execute("SELECT count(*) FROM regions").fetchone() == (3,)


def test_a_place_is_an_exact_time_and_all_that_a_detector_sees() -> None:
    image = FRAME.image.copy()
    image[5, 7, 1] ^= 1
    others = [
        replace(FRAME, pts=4),
        replace(FRAME, time_base=Fraction(1001, 25025)),
        replace(FRAME, image=image),
        replace(FRAME, image=FRAME.image.reshape(FRAME.width, FRAME.height, 3)),
        replace(FRAME, transfer=Transfer.PQ),
        replace(FRAME, pixel_aspect=Fraction(16, 15)),
    ]
    # 1001/25025 is 1/25 in lowest terms: the only one that is the same.
    assert [Place.of(other) == PLACE for other in others] == [False, True, False, False, False, False]
    assert Place.of(replace(FRAME, pts=6, time_base=Fraction(1, 50), source="x", duration=9)) == PLACE
    assert PLACE.time == "3/25"
    far = replace(FRAME, pts=2**62, time_base=Fraction(1001, 90_000))
    assert Fraction(Place.of(far).time) == 2**62 * Fraction(1001, 90_000)


def test_a_view_of_a_larger_picture_is_the_same_picture() -> None:
    wide = np.zeros((48, 100, 3), np.uint8)
    wide[:, :64] = FRAME.image
    assert Place.of(replace(FRAME, image=wide[:, :64])) == PLACE


EXTRA = (
    "INSERT INTO regions (frame, place, kind, score, x0, y0, x1, y1) "
    "SELECT 1, 2, kind, score, x0, y0, x1, y1 FROM regions WHERE place = 0"
)
TAMPERINGS = {
    "a region is missing": "DELETE FROM regions WHERE place = 1",
    "the first region is missing": "DELETE FROM regions WHERE place = 0",
    "a region too many": EXTRA,
    "another count": "UPDATE frames SET regions = 1",
    "no regions at all": "UPDATE frames SET regions = 0",
    "a moved box": "UPDATE regions SET x0 = x0 + 1 WHERE place = 0",
    "another kind": "UPDATE regions SET kind = 'plate' WHERE place = 0",
    "a lost mask": "UPDATE regions SET mask = NULL WHERE place = 1",
    "a changed mask": "UPDATE regions SET mask = x'00' WHERE place = 1",
    "text for a number": "UPDATE regions SET score = 'high' WHERE place = 1",
    "text that is none": "UPDATE regions SET kind = CAST(x'ff' AS TEXT) WHERE place = 1",
    "another time": "UPDATE frames SET time = '4/25'",
    "another picture": f"UPDATE frames SET picture = x'{MIRRORED.picture.hex()}'",
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_an_entry_that_does_not_add_up_is_no_entry(name: str, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(path)
    change(path, TAMPERINGS[name])
    place = {"another time": OTHER, "another picture": MIRRORED}.get(name, PLACE)
    with caplog.at_level(logging.WARNING), closing(DetectionsFile(path, ANY)) as file:
        assert [file.find(place) for _ in range(5)] == [None] * 5
        assert len(caplog.records) == 1
        file.add(place, ROWS)
    assert read(path, place) == list(ROWS)


def test_without_the_check_sum_a_lost_region_would_pass(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path)
    change(path, "DELETE FROM regions WHERE place = 1")
    change(path, "UPDATE frames SET regions = 1")
    assert read(path) is None
    with closing(sqlite3.connect(path)) as connection:
        (stored,) = connection.execute("SELECT checksum FROM frames").fetchone()
    monkeypatch.setattr(detections, "_checksum", lambda *_: stored)
    assert read(path) == list(ROWS[:1])


def test_regions_that_belong_to_no_frame_are_in_nobodys_way(path: Path) -> None:
    write(path)
    change(path, "DELETE FROM frames")
    assert read(path) is None
    write(path, ROWS[:1])
    assert read(path) == list(ROWS[:1])


def test_a_damaged_file_gives_what_was_written_or_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    places = [Place(str(number), PLACE.picture) for number in range(300)]
    with closing(DetectionsFile(path, ANY)) as file:
        for place in places:
            file.add(place, ROWS)
    sound, outcomes, messages = path.read_bytes(), set(), []
    for start in range(0, len(sound), 4096):
        path.write_bytes(sound[:start] + b"\xa5" * 4096 + sound[start + 4096 :])
        try:
            file = DetectionsFile(path, ANY)
        except UsageError as error:
            messages.append(str(error))
            continue
        with closing(file):
            found = [file.find(place) for place in places]
            assert all(rows is None or rows == list(ROWS) for rows in found)
            outcomes |= {"nothing" if rows is None else "written" for rows in found}
            file.add(places[0], ROWS[:1])
    assert outcomes == {"nothing", "written"}
    assert messages
    assert all(str(path) in message and "\n" not in message for message in messages)


def test_a_truncated_file_is_refused_or_gives_nothing_wrong(path: Path) -> None:
    write(path)
    sound, messages = path.read_bytes(), []
    for size in (*range(1, 200, 20), *range(4096, len(sound), 4096)):
        path.write_bytes(sound[:size])
        try:
            assert read(path) in (None, list(ROWS))
        except UsageError as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert all(str(path) in message and "\n" not in message for message in messages)


def _sqlite(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE frames (id INTEGER)")


FOREIGN: dict[str, Callable[[Path], object]] = {
    "a video": lambda path: path.write_bytes(b"\0\0\0\x20ftypisom" + bytes(5000)),
    "a text": lambda path: path.write_text("x"),
    "another database": _sqlite,
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_another_program_stays_as_it_is(name: str, path: Path) -> None:
    FOREIGN[name](path)
    before, when = path.read_bytes(), path.stat().st_mtime_ns
    with pytest.raises(UsageError, match="is no detections file"):
        DetectionsFile(path, ANY)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, when)
    assert list(path.parent.iterdir()) == [path]


def test_a_newer_version_is_refused_and_stays_as_it_is(path: Path) -> None:
    write(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"version 2, this release knows 1: update Standin"):
        DetectionsFile(path, ANY)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE regions",
        "CREATE TABLE crops (pixels BLOB)",
        "ALTER TABLE frames ADD COLUMN embedding BLOB",
        "DELETE FROM meta",
        "UPDATE meta SET value = '7' WHERE name = 'version'",
    ],
)
def test_a_file_with_other_tables_is_damaged(statement: str, path: Path) -> None:
    write(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
    with pytest.raises(UsageError, match=r"is damaged \(.*\): delete it, or choose another"):
        DetectionsFile(path, ANY)


def test_a_file_that_other_programs_have_optimised_is_still_one(path: Path) -> None:
    write(path)
    with closing(sqlite3.connect(path)) as connection:
        for statement in ("ANALYZE", "VACUUM", "PRAGMA journal_mode = WAL"):
            connection.execute(statement)
    assert read(path) == list(ROWS)
    write(path, ROWS, OTHER)
    assert read(path, OTHER) == list(ROWS)


def test_paths_that_cannot_be_meant_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist: create"):
        DetectionsFile(tmp_path / "no" / "file", ANY)
    with pytest.raises(UsageError, match="is no file"):
        DetectionsFile(tmp_path, ANY)
    with pytest.raises(UsageError, match="is no file"):
        DetectionsFile(Path(os.devnull), ANY)
    with pytest.raises(UsageError, match="cannot read the detections file"):
        DetectionsFile(tmp_path / ("x" * 300), ANY)


def test_an_empty_file_counts_as_none(path: Path) -> None:
    path.touch()
    write(path)
    assert read(path) == list(ROWS)


def test_a_file_has_the_permissions_of_others(path: Path) -> None:
    write(path)
    plain = path.with_name("plain")
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return install_bundle(tmp_path_factory.mktemp("store"), (0, 0, 8, 8))


def test_a_file_of_other_detectors_is_refused(
    path: Path, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    surface = Surface(np.eye(16, dtype=np.float32))
    mine = Detectors([bundle], {"threshold": "0.2", "detect_size": "1280"}, surface)
    with closing(DetectionsFile(path, mine)) as file:
        file.add(PLACE, ROWS)
    stronger = install_bundle(tmp_path_factory.mktemp("store"), (0, 0, 8, 9))
    normalised = replace(bundle, digest="0" * 64)
    others = [
        Detectors([stronger], mine.settings, surface),
        Detectors([normalised], mine.settings, surface),
        Detectors([bundle, bundle], mine.settings, surface),
        Detectors([], mine.settings, surface),
        Detectors([bundle], {**mine.settings, "threshold": "0.3"}, surface),
        Detectors([bundle], {"threshold": "0.2"}, surface),
        Detectors([bundle], mine.settings),
        Detectors([bundle], mine.settings, Surface(-np.eye(16, dtype=np.float32))),
    ]
    before = path.read_bytes()
    for other in others:
        with pytest.raises(
            UsageError, match=r"made with other detectors or thresholds \(centerface, detect_size=1280,"
        ):
            DetectionsFile(path, other)
    with closing(DetectionsFile(path, replace(mine, settings=dict(reversed(list(mine.settings.items())))))) as file:
        assert file.find(PLACE) == list(ROWS)
    assert path.read_bytes() == before
    monkeypatch.setattr(detections, "POST_PROCESSING", detections.POST_PROCESSING + 1)
    with pytest.raises(UsageError, match="made with other detectors"):
        DetectionsFile(path, mine)


def test_a_locked_file_is_only_read_and_that_is_said_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(path)
    monkeypatch.setattr(detections, "_PATIENCE", 0.05)
    monkeypatch.setattr(detections, "_COMMIT_EVERY", 0.0)
    with closing(sqlite3.connect(path)) as other, caplog.at_level(logging.WARNING):
        file = DetectionsFile(path, ANY)
        other.execute("BEGIN IMMEDIATE")
        for number in range(5):
            file.add(Place(str(number), PLACE.picture), ROWS)
        assert file.find(PLACE) == list(ROWS)
        file.close()
    assert len(caplog.records) == 1
    assert "cannot be written" in caplog.text
    assert read(path, Place("1", PLACE.picture)) is None


def test_a_full_disk_does_not_end_the_run(path: Path) -> None:
    write(path)
    # A limit on the size of files is what a process can have of a full disk without one.
    script = f"""
import resource
from pathlib import Path
from stream import detections
from stream.detections import Detectors, DetectionsFile, Place, Row
detections._COMMIT_EVERY = 0.0
file = DetectionsFile(Path({str(path)!r}), Detectors((), {{"threshold": "0.2"}}))
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
for number in range(20):
    file.add(Place(str(number), b"picture"), [Row(0, "face", 0.5, 0.0, 0.0, 1.0, 1.0, mask=bytes(9000))])
print(sum(file.find(Place(str(number), b"picture")) is not None for number in range(20)))
file.close()
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0 < int(ended.stdout) < 20
    assert ended.stderr.count("cannot be written") == 1
    assert read(path) == list(ROWS)


def test_a_killed_process_leaves_a_valid_file(path: Path) -> None:
    script = f"""
from pathlib import Path
from stream import detections
from stream.detections import Detectors, DetectionsFile, Place, Row
detections._COMMIT_EVERY = 0.0
file = DetectionsFile(Path({str(path)!r}), Detectors((), {{"threshold": "0.2"}}))
number = 0
while True:
    file.add(Place(str(number), b"picture"), [Row(0, "face", 0.5, 0.0, 0.0, 1.0, 1.0, mask=bytes(20000))])
    print(number, flush=True)
    number += 1
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        said = 20 + len(re.findall(r"^\d+\n", process.stdout.read(), re.MULTILINE))
    with closing(DetectionsFile(path, ANY)) as file:
        assert all(file.find(Place(str(number), b"picture")) is not None for number in range(said))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.fixture
def guarded() -> Iterator[Path]:
    """A folder that this process may look into and not write to."""
    with tempfile.TemporaryDirectory() as name:
        folder, me = Path(name), os.geteuid()
        try:
            yield folder
        finally:
            os.seteuid(me)
            folder.chmod(0o755)


def _guard(folder: Path) -> None:
    for item in folder.iterdir():
        item.chmod(0o444)
    folder.chmod(0o555)
    if os.geteuid() == 0:
        os.seteuid(NOBODY)


def test_a_file_that_may_only_be_read_is_read(guarded: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = guarded / "clip.detections"
    write(path)
    before = path.read_bytes()
    _guard(guarded)
    with pytest.raises(PermissionError):
        path.open("ab")
    with caplog.at_level(logging.WARNING):
        assert read(path) == list(ROWS)
        assert not caplog.records
        write(path, ROWS, OTHER)
    assert "cannot be written" in caplog.text
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_said_at_once(guarded: Path) -> None:
    (guarded / "empty").touch()
    _guard(guarded)
    for name in ("clip.detections", "empty"):
        with pytest.raises(UsageError, match="cannot open the detections file"):
            DetectionsFile(guarded / name, ANY)


def test_an_empty_file_that_may_only_be_read_is_said_at_once(guarded: Path) -> None:
    path = guarded / "empty"
    path.touch()
    path.chmod(0o444)
    guarded.chmod(0o777)
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    with pytest.raises(UsageError, match="cannot open the detections file"):
        DetectionsFile(path, ANY)
    DetectionsFile(guarded / "another", ANY).close()


def test_a_link_to_a_folder_that_does_not_exist_is_said_at_once(path: Path) -> None:
    path.symlink_to(path.parent / "no" / "file")
    with pytest.raises(UsageError, match="cannot open the detections file"):
        DetectionsFile(path, ANY)


def test_a_closed_file_neither_finds_nor_fails(path: Path) -> None:
    file = DetectionsFile(path, ANY)
    file.add(PLACE, ROWS)
    file.close()
    file.add(OTHER, ROWS)
    assert file.find(PLACE) is None
    file.close()
    assert read(path) == list(ROWS)
    assert read(path, OTHER) is None


def test_the_file_holds_the_tables_and_columns_that_are_documented_and_no_others(path: Path) -> None:
    write(path)
    tables = re.split(r"^### `(\w+)`$", (ROOT / "docs/detections.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    documented = {}
    for name, text in zip(tables[1::2], tables[2::2], strict=True):
        firsts = re.findall(r"^\| (`.*?) \|", text.split("\n## ")[0], re.MULTILINE)
        documented[name] = [word for first in firsts for word in re.findall(r"`(\w+)`", first)]
    # The first table is described by its rows.
    facts = documented.pop("meta")[1:]
    with closing(sqlite3.connect(path)) as connection:
        assert {name for (name,) in connection.execute("SELECT name FROM meta")} == set(facts)
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type != 'index'")]
        assert sorted(names) == sorted([*documented, "meta"])
        for name, columns in documented.items():
            found = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
            assert [column for column in columns if column not in ("name", "value")] == found
        assert connection.execute("PRAGMA application_id").fetchone() == (0x53496474,)
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
