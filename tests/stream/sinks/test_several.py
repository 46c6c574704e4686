"""Several outputs get the same frames, and one that fails does not take the others with it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.errors import SinkError, StandinError, StreamStoppedError
from stream.address import output_address
from stream.anonymizer import Anonymizer
from stream.pipeline import Pipeline
from stream.sinks.base import Hurried
from stream.sinks.network import NetworkSink, SinkOptions
from stream.sinks.recorder import Recorder
from stream.sinks.several import SeveralSinks
from stream.sinks.video import VideoSink
from tests.fakes import FILLS, FixedDetector, MemorySink, MemorySource, finishes_within, flat_settings, frames, noise
from tests.stream.sinks.recordings import INFO, Paced, numbered, play, segments
from tests.stream.sinks.servers import Deaf


def breaks(
    at: int, message: str = "the server has gone", kind: type[StandinError] = SinkError
) -> Callable[[int], None]:
    """Raises in the frame of that number."""

    def before(number: int) -> None:
        if number == at:
            raise kind(message)

    return before


class HurriedSink(MemorySink):
    """Notes how long it may wait."""

    seconds: float | None = None

    def hurry(self, seconds: float) -> None:
        self.seconds = seconds


class WaitingSink(HurriedSink):
    """Waits for somebody when it is closed, and says when it begins."""

    def __init__(self, closing: Callable[[], object]) -> None:
        super().__init__()
        self.closing = closing

    def close(self) -> None:
        self.closing()
        super().close()


class StubbornSink(MemorySink):
    """Breaks its promise that giving up never raises."""

    def abort(self) -> None:
        raise OSError("stuck")


def test_all_get_every_frame_and_are_closed() -> None:
    sinks = [MemorySink(), MemorySink()]
    several = SeveralSinks(sinks)
    items = [numbered(number) for number in range(3)]
    for item in items:
        several.write(item)
    several.close()
    assert all(sink.items == items and sink.closed and not sink.aborted for sink in sinks)


def test_when_one_fails_the_others_are_closed_with_all_frames() -> None:
    broken, first, last = MemorySink(before=breaks(2)), MemorySink(), MemorySink()
    several = SeveralSinks([first, broken, last])
    several.write(numbered(0))
    several.write(numbered(1))
    with pytest.raises(SinkError, match=r"^the server has gone$"):
        several.write(numbered(2))
    assert [len(sink.items) for sink in (first, broken, last)] == [3, 2, 3]
    assert first.closed
    assert last.closed
    assert broken.aborted
    assert not broken.closed
    assert not first.aborted
    with pytest.raises(SinkError, match="closed already"):
        several.write(numbered(3))
    several.close()


def test_no_error_is_lost() -> None:
    sinks = [
        MemorySink(before=breaks(0, "one")),
        MemorySink(before=breaks(0, "two")),
        MemorySink(fails_to_close=True),
        MemorySink(),
    ]
    with pytest.raises(SinkError, match=r"^3 outputs failed: one; two; the disk is full$"):
        SeveralSinks(sinks).write(numbered(0))
    assert [sink.aborted for sink in sinks] == [True, True, True, False]
    assert sinks[3].closed


def test_one_that_cannot_go_on_ends_the_run_and_keeps_what_it_has() -> None:
    stopped = [MemorySink(before=breaks(1, text, StreamStoppedError)) for text in ("one", "two")]
    sinks = [*stopped, MemorySink()]
    several = SeveralSinks(sinks)
    several.write(numbered(0))
    with pytest.raises(StreamStoppedError, match=r"^2 outputs failed: one; two$"):
        several.write(numbered(1))
    several.close()
    assert [len(sink.items) for sink in sinks] == [1, 1, 2]
    assert all(sink.closed and not sink.aborted for sink in sinks)


def test_one_that_cannot_go_on_is_closed_when_another_fails() -> None:
    sinks = [MemorySink(before=breaks(0, "one", StreamStoppedError)), MemorySink(before=breaks(0, "two"))]
    with pytest.raises(SinkError, match=r"^2 outputs failed: one; two$"):
        SeveralSinks(sinks).write(numbered(0))
    assert [(sink.closed, sink.aborted) for sink in sinks] == [(True, False), (False, True)]


def test_one_that_cannot_be_finished_does_not_keep_the_others() -> None:
    sinks = [MemorySink(fails_to_close=True), MemorySink()]
    several = SeveralSinks(sinks)
    several.write(numbered(0))
    with pytest.raises(SinkError, match=r"^the disk is full$"):
        several.close()
    assert sinks[0].aborted
    assert sinks[1].closed


def test_giving_up_reaches_all(caplog: pytest.LogCaptureFixture) -> None:
    last = MemorySink()
    several = SeveralSinks([StubbornSink(), last])
    several.write(numbered(0))
    several.abort()
    assert last.aborted
    assert not last.closed
    assert "StubbornSink cannot be given up: stuck" in caplog.text


def test_those_that_wait_are_hurried() -> None:
    hurried = HurriedSink()
    SeveralSinks([MemorySink(), SeveralSinks([hurried])]).hurry(1.5)
    assert hurried.seconds == 1.5
    assert not isinstance(MemorySink(), Hurried)


def test_those_that_wait_end_side_by_side_when_the_others_are_whole() -> None:
    file, together = MemorySink(), threading.Barrier(3)
    whole: list[bool] = []

    def closing() -> None:
        whole.append(file.closed)
        # One after the other they would never meet.
        together.wait(10)

    waiting = [WaitingSink(closing) for _ in range(3)]
    SeveralSinks([waiting[0], waiting[1], file, waiting[2]]).close()
    assert whole == [True] * 3
    assert all(sink.closed for sink in waiting)


def test_errors_of_those_that_wait_are_not_lost() -> None:
    waiting = [WaitingSink(lambda: None) for _ in range(3)]
    waiting[1].fails_to_close = True
    with pytest.raises(SinkError, match=r"^the disk is full$"):
        SeveralSinks(waiting).close()
    assert [(sink.closed, sink.aborted) for sink in waiting] == [(True, False), (False, True), (True, False)]


def test_one_that_does_not_end_in_time_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    never = threading.Event()
    stuck, other, file = WaitingSink(never.wait), WaitingSink(lambda: None), MemorySink()
    several = SeveralSinks([stuck, other, file])
    several.hurry(0.2)
    finishes_within(5, several.close)
    assert (stuck.closed, other.closed, file.closed) == (False, True, True)
    assert "WaitingSink did not end in time" in caplog.text
    never.set()


def test_giving_up_waits_for_none_that_hangs() -> None:
    never = threading.Event()

    class Stuck(HurriedSink):
        def abort(self) -> None:
            never.wait()

    file, stuck = MemorySink(), [Stuck() for _ in range(3)]
    finishes_within(2.5, SeveralSinks([*stuck, file]).abort)
    assert file.aborted
    never.set()


def test_mute_servers_cost_a_recording_nothing_and_no_more_time_than_one(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(Deaf()).port for _ in range(3)]
        sinks = [NetworkSink(output_address(f"rtmp://127.0.0.1:{port}/live/x"), INFO, SinkOptions()) for port in ports]
        several = SeveralSinks([*sinks, Recorder(tmp_path, INFO)])
        Paced(several).run(20)
        several.hurry(1.3)
        began = time.monotonic()
        several.close()
        assert time.monotonic() - began < 2.5
    assert [play(path).numbers for path in segments(tmp_path)] == [list(range(20))]


def test_there_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="at least one sink"):
        SeveralSinks([])


def test_a_run_whose_server_fails_leaves_its_files_whole(tmp_path: Path) -> None:
    source = MemorySource(frames(noise(20)))
    file, recorder = VideoSink(tmp_path / "out.mkv", source.info, codec="ffv1"), Recorder(tmp_path / "r", source.info)
    several = SeveralSinks([file, recorder, MemorySink(before=breaks(10))])
    anonymizer = Anonymizer([FixedDetector((5, 5, 20, 20))], FILLS, flat_settings())
    with pytest.raises(SinkError, match="the server has gone"):
        finishes_within(20, Pipeline(source, anonymizer, several).run)
    assert len(play(tmp_path / "out.mkv").numbers) == 11
    assert [len(play(path).numbers) for path in segments(tmp_path / "r")] == [11]


def test_a_run_whose_source_fails_leaves_no_file(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mkv", INFO)
    several = SeveralSinks([sink])
    several.write(numbered(0))
    several.abort()
    assert list(tmp_path.iterdir()) == []
