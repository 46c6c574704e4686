"""`standin run` at the limits of the system: full disks, folders and files that may not be used."""

from __future__ import annotations

import json
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import FACE, FLAT, RUN, child
from tests.fakes import install_bundle, noise, read_pictures, write_lossless

pytestmark = pytest.mark.usefixtures("at_home")

COUNT = 12


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lossless(tmp_path_factory.mktemp("clips") / "in.mkv", noise(COUNT))


def check_nothing_left(folder: Path) -> None:
    assert list(folder.iterdir()) == []


FULL_DISK = """
import resource, signal
from stream.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
main()
"""


@pytest.mark.parametrize("options", [FLAT, ("--crf", 0)])
def test_a_full_disk_is_one_line_and_leaves_nothing(options: tuple[object, ...], clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mkv"
    ended = child(FULL_DISK, *RUN, clip, output, *options)
    assert f"cannot write {output}" in ended.line()
    assert ended.code == 1
    check_nothing_left(tmp_path)


def test_a_disk_that_is_full_for_the_report_only_is_one_line(clip: Path, tmp_path: Path) -> None:
    script = FULL_DISK.replace("20_000", "3_000")
    ended = child(script, *RUN, clip, tmp_path / "out.mp4", "--report", tmp_path / "r.json", "--crf", 51)
    assert "cannot " in ended.line()
    assert ended.code == 1
    assert not (tmp_path / "r.json").exists()


UNPRIVILEGED = """
import json
import os
import stream.cli_run  # whoever this becomes may not be allowed to read it where it lies
from stream.cli import main
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
main()
"""


@pytest.fixture
def open_folder(clip: Path) -> Iterator[Path]:
    """A folder that everybody can reach, with a clip and a store."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "in.mkv").write_bytes(clip.read_bytes())
        install_bundle(folder / "home", FACE)
        (folder / "locked").mkdir(mode=0o555)
        yield folder
        (folder / "locked").chmod(0o755)


def test_an_output_folder_that_cannot_be_written_is_one_line(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(open_folder / "home"))
    ended = child(UNPRIVILEGED, *RUN, open_folder / "in.mkv", open_folder / "locked" / "out.mkv")
    assert f"cannot write into {open_folder / 'locked'}: Permission denied" in ended.line()
    assert ended.code == 1
    check_nothing_left(open_folder / "locked")


def test_an_input_that_cannot_be_read_is_one_line(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(open_folder / "home"))
    (open_folder / "in.mkv").chmod(0)
    (open_folder / "hidden").mkdir()
    (open_folder / "hidden").chmod(0)
    output = open_folder / "out.mkv"
    for path in (open_folder / "in.mkv", open_folder / "hidden" / "in.mkv"):
        ended = child(UNPRIVILEGED, *RUN, path, output)
        assert "Permission denied" in ended.line()
        assert ended.code == 1
    (open_folder / "hidden").chmod(stat.S_IRWXU)


DIRECT = """
import stream.run_checks, stream.sinks.video
from tests.unguarded import DirectTarget, anything_goes
stream.sinks.video.Target = DirectTarget
stream.run_checks.check_target = anything_goes
"""


def test_control_without_the_guard_a_full_disk_leaves_half_a_file(clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mkv"
    ended = child(DIRECT + FULL_DISK, *RUN, clip, output, *FLAT)
    assert ended.code == 1
    assert 0 < output.stat().st_size <= 20_000
    assert len(read_pictures(output)) < COUNT
    with pytest.raises(AssertionError):
        check_nothing_left(tmp_path)


def test_an_output_folder_that_is_missing_is_one_line_and_stays_missing(clip: Path, tmp_path: Path) -> None:
    ended = child("from stream.cli import main; main()", *RUN, clip, tmp_path / "none" / "out.mkv", *FLAT)
    assert f"create {tmp_path / 'none'} first" in ended.line()
    assert ended.code == 2
    check_nothing_left(tmp_path)


def test_control_without_the_guard_a_missing_folder_is_made(clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "none" / "out.mkv"
    script = DIRECT + "from stream.cli import main; main()"
    assert child(script, *RUN, clip, output, *FLAT).code == 0
    assert len(read_pictures(output)) == COUNT
    with pytest.raises(AssertionError):
        check_nothing_left(tmp_path)


def test_control_the_same_run_into_a_folder_that_can_be_written_leaves_a_file(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(open_folder / "home"))
    locked = open_folder / "locked"
    locked.chmod(0o777)
    ended = child(UNPRIVILEGED, *RUN, open_folder / "in.mkv", locked / "out.mkv")
    assert ended.code == 0, ended.err
    assert len(read_pictures(locked / "out.mkv")) == COUNT
    with pytest.raises(AssertionError):
        check_nothing_left(locked)


def test_with_lines_of_json_everything_that_is_said_is_one(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    ended = child("from stream.cli import main; main()", *RUN, clip, out, *FLAT, "--log-format", "json")
    assert ended.code == 0
    lines = [json.loads(line) for line in ended.err.splitlines()]
    assert lines[-1]["level"] == "info"
    assert "frames, 0 of them withheld" in lines[-1]["message"]
    ended = child(
        "from stream.cli import main; main()", *RUN, tmp_path / "gone.mkv", out, *FLAT, "--log-format", "json"
    )
    assert ended.code == 2
    (line,) = [json.loads(line) for line in ended.err.splitlines()]
    assert (line["level"], "no such file" in line["message"]) == ("error", True)
