"""Video through a pipe: whole, in order, and with an end that says whether it is one."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engines.errors import SourceError, UsageError
from stream.frame import Frame
from stream.raw_video import RawVideo
from stream.sources.pipe import PipeSource
from tests.fakes import finishes_within, noise, read_pictures, write_lossless
from tests.media import pictures, write_clip
from tests.stream.sources.torn import write_unreadable


@contextlib.contextmanager
def piped(content: bytes) -> Iterator[int]:
    """The reading end of a pipe into which this is written, as slowly as it is read."""
    reading, writing = os.pipe()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "wb") as pipe:
            pipe.write(content)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield reading
    finally:
        os.close(reading)
        thread.join(5)


def read(content: bytes, raw: RawVideo | None = None, wanted: str | None = None) -> tuple[list[Frame], PipeSource]:
    with piped(content) as descriptor:

        def whole() -> tuple[list[Frame], PipeSource]:
            source = PipeSource(descriptor, raw=raw, wanted=wanted)
            frames = list(source)
            source.close()
            return frames, source

        return finishes_within(20, whole)


def test_waiting_for_whoever_writes_is_counted() -> None:
    reading, writing = os.pipe()
    picture = bytes(64 * 48 * 3)
    os.write(writing, picture)
    source = PipeSource(reading, raw=RawVideo.parse("64x48@25:rgb24"))
    before = source.waited

    def end() -> None:
        os.write(writing, picture)
        os.close(writing)

    late = threading.Timer(0.3, end)
    late.start()
    frames = finishes_within(20, lambda: list(source))
    late.join()
    source.close()
    os.close(reading)
    assert len(frames) == 2
    assert source.waited - before >= 0.2


def test_matroska_comes_through_frame_by_frame(tmp_path: Path) -> None:
    images = noise(12)
    frames, source = read(write_lossless(tmp_path / "clip.mkv", images).read_bytes())
    assert all(np.array_equal(frame.image, image) for frame, image in zip(frames, images, strict=True))
    assert [round(frame.time * 1000) for frame in frames] == [40 * n for n in range(12)]
    assert source.problems() == ()
    assert (source.info.width, source.info.height, source.info.name) == (64, 48, "the pipe")


def test_a_transport_stream_comes_through_whole(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.ts", pictures(30))
    frames, _ = read(clip.read_bytes())
    expected = read_pictures(clip)
    assert len(frames) == len(expected) == 30
    assert all(frame.damaged is None for frame in frames)


def test_a_stream_that_is_cut_off_is_a_problem(tmp_path: Path) -> None:
    content = write_lossless(tmp_path / "clip.mkv", noise(12)).read_bytes()
    frames, source = read(content[: len(content) * 2 // 3])
    assert 4 <= sum(frame.damaged is None for frame in frames) <= 9
    assert source.problems()


def test_all_that_came_before_an_error_comes_out(tmp_path: Path) -> None:
    frames, source = read(write_unreadable(tmp_path / "clip.nut", 32).read_bytes())
    assert [round((frame.time - frames[0].time) * 25) for frame in frames] == list(range(32))
    assert all(frame.damaged is None for frame in frames)
    assert source.problems() == ("the pipe cannot be read to its end: Invalid data found when processing input",)


@pytest.mark.parametrize(("pix_fmt", "size"), [("rgb24", 3.0), ("yuv420p", 1.5)])
def test_bare_frames_need_to_be_told_what_they_are(pix_fmt: str, size: float) -> None:
    count = 5
    content = np.full(int(64 * 48 * size) * count, 128, np.uint8).tobytes()
    frames, source = read(content, RawVideo.parse(f"64x48@10:{pix_fmt}"))
    assert len(frames) == count
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert all(abs(frame.image.astype(int) - 130).max() <= 4 for frame in frames)
    assert source.info.rate == 10


def test_a_last_frame_that_is_cut_off_is_a_problem_or_nothing() -> None:
    frames, source = read(bytes(64 * 48 * 3 * 2 + 100), RawVideo.parse("64x48@10"))
    assert len([frame for frame in frames if frame.damaged is None]) == 2
    assert source.problems() or len(frames) == 2


@pytest.mark.parametrize("content", [b"", b"this is no video\n" * 400, bytes(20_000)])
def test_what_is_no_video_is_refused(content: bytes) -> None:
    with pytest.raises(SourceError, match="pipe"):
        read(content)


def test_a_stream_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    content = write_lossless(tmp_path / "clip.mkv", noise(3)).read_bytes()
    with pytest.raises(UsageError, match=r"no video stream 'rear'; it has 0 \(64x48\)"):
        read(content, wanted="rear")
