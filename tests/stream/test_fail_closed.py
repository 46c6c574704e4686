"""Nothing leaves raw, whatever detectors do: real files in and out, flat fill, lossless, compared pixel by pixel.

Every guard has its control: the same run with the guard switched off shows raw pixels, so the comparison can see them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stream.anonymizer import Anonymizer
from stream.frame import Frame, Image
from stream.regions import Regions
from tests.closed import (
    BAD,
    COUNT,
    FACE,
    check_closed,
    check_control,
    check_hangs,
    go,
    hang,
    is_withheld,
    raising,
    unchecked,
)
from tests.fakes import (
    FILLS,
    Box,
    FixedDetector,
    FunctionDetector,
    covered_share,
    faces,
    flat_settings,
    noise,
    number,
    read_pictures,
    write_lossless,
)
from tests.unguarded import (
    FailedLookPasses,
    NoDeadlines,
    UncheckedAnswers,
)

NAN, INF = float("nan"), float("inf")


#: Where there is no face: without the check, the face would show.
ELSEWHERE: Box = (0, 0, 8, 8)
WRONG_ANSWERS: dict[str, Callable[[Frame], object]] = {
    "raises": raising,
    "NaN box": lambda _: unchecked([NAN, 10, 40, 34], [0.9]),
    "NaN box through the class": lambda _: faces((NAN, 10, 40, 34)),
    "infinite box": lambda _: unchecked([20, 10, INF, 34], [0.9]),
    "inside-out box": lambda _: unchecked([40, 34, 20, 10], [0.9]),
    "box without area": lambda _: faces((20, 10, 20, 34)),
    "huge box": lambda _: faces((60, 44, 1e7, 1e7)),
    "box far below the frame": lambda _: faces((1e5, 1e5, 1e5 + 50, 1e5 + 50)),
    "box far above the frame": lambda _: faces((-500, -500, -400, -400)),
    "box far beside the frame": lambda _: faces((-500, 10, -400, 34)),
    "NaN score": lambda _: unchecked(ELSEWHERE, [NAN]),
    "NaN score through the class": lambda _: faces(ELSEWHERE, score=NAN),
    "score over one": lambda _: faces(ELSEWHERE, score=1.5),
    "negative score": lambda _: faces(ELSEWHERE, score=-0.1),
    "nothing at all": lambda _: None,
    "something else": lambda _: [FACE],
    "StopIteration": lambda _: next(iter([])),
}


@pytest.mark.parametrize("answer", WRONG_ANSWERS.values(), ids=WRONG_ANSWERS.keys())
def test_a_detector_whose_answer_cannot_be_trusted_withholds_the_frame(
    answer: Callable[[Frame], Regions], clip: Path, images: list[Image], tmp_path: Path
) -> None:
    detector = FunctionDetector(lambda frame: answer(frame) if number(frame) in BAD else faces(FACE))
    result = go(clip, tmp_path / "out.mkv", Anonymizer([detector], FILLS, flat_settings()))
    out = read_pictures(tmp_path / "out.mkv")
    assert len(out) == COUNT
    check_closed(out, images, set(BAD))
    assert result.summary.withheld == len(BAD)
    assert sum(result.summary.reasons.values()) == len(BAD)


@pytest.mark.parametrize("answer", WRONG_ANSWERS.values(), ids=WRONG_ANSWERS.keys())
def test_control_without_the_guard_a_wrong_answer_lets_the_face_out(
    answer: Callable[[Frame], Regions], clip: Path, images: list[Image], tmp_path: Path
) -> None:
    detector = FunctionDetector(lambda frame: answer(frame) if number(frame) in BAD else faces(FACE))
    result = go(clip, tmp_path / "out.mkv", UncheckedAnswers([detector], FILLS, flat_settings()))
    check_control(read_pictures(tmp_path / "out.mkv"), images, set(BAD))
    assert result.summary.withheld == 0


@pytest.mark.parametrize("box", [(1e5, 1e5, 1e5 + 50, 1e5 + 50), (-500, -500, -400, -400), (100, 400, 150, 450)])
def test_a_box_wholly_outside_the_frame_withholds_it_and_says_so(box: Box, tmp_path: Path) -> None:
    raw = noise(6, 320, 240)
    path = write_lossless(tmp_path / "in.mkv", raw)
    detector = FunctionDetector(lambda frame: faces(FACE, box) if number(frame) == 3 else faces(FACE))
    result = go(path, tmp_path / "out.mkv", Anonymizer([detector], FILLS, flat_settings()))
    check_closed(read_pictures(tmp_path / "out.mkv"), raw, {3})
    (reason,) = result.summary.reasons
    assert reason.startswith("detection failed: ")
    assert "outside the frame" in reason


def test_a_box_that_reaches_far_outside_the_frame_covers_what_lies_inside(
    clip: Path, images: list[Image], tmp_path: Path
) -> None:
    detector = FixedDetector((-60, -40, 40, 34))
    go(clip, tmp_path / "out.mkv", Anonymizer([detector], FILLS, flat_settings()))
    out = read_pictures(tmp_path / "out.mkv")
    assert len(out) == COUNT
    for image, raw in zip(out, images, strict=True):
        assert covered_share(image, (0, 0, 40, 34)) == 1
        assert np.array_equal(image[34:], raw[34:])


def test_frames_for_which_the_detector_hangs_are_withheld(clip: Path, images: list[Image], tmp_path: Path) -> None:
    hanging = {8, 9, 15}
    detector = FunctionDetector(lambda frame: hang(frame, hanging, seconds=0.6))
    result = go(clip, tmp_path / "out.mkv", Anonymizer([detector], FILLS, flat_settings(deadline=0.15)))
    check_closed(read_pictures(tmp_path / "out.mkv"), images, hanging)
    assert result.summary.frames == COUNT
    assert result.summary.stopped is None
    assert list(result.summary.reasons) == ["detection failed: detection gave no answer within 0.15 s"]


@pytest.mark.parametrize("lookahead", [0, 3])
def test_a_detector_that_hangs_for_ever_ends_the_run_with_what_was_done(
    lookahead: int, clip: Path, images: list[Image], tmp_path: Path
) -> None:
    for_ever = threading.Event()

    def answer(frame: Frame) -> Regions:
        if number(frame) >= 10:
            for_ever.wait()
        return faces(FACE)

    settings = flat_settings(deadline=0.1, lookahead=lookahead)
    result = go(clip, tmp_path / "out.mkv", Anonymizer([FunctionDetector(answer)], FILLS, settings), seconds=10)
    for_ever.set()
    out = read_pictures(tmp_path / "out.mkv")
    # Ten good ones and the misses that it took to give up, less the one that raised.
    assert len(out) == 13
    check_closed(out, images[:13], {10, 11, 12})
    assert result.summary.stopped == "detection gave no answer within 0.1 s, 4 times in a row"


def test_one_of_two_detectors_that_hangs_for_ever_ends_the_run_too(clip: Path, tmp_path: Path) -> None:
    for_ever = threading.Event()
    hanging = FunctionDetector(lambda _: faces(FACE) if for_ever.wait() else faces())
    anonymizer = Anonymizer([FixedDetector(FACE), hanging], FILLS, flat_settings(deadline=0.1))
    result = go(clip, tmp_path / "out.mkv", anonymizer, seconds=10)
    for_ever.set()
    assert result.summary.stopped is not None
    assert all(is_withheld(image) for image in read_pictures(tmp_path / "out.mkv"))


def test_control_without_the_guard_a_look_that_is_late_lets_the_face_out(
    clip: Path, images: list[Image], tmp_path: Path
) -> None:
    hanging = {8, 9, 15}
    detector = FunctionDetector(lambda frame: hang(frame, hanging, seconds=0.6))
    go(clip, tmp_path / "out.mkv", FailedLookPasses([detector], FILLS, flat_settings(deadline=0.15)))
    check_control(read_pictures(tmp_path / "out.mkv"), images, hanging)


def test_control_without_a_deadline_a_detector_that_hangs_holds_the_run_up(clip: Path, tmp_path: Path) -> None:
    with check_hangs() as for_ever:
        detector = FunctionDetector(lambda _: faces(FACE) if for_ever.wait() else faces())
        go(clip, tmp_path / "out.mkv", NoDeadlines([detector], FILLS, flat_settings(deadline=0.1)), seconds=2)
