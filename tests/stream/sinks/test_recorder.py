"""A recording is a row of segments that play by themselves, whatever ends it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from engines.errors import SinkError, UsageError
from stream.quantities import Extent
from stream.sinks.recorder import Container, Recorder, RecorderOptions
from stream.sinks.segments import named_time
from tests.media import info_like
from tests.stream.sinks.recordings import INFO, RATE, STEP, Paced, numbered, partials, play, segments

CONTAINERS: tuple[Container, ...] = ("mp4", "mkv")

#: Records for ever, a frame a line of its output.
CHILD = """
import sys
from pathlib import Path
from stream.quantities import Extent
from stream.sinks.recorder import Recorder, RecorderOptions
from tests.stream.sinks.recordings import INFO, numbered

folder, container, seconds = sys.argv[1:]
recorder = Recorder(Path(folder), INFO, RecorderOptions(container=container, segment=Extent(seconds=float(seconds))))
for number in range(4000):
    recorder.write(numbered(number))
    print(number, flush=True)
    if not sys.stdin.readline():
        break
"""


def options(container: Container = "mp4", *, seconds: float | None = 600, size: int | None = None) -> RecorderOptions:
    return RecorderOptions(container=container, segment=Extent(seconds, size))


class Child:
    """A recorder in a process of its own, that writes a frame when it is told to."""

    def __init__(self, folder: Path, container: Container, seconds: float = 600.0, *prefix: str) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", CHILD, str(folder), container, str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
            text=True,
        )

    def write(self, count: int) -> int:
        """Until it has written so many frames; the last one's number."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n" * count)
        self.process.stdin.flush()
        line = ""
        for _ in range(count):
            line = self.process.stdout.readline()
        return int(line)

    def end(self, number: int = signal.SIGKILL) -> str:
        """End it so; what it said to standard error."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=20)[1]


@pytest.mark.parametrize("container", CONTAINERS)
def test_segments_hold_every_frame_once_and_begin_with_a_key_frame(tmp_path: Path, container: Container) -> None:
    recorder = Recorder(tmp_path, INFO, options(container, seconds=2))
    for number in range(5 * RATE):
        recorder.write(numbered(number))
    recorder.close()
    recorder.abort()
    played = [play(path) for path in segments(tmp_path)]
    assert [len(one.numbers) for one in played] == [2 * RATE, 2 * RATE, RATE]
    assert [number for one in played for number in one.numbers] == list(range(5 * RATE))
    assert all(one.begins_with_key for one in played)
    assert all(np.allclose(one.times, np.arange(len(one.times)) / RATE, atol=1e-3) for one in played)
    assert partials(tmp_path) == []
    assert recorder.finished == 3


@pytest.mark.parametrize("container", CONTAINERS)
def test_frames_keep_their_distances(tmp_path: Path, container: Container) -> None:
    steps = np.random.default_rng(3).integers(1, 4 * STEP, 80)
    places = 10**9 + np.cumsum(steps)
    recorder = Recorder(tmp_path, INFO, options(container))
    for number, place in enumerate(places):
        recorder.write(numbered(number, pts=int(place)))
    recorder.close()
    (path,) = segments(tmp_path)
    assert np.allclose(play(path).times, (places - places[0]) / 90_000, atol=1e-3)


def test_names_are_the_time_when_the_first_frame_came(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, INFO)
    recorder.write(numbered(0, arrived=time.monotonic() - 5))
    recorder.close()
    (path,) = segments(tmp_path)
    began = named_time(path.name)
    assert began is not None
    assert 4.5 < time.time() - began.timestamp() < 10


def test_segments_are_cut_by_size(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, INFO, options(seconds=None, size=20_000), codec="mpeg4")
    noise = np.random.default_rng(0)
    for number in range(40):
        item = numbered(number)
        item.image[:, :, 1] = noise.integers(0, 255, item.image.shape[:2], np.uint8)
        recorder.write(item)
    recorder.close()
    sizes = [path.stat().st_size for path in segments(tmp_path)]
    assert len(sizes) > 3
    assert all(18_000 < size < 32_000 for size in sizes[:-1])


def test_a_frame_of_another_size_begins_a_new_segment(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, INFO)
    sizes = [(96, 48)] * 5 + [(120, 64)] * 5 + [(96, 48)] * 5
    for number, (width, height) in enumerate(sizes):
        recorder.write(numbered(number, width=width, height=height))
    recorder.close()
    played = [play(path) for path in segments(tmp_path)]
    assert [one.size for one in played] == [(96, 48), (120, 64), (96, 48)]
    assert [number for one in played for number in one.numbers] == list(range(15))


def test_two_runs_share_a_folder(tmp_path: Path) -> None:
    first, second = Recorder(tmp_path, INFO, options(seconds=1)), Recorder(tmp_path, INFO, options(seconds=1))
    for number in range(3 * RATE):
        first.write(numbered(number))
        second.write(numbered(number + 100))
        if number == RATE // 2:
            # A third one begins while both are at work, and leaves their files alone.
            assert len(partials(tmp_path)) == 2
            assert Recorder(tmp_path, INFO).recovered == ()
    first.close()
    second.close()
    numbers = sorted(number for path in segments(tmp_path) for number in play(path).numbers)
    assert numbers == [*range(3 * RATE), *range(100, 100 + 3 * RATE)]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("count", [RATE * 5 // 2, 3 * RATE + 1])
def test_a_killed_run_loses_a_fragment_at_most(tmp_path: Path, container: Container, count: int) -> None:
    child = Child(tmp_path, container)
    last = child.write(count)
    child.end()
    # The control: until it is recovered there is nothing under a final name.
    assert segments(tmp_path) == []
    assert len(partials(tmp_path)) == 1
    recorder = Recorder(tmp_path, INFO)
    (path,) = segments(tmp_path)
    assert recorder.recovered == (path,)
    assert partials(tmp_path) == []
    played = play(path)
    assert played.begins_with_key
    assert played.numbers == list(range(len(played.numbers)))
    assert last - (RATE + 1) <= played.numbers[-1] <= last
    assert np.allclose(played.times, np.arange(len(played.times)) / RATE, atol=1e-3)


def test_a_living_process_keeps_its_file(tmp_path: Path) -> None:
    child = Child(tmp_path, "mp4")
    child.write(2 * RATE)
    (path,) = partials(tmp_path)
    os.kill(child.process.pid, signal.SIGSTOP)
    assert Recorder(tmp_path, INFO).recovered == ()
    assert partials(tmp_path) == [path]
    os.kill(child.process.pid, signal.SIGCONT)
    child.write(RATE)
    child.end()
    assert len(Recorder(tmp_path, INFO).recovered) == 1


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_full_disk_ends_the_run_and_keeps_whole_fragments(tmp_path: Path, container: Container) -> None:
    prefix = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=256k none "$0" && exec "$@"', str(tmp_path))
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lets nobody mount a small disk")
    script = FULL.format(container=container, folder=str(tmp_path))
    ended = subprocess.run(
        [*prefix, sys.executable, "-c", script],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    message, written, *kept = ended.stdout.splitlines()
    assert "No space left on device" in message
    assert "what was recorded until then is kept" in message
    numbers = [int(number) for line in kept for number in line.split()]
    assert len(kept) >= 3
    assert numbers == list(range(len(numbers)))
    assert int(written) - 2 * RATE < len(numbers) <= int(written)


#: Runs where the disk is small: message, frames written, and a line for every segment with the numbers in it.
FULL = """
import numpy as np
from pathlib import Path
from engines.errors import SinkError
from stream.quantities import Extent
from stream.sinks.recorder import Recorder, RecorderOptions
from tests.stream.sinks.recordings import INFO, numbered, partials, play, segments

folder, noise = Path({folder!r}), np.random.default_rng(0)
recorder = Recorder(folder, INFO, RecorderOptions(container={container!r}, segment=Extent(seconds=2)))
written = 0
try:
    while written < 4000:
        item = numbered(written)
        item.image[:12] = noise.integers(0, 255, item.image[:12].shape, np.uint8)
        recorder.write(item)
        written += 1
except SinkError as error:
    print(error)
recorder.abort()
print(written)
assert partials(folder) == []
for path in segments(folder):
    print(*play(path).numbers)
"""


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_file_that_cannot_grow_keeps_whole_fragments(tmp_path: Path, container: Container) -> None:
    child = Child(tmp_path, container, 600.0, "prlimit", "--fsize=8192")
    said = child.process.communicate("\n" * 4000, timeout=30)[1]
    assert "SinkError: cannot write into" in said
    assert "File too large" in said
    assert partials(tmp_path) == []
    (path,) = segments(tmp_path)
    numbers = play(path).numbers
    assert len(numbers) >= RATE
    assert numbers == list(range(len(numbers)))


def test_fragments_reach_the_disk_while_the_segment_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, sizes = os.fdatasync, []

    def noted(descriptor: int) -> None:
        sizes.append(os.fstat(descriptor).st_size)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", noted)
    recorder = Recorder(tmp_path, INFO, RecorderOptions(fragment=0.1))
    Paced(recorder).run(2 * RATE)
    recorder.close()
    assert len(sizes) >= 8
    assert sizes == sorted(set(sizes))


def test_a_disk_that_fails_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    recorder = Recorder(tmp_path, INFO, RecorderOptions(fragment=0.1))
    with pytest.raises(SinkError, match=r"cannot write into .*: Input/output error"):
        Paced(recorder).run(10 * RATE)
    (path,) = segments(tmp_path)
    assert play(path).numbers


def test_an_aborted_run_keeps_what_it_recorded(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, INFO)
    for number in range(RATE // 2):
        recorder.write(numbered(number))
    recorder.abort()
    recorder.abort()
    (path,) = segments(tmp_path)
    assert play(path).numbers == list(range(RATE // 2))


def test_a_run_without_frames_leaves_nothing(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "new", INFO)
    recorder.close()
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("limit", [Extent(seconds=None, size=30_000), Extent(seconds=0.0001)])
def test_old_segments_go(tmp_path: Path, limit: Extent) -> None:
    (tmp_path / "mine.mp4").write_bytes(b"x" * 100_000)
    recorder = Recorder(tmp_path, INFO, RecorderOptions(segment=Extent(seconds=1), retain=limit))
    for number in range(20 * RATE):
        recorder.write(numbered(number))
    recorder.close()
    assert (tmp_path / "mine.mp4").exists()
    kept = segments(tmp_path)[:-1]
    assert recorder.finished == 20
    assert recorder.deleted == 20 - len(kept) > 0
    if limit.size is not None:
        assert 10_000 < sum(path.stat().st_size for path in kept) <= 30_000
        assert play(kept[-1]).numbers[-1] == 20 * RATE - 1


def test_nothing_stays_open(tmp_path: Path) -> None:
    def record(count: int) -> int:
        for number in range(count * RATE):
            recorder.write(numbered(number))
        return len(os.listdir("/proc/self/fd"))

    others = set(threading.enumerate())
    recorder = Recorder(tmp_path, INFO, RecorderOptions(segment=Extent(0.5), retain=Extent(size=50_000), fragment=0.1))
    before = record(2)
    assert record(20) == before
    # The one that brings fragments to the disk, from its first fragment on.
    assert len(set(threading.enumerate()) - others) <= 1
    recorder.close()


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="is a file; a folder"):
        Recorder(tmp_path / "file", INFO)
    with pytest.raises(UsageError, match="does not exist: create"):
        Recorder(tmp_path / "no" / "where", INFO)
    with pytest.raises(UsageError, match="no encoder 'nonsense'"):
        Recorder(tmp_path, INFO, codec="nonsense")
    with pytest.raises(UsageError, match="cannot hold"):
        Recorder(tmp_path, INFO, codec="gif")
    with pytest.raises(ValueError, match=r"fragments of 0\.1 to 60 seconds"):
        RecorderOptions(fragment=0)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "gone", INFO)
    (tmp_path / "gone").rmdir()
    with pytest.raises(SinkError, match=r"cannot write into .*No such file"):
        recorder.write(numbered(0))
    recorder.abort()


def test_the_aspect_of_pixels_is_kept(tmp_path: Path) -> None:
    info = info_like(numbered(0).image, pixel_aspect=Fraction(4, 3))
    recorder = Recorder(tmp_path, info)
    recorder.write(numbered(0))
    recorder.close()
    with av.open(str(segments(tmp_path)[0])) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
