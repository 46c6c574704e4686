from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motpy import ModelPreset

from stream import geometry
from stream.regions import NO_TRACK, Kind, Origin, Regions
from stream.tracker import Step, Tracker
from tests.fakes import Box, faces

WIDTH, HEIGHT = 640, 480

coordinate = st.floats(-100, 700, width=32)
side = st.floats(0.5, 300, width=32)
box_lists = st.lists(st.builds(lambda x, y, w, h: (x, y, x + w, y + h), coordinate, coordinate, side, side), max_size=8)


def step(tracker: Tracker, *boxes: Sequence[float]) -> Step:
    return tracker.step(faces(*boxes), WIDTH, HEIGHT)


def moving(frame: int, speed: float = 8.0) -> Box:
    return (100 + speed * frame, 100, 132 + speed * frame, 140)


@settings(max_examples=60, deadline=None)
@given(st.lists(box_lists, max_size=8), st.integers(0, 5))
def test_every_detection_of_every_frame_is_in_the_regions_in_order(scene: list[list[Box]], hold: int) -> None:
    tracker = Tracker(hold)
    for boxes in scene:
        result = step(tracker, *boxes)
        count = len(boxes)
        assert np.array_equal(result.regions.boxes[:count], faces(*boxes).boxes)
        assert (result.regions.origins[:count] == Origin.DETECTED).all()
        assert (result.regions.origins[count:] == Origin.HELD).all()
        named = result.regions.track_ids[:count]
        assert (named != NO_TRACK).all()
        assert len(set(named.tolist())) == count
        assert [s.track_id for s in result.sightings] == named.tolist()


def test_a_scene_without_detections_has_no_regions() -> None:
    tracker = Tracker(10)
    for _ in range(5):
        assert len(step(tracker).regions) == 0
    assert tracker.tracks_begun == 0


def test_a_face_that_moves_keeps_its_name() -> None:
    tracker = Tracker(10)
    names = {int(step(tracker, moving(i)).regions.track_ids[0]) for i in range(40)}
    assert names == {0}
    assert tracker.tracks_begun == 1


def test_a_face_that_was_missed_for_a_while_gets_its_name_back_and_the_gap_is_told() -> None:
    tracker = Tracker(10)
    for i in range(10):
        step(tracker, moving(i))
    for _ in range(10, 14):
        assert step(tracker).regions.track_ids.tolist() == [0]
    (sighting,) = step(tracker, moving(14)).sightings
    assert (sighting.track_id, sighting.gap, sighting.hits) == (0, 5, 11)
    assert sighting.previous is not None
    assert sighting.previous.tolist() == list(moving(9))


def test_kinds_are_followed_each_by_itself() -> None:
    tracker = Tracker(3)
    both = Regions.concatenate([Regions.of(moving(0), Kind.FACE), Regions.of(moving(0), Kind.PLATE)])
    assert tracker.step(both, WIDTH, HEIGHT).regions.track_ids.tolist() == [0, 1]
    held = tracker.step(Regions.of(moving(1), Kind.PLATE), WIDTH, HEIGHT).regions
    assert held.kinds.tolist() == [Kind.PLATE, Kind.FACE]
    assert held.track_ids.tolist() == [1, 0]


def crossing(count: int, frame: int) -> list[Box]:
    """Faces that run into each other from both sides, on slightly different rows."""
    boxes: list[Box] = []
    for i in range(count):
        x = 20 + 12 * frame if i % 2 else 580 - 12 * frame
        boxes.append((x, 10 + 35 * i, x + 40, 60 + 35 * i))
    return boxes


def test_many_that_cross_are_all_there_with_different_names_in_every_frame() -> None:
    tracker = Tracker(5)
    for frame in range(45):
        boxes = crossing(12, frame)
        result = step(tracker, *boxes)
        assert result.regions.count(Origin.DETECTED) == len(boxes)
        assert len(set(result.regions.track_ids[: len(boxes)].tolist())) == len(boxes)


@pytest.mark.parametrize("hold", [0, 1, 4, 12])
def test_a_missed_track_is_held_for_exactly_so_many_frames(hold: int) -> None:
    tracker = Tracker(hold)
    for _ in range(6):
        step(tracker, moving(0))
    held = [step(tracker).regions.count(Origin.HELD) for _ in range(hold + 3)]
    assert held == [1] * hold + [0] * 3


def test_a_track_with_many_short_gaps_is_held_as_long_as_any_other() -> None:
    tracker = Tracker(5)
    for i in range(60):
        boxes = [moving(0)] if i % 5 == 0 else []
        assert len(step(tracker, *boxes).regions) == 1
    assert tracker.tracks_begun == 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25])
@pytest.mark.parametrize("seen", [2, 3, 10])
def test_a_held_region_covers_the_face_where_it_goes(share: float, seen: int) -> None:
    tracker = Tracker(8)
    width = 32
    for i in range(seen):
        step(tracker, moving(i, share * width))
    for i in range(seen, seen + 8):
        (held,) = step(tracker).regions.boxes
        face = moving(i, share * width)
        assert held[0] <= face[0]
        assert held[2] >= face[2]
        assert held[1] <= face[1]
        assert held[3] >= face[3]


def test_a_held_region_covers_the_face_though_detections_jitter() -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        tracker = Tracker(16)
        for i in range(12):
            step(tracker, tuple(np.array(moving(i, 6.0)) + rng.uniform(-5, 5, 4)))
        for i in range(12, 28):
            grown = geometry.grow(step(tracker).regions.boxes, 0.2)[0]
            face = np.array(moving(i, 6.0))
            assert (grown[:2] <= face[:2]).all()
            assert (grown[2:] >= face[2:]).all()


def test_a_track_that_was_seen_once_grows_quickly_since_nobody_knows_where_it_goes() -> None:
    tracker = Tracker(8)
    step(tracker, moving(0))
    for i in (1, 2):
        (held,) = step(tracker).regions.boxes
        assert held[2] >= moving(i)[2]


def test_a_held_region_does_not_grow_without_end() -> None:
    tracker = Tracker(500)
    for _ in range(10):
        step(tracker, moving(0))
    for _ in range(500):
        regions = step(tracker).regions
    assert geometry.area(regions.boxes)[0] < 6 * geometry.area(moving(0))[0]


def test_a_held_region_that_has_left_the_frame_is_gone() -> None:
    tracker = Tracker(50)
    for _ in range(5):
        tracker.step(faces((600, 100, 630, 130)), WIDTH, HEIGHT)
    # The picture got narrower without the tracker being told: the last place lies outside.
    assert len(tracker.step(faces(), 300, HEIGHT).regions) == 0


def test_trackers_do_not_disturb_each_other() -> None:
    def scenes() -> Iterator[list[Box]]:
        rng = np.random.default_rng(3)
        for i in range(40):
            yield [moving(i)] if rng.random() < 0.7 else []

    alone = Tracker(4)
    expected = [step(alone, *boxes).regions.boxes.tolist() for boxes in scenes()]
    first, second = Tracker(4), Tracker(9)
    got = []
    for i, boxes in enumerate(scenes()):
        got.append(step(first, *boxes).regions.boxes.tolist())
        # Another stream with half the frame rate and another size.
        if i % 2:
            second.step(faces((i, i, i + 50, i + 50)), 1920, 1080)
    assert got == expected


def test_motpys_shared_presets_are_left_alone() -> None:
    step(Tracker(2), moving(0))
    # Where motpy writes its time step into what it is given.
    assert all("dt" not in preset.value for preset in ModelPreset)


def test_tracks_do_not_pile_up_in_a_long_run() -> None:
    tracker = Tracker(3)
    rng = np.random.default_rng(0)
    counts = []
    for i in range(600):
        x, y = rng.uniform(0, 600), rng.uniform(0, 440)
        step(tracker, (x, y, x + 20, y + 20))
        if i in (100, 599):
            gc.collect()
            counts.append(sum(type(thing).__name__ in {"Track", "KalmanTracker"} for thing in gc.get_objects()))
    assert tracker.tracks_begun > 500
    assert counts[1] <= counts[0] + 6
