"""The check that every detector's answer must pass."""

from __future__ import annotations

import numpy as np
import pytest

from engines.errors import DetectionError
from stream.detectors.base import check_detections

_GOOD = (10.0, 10.0, 40.0, 50.0)


def _check(box: tuple[float, ...], score: float = 0.5) -> None:
    check_detections(np.array([_GOOD, box], np.float32), np.array([0.9, score], np.float32), 640, 480)


def test_no_detection_at_all_is_an_answer() -> None:
    check_detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), 640, 480)


@pytest.mark.parametrize("box", [(-100, -100, 50, 50), (600, 400, 900, 700), (0, 0, 640, 480), (-300, -200, 1000, 700)])
def test_regions_may_reach_outside_the_frame(box: tuple[float, ...]) -> None:
    _check(box)


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_scores_reach_from_zero_to_one(score: float) -> None:
    _check(_GOOD, score)


@pytest.mark.parametrize(
    ("box", "score", "says"),
    [
        ((np.nan, 10, 40, 50), 0.5, "not finite"),
        ((10, 10, np.inf, 50), 0.5, "not finite"),
        (_GOOD, np.nan, "not finite"),
        ((40, 10, 10, 50), 0.5, "without area"),
        ((10, 10, 40, 10), 0.5, "without area"),
        ((-9000, 10, 9000, 50), 0.5, "frame's size"),
        ((100000, 100000, 100050, 100050), 0.5, "outside the frame"),
        ((-500, -500, -400, -400), 0.5, "outside the frame"),
        ((640, 10, 690, 60), 0.5, "outside the frame"),
        ((10, -50, 60, 0), 0.5, "outside the frame"),
        (_GOOD, 1.5, "score"),
        (_GOOD, -0.1, "score"),
    ],
)
def test_numbers_that_no_working_detector_gives_are_refused(box: tuple[float, ...], score: float, says: str) -> None:
    with pytest.raises(DetectionError, match=says):
        _check(box, score)
