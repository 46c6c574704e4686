from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.errors import SinkError, UsageError
from stream.sinks.target import Target, check_target

ROOT = Path(__file__).parents[3]

#: Writes videos and images under a limit of the file size, as a full disk would set it, and says what became of them.
WRITE = """
import json, resource, signal, sys
from fractions import Fraction
from pathlib import Path
from engines.errors import SinkError
from stream.anonymizer import Anonymized
from stream.frame import Frame
from stream.regions import Regions
from stream.sinks.images import ImageSink
from stream.sinks.video import VideoSink
from tests.media import info_like, noise

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
images = noise(30, 160, 120)

def write(target, count):
    stage, sink = "open", None
    try:
        if target.suffix == ".png":
            sink = ImageSink(target, folder=False, overwrite=True, inputs=target.with_name("in.png"))
        else:
            sink = VideoSink(target, info_like(images[0]), codec="ffv1" if target.suffix in {".mkv", ".avi"} else None)
        for index, image in enumerate(images[:count]):
            stage = "write"
            frame = Frame(image, pts=index, time_base=Fraction(1, 25), duration=1)
            sink.write(Anonymized(frame, Regions.empty()))
        stage = "close"
        sink.close()
    except SinkError as error:
        if sink is not None:
            sink.abort()
        return f"{stage}: {error}"
    return "done"

for line in sys.stdin:
    target, limit, count = json.loads(line)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit or hard, hard))
    answer = write(Path(target), count)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    print(json.dumps(answer), flush=True)
"""


class Writer:
    """Another process that writes under a limit of its own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITE], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, target: Path, limit: int, count: int = 20) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(target), limit, count]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the writing process has died"
        return str(json.loads(answer))

    def close(self) -> None:
        self.process.communicate(timeout=10)


@pytest.fixture(scope="module")
def write_limited() -> Iterator[Writer]:
    writer = Writer()
    yield writer
    writer.close()


def test_without_a_limit_the_file_is_finished(tmp_path: Path, write_limited: Writer) -> None:
    assert write_limited(tmp_path / "out.mkv", 0) == "done"
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]


@pytest.mark.parametrize("ending", ["mkv", "mp4", "avi", "ts", "webm"])
def test_a_full_disk_is_an_error_that_names_the_file_and_nothing_stays(
    tmp_path: Path, write_limited: Writer, ending: str
) -> None:
    answer = write_limited(tmp_path / f"out.{ending}", 60_000, count=30)
    assert str(tmp_path / f"out.{ending}") in answer
    assert "\n" not in answer
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["mkv", "mp4", "avi"])
def test_a_disk_that_is_full_just_before_the_end_is_noticed(tmp_path: Path, write_limited: Writer, ending: str) -> None:
    assert write_limited(tmp_path / f"whole.{ending}", 0, count=6) == "done"
    size = (tmp_path / f"whole.{ending}").stat().st_size
    (tmp_path / f"whole.{ending}").unlink()
    for missing in (1, 40, 300):
        answer = write_limited(tmp_path / f"out.{ending}", size - missing, count=6)
        assert str(tmp_path / f"out.{ending}") in answer, (missing, answer)
        assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_earlier_image(tmp_path: Path, write_limited: Writer) -> None:
    (tmp_path / "out.png").write_bytes(b"earlier")
    answer = write_limited(tmp_path / "out.png", 20_000, count=1)
    assert answer.startswith("write")
    assert str(tmp_path / "out.png") in answer
    assert (tmp_path / "out.png").read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]


@pytest.mark.parametrize("ending", ["mkv", "mp4", "png"])
def test_a_small_file_system_that_fills_up_leaves_nothing(tmp_path: Path, write_limited: Writer, ending: str) -> None:
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.decode().strip()}")
    try:
        answer = write_limited(disk / f"out.{ending}", 0, count=1 if ending == "png" else 20)
        assert str(disk / f"out.{ending}") in answer
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from engines.errors import SinkError
from stream.sinks.target import Target
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
try:
    Target(Path(sys.argv[1]), overwrite=False)
except SinkError as error:
    print(error)
"""
    closed = tmp_path / "closed"
    closed.mkdir()
    for folder in (closed, *list(closed.parents)[:3]):
        folder.chmod(0o555 if folder == closed else 0o755)
    done = subprocess.run(
        [sys.executable, "-c", code, str(closed / "out.mp4")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    closed.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert "cannot write into" in done.stdout
    assert list(closed.iterdir()) == []


def test_the_file_appears_at_commit_only(tmp_path: Path) -> None:
    target = Target(tmp_path / "out.mp4", overwrite=False)
    target.temporary.write_bytes(b"whole")
    assert not (tmp_path / "out.mp4").exists()
    target.commit()
    assert (tmp_path / "out.mp4").read_bytes() == b"whole"
    assert len(list(tmp_path.iterdir())) == 1
    target.discard()
    assert (tmp_path / "out.mp4").exists()


def test_discard_leaves_nothing(tmp_path: Path) -> None:
    target = Target(tmp_path / "out.mp4", overwrite=False)
    target.discard()
    target.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_has_appeared_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = Target(tmp_path / "out.mp4", overwrite=False)
    (tmp_path / "out.mp4").write_bytes(b"other")
    with pytest.raises(SinkError, match="appeared meanwhile"):
        target.commit()
    assert (tmp_path / "out.mp4").read_bytes() == b"other"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_new_file_has_the_rights_that_new_files_have(tmp_path: Path) -> None:
    target = Target(tmp_path / "out.mp4", overwrite=False)
    target.commit()
    (tmp_path / "plain").touch()
    assert (tmp_path / "out.mp4").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_long_names_work(tmp_path: Path) -> None:
    for name in ("n" * 240 + ".mp4", "ü" * 120 + ".mp4"):
        target = Target(tmp_path / name, overwrite=False)
        target.commit()
        assert (tmp_path / name).exists()


@pytest.mark.parametrize("kind", ["same", "dotted", "symbolic link", "hard link", "linked folder"])
def test_the_input_is_never_the_output(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "in.mp4"
    source.write_bytes(b"video")
    target = tmp_path / "out.mp4"
    if kind == "same":
        target = source
    elif kind == "dotted":
        (tmp_path / "sub").mkdir()
        target = tmp_path / "sub" / ".." / "in.mp4"
    elif kind == "symbolic link":
        target.symlink_to(source)
    elif kind == "hard link":
        target.hardlink_to(source)
    else:
        (tmp_path / "linked").symlink_to(tmp_path)
        target = tmp_path / "linked" / "in.mp4"
    with pytest.raises(UsageError, match="is the input"):
        check_target(target, overwrite=True, inputs=(source,))


def test_outputs_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    (tmp_path / "there.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(UsageError, match="does not exist"):
        check_target(tmp_path / "missing" / "out.mp4", overwrite=True)
    with pytest.raises(UsageError, match="--overwrite"):
        check_target(tmp_path / "there.mp4", overwrite=False)
    with pytest.raises(UsageError, match="is a folder"):
        check_target(tmp_path / "folder.mp4", overwrite=True)
    check_target(tmp_path / "there.mp4", overwrite=True)
    check_target(tmp_path / "new.mp4", overwrite=False)


def test_the_temporary_name_fits_whatever_script_the_name_is_in(tmp_path: Path) -> None:
    for name in ("人" * 80 + ".mp4", "a" + "é" * 125 + ".mp4", "n" * 200 + "." + "e" * 30):
        target = Target(tmp_path / name, overwrite=False)
        assert len(os.fsencode(target.temporary.name)) <= 255
        assert target.temporary.suffix == Path(name).suffix
        target.commit()
        assert [path.name for path in tmp_path.iterdir()] == [name]
        (tmp_path / name).unlink()


def test_a_link_to_nothing_is_not_replaced_unless_asked_for(tmp_path: Path) -> None:
    link = tmp_path / "out.mp4"
    link.symlink_to(tmp_path / "nothing")
    with pytest.raises(UsageError, match="--overwrite"):
        check_target(link, overwrite=False)
    with pytest.raises(SinkError, match="appeared"):
        Target(link, overwrite=False).commit()
    assert link.is_symlink()
    assert list(tmp_path.iterdir()) == [link]
    Target(link, overwrite=True).commit()
    assert not link.is_symlink()


@pytest.mark.parametrize("there", [False, True])
def test_without_hard_links_the_file_is_renamed_and_still_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    target = Target(tmp_path / "out.mp4", overwrite=False)
    target.temporary.write_bytes(b"ours")
    if there:
        (tmp_path / "out.mp4").write_bytes(b"other")
        with pytest.raises(SinkError, match="appeared"):
            target.commit()
    else:
        target.commit()
    assert (tmp_path / "out.mp4").read_bytes() == (b"other" if there else b"ours")
    assert len(list(tmp_path.iterdir())) == 1
