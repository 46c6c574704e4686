from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import geometry
from stream.outline import BodySurface, Outline, PixelMask
from stream.regions import NO_TRACK, Kind, Origin, Regions
from stream.tracker import Step, Track, Tracker
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


def test_a_detection_is_anothers_where_it_hardly_overlaps_the_expected_place() -> None:
    tracker = Tracker(5)
    for _ in range(3):
        step(tracker, (100, 100, 140, 140))
    # 9 % of both in common is too little, 12 % is enough.
    assert step(tracker, (133.4, 100, 173.4, 140)).regions.track_ids.tolist() == [1, 0]
    other = Tracker(5)
    for _ in range(3):
        step(other, (100, 100, 140, 140))
    assert step(other, (131.4, 100, 171.4, 140)).regions.track_ids.tolist() == [0]


def test_a_pair_that_is_none_does_not_take_a_track_from_one_that_is() -> None:
    tracker = Tracker(5)
    for _ in range(3):
        step(tracker, (100, 100, 140, 140), (136, 100, 176, 140))
    # The first detection lies over both tracks, the second hardly over one of them: that overlap names nobody, so it
    # must not decide whom the first one goes to.
    seen = step(tracker, (117, 100, 157, 140), (172, 100, 212, 140)).regions.track_ids.tolist()[:2]
    assert seen[0] in (0, 1)
    assert seen[1] == 2


def out_of_sight(tracker: Tracker, frames: int) -> list[int]:
    """How many regions were held in each."""
    return [step(tracker).regions.count(Origin.HELD) for _ in range(frames)]


@pytest.mark.parametrize(("gone", "same"), [(4, True), (12, True), (14, True), (15, False)])
def test_who_is_seen_again_where_the_track_is_expected_gets_the_name_back(gone: int, same: bool) -> None:
    tracker = Tracker(4, remember=10)
    for i in range(12):
        step(tracker, moving(i))
    # Covered no longer than without a memory.
    assert out_of_sight(tracker, gone) == [1] * 4 + [0] * (gone - 4)
    step_again = step(tracker, moving(12 + gone))
    assert step_again.regions.track_ids.tolist() == [0 if same else 1]
    assert tracker.tracks_begun == (1 if same else 2)


def test_for_covering_whoever_comes_back_is_new() -> None:
    tracker, fresh = Tracker(2, remember=20), Tracker(2)
    for _ in range(6):
        tracker.step(person(100, 100), WIDTH, HEIGHT)
    out_of_sight(tracker, 8)
    for x in (104, 110):
        (again,), (first,) = (one.step(person(x, 100), WIDTH, HEIGHT).sightings for one in (tracker, fresh))
        assert (again.gap, again.hits, again.track_id) == (first.gap, first.hits, 0)
        assert (again.previous is None) == (first.previous is None)
        assert (again.previous_outline is None) == (first.previous_outline is None)
    held = [one.step(Regions.empty(), WIDTH, HEIGHT).regions for one in (tracker, fresh)]
    # What it is held by is what was seen since, wherever it was before; only the filter knows more.
    assert len(held[0]) == len(held[1]) == 1
    assert geometry.iou(held[0].boxes, held[1].boxes)[0, 0] > 0.9


def test_somebody_elsewhere_is_somebody_else() -> None:
    tracker = Tracker(2, remember=50)
    for _ in range(6):
        step(tracker, (100, 100, 140, 200))
    out_of_sight(tracker, 5)
    assert step(tracker, (300, 100, 340, 200)).regions.track_ids.tolist() == [1]


def test_two_who_were_hidden_get_their_own_names_back() -> None:
    tracker = Tracker(2, remember=50)
    for _ in range(6):
        step(tracker, (100, 100, 140, 200), (300, 100, 340, 200))
    out_of_sight(tracker, 9)
    again = step(tracker, (302, 101, 342, 201), (101, 99, 141, 199)).regions
    assert again.track_ids.tolist() == [1, 0]


def test_nothing_but_the_name_and_the_place_is_remembered() -> None:
    def surfaces() -> int:
        gc.collect()
        return sum(type(thing) is BodySurface for thing in gc.get_objects())

    tracker, before = Tracker(1, remember=50), surfaces()
    tracker.step(person(100, 100, surface=True), WIDTH, HEIGHT)
    assert surfaces() > before
    out_of_sight(tracker, 3)
    assert surfaces() == before


def test_tracks_do_not_pile_up_in_a_long_run() -> None:
    tracker = Tracker(3)
    rng = np.random.default_rng(0)
    counts = []
    for i in range(600):
        x, y = rng.uniform(0, 600), rng.uniform(0, 440)
        step(tracker, (x, y, x + 20, y + 20))
        if i in (100, 599):
            gc.collect()
            counts.append(sum(type(thing) is Track for thing in gc.get_objects()))
    assert tracker.tracks_begun > 500
    assert counts[1] <= counts[0] + 6


def person(x: float, y: float, width: int = 40, height: int = 90, *, seed: int = 0, surface: bool = False) -> Regions:
    """A detected person with a mask of an ellipse that has holes, the corners of its box left out."""
    left, top = round(x), round(y)
    rows, columns = np.mgrid[:height, :width]
    inside = ((columns + 0.5) / width * 2 - 1) ** 2 + ((rows + 0.5) / height * 2 - 1) ** 2 <= 1
    inside &= np.random.default_rng(seed).random((height, width)) < 0.9
    inside[height // 2, width // 2] = True
    body = None
    if surface:
        body = BodySurface(
            (left, top, left + width, top + height),
            np.ones((112, 112), np.bool_),
            np.zeros((16, 112, 112), np.float32),
        )
    outline = Outline(PixelMask(left, top, inside), body)
    return Regions.of((left, top, left + width, top + height), Kind.PERSON, outlines=[outline])


def mask_of(regions: Regions, index: int = 0) -> PixelMask:
    outline = regions.outline(index)
    assert outline is not None
    assert outline.mask is not None
    return outline.mask


def on_frame(mask: PixelMask) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    whole = PixelMask(0, 0, np.zeros((HEIGHT, WIDTH), np.bool_))
    mask.paint(whole)
    return whole.pixels


def test_detections_keep_their_outlines_and_sightings_tell_those_before() -> None:
    tracker = Tracker(3)
    first, second = person(100, 100), person(104, 100, seed=1)
    tracker.step(first, WIDTH, HEIGHT)
    result = tracker.step(second, WIDTH, HEIGHT)
    assert result.regions.outline(0) is second.outline(0)
    (sighting,) = result.sightings
    assert sighting.outline is second.outline(0)
    assert sighting.previous_outline is first.outline(0)
    faceless = tracker.step(faces(moving(0)), WIDTH, HEIGHT)
    assert [faceless.regions.outline(i) is None for i in range(2)] == [True, False]
    assert step(Tracker(3), moving(0)).regions.outlines is None


coordinates = st.integers(-30, WIDTH + 10), st.integers(-60, HEIGHT + 10)


@settings(max_examples=60, deadline=None)
@given(*coordinates, st.integers(-25, 25), st.integers(-25, 25), st.integers(1, 4), st.integers(1, 8))
def test_a_held_mask_covers_the_last_one_at_each_of_its_places(
    x: int, y: int, dx: int, dy: int, seen: int, missed: int
) -> None:
    masked, boxed = Tracker(8), Tracker(8)
    for i in range(seen):
        # Starts, so that the last detection is at x, y.
        detection = person(x - dx * (seen - 1 - i), y - dy * (seen - 1 - i), seed=i)
        masked.step(detection, WIDTH, HEIGHT)
        boxed.step(Regions.of(detection.boxes, Kind.PERSON), WIDTH, HEIGHT)
    last, speed = mask_of(detection), (dx, dy) if seen > 1 and masked.tracks_begun == 1 else (0, 0)
    for i in range(1, missed + 1):
        held, plain = (tracker.step(Regions.empty(), WIDTH, HEIGHT).regions for tracker in (masked, boxed))
        assert held.boxes.tolist() == plain.boxes.tolist()
        assert held.track_ids.tolist() == plain.track_ids.tolist()
        place = PixelMask(last.x0 + speed[0] * i, last.y0 + speed[1] * i, last.pixels)
        for mask in (last, place):
            assert not (on_frame(mask) & ~covered(held)).any()
        for index in range(len(held)):
            if held.outline(index) is not None:
                x0, y0, x1, y1 = mask_of(held, index).tight().box
                low_x, low_y, high_x, high_y = geometry.to_pixels(held.boxes[index], WIDTH, HEIGHT)[0].tolist()
                assert low_x <= x0 <= x1 <= high_x
                assert low_y <= y0 <= y1 <= high_y


def covered(regions: Regions) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """The pixels of all regions: their masks, else their boxes."""
    whole = PixelMask(0, 0, np.zeros((HEIGHT, WIDTH), np.bool_))
    for index, box in enumerate(geometry.to_pixels(regions.boxes, WIDTH, HEIGHT).tolist()):
        mask = PixelMask.filled(tuple(box)) if regions.outline(index) is None else mask_of(regions, index)
        mask.paint(whole)
    return whole.pixels


def test_control_the_last_mask_alone_does_not_cover_a_person_who_walks_on() -> None:
    tracker = Tracker(8)
    for i in range(4):
        tracker.step(person(100 + 10 * i, 100), WIDTH, HEIGHT)
    held = tracker.step(Regions.empty(), WIDTH, HEIGHT).regions
    walker, last = on_frame(mask_of(person(140, 100))), on_frame(mask_of(person(130, 100)))
    assert (walker & ~last).any()
    assert not (walker & ~covered(held)).any()
    # Where it was and where it goes, but not the whole box.
    assert covered(held).sum() < 0.95 * geometry.area(held.boxes)[0]


def test_a_held_mask_grows_from_what_was_detected_and_does_not_add_up() -> None:
    tracker, other = Tracker(300), Tracker(300)
    for _ in range(4):
        tracker.step(person(300, 200), WIDTH, HEIGHT)
        other.step(Regions.of(person(300, 200).boxes, Kind.PERSON), WIDTH, HEIGHT)
    areas = [mask_of(tracker.step(Regions.empty(), WIDTH, HEIGHT).regions).area for _ in range(299)]
    assert areas[0] < areas[3] < areas[-1]
    assert areas[50] == areas[-1] < 6 * 40 * 90


def test_a_person_without_outline_is_held_as_a_box_and_the_others_are_not_mixed_up() -> None:
    tracker = Tracker(3)
    two = Regions.concatenate([Regions.of((400, 100, 440, 190), Kind.PERSON), person(100, 100)])
    for _ in range(3):
        tracker.step(two, WIDTH, HEIGHT)
    held = tracker.step(Regions.empty(), WIDTH, HEIGHT).regions
    assert [held.outline(i) is None for i in range(2)] == [True, False]
    assert mask_of(held, 1).tight().x0 < 110


def test_a_held_surface_goes_to_the_predicted_place_and_keeps_no_batch_of_others_alive() -> None:
    tracker = Tracker(3)
    for i in range(12):
        tracker.step(person(100 + 10 * i, 100, surface=True), WIDTH, HEIGHT)
    for missed in (1, 2):
        outline = tracker.step(Regions.empty(), WIDTH, HEIGHT).regions.outline(0)
        assert outline is not None
        assert outline.surface is not None
        box = outline.surface.box
        assert abs(box[0] - (210 + 10 * missed)) <= 2
        assert box[2] - box[0] == 40
        assert outline.surface.embedding.base is None
        # The mask holds the surface in its new place, which filled its box.
        assert not (on_frame(outline.surface.nearest_mask()) & ~covered_by(outline)).any()


def covered_by(outline: Outline) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    assert outline.mask is not None
    return on_frame(outline.mask)


def test_a_detection_after_a_gap_tells_the_outline_before_it_and_holds_its_own_from_then_on() -> None:
    tracker = Tracker(5)
    for _ in range(3):
        tracker.step(person(100, 100), WIDTH, HEIGHT)
    for _ in range(2):
        tracker.step(Regions.empty(), WIDTH, HEIGHT)
    (sighting,) = tracker.step(Regions.of((100, 100, 140, 190), Kind.PERSON), WIDTH, HEIGHT).sightings
    assert sighting.gap == 3
    assert sighting.outline is None
    assert sighting.previous_outline is not None
    assert sighting.previous_outline.mask is not None
    assert sighting.previous_outline.mask.area == mask_of(person(100, 100)).area
    assert tracker.step(Regions.empty(), WIDTH, HEIGHT).regions.outlines is None


def test_names_begin_where_they_are_told_to() -> None:
    tracker = Tracker(2)
    tracker.first_id = 7
    result = step(tracker, moving(0), (300, 300, 340, 340))
    assert result.regions.track_ids.tolist() == [7, 8]
    assert [sighting.track_id for sighting in result.sightings] == [7, 8]
    assert tracker.tracks_begun == 2
