"""Nothing leaves raw when anonymizers or the tracker fail: as in test_fail_closed, each guard with its control."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stream.anonymizer import Anonymizer
from stream.frame import Image
from stream.generators.classical import Fill
from stream.manual import ManualRegion, ManualRegions
from stream.regions import Kind, Regions
from stream.tracker import Tracker
from tests.closed import (
    BAD,
    COUNT,
    FACE,
    BadFill,
    broken,
    check_closed,
    check_control,
    check_hangs,
    go,
)
from tests.fakes import (
    FILLS,
    FailingTracker,
    FixedDetector,
    FunctionDetector,
    faces,
    flat_settings,
    number,
    read_pictures,
    whole,
    write_lossless,
)
from tests.unguarded import (
    FailedCoverPasses,
    NoDeadlines,
    UnguardedTracking,
)


def test_an_anonymizer_that_hangs_for_ever_ends_the_run(clip: Path, images: list[Image], tmp_path: Path) -> None:
    for_ever = threading.Event()
    calls: list[int] = []

    def fill(region: Image) -> Image:
        calls.append(1)
        if len(calls) > 5:
            for_ever.wait()
        return np.zeros_like(region)

    fills: dict[Kind, Fill] = dict.fromkeys(Kind, fill)
    anonymizer = Anonymizer([FixedDetector(FACE)], fills, flat_settings(deadline=0.1))
    result = go(clip, tmp_path / "out.mkv", anonymizer, seconds=10)
    for_ever.set()
    out = read_pictures(tmp_path / "out.mkv")
    check_closed(out, images[: len(out)], {5, 6, 7})
    assert len(out) == 8
    assert result.summary.stopped == "anonymization gave no answer within 0.1 s, 4 times in a row"


WRONG_FILLS: dict[str, Callable[[Image], object]] = {
    "raises": broken,
    "raises after writing into its input": lambda region: broken(np.add(region, 1, out=region)),
    "another size": lambda region: region[:-1],
    "one pixel, which would be spread": lambda region: region[:1, :1],
    "grey": lambda region: region[:, :, 0],
    "floats": lambda region: region.astype(np.float64),
    "NaN": lambda region: np.full(region.shape, np.nan),
    "nothing": lambda region: None,
}


@pytest.mark.parametrize("wrong", WRONG_FILLS.values(), ids=WRONG_FILLS.keys())
def test_an_anonymizer_that_does_not_return_pixels_withholds_the_frame(
    wrong: Callable[[Image], Image], clip: Path, images: list[Image], tmp_path: Path
) -> None:
    fills: dict[Kind, Fill] = dict.fromkeys(Kind, BadFill(wrong))
    result = go(clip, tmp_path / "out.mkv", Anonymizer([FixedDetector(FACE)], fills, flat_settings()))
    check_closed(read_pictures(tmp_path / "out.mkv"), images, set(BAD))
    assert result.summary.withheld == len(BAD)


def test_a_region_of_a_kind_without_anonymizer_withholds_the_frame(
    clip: Path, images: list[Image], tmp_path: Path
) -> None:
    detector = FunctionDetector(lambda f: Regions.of(FACE, Kind.PLATE) if number(f) in BAD else faces(FACE))
    go(clip, tmp_path / "out.mkv", Anonymizer([detector], {Kind.FACE: FILLS[Kind.FACE]}, flat_settings()))
    check_closed(read_pictures(tmp_path / "out.mkv"), images, set(BAD))


@pytest.mark.parametrize(("hold", "lookahead"), [(0, 0), (3, 0), (3, 2)])
def test_frames_that_a_lost_track_would_have_covered_are_withheld_when_the_tracker_raises(
    hold: int, lookahead: int, clip: Path, images: list[Image], tmp_path: Path
) -> None:
    made: list[Tracker] = []

    def make_tracker(*frames: int) -> Tracker:
        # The first is replaced when the run begins; the third, after the failure, works again.
        made.append(Tracker(*frames) if len(made) != 1 else FailingTracker(*frames, at=10))
        return made[-1]

    settings = flat_settings(hold=hold, lookahead=lookahead)
    anonymizer = Anonymizer([FixedDetector(FACE)], FILLS, settings, make_tracker=make_tracker)
    result = go(clip, tmp_path / "out.mkv", anonymizer)
    assert len(made) == 3
    lag = lookahead + 1 if lookahead else 0
    check_closed(read_pictures(tmp_path / "out.mkv"), images, set(range(10 - lag, 10 + hold + 1)))
    assert set(result.summary.reasons) == {"tracking failed: the tracker diverged"}


def test_regions_given_by_hand_are_covered_where_the_detector_sees_nothing(
    clip: Path, images: list[Image], tmp_path: Path
) -> None:
    x0, y0, x1, y1 = FACE
    manual = ManualRegions([ManualRegion(x0=x0, y0=y0, x1=x1, y1=y1)])
    anonymizer = Anonymizer([FixedDetector()], FILLS, flat_settings(), manual=manual)
    result = go(clip, tmp_path / "out.mkv", anonymizer)
    check_closed(read_pictures(tmp_path / "out.mkv"), images, set())
    assert result.summary.manual == COUNT


def test_pixels_under_the_regions_do_not_reach_the_output(clip: Path, images: list[Image], tmp_path: Path) -> None:
    changed = [image.copy() for image in images]
    for image in changed:
        whole(image, FACE)[:] = 255 - whole(image, FACE)
    other = write_lossless(tmp_path / "other.mkv", changed)
    outputs = []
    for name, path in (("a", clip), ("b", other)):
        go(path, tmp_path / f"{name}.mkv", Anonymizer([FixedDetector(FACE)], FILLS, flat_settings()))
        outputs.append(read_pictures(tmp_path / f"{name}.mkv"))
    assert len(outputs[0]) == COUNT
    assert all(np.array_equal(a, b) for a, b in zip(*outputs, strict=True))


@pytest.mark.parametrize("wrong", WRONG_FILLS.values(), ids=WRONG_FILLS.keys())
def test_control_without_the_guard_an_anonymizer_that_fails_lets_the_face_out(
    wrong: Callable[[Image], Image], clip: Path, images: list[Image], tmp_path: Path
) -> None:
    fills: dict[Kind, Fill] = dict.fromkeys(Kind, BadFill(wrong))
    go(clip, tmp_path / "out.mkv", FailedCoverPasses([FixedDetector(FACE)], fills, flat_settings()))
    check_control(read_pictures(tmp_path / "out.mkv"), images, set(BAD))


def test_control_without_the_guard_a_kind_without_anonymizer_lets_the_region_out(
    clip: Path, images: list[Image], tmp_path: Path
) -> None:
    detector = FunctionDetector(lambda f: Regions.of(FACE, Kind.PLATE) if number(f) in BAD else faces(FACE))
    go(clip, tmp_path / "out.mkv", FailedCoverPasses([detector], {Kind.FACE: FILLS[Kind.FACE]}, flat_settings()))
    check_control(read_pictures(tmp_path / "out.mkv"), images, set(BAD))


def test_control_without_a_deadline_an_anonymizer_that_hangs_holds_the_run_up(clip: Path, tmp_path: Path) -> None:
    with check_hangs() as for_ever:
        fills: dict[Kind, Fill] = dict.fromkeys(Kind, lambda region: region * 0 if for_ever.wait() else region)
        anonymizer = NoDeadlines([FixedDetector(FACE)], fills, flat_settings(deadline=0.1))
        go(clip, tmp_path / "out.mkv", anonymizer, seconds=2)


def test_control_without_the_guard_a_failing_tracker_lets_the_face_out(
    clip: Path, images: list[Image], tmp_path: Path
) -> None:
    go(clip, tmp_path / "out.mkv", UnguardedTracking([FixedDetector(FACE)], FILLS, flat_settings()))
    # The tracker that replaces the failed one fails too, in its own eleventh step.
    check_control(read_pictures(tmp_path / "out.mkv"), images, {10, 21})


def test_control_without_regions_by_hand_the_face_shows(clip: Path, images: list[Image], tmp_path: Path) -> None:
    go(clip, tmp_path / "out.mkv", Anonymizer([FixedDetector()], FILLS, flat_settings()))
    check_control(read_pictures(tmp_path / "out.mkv"), images, set(range(COUNT)))
