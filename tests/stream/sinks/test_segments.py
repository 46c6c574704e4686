"""Partial files become segments once, under a name of their own, and nobody else's are touched."""

from __future__ import annotations

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engines.errors import SinkError
from stream.sinks.recorder import Recorder
from stream.sinks.segments import PartialFile, named_time, recover, segment_name
from tests.stream.sinks.recordings import INFO, numbered, partials, play, segments

BEGAN = datetime(2026, 11, 21, 20, 0, 0, 7000, UTC)
NAME = "2026-11-21T20-00-00.007Z.mp4"
LEFT = ".2026-11-21T20-00-00.007Z.0123abcd.partial.mp4"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Of a segment."""
    folder = tmp_path_factory.mktemp("made")
    recorder = Recorder(folder, INFO)
    for number in range(50):
        recorder.write(numbered(number))
    recorder.close()
    return segments(folder)[0].read_bytes()


def test_names_and_times() -> None:
    assert segment_name(BEGAN, ".mp4") == NAME
    assert named_time(NAME) == BEGAN
    assert named_time(NAME.replace("mp4", "mkv")) == BEGAN


@pytest.mark.parametrize(
    "name",
    [
        "a.mp4",
        LEFT,
        NAME + "x",
        "x" + NAME,
        "2026-13-21T20-00-00.007Z.mp4",
        "2026-11-21T20-00-00.007Z.mov",
        NAME + "\n",
    ],
)
def test_other_names_are_no_segments(name: str) -> None:
    assert named_time(name) is None


def test_a_file_takes_the_next_free_name(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"somebody else's")
    for number in range(3):
        file = PartialFile.create(tmp_path, BEGAN, ".mp4")
        file.write(b"%d" % number)
        path = file.place()
        assert path.name == f"2026-11-21T20-00-00.{8 + number:03}Z.mp4"
        assert path.read_bytes() == b"%d" % number
    assert (tmp_path / NAME).read_bytes() == b"somebody else's"
    assert partials(tmp_path) == []


def test_what_is_written_reaches_the_file_with_the_next_flush(tmp_path: Path) -> None:
    file = PartialFile.create(tmp_path, BEGAN, ".mp4")
    assert file.write(b"hello") == 5
    assert file.path.read_bytes() == b""
    assert file.tell() == 5
    assert file.flush()
    assert not file.flush()
    assert file.path.read_bytes() == b"hello"
    assert file.seek(1) == 1
    file.write(b"a")
    with ThreadPoolExecutor(1) as pool:
        file.flush()
        file.sync(pool)
        file.sync(pool)
        assert file.place().read_bytes() == b"hallo"


def test_after_an_error_nothing_is_written_behind_a_gap(tmp_path: Path) -> None:
    file = PartialFile.create(tmp_path, BEGAN, ".mp4")
    file.write(b"whole")
    file.flush()
    closed = os.open(file.path, os.O_RDONLY)
    os.dup2(closed, file._descriptor)  # writing fails from now on
    os.close(closed)
    file.write(b"lost")
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.flush()
    file.write(b"behind")
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.place()
    assert file.path.read_bytes() == b"whole"
    file.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_torn_file_is_recovered(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LEFT).write_bytes(content[:-200])
    assert recover(tmp_path) == (tmp_path / NAME,)
    assert partials(tmp_path) == []
    numbers = play(tmp_path / NAME).numbers
    assert 20 <= len(numbers) < 50
    assert numbers == list(range(len(numbers)))
    assert recover(tmp_path) == ()


def test_a_file_with_nothing_to_play_is_deleted(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LEFT).write_bytes(content[:900])
    assert recover(tmp_path) == ()
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_ended_between_two_names_leaves_one_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LEFT).write_bytes(content)
    os.link(tmp_path / LEFT, tmp_path / NAME)
    assert recover(tmp_path) == (tmp_path / NAME,)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert (tmp_path / NAME).read_bytes() == content


def test_where_files_cannot_have_two_names_none_is_replaced_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    # As on a memory card; none can be mounted here.
    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / NAME).write_bytes(b"somebody else's")
    file = PartialFile.create(tmp_path, BEGAN, ".mp4")
    file.write(b"ours")
    path = file.place()
    assert path.name == "2026-11-21T20-00-00.008Z.mp4"
    assert path.read_bytes() == b"ours"
    assert (tmp_path / NAME).read_bytes() == b"somebody else's"
    assert partials(tmp_path) == []


def test_a_file_of_somebody_else_is_left_alone(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / LEFT).write_bytes(content)
    open_file = os.open

    def refuse(path: Path, flags: int, *mode: int) -> int:
        if path.name == LEFT:
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_file(path, flags, *mode)

    # Whoever runs the tests may be allowed everything.
    monkeypatch.setattr(os, "open", refuse)
    assert recover(tmp_path) == ()
    assert (tmp_path / LEFT).read_bytes() == content
    assert f"cannot recover {LEFT}: Permission denied" in caplog.text


def test_a_locked_file_is_left_alone(tmp_path: Path) -> None:
    file = PartialFile.create(tmp_path, BEGAN, ".mp4")
    assert recover(tmp_path) == ()
    assert partials(tmp_path) == [file.path]
    # The control: without its lock it counts as left behind.
    file.let_go()
    assert recover(tmp_path) == ()
    assert partials(tmp_path) == []


def test_files_of_other_kinds_are_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "elsewhere").write_bytes(content[:-200])
    (tmp_path / ".clip.0123abcd.partial.mp4").write_bytes(content)
    (tmp_path / ".2026-99-21T20-00-00.007Z.0123abcd.partial.mp4").write_bytes(content)
    os.mkfifo(tmp_path / LEFT)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert recover(tmp_path) == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_link_is_not_followed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "elsewhere").write_bytes(content[:-200])
    (tmp_path / LEFT).symlink_to(tmp_path / "elsewhere")
    assert recover(tmp_path) == ()
    assert (tmp_path / "elsewhere").read_bytes() == content[:-200]


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"cannot recover what an earlier run left in .*No such file"):
        recover(tmp_path / "none")


def test_two_recoveries_at_once_make_each_file_one_segment(tmp_path: Path, content: bytes) -> None:
    for number in range(40):
        (tmp_path / LEFT.replace("20-00", f"20-{number:02}")).write_bytes(content[:-200])
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: recover(tmp_path), range(4)))
    assert sum(len(run) for run in runs) == 40
    assert len(segments(tmp_path)) == 40
    assert partials(tmp_path) == []


def test_new_files_are_never_taken_for_left_ones(tmp_path: Path) -> None:
    end = time.monotonic() + 1.0

    def look() -> int:
        count = 0
        while time.monotonic() < end:
            count += len(recover(tmp_path))
        return count

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        made = 0
        while time.monotonic() < end:
            file = PartialFile.create(tmp_path, BEGAN, ".mp4")
            file.write(b"x")
            made += file.place().read_bytes() == b"x"
        assert looking.result() == 0
    assert len(segments(tmp_path)) == made > 20
