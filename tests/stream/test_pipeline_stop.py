"""A run that is asked to end does so in time, whatever hangs, and what was written by then is whole."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import pytest

from stream.anonymizer import Anonymizer
from stream.frame import Frame
from stream.pipeline import Pipeline
from stream.pulse import SILENT, Pulse
from stream.regions import Regions
from tests.fakes import (
    FILLS,
    Box,
    FunctionDetector,
    MemorySink,
    MemorySource,
    faces,
    finishes_within,
    flat_settings,
    frames,
    noise,
    number,
)

FACE: Box = (20, 10, 40, 34)


def build(
    detector: FunctionDetector, *, pause: float = 0.0, pulse: Pulse | None = None, deadline: float = 30.0
) -> tuple[Pipeline, MemorySink]:
    """A run of more frames than it will come to."""
    sink = MemorySink()
    source = MemorySource(frames(noise(60)) * 20, before=lambda _: time.sleep(pause))
    anonymizer = Anonymizer([detector], FILLS, flat_settings(deadline=deadline))
    return Pipeline(source, anonymizer, sink, waiting=1, pulse=pulse), sink


@pytest.fixture
def hung() -> Iterator[threading.Event]:
    """What a detector waits for that hangs; ends what a failing test has left."""
    event = threading.Event()
    rescue = threading.Timer(12.0, event.set)
    rescue.daemon = True
    rescue.start()
    yield event
    rescue.cancel()
    event.set()


def hanging_from(place: int, hung: threading.Event) -> FunctionDetector:
    def answer(frame: Frame) -> Regions:
        if number(frame) >= place:
            hung.wait()
        return faces(FACE)

    return FunctionDetector(answer)


def test_a_signal_ends_a_live_run_whose_detector_hangs(hung: threading.Event) -> None:
    pipeline, sink = build(hanging_from(10, hung), pause=0.02, pulse=Pulse(Fraction(20)))
    asked: list[float] = []

    def handle(*_: object) -> None:
        asked.append(time.monotonic())
        pipeline.stop()

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        threading.Timer(1.6, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        # In the main thread, which the handler interrupts.
        summary = pipeline.run()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert time.monotonic() - asked[0] < 2.5
    assert not hung.is_set()
    assert summary.interrupted
    assert summary.stopped is None
    assert sink.closed
    assert not sink.aborted
    assert len([item for item in sink.items if item.withheld is None]) == 10
    assert {item.withheld for item in sink.items[10:]} <= {SILENT}


def test_before_the_first_frame_a_live_run_whose_detector_hangs_can_be_stopped_too(hung: threading.Event) -> None:
    pipeline, sink = build(hanging_from(0, hung), pulse=Pulse(Fraction(20)))
    threading.Timer(0.3, pipeline.stop).start()
    summary = finishes_within(4, pipeline.run)
    assert summary.interrupted
    assert sink.aborted
    assert not sink.closed


def test_a_file_s_run_gets_a_deadline_for_what_is_under_way(hung: threading.Event) -> None:
    # Four deadlines would have to be missed before the run ended by itself.
    pipeline, sink = build(hanging_from(10, hung), deadline=1.6)
    threading.Timer(0.2, pipeline.stop).start()
    summary = finishes_within(4.5, pipeline.run)
    assert not hung.is_set()
    assert summary.interrupted
    assert sink.closed
    assert len([item for item in sink.items if item.withheld is None]) == 10


def test_after_a_stop_frames_that_are_under_way_are_written_and_nothing_is_filled_in() -> None:
    def slow(frame: Frame) -> Regions:
        time.sleep(0.1)
        return faces(FACE)

    detector = FunctionDetector(slow)
    pipeline, sink = build(detector, pause=0.01, pulse=Pulse(Fraction(100)))
    threading.Timer(0.5, pipeline.stop).start()
    summary = finishes_within(5, pipeline.run)
    assert summary.withheld == 0
    assert [item.frame.pts for item in sink.items] == list(range(detector.looked))
