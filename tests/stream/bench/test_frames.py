from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from engines.errors import SourceError
from stream.anonymizer import Anonymized
from stream.bench.frames import ClipSource, Stopwatch, TimedAnonymizer, TimedSink, clip_info
from stream.pipeline import Pipeline
from stream.regions import Regions
from tests.fakes import FILLS, MemorySink, faces, frames, noise, number, write_lossless


class Still:
    """A detector that finds one face, and takes its time."""

    def detect(self, _frame: object) -> Regions:
        time.sleep(0.01)
        return faces((4, 4, 20, 20))

    def reset(self) -> None: ...

    def prepare(self, width: int, height: int, parallel: int) -> None: ...

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lossless(tmp_path_factory.mktemp("clip") / "in.mkv", noise(5))


def test_a_short_clip_is_shown_again_and_again_as_one_stream(clip: Path) -> None:
    watch = Stopwatch()
    got = list(ClipSource(clip, watch, frames=13))
    assert len(got) == 13
    stamps = [frame.pts for frame in got]
    assert all(a < b for a, b in itertools.pairwise(stamps))
    assert [number(frame) for frame in got] == list(range(13))
    assert (got[0].image == got[5].image).all()
    assert (got[0].image != got[6].image).any()
    assert list(watch.spans["decode"]) == stamps
    assert list(watch.begun) == stamps


def test_it_ends_when_time_is_up_but_not_before_some_frames(clip: Path) -> None:
    assert len(list(ClipSource(clip, Stopwatch(), frames=1000, seconds=0.0))) == 2


def test_paced_frames_do_not_come_before_they_are_due(clip: Path) -> None:
    watch = Stopwatch()
    began = time.monotonic()
    for index, frame in enumerate(ClipSource(clip, watch, frames=4, pace=20)):
        assert time.monotonic() - began >= index / 20
        assert watch.begun[frame.pts] == pytest.approx(began + index / 20, abs=0.04)
    assert time.monotonic() - began >= 3 / 20


def test_a_late_frame_counts_from_when_it_was_due(clip: Path) -> None:
    watch = Stopwatch()
    stream = iter(ClipSource(clip, watch, frames=3, pace=50))
    first = next(stream)
    time.sleep(0.2)
    second = next(stream)
    assert watch.begun[second.pts] - watch.begun[first.pts] == pytest.approx(1 / 50)


def test_what_is_no_video_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(SourceError):
        clip_info(tmp_path / "a.mp4")


def test_every_stage_of_every_frame_is_noted(clip: Path) -> None:
    watch, kept = Stopwatch(), MemorySink()
    anonymizer = TimedAnonymizer([Still()], FILLS)
    anonymizer.watch = watch
    source = ClipSource(clip, watch, frames=8)
    assert source.problems() == source.side_exits() == ()
    summary = Pipeline(source, anonymizer, TimedSink(kept, watch)).run()
    anonymizer.close()
    assert summary.frames == len(kept.items) == 8
    assert kept.closed
    stamps = [item.frame.pts for item in kept.items]
    assert {stage: sorted(spans) for stage, spans in watch.spans.items()} == dict.fromkeys(
        ("decode", "detect", "anonymize", "encode"), stamps
    )
    assert all(end - began >= 0.01 for began, end in watch.spans["detect"].values())
    assert len(watch.latencies()) == 8
    assert min(watch.latencies()) >= 0.01


def test_frames_may_be_thrown_away() -> None:
    watch = Stopwatch()
    sink = TimedSink(None, watch)
    for frame in frames(noise(2)):
        sink.write(Anonymized(frame, Regions.empty()))
    sink.close()
    sink.abort()
    assert list(watch.written) == [0, 1]
    assert "encode" not in watch.spans
