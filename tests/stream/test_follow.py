"""What is covered over time, checked by the true face's pixels in every frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.anonymizer import Anonymizer
from stream.follow import Follower, Look, one_line
from stream.frame import Frame
from stream.manual import ManualRegion, ManualRegions
from stream.regions import Origin
from tests.fakes import FILLS, Box, FunctionDetector, covered_share, faces, flat_settings, frames, noise, number

FACE_SIZE = 32


def place(frame: int, share: float) -> Box:
    """The true face: moves by a share of its width in every frame."""
    x = 20 + share * FACE_SIZE * frame
    y = 30 + 0.3 * share * FACE_SIZE * frame
    return (x, y, x + FACE_SIZE, y + 40)


def uncovered(seen: set[int], count: int, share: float, **settings: object) -> list[int]:
    """Frames in which any pixel of the true face shows, where the detector sees it only in some frames."""
    detector = FunctionDetector(lambda f: faces(place(number(f), share)) if number(f) in seen else faces())
    anonymizer = Anonymizer([detector], FILLS, flat_settings(**{"margin": 0.2, **settings}))
    with anonymizer:
        out = list(anonymizer.iterate(frames(noise(count, 480, 220))))
    assert [item.frame.pts for item in out] == list(range(count))
    assert all(item.withheld is None for item in out)
    return [i for i, item in enumerate(out) if covered_share(item.image, place(i, share)) < 1]


SPEEDS = [0.0, 0.05, 0.25]


@pytest.mark.parametrize("share", SPEEDS)
@pytest.mark.parametrize("late", [1, 3, 5])
def test_lookahead_covers_a_face_that_is_first_detected_so_many_frames_late(late: int, share: float) -> None:
    seen = set(range(late, 20))
    assert uncovered(seen, 20, share, lookahead=late) == []


@pytest.mark.parametrize("share", SPEEDS)
def test_lookahead_covers_a_late_face_in_the_middle_of_a_stream(share: float) -> None:
    # Nobody is there before frame 8 as far as the detector knows; the face is there all the time.
    assert [i for i in uncovered(set(range(8, 24)), 24, share, lookahead=5) if i >= 3] == []


@pytest.mark.parametrize("share", SPEEDS)
def test_control_without_lookahead_a_late_face_shows(share: float) -> None:
    assert uncovered(set(range(5, 20)), 20, share) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("share", SPEEDS)
@pytest.mark.parametrize("gap", [1, 4, 8])
def test_hold_covers_gaps(gap: int, share: float) -> None:
    seen = set(range(30)) - set(range(12, 12 + gap))
    assert uncovered(seen, 30, share, hold=gap) == []


@pytest.mark.parametrize("share", SPEEDS)
def test_control_without_hold_a_gap_shows(share: float) -> None:
    assert uncovered(set(range(30)) - {12, 13, 14}, 30, share) == [12, 13, 14]


@pytest.mark.parametrize("share", SPEEDS)
def test_hold_covers_a_gap_that_is_longer_only_as_far_as_it_goes(share: float) -> None:
    assert uncovered(set(range(12)) | {29}, 30, share, hold=5)[-12:] == list(range(17, 29))


@pytest.mark.parametrize("share", SPEEDS)
def test_hold_and_lookahead_cover_a_detector_that_misses_every_third_frame(share: float) -> None:
    seen = {i for i in range(2, 36) if i % 3}
    assert uncovered(seen, 36, share, hold=6, lookahead=5) == []


def test_hold_and_lookahead_cover_a_face_that_turns_round_in_a_gap() -> None:
    def there_and_back(frame: int) -> Box:
        x = 40 + 8 * (frame if frame <= 12 else 24 - frame)
        return (x, 30, x + FACE_SIZE, 70)

    seen = set(range(24)) - {11, 12, 13}
    detector = FunctionDetector(lambda f: faces(there_and_back(number(f))) if number(f) in seen else faces())
    anonymizer = Anonymizer([detector], FILLS, flat_settings(margin=0.2, hold=5, lookahead=5))
    out = list(anonymizer.iterate(frames(noise(24, 240, 120))))
    anonymizer.close()
    assert [i for i, item in enumerate(out) if covered_share(item.image, there_and_back(i)) < 1] == []


def starts_in_a_gap(frame: int) -> Box:
    """Stands still until nobody looks, then walks off quickly: no prediction can know."""
    x = 40 + 0.19 * FACE_SIZE * max(0, frame - 10)
    return (x, 30, x + FACE_SIZE, 70)


@pytest.mark.parametrize(("lookahead", "expected"), [(5, []), (0, [12, 13])])
def test_lookahead_covers_the_way_across_a_gap_where_the_prediction_is_wrong(
    lookahead: int, expected: list[int]
) -> None:
    seen = set(range(24)) - {11, 12, 13}
    detector = FunctionDetector(lambda f: faces(starts_in_a_gap(number(f))) if number(f) in seen else faces())
    with Anonymizer([detector], FILLS, flat_settings(margin=0.2, hold=5, lookahead=lookahead)) as anonymizer:
        out = list(anonymizer.iterate(frames(noise(24, 240, 120))))
    assert [i for i, item in enumerate(out) if covered_share(item.image, starts_in_a_gap(i)) < 1] == expected


def look(index: int, *boxes: Box, size: tuple[int, int] = (160, 120), failure: str | None = None) -> Look:
    return Look(Frame(np.zeros((size[1], size[0], 3), np.uint8), pts=index * 40), faces(*boxes), failure)


@pytest.mark.parametrize(("lookahead", "lag"), [(0, 0), (1, 2), (5, 6)])
def test_frames_come_out_in_order_after_the_lag(lookahead: int, lag: int) -> None:
    follower = Follower(hold=0, lookahead=lookahead)
    out = [[f.frame.pts // 40 for f in follower.push(look(i))] for i in range(12)]
    assert out == [[]] * lag + [[i] for i in range(12 - lag)]
    assert [f.frame.pts // 40 for f in follower.flush()] == list(range(12 - lag, 12))
    assert follower.flush() == []


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 150), st.integers(0, 110)), max_size=4), max_size=12),
    st.integers(0, 4),
    st.integers(0, 4),
)
def test_every_frame_comes_out_once_with_all_its_detections(
    scene: list[list[tuple[int, int]]], hold: int, lookahead: int
) -> None:
    follower = Follower(hold=hold, lookahead=lookahead)
    out = []
    for i, corners in enumerate(scene):
        out += follower.push(look(i, *((x, y, x + 10, y + 10) for x, y in corners)))
    out += follower.flush()
    assert [f.frame.pts // 40 for f in out] == list(range(len(scene)))
    for followed, corners in zip(out, scene, strict=True):
        detected = followed.regions[followed.regions.origins == Origin.DETECTED]
        assert detected.boxes[:, :2].tolist() == [list(corner) for corner in corners]


def test_a_change_of_size_gives_out_what_waits_and_forgets_the_tracks() -> None:
    follower = Follower(hold=10, lookahead=3)
    box = (10, 10, 40, 40)
    out = [follower.push(look(i, box)) for i in range(3)]
    changed = follower.push(look(3, size=(80, 60)))
    assert [len(followed) for followed in out] == [0, 0, 0]
    assert [f.frame.pts // 40 for f in changed] == [0, 1, 2]
    rest = follower.flush()
    assert [f.frame.width for f in rest] == [80]
    assert len(rest[0].regions) == 0
    assert follower.tracks_begun == 1


def test_a_face_that_is_new_after_a_change_of_size_is_not_carried_back_over_it() -> None:
    follower = Follower(hold=10, lookahead=5)
    follower.push(look(0))
    (before,) = follower.push(look(1, (10, 10, 40, 40), size=(80, 60)))
    assert len(before.regions) == 0


def test_a_failed_look_stays_failed_and_the_track_is_held_over_it() -> None:
    follower = Follower(hold=3, lookahead=0)
    for i in range(5):
        follower.push(look(i, (10, 10, 40, 40)))
    (failed,) = follower.push(look(5, failure="no answer"))
    (missed,) = follower.push(look(6))
    assert failed.failure == "no answer"
    assert missed.failure is None
    assert missed.regions.count(Origin.HELD) == 1


def test_regions_given_by_hand_are_there_at_their_time() -> None:
    manual = ManualRegions([ManualRegion(start=0.08, end=0.12, x0=1, y0=2, x1=3, y1=4)])
    follower = Follower(hold=0, lookahead=0, manual=manual)
    counts = [f.regions.count(Origin.MANUAL) for i in range(6) for f in follower.push(look(i))]
    assert counts == [0, 0, 1, 1, 0, 0]


def test_an_error_is_one_line_and_never_empty() -> None:
    assert one_line(ValueError("two\n  lines")) == "two lines"
    assert one_line(MemoryError()) == "MemoryError"
