"""A playlist can be played at any moment of the run, and afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from engines.errors import StreamStoppedError, UsageError
from stream.sinks.hls import HlsOptions, HlsSink
from tests.stream.sinks.recordings import INFO, RATE, numbered, play

Kind = Literal["mpegts", "fmp4"]
KINDS: tuple[Kind, ...] = ("mpegts", "fmp4")


def listed(playlist: Path) -> list[str]:
    """Names of the segments in it."""
    lines = playlist.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#EXTM3U"
    return [line for line in lines if line and not line.startswith("#")]


def number(playlist: Path) -> int:
    """Of the first segment in it."""
    (line,) = [one for one in playlist.read_text().splitlines() if one.startswith("#EXT-X-MEDIA-SEQUENCE:")]
    return int(line.partition(":")[2])


def others(playlist: Path) -> set[str]:
    return {path.name for path in playlist.parent.iterdir()} - {playlist.name, *listed(playlist)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_playlist_can_be_played_while_it_is_made(tmp_path: Path, kind: Kind) -> None:
    playlist = tmp_path / "live.m3u8"
    sink = HlsSink(playlist, INFO, HlsOptions(kind=kind, seconds=1, window=3))
    for index in range(6 * RATE):
        sink.write(numbered(index))
        assert playlist.exists() == (index >= RATE)
        if index % RATE == RATE // 2 and index > RATE:
            assert "#EXT-X-ENDLIST" not in playlist.read_text()
            assert all((tmp_path / name).is_file() for name in listed(playlist))
            last = play(tmp_path / listed(playlist)[-1]) if kind == "mpegts" else None
            whole = index // RATE * RATE
            assert last is None or last.numbers == list(range(whole - RATE, whole))
            assert last is None or last.begins_with_key
    sink.close()
    sink.abort()
    assert playlist.read_text().rstrip().endswith("#EXT-X-ENDLIST")
    played = play(playlist)
    assert played.numbers == list(range(3 * RATE, 6 * RATE))
    assert np.allclose(np.diff(played.times), 1 / RATE, atol=1e-3)
    assert all(name.endswith("-init.mp4") for name in others(playlist))
    assert len(others(playlist)) == (kind == "fmp4")


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_window_all_segments_stay(tmp_path: Path, kind: Kind) -> None:
    playlist = tmp_path / "all.m3u8"
    sink = HlsSink(playlist, INFO, HlsOptions(kind=kind, seconds=0.5, window=None))
    for index in range(5 * RATE):
        sink.write(numbered(index))
    sink.close()
    assert len(listed(playlist)) == 10
    assert play(playlist).numbers == list(range(5 * RATE))


def test_frames_far_apart_are_cut_by_their_time(tmp_path: Path) -> None:
    playlist = tmp_path / "slow.m3u8"
    sink = HlsSink(playlist, INFO, HlsOptions(seconds=2, window=None))
    for index in range(6):
        sink.write(numbered(index, pts=10**10 + index * 135_000))
    sink.close()
    assert len(listed(playlist)) == 3
    played = play(playlist)
    assert played.numbers == list(range(6))
    assert np.allclose(np.diff(played.times), 1.5, atol=1e-3)


def test_scenes_and_uneven_frames_are_no_trouble(tmp_path: Path) -> None:
    playlist = tmp_path / "live.m3u8"
    sink = HlsSink(playlist, INFO, HlsOptions(seconds=0.7, window=None))
    random = np.random.default_rng(5)
    place = 10**9
    for index in range(1000):
        item = numbered(index, pts=place)
        item.image[:12] = random.integers(0, 255) if random.random() < 0.1 else 128
        sink.write(item)
        place += int(random.integers(1000, 9000))
    sink.close()
    assert len(listed(playlist)) > 50
    assert play(playlist).numbers == list(range(1000))


@pytest.mark.parametrize("window", [None, 3])
def test_a_changed_size_is_followed_where_segments_can(tmp_path: Path, window: int | None) -> None:
    playlist = tmp_path / "live.m3u8"
    sink = HlsSink(playlist, INFO, HlsOptions(seconds=1, window=window))
    for index in range(8 * RATE):
        sink.write(numbered(index, width=96 if index < 110 else 120))
    sink.close()
    played = play(playlist)
    # The last segments begin at 110, 130 and 150.
    assert played.numbers == list(range(0 if window is None else 110, 8 * RATE))
    assert played.size == (120, 48)
    assert others(playlist) == set()
    if window is None:
        assert playlist.read_text().count("#EXT-X-DISCONTINUITY\n") == 1


def test_a_changed_size_ends_the_run_where_they_cannot(tmp_path: Path) -> None:
    sink = HlsSink(tmp_path / "live.m3u8", INFO, HlsOptions(kind="fmp4"))
    sink.write(numbered(0))
    with pytest.raises(StreamStoppedError, match=r"have become 120x48 instead of 96x48.*use MPEG-TS"):
        sink.write(numbered(1, width=120))
    sink.close()
    assert play(tmp_path / "live.m3u8").numbers == [0]


def test_the_next_run_takes_the_place_of_the_last(tmp_path: Path) -> None:
    playlist = tmp_path / "live.m3u8"
    (tmp_path / "live-mine.ts").write_bytes(b"somebody else's")
    numbers = []
    for overwrite in (False, True):
        sink = HlsSink(playlist, INFO, HlsOptions(seconds=1), overwrite=overwrite)
        for index in range(3 * RATE):
            sink.write(numbered(index))
        # It ends without a word.
        sink._finish()
        numbers.append(number(playlist))
        assert others(playlist) == {"live-mine.ts"}
    assert numbers[0] <= numbers[1]
    with pytest.raises(UsageError, match="use --overwrite"):
        HlsSink(playlist, INFO)


def test_an_aborted_run_ends_its_list(tmp_path: Path) -> None:
    sink = HlsSink(tmp_path / "live.m3u8", INFO)
    sink.write(numbered(0))
    sink.abort()
    assert play(tmp_path / "live.m3u8").numbers == [0]
    assert "#EXT-X-ENDLIST" in (tmp_path / "live.m3u8").read_text()


def test_a_run_without_frames_leaves_nothing(tmp_path: Path) -> None:
    HlsSink(tmp_path / "live.m3u8", INFO).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["50%.m3u8", "a b.m3u8", "ü.m3u8", "[x].m3u8"])
def test_most_names_will_do(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "10% off"
    folder.mkdir()
    sink = HlsSink(folder / name, INFO, HlsOptions(seconds=0.5, window=2))
    for index in range(4 * RATE):
        sink.write(numbered(index))
    sink.close()
    assert len(listed(folder / name)) == 2
    assert others(folder / name) == set()


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.m3u8"):
        HlsSink(tmp_path / "live.mp4", INFO)
    with pytest.raises(UsageError, match="does not exist: create"):
        HlsSink(tmp_path / "no" / "live.m3u8", INFO)
    with pytest.raises(UsageError, match="something like %d"):
        HlsSink(tmp_path / "live%03d.m3u8", INFO)
    with pytest.raises(UsageError, match="no encoder 'nonsense'"):
        HlsSink(tmp_path / "live.m3u8", INFO, codec="nonsense")
    with pytest.raises(UsageError, match=r"hold H\.264 or HEVC, not gif"):
        HlsSink(tmp_path / "live.m3u8", INFO, codec="gif")
    with pytest.raises(ValueError, match="segments of"):
        HlsOptions(seconds=0)
    with pytest.raises(ValueError, match="at least two segments"):
        HlsOptions(window=1)
    assert list(tmp_path.iterdir()) == []


FULL = """
import numpy as np
from pathlib import Path
from engines.errors import SinkError
from stream.sinks.hls import HlsOptions, HlsSink
from tests.stream.sinks.recordings import INFO, numbered, play

playlist, noise = Path({playlist!r}), np.random.default_rng(0)
sink = HlsSink(playlist, INFO, HlsOptions(window=None, seconds=1, kind={kind!r}))
try:
    for number in range(4000):
        item = numbered(number)
        item.image[:12] = noise.integers(0, 255, item.image[:12].shape, np.uint8)
        sink.write(item)
except SinkError as error:
    print(error)
sink.abort()
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_an_error(tmp_path: Path, kind: Kind) -> None:
    prefix = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=256k none "$0" && exec "$@"', str(tmp_path))
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lets nobody mount a small disk")
    ended = subprocess.run(
        [*prefix, sys.executable, "-c", FULL.format(playlist=str(tmp_path / "live.m3u8"), kind=kind)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "bytes arrived" in ended.stdout
    assert "Disk full?" in ended.stdout
