from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from stream.frame import Image
from stream.outline import PixelMask
from stream.regions import Kind
from stream.verify.raw import RawShare
from stream.verify.record import FileRecord, FrameRecord, RegionRecord
from stream.verify.tracks import colour_steps, distance, flicker, looks, raw_runs, settle, switches

CORE = PixelMask(0, 0, np.ones((20, 20), np.bool_))
COVERED, RAW, FLAT = RawShare(400, 300, 0), RawShare(400, 300, 290), RawShare(400, 0, 0)
STEP = 0.04


def patch(level: float, seed: int = 0) -> Image:
    noise = np.random.default_rng(seed).normal(0, 6, (20, 20, 1))
    return np.asarray((np.full((20, 20, 3), level) + noise).clip(0, 255), np.uint8)


def record(
    after: Sequence[Image], before: Sequence[Image] | None = None, raw: Callable[[int], RawShare] = lambda _: COVERED
) -> FileRecord:
    frames = []
    for index, image in enumerate(after):
        old = patch(90, index) if before is None else before[index]
        region = RegionRecord(
            Kind.FACE, (0, 0, 20, 20), 0.9, 0, raw(index), looks_before=looks(old, CORE), looks_after=looks(image, CORE)
        )
        frames.append(FrameRecord(index, STEP * index, [region]))
    return FileRecord("x", step=STEP, frames=frames)


def test_the_distance_is_how_far_colours_moved() -> None:
    one, other = looks(patch(100), CORE), looks(patch(148), CORE)
    assert one is not None
    assert other is not None
    assert distance(one, one) == 0
    assert distance(one, other) == pytest.approx(48 / 255, abs=0.04)


def test_a_core_of_a_few_pixels_has_no_colours() -> None:
    assert looks(patch(1), PixelMask(0, 0, np.ones((3, 3), np.bool_))) is None
    assert looks(patch(1), PixelMask(200, 200, np.ones((30, 30), np.bool_))) is None


def test_a_steady_stand_in_has_no_switch() -> None:
    assert switches(record([patch(120, i) for i in range(20)])) == []


@pytest.mark.parametrize("at", [1, 2, 10, 18])
def test_a_jump_that_stays_is_a_switch(at: int) -> None:
    found = switches(record([patch(120 if i < at else 170, i) for i in range(20)]))
    assert [(switch.index, switch.track) for switch in found] == [(at, 0)]
    assert found[0].time == pytest.approx(STEP * at)


def test_what_was_blurred_has_no_stand_in_to_switch() -> None:
    found = record([patch(120 if i < 10 else 170, i) for i in range(20)])
    found.seen_through = frozenset({Kind.PERSON})
    assert switches(found)
    found.seen_through = frozenset({Kind.FACE})
    assert not switches(found)


def test_a_jump_that_does_not_stay_is_flicker() -> None:
    once = record([patch(170 if i == 10 else 120, i) for i in range(20)])
    assert switches(once) == []
    assert flicker(once).worst > 0.1
    assert flicker(record([patch(120, i) for i in range(20)])).worst < 0.02


def test_a_jump_that_the_original_makes_too_is_no_switch() -> None:
    levels = [120 if i < 10 else 170 for i in range(20)]
    before = [patch(level - 30, i) for i, level in enumerate(levels)]
    assert switches(record([patch(level, i) for i, level in enumerate(levels)], before)) == []


def test_what_is_raw_is_no_stand_in() -> None:
    bad = range(8, 12)
    images = [patch(190 if i in bad else 120, i) for i in range(20)]
    assert len(switches(record(images))) == 2, "the control: without the guard it is taken for two"
    assert switches(record(images, raw=lambda i: RAW if i in bad else COVERED)) == []


def test_steps_are_given_for_every_frame() -> None:
    steps = colour_steps(record([patch(120 if i < 4 else 170, i) for i in range(8)]))
    assert [time for time, _ in steps] == pytest.approx([STEP * i for i in range(8)])
    assert max(steps, key=lambda pair: pair[1])[0] == pytest.approx(STEP * 4)


def test_what_was_worked_out_stays_when_colours_are_forgotten() -> None:
    found = record([patch(120 if index < 8 else 200, index) for index in range(16)])
    before = switches(found), flicker(found), colour_steps(found)
    assert before[0]
    settle(found)
    assert all(region.looks_after is None and region.looks_before is None for _, region in found.regions)
    assert (switches(found), flicker(found), colour_steps(found)) == before


def runs(raw: Sequence[RawShare]) -> list[tuple[int, int, bool, bool]]:
    found = raw_runs(record([patch(1)] * len(raw), raw=lambda i: raw[i]))
    return [(run.frames[0].index, run.frames[-1].index, run.first, run.ends) for run in found]


def test_runs_of_raw_frames_are_told_apart() -> None:
    assert runs([COVERED] * 4) == []
    assert runs([RAW, RAW, COVERED, RAW, COVERED]) == [(0, 1, True, True), (3, 3, False, True)]
    assert runs([COVERED, RAW, RAW]) == [(1, 2, False, False)]
    assert runs([RAW] * 3) == [(0, 2, True, False)]


def test_frames_that_cannot_be_judged_do_not_end_a_run() -> None:
    assert runs([COVERED, RAW, FLAT, RAW, COVERED]) == [(1, 3, False, True)]
    # Nor do those of which a part is raw, more than by chance.
    assert runs([COVERED, RAW, RawShare(400, 300, 45), RAW]) == [(1, 3, False, False)]
