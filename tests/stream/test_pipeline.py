from __future__ import annotations

import gc
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from engines.bundle import Bundle
from engines.errors import SinkError, SourceError
from stream.anonymizer import Anonymized, Anonymizer, Arranged
from stream.compose.parts import Painters
from stream.cores import MOST_PARALLEL
from stream.frame import Frame
from stream.generators.open import open_generator
from stream.latents import Latents
from stream.pipeline import STAGES, Pipeline, Summary
from stream.pulse import SILENT, Pulse
from stream.regions import Regions
from stream.stand_ins import StandIns
from tests.fakes import (
    FILLS,
    Box,
    FixedDetector,
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
from tests.generator_bundles import write_unet

FACE: Box = (20, 10, 40, 34)


def painted(bundle: Bundle, together: int) -> list[tuple[bytes, int]]:
    """What comes out where people come and go, each frame painted for another time, and how many are stand-ins."""
    waits = itertools.cycle([0.03, 0.0, 0.01, 0.0, 0.02])

    class Unsteady(Anonymizer):
        def paint(self, arranged: Arranged) -> Anonymized:
            time.sleep(next(waits))
            return super().paint(arranged)

    def come_and_go(frame: Frame) -> Regions:
        at = number(frame)
        return Regions.concatenate([faces((20, 10, 40, 34))] * (at % 7 < 3) + [faces((2 + at % 3, 4, 16, 20))])

    settings = flat_settings(face="realistic", hold=0, lookahead=0, seed=3)
    generator = open_generator(bundle, latents=Latents(3, 512))
    stand_ins = StandIns(Painters({"face": generator}, FILLS), linger=2 + MOST_PARALLEL, patience=5)
    sink = MemorySink()
    with Unsteady([FunctionDetector(come_and_go)], FILLS, settings, stand_ins=stand_ins, painting=together) as covering:
        finishes_within(30, Pipeline(MemorySource(frames(noise(30))), covering, sink).run)
    return [(item.image.tobytes(), item.generated) for item in sink.items]


def test_frames_that_are_painted_side_by_side_look_as_if_they_were_not(tmp_path: Path) -> None:
    bundle = write_unet(tmp_path / "unet", kind="face")
    one_by_one = painted(bundle, 1)
    assert len(one_by_one) == 30
    assert 10 < sum(generated for _, generated in one_by_one) < 43
    assert painted(bundle, MOST_PARALLEL) == one_by_one


def sleeping(seconds: float) -> Callable[[object], None]:
    return lambda _: time.sleep(seconds)


def build(
    count: int = 20,
    *,
    source: MemorySource | None = None,
    sink: MemorySink | None = None,
    detector: FunctionDetector | None = None,
    pulse: Pulse | None = None,
    **settings: object,
) -> tuple[Pipeline, MemorySink]:
    sink = sink or MemorySink()
    source = source or MemorySource(frames(noise(count)))
    anonymizer = Anonymizer([detector or FixedDetector(FACE)], FILLS, flat_settings(**settings))
    return Pipeline(source, anonymizer, sink, pulse=pulse), sink


@pytest.mark.parametrize("lookahead", [0, 1, 30])
def test_every_frame_arrives_once_and_in_order(lookahead: int) -> None:
    pipeline, sink = build(20, lookahead=lookahead)
    summary = finishes_within(20, pipeline.run)
    assert [item.frame.pts for item in sink.items] == list(range(20))
    assert summary.frames == 20
    assert summary.regions == {"face": 20}
    assert summary.tracks == 1
    assert summary.withheld == 0
    assert not summary.interrupted
    assert sink.closed
    assert not sink.aborted


def test_stages_overlap() -> None:
    count, decode, detect, encode = 60, 0.010, 0.020, 0.015

    def slow(frame: Frame) -> Regions:
        time.sleep(detect)
        return faces(FACE)

    pipeline, sink = build(
        source=MemorySource(frames(noise(count)), before=sleeping(decode)),
        sink=MemorySink(before=sleeping(encode)),
        detector=FunctionDetector(slow),
    )
    summary = finishes_within(20, pipeline.run)
    assert len(sink.items) == count
    # One after the other they would need 2.7 s.
    assert summary.seconds < 1.15 * summary.busy["detect"]
    assert count * detect <= summary.busy["detect"] < 1.5 * count * detect


def test_times_add_up() -> None:
    pipeline, _ = build(20, sink=MemorySink(before=sleeping(0.01)))
    summary = finishes_within(20, pipeline.run)
    assert tuple(summary.busy) == STAGES
    assert all(0 < seconds <= summary.seconds for seconds in summary.busy.values())
    assert summary.busy["encode"] >= 0.2
    assert summary.rate == pytest.approx(20 / summary.seconds)


class Sleepy(MemorySource):
    """Works for 5 ms and waits for 20 ms before each picture, and says so."""

    waited = 0.0

    def __init__(self, count: int) -> None:
        super().__init__(frames(noise(count)), before=self._rest)

    def _rest(self, *_: object) -> None:
        time.sleep(0.005)
        began = time.perf_counter()
        time.sleep(0.02)
        self.waited += time.perf_counter() - began


def test_what_a_source_waits_is_no_work() -> None:
    source = Sleepy(30)
    pipeline, _ = build(source=source)
    summary = finishes_within(20, pipeline.run)
    assert source.waited >= 0.6
    assert 0.15 <= summary.busy["decode"] < summary.seconds - 0.6


class CountedSource(MemorySource):
    """Makes its pictures only when they are asked for, and counts how many of them are alive."""

    alive = 0
    most = 0

    def __iter__(self) -> Iterator[Frame]:
        for index in range(80):
            image = np.full((48, 64, 3), 50 + index, np.uint8)
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(image, self._gone)
            frame = Frame(image, pts=index)
            del image
            yield frame
            del frame

    def _gone(self) -> None:
        self.alive -= 1


def test_a_slow_sink_does_not_let_frames_pile_up() -> None:
    source = CountedSource(frames(noise(1)))
    pipeline, sink = build(source=source, sink=MemorySink(before=sleeping(0.005)), detector=FixedDetector(FACE))
    finishes_within(20, pipeline.run)
    assert len(sink.items) == 80
    # Two queues of eight raw frames, and one in each hand. What the sink keeps are copies.
    assert source.most <= 2 * 8 + 6
    gc.collect()
    assert source.alive == 0


@pytest.mark.parametrize(("height", "width", "most", "least"), [(48, 64, 29, 20), (4000, 4200, 8, 4)])
def test_large_frames_wait_in_shorter_queues(height: int, width: int, most: int, least: int) -> None:
    given: list[int] = []
    blocked = threading.Event()
    # As large as it says, but without the memory.
    image = np.broadcast_to(np.full((1, 1, 3), 90, np.uint8), (height, width, 3))
    source = MemorySource(frames([image] * 40), before=given.append)
    pipeline, sink = build(source=source, sink=MemorySink(before=lambda _: blocked.wait(1.0)))
    threading.Timer(0.8, pipeline.stop).start()
    threading.Timer(0.9, blocked.set).start()
    finishes_within(20, pipeline.run)
    assert least <= len(given) <= most
    assert len(sink.items) >= least - 2


def test_observers_see_every_frame_after_it_was_written_and_as_it_was_marked() -> None:
    seen: list[tuple[int, int, int]] = []
    sink = MemorySink()

    def mark(item: Anonymized) -> Anonymized:
        return replace(item, frame=item.frame.with_image(np.full_like(item.image, 3)))

    def observe(item: Anonymized) -> None:
        seen.append((item.frame.pts, len(sink.items), int(item.image.max())))

    anonymizer = Anonymizer([FixedDetector(FACE)], FILLS, flat_settings())
    pipeline = Pipeline(MemorySource(frames(noise(12))), anonymizer, sink, observers=[observe, observe], mark=mark)
    finishes_within(20, pipeline.run)
    assert seen == [(i, i + 1, 3) for i in range(12) for _ in range(2)]
    assert all((item.image == 3).all() for item in sink.items)


def test_stop_finishes_what_is_under_way() -> None:
    source = MemorySource(frames(noise(500)), before=sleeping(0.002))
    pipeline, sink = build(source=source, lookahead=4)
    threading.Timer(0.2, pipeline.stop).start()
    summary = finishes_within(20, pipeline.run)
    assert summary.interrupted
    assert sink.closed
    assert 10 < len(sink.items) < 400
    assert [item.frame.pts for item in sink.items] == list(range(len(sink.items)))
    assert all((item.image[10:34, 20:40] == 0).all() for item in sink.items)


def test_stop_does_not_wait_for_a_source_that_gives_nothing_any_more() -> None:
    for_ever = threading.Event()
    source = MemorySource(frames(noise(20)), before=lambda index: index == 7 and for_ever.wait())
    pipeline, sink = build(source=source)
    threading.Timer(0.3, pipeline.stop).start()
    summary = finishes_within(15, pipeline.run)
    assert summary.interrupted
    assert len(sink.items) == 7
    assert pipeline.reading
    for_ever.set()


def test_stop_after_the_source_has_ended_is_no_interruption() -> None:
    sink = MemorySink()
    pipeline, _ = build(5, sink=sink)
    sink.before = lambda index: pipeline.stop() if index == 4 else time.sleep(0.05)
    summary = finishes_within(15, pipeline.run)
    assert len(sink.items) == 5
    assert not summary.interrupted
    assert not pipeline.reading


def test_stop_before_the_first_frame_leaves_no_output() -> None:
    pipeline, sink = build(5)
    pipeline.stop()
    summary = finishes_within(15, pipeline.run)
    assert summary.frames == 0
    assert summary.interrupted
    assert sink.aborted
    assert not sink.closed


def fail_at(place: int, error: BaseException) -> Callable[[int], None]:
    def before(index: int) -> None:
        if index == place:
            raise error

    return before


@pytest.mark.parametrize("place", [0, 1, 10, 19])
@pytest.mark.parametrize("lookahead", [0, 5])
def test_an_error_of_the_source_aborts_the_output(place: int, lookahead: int) -> None:
    source = MemorySource(frames(noise(20)), before=fail_at(place, SourceError("gone")))
    pipeline, sink = build(source=source, lookahead=lookahead)
    with pytest.raises(SourceError, match="gone"):
        finishes_within(15, pipeline.run)
    assert sink.aborted
    assert not sink.closed


@pytest.mark.parametrize("place", [0, 1, 10, 19])
def test_an_error_of_the_sink_ends_all_stages(place: int) -> None:
    before = threading.active_count()
    sink = MemorySink(before=fail_at(place, SinkError("full")))
    pipeline, _ = build(200, sink=sink, detector=FixedDetector(FACE))
    with pytest.raises(SinkError, match="full"):
        finishes_within(15, pipeline.run)
    assert sink.aborted
    assert threading.active_count() <= before + 2


def test_an_error_while_the_output_is_finished_aborts_it() -> None:
    pipeline, sink = build(5, sink=MemorySink(fails_to_close=True))
    with pytest.raises(SinkError, match="the disk is full"):
        finishes_within(15, pipeline.run)
    assert sink.aborted


def test_an_error_while_the_output_is_finished_after_a_stop_aborts_it_too() -> None:
    def broken(frame: Frame) -> Regions:
        if number(frame) == 3:
            raise RuntimeError("broken")
        return faces(FACE)

    pipeline, sink = build(
        5, sink=MemorySink(fails_to_close=True), detector=FunctionDetector(broken), on_failure="stop"
    )
    with pytest.raises(SinkError, match="the disk is full"):
        finishes_within(15, pipeline.run)
    assert sink.aborted


def test_an_error_of_an_observer_aborts_the_output() -> None:
    sink = MemorySink()

    def observe(item: Anonymized) -> None:
        raise SinkError("the report's disk is full")

    anonymizer = Anonymizer([FixedDetector(FACE)], FILLS, flat_settings())
    pipeline = Pipeline(MemorySource(frames(noise(12))), anonymizer, sink, observers=[observe])
    with pytest.raises(SinkError, match="report"):
        finishes_within(15, pipeline.run)
    assert sink.aborted


def test_an_interruption_of_the_last_stage_aborts_the_output() -> None:
    pipeline, sink = build(50, sink=MemorySink(before=fail_at(9, KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        finishes_within(15, pipeline.run)
    assert sink.aborted


def test_the_second_of_several_frames_that_come_out_at_once_may_fail_without_taking_the_first_along() -> None:
    images = [*noise(4), *noise(1, 80, 60)]

    def broken(frame: Frame) -> Regions:
        if number(frame) == 2:
            raise RuntimeError("broken")
        return faces(FACE)

    # All four come out together when the size changes.
    pipeline, sink = build(
        source=MemorySource(frames(images)), detector=FunctionDetector(broken), lookahead=9, on_failure="stop"
    )
    summary = finishes_within(15, pipeline.run)
    assert summary.stopped is not None
    assert [item.frame.pts for item in sink.items] == [0, 1]


def test_detectors_are_reset_before_a_stream() -> None:
    detector = FixedDetector(FACE)
    pipeline, _ = build(3, detector=detector)
    finishes_within(15, pipeline.run)
    assert detector.resets == 1
    assert detector.looked == 3


def test_a_summary_keeps_few_reasons_however_many_there_are() -> None:
    summary = Summary()
    frame = frames(noise(1))[0]
    for i in range(1000):
        summary.add(Anonymized(frame, Regions.empty(), withheld=f"failed with number {i}"))
    assert summary.withheld == 1000
    assert len(summary.reasons) <= 21
    assert sum(summary.reasons.values()) == 1000


def test_an_empty_summary_has_no_rate() -> None:
    assert Summary().rate == 0


def test_a_live_output_goes_on_with_withheld_frames_while_a_detector_hangs_and_the_run_then_ends() -> None:
    hung = threading.Event()

    def hang_at_ten(frame: Frame) -> Regions:
        if number(frame) >= 10:
            hung.wait(30)
        return faces(FACE)

    pulse = Pulse(Fraction(20))
    pipeline, sink = build(
        60,
        detector=FunctionDetector(hang_at_ten),
        deadline=2.0,
        lookahead=0,
        pulse=pulse,
    )
    summary = finishes_within(30, pipeline.run)
    hung.set()
    assert summary.stopped is not None
    assert "4 times in a row" in summary.stopped
    own = [item for item in sink.items if item.withheld == SILENT]
    # Four deadlines of 2 s; the first second of each is waited for, and frames follow at 20 a second.
    assert len(own) >= 40
    assert all((item.image == 128).all() for item in own)
    stamps = [item.frame.pts for item in sink.items]
    assert stamps == sorted(set(stamps))
    assert summary.frames == len(sink.items)
    assert sink.closed


def test_frames_whose_time_was_filled_are_counted_and_not_written() -> None:
    def late_once(frame: Frame) -> Regions:
        if frame.pts == 5:
            time.sleep(1.6)
        return faces(FACE)

    source = MemorySource([replace(frame, time_base=Fraction(1, 1000)) for frame in frames(noise(12))])
    pipeline, sink = build(source=source, detector=FunctionDetector(late_once), lookahead=0, pulse=Pulse(Fraction(20)))
    summary = finishes_within(20, pipeline.run)
    assert summary.superseded == 7
    assert summary.frames + summary.superseded == 12 + summary.withheld
    assert {item.withheld for item in sink.items} == {None, SILENT}


@pytest.mark.parametrize("pulse", [None, Pulse(Fraction(20))])
def test_a_source_that_fails_with_an_end_of_file_has_not_ended(pulse: Pulse | None) -> None:
    source = MemorySource(frames(noise(20)), before=fail_at(3, EOFError("cut off")))
    pipeline, sink = build(source=source, pulse=pulse)
    with pytest.raises(EOFError, match="cut off"):
        finishes_within(15, pipeline.run)
    assert sink.aborted
