"""What a run leaves behind when its input, a stage or the output fails: each guard with its control."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from engines.errors import SinkError, SourceError
from stream.anonymizer import Anonymized, Anonymizer, Arranged
from stream.follow import Followed, Look
from stream.frame import Frame, Image
from stream.pipeline import Pipeline
from stream.sinks.video import VideoSink
from stream.sources.video import VideoSource
from tests.closed import (
    COUNT,
    FACE,
    check_closed,
    go,
    is_withheld,
    raising,
)
from tests.fakes import (
    FILLS,
    FixedDetector,
    FunctionDetector,
    faces,
    finishes_within,
    flat_settings,
    number,
    read_pictures,
    write_lossless,
)
from tests.unguarded import (
    DirectTarget,
    TrustingSource,
)


@pytest.fixture
def damaged(images: list[Image], tmp_path: Path) -> tuple[Path, int]:
    """A clip of which one packet is overwritten, and the number of that frame."""
    path = write_lossless(tmp_path / "damaged.mkv", images)
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    assert len(packets) == COUNT
    data = bytearray(path.read_bytes())
    start, size = packets[12]
    assert start is not None
    # From a little way in, so that the container's own headers stay whole.
    data[start + 40 : start + size] = bytes(255 - b for b in data[start + 40 : start + size])
    path.write_bytes(data)
    return path, 12


def test_a_damaged_picture_is_withheld_and_its_neighbours_are_not(
    damaged: tuple[Path, int], images: list[Image], tmp_path: Path
) -> None:
    path, broken_number = damaged
    result = go(path, tmp_path / "out.mkv", Anonymizer([FixedDetector(FACE)], FILLS, flat_settings()))
    out = read_pictures(tmp_path / "out.mkv")
    assert len(out) == COUNT
    check_closed(out, images, {broken_number})
    assert result.summary.withheld == 1


@pytest.mark.parametrize("lookahead", [0, 4])
def test_on_failure_stop_keeps_a_valid_file_up_to_there(
    lookahead: int, clip: Path, images: list[Image], tmp_path: Path
) -> None:
    detector = FunctionDetector(lambda frame: raising(frame) if number(frame) == 9 else faces(FACE))
    settings = flat_settings(on_failure="stop", hold=2, lookahead=lookahead)
    result = go(clip, tmp_path / "out.mkv", Anonymizer([detector], FILLS, settings))
    out = read_pictures(tmp_path / "out.mkv")
    assert len(out) == 9
    check_closed(out, images[:9], set())
    assert result.summary.stopped == "stopped at 0.360 s: detection failed: the network is broken"


def test_on_failure_stop_at_the_first_frame_leaves_an_older_output_alone(clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mkv"
    output.write_bytes(b"older")
    settings = flat_settings(on_failure="stop")
    result = go(clip, output, Anonymizer([FunctionDetector(raising)], FILLS, settings), overwrite=True)
    assert result.summary.stopped is not None
    assert result.summary.frames == 0
    assert output.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [output]


class BrokenSource(VideoSource):
    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            if number(frame) == 9:
                raise SourceError("the cable is out")
            yield frame


class BrokenSink(VideoSink):
    def write(self, item: Anonymized) -> None:
        if number(item.frame) == 9:
            raise SinkError("the disk is full")
        super().write(item)


class BrokenLook(Anonymizer):
    def look(self, frame: Frame) -> Look:
        if number(frame) == 9:
            raise MemoryError("in detect")
        return super().look(frame)


class BrokenArrange(Anonymizer):
    def arrange(self, followed: Followed) -> Arranged:
        if number(followed.frame) == 9:
            raise MemoryError("in arrange")
        return super().arrange(followed)


class BrokenPaint(Anonymizer):
    def paint(self, arranged: Arranged) -> Anonymized:
        if number(arranged.followed.frame) == 9:
            raise MemoryError("in paint")
        return super().paint(arranged)


class BrokenFollow(Anonymizer):
    def follow(self, look: Look) -> list[Followed]:
        if number(look.frame) == 9:
            raise SystemExit(7)
        return super().follow(look)


@pytest.mark.parametrize(
    ("source", "anonymizer", "sink", "error"),
    [
        (BrokenSource, Anonymizer, VideoSink, SourceError),
        (VideoSource, BrokenLook, VideoSink, MemoryError),
        (VideoSource, BrokenFollow, VideoSink, SystemExit),
        (VideoSource, BrokenArrange, VideoSink, MemoryError),
        (VideoSource, BrokenPaint, VideoSink, MemoryError),
        (VideoSource, Anonymizer, BrokenSink, SinkError),
    ],
)
@pytest.mark.parametrize("together", [1, 3])
def test_an_error_in_any_stage_ends_the_run_and_leaves_no_output(
    together: int,
    source: type[VideoSource],
    anonymizer: type[Anonymizer],
    sink: type[VideoSink],
    error: type[BaseException],
    clip: Path,
    tmp_path: Path,
) -> None:
    reader = source(clip)
    writer = sink(tmp_path / "out.mkv", reader.info, codec="ffv1")
    threads = threading.active_count()
    covering = anonymizer([FixedDetector(FACE)], FILLS, flat_settings(), parallel=together, painting=together)
    pipeline = Pipeline(reader, covering, writer)
    with pytest.raises(error):
        finishes_within(20, pipeline.run)
    reader.close()
    assert list(tmp_path.iterdir()) == []
    # The workers of the two deadlines stay until the anonymizer is closed.
    assert threading.active_count() <= threads + 2 * together


def test_withheld_frames_keep_their_time(clip: Path, tmp_path: Path) -> None:
    go(clip, tmp_path / "out.mkv", Anonymizer([FunctionDetector(raising)], FILLS, flat_settings()))
    times = []
    for path in (clip, tmp_path / "out.mkv"):
        with av.open(str(path)) as container:
            times.append([frame.time for frame in container.decode(video=0)])
    assert len(times[0]) == COUNT
    assert times[0] == times[1]


def test_control_without_the_guard_a_damaged_picture_is_not_withheld(
    damaged: tuple[Path, int], images: list[Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, broken_number = damaged
    monkeypatch.setattr("stream.endpoints.VideoSource", TrustingSource)
    result = go(path, tmp_path / "out.mkv", Anonymizer([FixedDetector(FACE)], FILLS, flat_settings()))
    out = read_pictures(tmp_path / "out.mkv")
    assert len(out) == COUNT
    assert result.summary.withheld == 0
    assert not is_withheld(out[broken_number])
    for withheld in ({broken_number}, set[int]()):
        with pytest.raises(AssertionError):
            check_closed(out, images, withheld)


def test_control_without_the_guard_an_error_leaves_half_a_file(
    clip: Path, images: list[Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.sinks.video.Target", DirectTarget)
    reader = BrokenSource(clip)
    writer = VideoSink(tmp_path / "out.mkv", reader.info, codec="ffv1")
    pipeline = Pipeline(reader, Anonymizer([FixedDetector(FACE)], FILLS, flat_settings()), writer)
    with pytest.raises(SourceError):
        finishes_within(20, pipeline.run)
    reader.close()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]
    assert len(read_pictures(tmp_path / "out.mkv")) <= 9
