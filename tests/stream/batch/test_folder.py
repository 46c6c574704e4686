"""The output folder: locked, and without anything half done under a final name."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engines.errors import SinkError, StandinError, UsageError
from stream.batch.folder import Extras, OutputFolder, is_full
from stream.batch.inputs import Found
from stream.batch.manifest import Entry, Made
from tests.command import ROOT

MADE = Made("c", 1, 0, 1.0)


def put(
    folder: OutputFolder, entry: Entry, extras: Extras, *, report: bool = False, overwrite: bool = True
) -> str | None:
    folder.manifest.begin([Found(entry.name, entry.at, 1, "m")], "key", overwrite=overwrite, reports=report)
    staging, name = folder.stage(), Path(entry.name).name
    (staging / name).write_text("result")
    if report:
        (staging / f"{name}.report.json").write_text("{}")
    return folder.put(entry, MADE, staging, extras)


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_second_batch_on_one_folder_refuses(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "out"):
        with pytest.raises(StandinError, match="another batch is writing into"):
            OutputFolder(tmp_path / "out")
        # From another process as well.
        script = "from stream.batch.folder import OutputFolder\nfrom pathlib import Path\n"
        script += f"OutputFolder(Path({str(tmp_path / 'out')!r}))"
        ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
        assert "another batch is writing into" in ended.stderr
    with OutputFolder(tmp_path / "out"):
        pass


def test_results_get_their_names_with_reports_times_and_sidecars(tmp_path: Path) -> None:
    source = tmp_path / "in/a.mp4"
    source.parent.mkdir()
    for name in ("a.mp4", "a.srt", "a.mp4.json", "a.gpx", "a.jpg", "a.LRV", "b.srt"):
        (source.parent / name).write_text(name)
    os.utime(source, ns=(10**18, 10**18))
    with OutputFolder(tmp_path / "out") as folder:
        extras = Extras(sidecars=("*.srt", "*.json", "*.jpg", "*.LRV"), times=True)
        put(folder, Entry("day/a.mp4", str(source), None), extras, report=True)
        out = folder.path / "day"
        # Patterns are the user's, but pictures beside a recording are of the people in it.
        assert below(out) == ["a.mp4", "a.mp4.json", "a.mp4.report.json", "a.srt"]
        assert (out / "a.srt").read_text() == "a.srt"
        assert (out / "a.mp4").stat().st_mtime_ns == 10**18
        assert folder.manifest.counts().done == 1


def test_nothing_but_the_result_is_written_unless_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("raw")
    (tmp_path / "a.srt").write_text("words")
    with OutputFolder(tmp_path / "out") as folder:
        put(folder, Entry("a.mp4", str(tmp_path / "a.mp4"), None), Extras())
        assert [name for name in below(folder.path) if not name.startswith(".standin")] == ["a.mp4"]


def test_what_a_killed_batch_has_left_is_deleted(tmp_path: Path) -> None:
    script = (
        "from stream.batch.folder import OutputFolder\nfrom pathlib import Path\nimport os\n"
        f"folder = OutputFolder(Path({str(tmp_path / 'out')!r}))\n"
        "(folder.stage() / 'half.mp4').write_text('half')\nprint(folder.scratch(), flush=True)\nos.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    scratch = Path(ended.stdout.strip())
    assert scratch.is_dir()
    assert any("half.mp4" in name for name in below(tmp_path / "out"))
    with OutputFolder(tmp_path / "out") as folder:
        assert not any("half.mp4" in name for name in below(folder.path))
        mine = folder.scratch()
        assert not scratch.exists()
    assert not mine.exists()


def test_a_note_cannot_make_it_delete_anything_else(tmp_path: Path) -> None:
    precious = tmp_path / "standin-ray-precious"
    precious.mkdir()
    with OutputFolder(tmp_path / "out") as folder:
        (folder.path / ".standin/scratch").write_text(str(precious))
        folder.scratch()
    assert precious.is_dir()


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file is a file; a folder is expected"):
        OutputFolder(tmp_path / "file")
    with pytest.raises(SinkError, match="cannot write into"):
        OutputFolder(tmp_path / "file/below")
    with pytest.raises(SinkError, match="cannot write into"):
        OutputFolder(Path("/proc/nothing/here"))


def test_a_result_that_cannot_get_its_name_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry("a.mp4", "/in/a.mp4", None)
    with OutputFolder(tmp_path / "out") as folder:
        (folder.path / "a.mp4").mkdir()
        with pytest.raises(SinkError, match=r"a\.mp4: a folder has that name"):
            put(folder, entry, Extras())
        (folder.path / "a.mp4").rmdir()
        put(folder, entry, Extras(), report=True)
        with monkeypatch.context() as patch:
            patch.setattr("stream.batch.folder.place", failing)
            with pytest.raises(SinkError, match="cannot write into"):
                put(folder, entry, Extras())
    with OutputFolder(tmp_path / "out") as folder:
        folder.manifest.begin([Found("a.mp4", "/in/a.mp4", 1, "m")], "key", overwrite=False)
        folder.manifest.line_up({})
        # It is known that what is there is the result of before.
        taken = folder.manifest.take()
        assert taken is not None
        assert taken.content == MADE.content
        assert folder.manifest.troubles() == []


def failing(_: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_nothing_is_put_outside_of_the_folder_or_over_its_input(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "out") as folder:
        for name in ("../a.mp4", "/tmp/a.mp4", ".standin/manifest.sqlite"):
            with pytest.raises(UsageError, match="no name below the output folder"):
                put(folder, Entry(name, "/in/a.mp4", None), Extras())
        (tmp_path / "raw").mkdir()
        (tmp_path / "raw/a.mp4").write_text("raw")
        (folder.path / "day").symlink_to(tmp_path / "raw")
        with pytest.raises(UsageError, match="is the input: it is never written"):
            put(folder, Entry("day/a.mp4", str(tmp_path / "raw/a.mp4"), None), Extras())
    assert (tmp_path / "raw/a.mp4").read_text() == "raw"


def test_sidecars_that_cannot_go_along_are_named_and_the_result_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("raw")
    (tmp_path / "a.srt").write_bytes(b"\xff\xd8 no text")
    (tmp_path / "a.gpx").write_text("a way")
    (tmp_path / "a.json").write_text("{}")
    entry, extras = Entry("a.mp4", str(tmp_path / "a.mp4"), None), Extras(sidecars=("*",))
    with OutputFolder(tmp_path / "out") as folder:
        (folder.path / "a.json").write_text("somebody's own")
        trouble = put(folder, entry, extras)
        assert trouble is not None
        assert "a.srt is not copied: it is no text in UTF-8" in trouble
        assert "a.json exists and is not the sidecar" in trouble
        there = {name: (folder.path / name).read_text() for name in below(folder.path) if name[0] == "a"}
        assert there == {"a.mp4": "result", "a.gpx": "a way", "a.json": "somebody's own"}
        assert not list((folder.path / ".standin/staging").glob("*/*"))


def test_a_source_that_is_gone_costs_its_times_alone(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "out") as folder:
        trouble = put(folder, Entry("a.mp4", str(tmp_path / "a.mp4"), None), Extras(times=True))
        assert trouble == f"cannot read the times of {tmp_path / 'a.mp4'}: No such file or directory"
        assert folder.manifest.counts().done == 1


def test_what_is_asked_for_later_is_laid_beside_results_that_hold(tmp_path: Path) -> None:
    source = tmp_path / "in/a.mp4"
    source.parent.mkdir()
    source.write_text("raw")
    (source.parent / "a.srt").write_text("words")
    os.utime(source, ns=(10**18, 10**18))
    entry, extras = Entry("a.mp4", str(source), None), Extras(sidecars=("*.srt",), times=True)
    with OutputFolder(tmp_path / "out") as folder:
        put(folder, entry, Extras())
        (kept,) = folder.manifest.kept()
        assert kept == entry
        assert folder.complete(kept, extras) is None
        assert (folder.path / "a.srt").read_text() == "words"
        assert (folder.path / "a.mp4").stat().st_mtime_ns == 10**18
        # It was the batch itself that has changed the time.
        folder.manifest.begin([Found("a.mp4", str(source), 1, "m")], "key", overwrite=False)
        assert folder.manifest.counts().kept == 1
        assert not list((folder.path / ".standin/staging").glob("*/*"))


def test_no_report_of_an_earlier_result_stays_beside_a_new_one(tmp_path: Path) -> None:
    entry = Entry("a.mp4", "/in/a.mp4", None)
    with OutputFolder(tmp_path / "out") as folder:
        (folder.path / "b.mp4.report.json").write_text("somebody's own")
        put(folder, entry, Extras(), report=True)
        put(folder, entry, Extras(reports=False))
        put(folder, Entry("b.mp4", "/in/b.mp4", None), Extras(reports=False))
        assert [name for name in below(folder.path) if name[0] != "."] == ["a.mp4", "b.mp4", "b.mp4.report.json"]


def test_a_full_disk_is_known_by_its_cause() -> None:
    error = SinkError("cannot write a.mp4: somehow")
    assert not is_full(error)
    error.__cause__ = OSError(errno.ENOSPC, "whatever")
    assert is_full(error)
    assert is_full(SinkError("cannot write a.mp4: No space left on device"))
    assert not is_full(SinkError("cannot write a.mp4: Permission denied"))
