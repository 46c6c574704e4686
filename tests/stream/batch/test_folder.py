"""The output folder: locked, and without anything half done under a final name."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engines.errors import SinkError, StandinError
from stream.batch.folder import Extras, OutputFolder, is_full
from stream.batch.inputs import Found
from stream.batch.manifest import Entry, Made
from tests.command import ROOT

MADE = Made("c", 1, 0, 1.0)


def put(folder: OutputFolder, entry: Entry, extras: Extras, *, report: bool = False) -> None:
    folder.manifest.begin([Found(entry.name, entry.at, 1, "m")], "key", overwrite=True)
    staging, name = folder.stage(), Path(entry.name).name
    (staging / name).write_text("result")
    if report:
        (staging / f"{name}.report.json").write_text("{}")
    folder.put(entry, MADE, staging, extras)


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
    with pytest.raises(SinkError, match="cannot write into"):
        OutputFolder(tmp_path / "file")
    with pytest.raises(SinkError, match="cannot write into"):
        OutputFolder(Path("/proc/nothing/here"))


def test_a_result_that_cannot_get_its_name_is_done_again_by_the_next_call(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "out") as folder:
        (folder.path / "a.mp4").mkdir()
        with pytest.raises(SinkError, match="cannot write into"):
            put(folder, Entry("a.mp4", "/in/a.mp4", None), Extras())
    (tmp_path / "out/a.mp4").rmdir()
    with OutputFolder(tmp_path / "out") as folder:
        folder.manifest.begin([Found("a.mp4", "/in/a.mp4", 1, "m")], "key", overwrite=False)
        assert folder.manifest.counts().waiting == 1


def test_a_full_disk_is_known_by_its_cause() -> None:
    error = SinkError("cannot write a.mp4: somehow")
    assert not is_full(error)
    error.__cause__ = OSError(errno.ENOSPC, "whatever")
    assert is_full(error)
    assert is_full(SinkError("cannot write a.mp4: No space left on device"))
    assert not is_full(SinkError("cannot write a.mp4: Permission denied"))
