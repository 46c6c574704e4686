"""What is covered over time, checked by the true face's pixels in every frame."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import geometry
from stream.anonymizer import Anonymizer
from stream.follow import Followed, Follower, Look, one_line
from stream.frame import Frame
from stream.manual import ManualRegion, ManualRegions
from stream.outline import BodySurface, Outline, PixelMask, intersection
from stream.regions import NO_TRACK, Kind, Origin, Regions
from stream.tracker import Step, Tracker
from tests.fakes import (
    FILLS,
    Box,
    FailingTracker,
    FunctionDetector,
    covered_share,
    faces,
    flat_settings,
    frames,
    noise,
    number,
)

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


def test_track_ids_do_not_come_back_after_a_change_of_size() -> None:
    follower = Follower(hold=2, lookahead=2)
    out = []
    for i in range(9):
        out += follower.push(look(i, (10, 10, 30, 30), (40, 10, 60, 30), size=(160 - 10 * (i // 3), 120)))
    out += follower.flush()
    ids = [set(f.regions.track_ids.tolist()) for f in out]
    assert ids == [{0, 1}] * 3 + [{2, 3}] * 3 + [{4, 5}] * 3
    assert follower.tracks_begun == 6


def test_who_comes_back_is_carried_back_like_anybody_new_and_keeps_the_name() -> None:
    box, size = (10, 10, 40, 40), (160, 120)
    for remember, name in ((0, 1), (30, 0)):
        follower = Follower(hold=2, remember=remember, lookahead=3)
        out = []
        for i in range(20):
            out += follower.push(look(i, *([box] if i < 6 or i >= 14 else []), size=size))
        out += follower.flush()
        assert [len(f.regions) > 0 for f in out] == [True] * 8 + [False] * 2 + [True] * 10
        assert {int(track_id) for f in out[10:] for track_id in f.regions.track_ids} == {name}
        origins = [set(f.regions.origins.tolist()) for f in out[10:15]]
        assert origins == [{Origin.LOOKED_AHEAD}] * 4 + [{Origin.DETECTED}]


def test_a_tracker_that_begins_again_remembers_as_long_as_the_one_before() -> None:
    follower = Follower(hold=0, remember=5, lookahead=0)
    names = []
    for i in range(10):
        size = (160, 120) if i < 3 else (140, 120)
        seen = [] if i in (5, 6) else [(10, 10, 40, 40)]
        names += [f.regions.track_ids.tolist() for f in follower.push(look(i, *seen, size=size))]
    assert names == [[0]] * 3 + [[1]] * 2 + [[]] * 2 + [[1]] * 3


def test_track_ids_do_not_come_back_after_tracking_failed() -> None:
    follower = Follower(hold=0, lookahead=0, make_tracker=partial(FailingTracker, at=3))
    ids = [set(f.regions.track_ids.tolist()) for i in range(8) for f in follower.push(look(i, (10, 10, 30, 30)))]
    assert ids == [{0}] * 3 + [{NO_TRACK}] + [{1}] * 3 + [{NO_TRACK}]
    assert follower.tracks_begun == 2


def test_track_ids_that_were_given_in_a_step_that_failed_do_not_come_back() -> None:
    class FailsAfterNaming(Tracker):
        def step(self, detections: Regions, width: int, height: int) -> Step:
            result = super().step(detections, width, height)
            if len(detections) == 2:
                raise ArithmeticError("diverged")
            return result

    follower = Follower(hold=0, lookahead=0, make_tracker=FailsAfterNaming)
    follower.push(look(0, (10, 10, 30, 30)))
    follower.push(look(1, (10, 10, 30, 30), (50, 50, 70, 70)))
    (after,) = follower.push(look(2, (10, 10, 30, 30)))
    assert after.regions.track_ids.tolist() == [2]
    assert follower.tracks_begun == 3


PERSON = (30, 60)


def figure(x: int, y: int, width: int = PERSON[0], height: int = PERSON[1]) -> PixelMask:
    """An ellipse in its box."""
    rows, columns = np.mgrid[:height, :width]
    inside = ((columns + 0.5) / width * 2 - 1) ** 2 + ((rows + 0.5) / height * 2 - 1) ** 2 <= 1
    return PixelMask(x, y, np.asarray(inside))


def persons(*masks: PixelMask, posed: bool = False) -> Regions:
    """Detected persons; posed ones have a surface and no mask."""
    outlines = [Outline(mask) for mask in masks]
    if posed:
        grid = figure(0, 0, 112, 112).pixels
        outlines = [Outline(None, BodySurface(mask.box, grid, np.zeros((16, 112, 112), np.float32))) for mask in masks]
    return Regions.of(np.array([mask.box for mask in masks]).reshape(-1, 4), Kind.PERSON, outlines=outlines)


def replaced(followed: Followed) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """The pixels of all regions: their masks, else their boxes."""
    width, height = followed.frame.width, followed.frame.height
    whole = PixelMask(0, 0, np.zeros((height, width), np.bool_))
    for index, box in enumerate(geometry.to_pixels(followed.regions.boxes, width, height).tolist()):
        outline = followed.regions.outline(index)
        mask = PixelMask.filled(tuple(box)) if outline is None or outline.mask is None else outline.mask
        mask.paint(whole)
        # Never more than the frame, and never outside the box.
        inside = intersection(mask.tight().box, tuple(box))
        assert followed.regions.origins[index] == Origin.DETECTED or inside == mask.tight().box
    return whole.pixels


def followed_persons(
    seen: set[int], count: int, speed: tuple[int, int], hold: int = 0, lookahead: int = 0
) -> list[Followed]:
    """A person who walks through a frame of 320 x 200, detected in some frames."""
    follower = Follower(hold=hold, lookahead=lookahead)
    out = []
    for i in range(count):
        frame = Frame(np.zeros((200, 320, 3), np.uint8), pts=i)
        out += follower.push(Look(frame, persons(*([walker(i, speed)] if i in seen else []))))
    return out + follower.flush()


def walker(frame: int, speed: tuple[int, int]) -> PixelMask:
    return figure(100 + speed[0] * frame, 60 + speed[1] * frame)


def bare(out: list[Followed], speed: tuple[int, int]) -> list[int]:
    """Frames in which a pixel of the person is not covered."""
    frames_bare = []
    for index, followed in enumerate(out):
        whole = PixelMask(0, 0, np.zeros((200, 320), np.bool_))
        walker(index, speed).paint(whole)
        if (whole.pixels & ~replaced(followed)).any():
            frames_bare.append(index)
    return frames_bare


WALKS = [(0, 0), (3, 1), (6, -2), (-8, 3)]


@pytest.mark.parametrize("speed", WALKS)
@pytest.mark.parametrize("late", [1, 3, 5])
def test_masks_are_carried_back_to_the_frames_before_the_first_detection(late: int, speed: tuple[int, int]) -> None:
    out = followed_persons(set(range(late, 12)), 12, speed, lookahead=late)
    assert bare(out, speed) == []
    early = out[:late]
    assert all(f.regions.outline(i) is not None for f in early for i in range(len(f.regions)))
    # The corners of the box stay free where it stands: it is the mask that was carried.
    assert speed != (0, 0) or replaced(out[late - 1]).sum() < geometry.area(out[late - 1].regions.boxes).max()


@pytest.mark.parametrize("speed", WALKS)
@pytest.mark.parametrize("gap", [1, 2, 4])
@pytest.mark.parametrize("hold", [0, 6])
def test_masks_close_a_gap(hold: int, gap: int, speed: tuple[int, int]) -> None:
    seen = set(range(14)) - set(range(6, 6 + gap))
    out = followed_persons(seen, 14, speed, hold=max(hold, gap), lookahead=5)
    assert bare(out, speed) == []


@pytest.mark.parametrize("speed", WALKS)
def test_masks_are_held_over_a_gap(speed: tuple[int, int]) -> None:
    assert bare(followed_persons(set(range(6)), 12, speed, hold=6), speed) == []


@pytest.mark.parametrize("speed", WALKS)
def test_control_without_hold_and_lookahead_the_person_shows(speed: tuple[int, int]) -> None:
    assert bare(followed_persons({3, 4, 5, 8, 9}, 12, speed), speed) == [0, 1, 2, 6, 7, 10, 11]


def test_between_two_sizes_a_gap_is_covered_for_the_figure_in_between() -> None:
    sizes = [(30, 60)] * 4 + [(36, 72)] * 3 + [(42, 84)] * 4
    masks = [figure(100, 60, *size) for size in sizes]
    follower = Follower(hold=4, lookahead=5)
    out = []
    for i, mask in enumerate(masks):
        frame = Frame(np.zeros((200, 320, 3), np.uint8), pts=i)
        out += follower.push(Look(frame, persons(*([] if i in (4, 5, 6) else [mask]))))
    out += follower.flush()
    for followed, mask in zip(out, masks, strict=True):
        whole = PixelMask(0, 0, np.zeros((200, 320), np.bool_))
        mask.paint(whole)
        assert not (whole.pixels & ~replaced(followed)).any()
    ahead = out[5].regions[out[5].regions.origins == Origin.LOOKED_AHEAD]
    assert ahead.outline(0) is not None


def test_a_dense_pose_is_carried_back_as_surface_and_mask() -> None:
    follower = Follower(hold=0, lookahead=2)
    out = []
    for i in range(5):
        detections = persons(*([figure(100 + 10 * i, 60)] if i >= 2 else []), posed=True)
        out += follower.push(Look(Frame(np.zeros((200, 320, 3), np.uint8), pts=i), detections))
    out += follower.flush()
    # Carried back once from its first detection, and again with its speed.
    surfaces = [
        (outline.surface.box, outline.mask is not None)
        for i in range(len(out[1].regions))
        if (outline := out[1].regions.outline(i)) is not None and outline.surface is not None
    ]
    assert surfaces == [((120, 60, 150, 120), True), ((110, 60, 140, 120), True)]


def test_a_gap_that_begins_or_ends_with_a_box_is_covered_by_boxes() -> None:
    for boxed in (3, 6):
        follower = Follower(hold=2, lookahead=4)
        out = []
        for i in range(10):
            detections = persons(*([figure(100, 60)] if i not in (4, 5) else []))
            if i == boxed:
                detections = Regions.of(detections.boxes, Kind.PERSON)
            out += follower.push(Look(Frame(np.zeros((200, 320, 3), np.uint8), pts=i), detections))
        out += follower.flush()
        for followed in out[4:6]:
            ahead = followed.regions[followed.regions.origins == Origin.LOOKED_AHEAD]
            assert [ahead.outline(i) for i in range(len(ahead))] == [None]
