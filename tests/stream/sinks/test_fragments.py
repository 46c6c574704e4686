"""Whatever byte a recording ends at, what is kept of it plays and holds every whole fragment."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest

from stream.quantities import Extent
from stream.sinks.fragments import whole_length
from stream.sinks.recorder import Container, Recorder, RecorderOptions
from tests.stream.sinks.recordings import INFO, RATE, numbered, play, segments

CONTAINERS: tuple[Container, ...] = ("mp4", "mkv")


def recording(folder: Path, container: Container) -> bytes:
    recorder = Recorder(folder, INFO, RecorderOptions(container=container, segment=Extent(600)))
    for number in range(5 * RATE):
        recorder.write(numbered(number))
    recorder.close()
    (path,) = segments(folder)
    content = path.read_bytes()
    path.unlink()
    return content


def whole(path: Path, content: bytes) -> int:
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return whole_length(descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("container", CONTAINERS)
def test_it_can_be_cut_anywhere(tmp_path: Path, container: Container) -> None:
    content = recording(tmp_path, container)
    path = tmp_path / "cut"
    lengths = {cut: whole(path, content[:cut]) for cut in range(0, len(content), 7)}
    assert all(length <= cut for cut, length in lengths.items())
    assert sorted(lengths.values()) == list(lengths.values())
    counts = []
    for length in sorted(set(lengths.values()) - {0}):
        path.write_bytes(content[:length])
        numbers = play(path).numbers
        assert numbers == list(range(len(numbers)))
        counts.append(len(numbers))
    assert len(counts) >= 4
    assert all(later - earlier <= RATE + 2 for earlier, later in pairwise(counts))


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_finished_file_is_whole(tmp_path: Path, container: Container) -> None:
    content = recording(tmp_path, container)
    assert whole(tmp_path / "all", content) == len(content)


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_the_disk_filled_with_zeros_is_cut_off(tmp_path: Path, container: Container) -> None:
    content = recording(tmp_path, container)
    length = whole(tmp_path / "cut", content[: len(content) * 2 // 3])
    assert 0 < length < len(content) * 2 // 3
    assert whole(tmp_path / "zeros", content[:length] + bytes(5000)) == length


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0", bytes(100), b"\xff" * 100, b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3\xff" + bytes(50),
        b"\0\0\0\x10moof" + bytes(8) + b"\0\0\0\x10mdat" + bytes(8), b"\0\0\0\x01mdat" + b"\xff" * 8,
        b"some text, no video",
    ],
)  # fmt: skip
def test_what_is_no_recording_has_nothing_whole(tmp_path: Path, content: bytes) -> None:
    assert whole(tmp_path / "other", content) == 0
