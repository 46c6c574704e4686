"""A frame and its tiles: where these lie, and what several looks found together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import DetectionError
from stream.detectors.tiled import Look, TiledDetector, combined, moved, tiles, together, touching
from stream.frame import Frame
from stream.outline import BodySurface, Box, Outline, PixelMask
from stream.regions import Kind, Regions
from tests.fakes import FunctionDetector

NOBODY = Regions.empty()
#: Width and height.
FRAME = (300, 200)


def persons(*boxes: Sequence[int], masks: bool = True, score: float = 0.5) -> Regions:
    """Persons who fill their boxes."""
    outlines = [Outline(PixelMask.filled((box[0], box[1], box[2], box[3]))) for box in boxes]
    scores = [score] * len(boxes)
    return Regions.of(boxes, Kind.PERSON, scores=scores, outlines=outlines if masks else None)


def look(tile: Box, *boxes: Sequence[int], cut: Sequence[bool] | None = None, masks: bool = True) -> Look:
    return Look(
        tile, persons(*boxes, masks=masks), np.array([False] * len(boxes) if cut is None else cut, np.bool_), FRAME
    )


def edges(regions: Regions) -> list[tuple[int, ...]]:
    return sorted(tuple(int(edge) for edge in box) for box in regions.boxes)


def pixels(*parts: Regions) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """What all of them cover in a frame of 300x200: masks, and boxes where there are none."""
    shown = np.zeros((200, 300), np.bool_)
    for regions in parts:
        for index in range(len(regions)):
            outline = regions.outline(index)
            if outline is None or outline.mask is None:
                x0, y0, x1, y1 = (int(edge) for edge in regions.boxes[index])
                shown[y0:y1, x0:x1] = True
            else:
                x0, y0, x1, y1 = outline.mask.box
                shown[y0:y1, x0:x1] |= outline.mask.pixels
    return shown


@given(width=st.integers(64, 4000), height=st.integers(64, 4000), count=st.integers(2, 8))
def test_tiles_have_one_size_cover_the_frame_and_share_a_quarter(width: int, height: int, count: int) -> None:
    made = tiles(width, height, count)
    smallest = min(width, height) / (count - (count - 1) / 4)
    if not made:
        assert smallest < 32
        return
    assert len(made) == count * count
    assert len({(x1 - x0, y1 - y0) for x0, y0, x1, y1 in made}) == 1
    for low, side in ((0, width), (1, height)):
        spans = sorted({(tile[low], tile[low + 2]) for tile in made})
        assert spans[0][0] == 0
        assert spans[-1][1] == side
        shared = [one[1] - other[0] for one, other in pairwise(spans)]
        assert min(shared) >= (spans[0][1] - spans[0][0]) / 4 - 2


def test_a_frame_too_small_for_tiles_has_none() -> None:
    assert tiles(1920, 40, 2) == []
    assert len(tiles(1920, 64, 2)) == 4


def test_only_where_the_frame_goes_on_a_tile_cuts() -> None:
    boxes = np.array([(0, 20, 30, 60), (70, 20, 100, 60), (40, 70, 60, 100), (40, 20, 60, 60)], np.float32)
    assert touching(boxes, (0, 0, 100, 100), 300, 200).tolist() == [False, True, True, False]
    assert touching(boxes, (0, 0, 100, 100), 100, 100).tolist() == [False] * 4
    assert touching(boxes + 200, (200, 200, 300, 300), 300, 300).tolist() == [True, False, False, False]


def test_all_of_a_region_moves() -> None:
    segmentation = np.ones((112, 112), np.bool_)
    surface = BodySurface((2, 3, 12, 23), segmentation, np.zeros((16, 112, 112), np.float32))
    outlines = [Outline(PixelMask.filled((2, 3, 12, 23)), surface), None]
    here = moved(Regions.of([(2, 3, 12, 23), (5, 5, 9, 9)], Kind.PERSON, outlines=outlines), 100, 50)
    assert here.boxes.tolist() == [[102, 53, 112, 73], [105, 55, 109, 59]]
    outline = here.outline(0)
    assert outline is not None
    assert outline.mask is not None
    assert outline.surface is not None
    assert outline.mask.box == outline.surface.box == (102, 53, 112, 73)
    assert here.outline(1) is None
    assert len(moved(NOBODY, 3, 4)) == 0


LEFT, RIGHT = (0, 0, 170, 200), (130, 0, 300, 200)


def test_who_is_seen_in_a_tile_alone_counts() -> None:
    assert edges(combined(NOBODY, [look(LEFT, (10, 10, 20, 40)), look(RIGHT)])) == [(10, 10, 20, 40)]
    assert edges(combined(persons((200, 10, 220, 60)), [])) == [(200, 10, 220, 60)]


def test_who_is_whole_in_several_looks_is_one() -> None:
    found = combined(
        persons((140, 10, 160, 60), score=0.3),
        [look(LEFT, (141, 11, 160, 61)), look(RIGHT, (139, 10, 159, 60))],
    )
    assert edges(found) == [(139, 10, 160, 61)]
    assert found.scores.tolist() == [0.5]


def test_what_a_tile_cuts_belongs_to_who_is_whole_elsewhere() -> None:
    whole = persons((100, 20, 200, 180))
    looks = [look(LEFT, (99, 20, 170, 180), cut=[True]), look(RIGHT, (130, 22, 203, 178), cut=[True])]
    assert edges(combined(whole, looks)) == [(99, 20, 203, 180)]


def posed(box: Box, value: float) -> Regions:
    """Somebody with a dense pose that is told by its embedding."""
    surface = BodySurface(box, np.ones((112, 112), np.bool_), np.full((16, 112, 112), value, np.float32))
    return Regions.of([box], Kind.PERSON, outlines=[Outline(surface=surface)])


@pytest.mark.parametrize(("cut", "value"), [(False, 2.0), (True, 1.0)])
def test_the_surface_is_that_of_the_tile_unless_it_shows_a_part_alone(cut: bool, value: float) -> None:
    box = (60, 20, 120, 180)
    whole = combined(posed(box, 1.0), [Look(LEFT, posed(box, 2.0), np.array([cut]), FRAME)])
    assert edges(whole) == [box]
    outline = whole.outline(0)
    assert outline is not None
    assert outline.surface is not None
    assert outline.surface.embedding[0, 0, 0] == value
    assert outline.mask is not None
    assert outline.mask.area == 60 * 160


def test_a_part_that_ends_before_the_tile_does_belongs_to_who_reaches_beyond() -> None:
    whole = persons((100, 20, 200, 180))
    assert edges(combined(whole, [look(LEFT, (105, 25, 165, 90))])) == [(100, 20, 200, 180)]


def test_a_child_before_somebody_whom_the_tile_shows_whole_stays_one_of_two() -> None:
    whole = persons((10, 20, 110, 180))
    assert edges(combined(whole, [look(LEFT, (40, 120, 70, 180))])) == [(10, 20, 110, 180), (40, 120, 70, 180)]


def test_whoever_ends_at_the_frames_edge_does_not_reach_beyond_the_tile() -> None:
    # Rounding may put the edge of a box just outside the frame.
    whole = persons((10, 20, 110, 200))
    whole.boxes[0, 3] = 200.4
    assert len(combined(whole, [look(LEFT, (40, 120, 70, 180))])) == 2


def test_an_adult_whom_a_tile_cuts_is_no_part_of_the_child_before() -> None:
    child, adult = (80, 100, 120, 180), (40, 10, 170, 195)
    assert edges(combined(persons(child), [look(LEFT, adult, cut=[True])])) == [adult, child]


def test_a_box_in_the_box_of_somebody_near_may_be_somebody_far_away() -> None:
    near, far = (60, 10, 220, 195), (80, 20, 95, 55)
    assert edges(combined(persons(near, masks=False), [look(LEFT, far, masks=False)])) == [near, far]


def test_a_box_without_area_is_nobodys_part() -> None:
    flat = Regions.of([(100, 20, 100, 180)], Kind.PERSON)
    assert len(combined(flat, [look(LEFT, (60, 20, 170, 170), cut=[True], masks=False)])) == 2


def test_halves_of_somebody_who_is_whole_nowhere_stay_covered() -> None:
    looks = [look(LEFT, (60, 20, 170, 90), cut=[True]), look(RIGHT, (130, 20, 250, 90), cut=[True])]
    assert edges(combined(NOBODY, looks)) == [(60, 20, 170, 90), (130, 20, 250, 90)]


def test_boxes_without_masks_are_joined_by_their_boxes() -> None:
    whole = persons((100, 20, 200, 180), masks=False)
    assert edges(combined(whole, [look(LEFT, (98, 20, 170, 170), cut=[True], masks=False)])) == [(98, 20, 200, 180)]
    other = Regions.of([(100, 20, 200, 180)], Kind.FACE)
    assert len(combined(other, [look(LEFT, (98, 20, 170, 170), cut=[True], masks=False)])) == 2


_corners = st.tuples(st.integers(0, 250), st.integers(0, 150), st.integers(4, 50), st.integers(4, 50))


def _some(kept: Sequence[tuple[int, int, int, int]], *, masks: bool) -> Regions:
    return persons(*((x, y, x + w, y + h) for x, y, w, h in kept), masks=masks)


@given(
    st.lists(_corners, max_size=4), st.lists(st.tuples(_corners, st.booleans()), max_size=6), st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_nothing_that_any_look_found_gets_smaller(
    whole: list[tuple[int, int, int, int]],
    found: list[tuple[tuple[int, int, int, int], bool]],
    first_has_masks: bool,
    others_have_masks: bool,
) -> None:
    frame = _some(whole, masks=first_has_masks)
    looks = [
        Look(
            tile,
            _some([corner for corner, _ in half], masks=others_have_masks),
            np.array([cut for _, cut in half]),
            FRAME,
        )
        for tile, half in ((LEFT, found[::2]), (RIGHT, found[1::2]))
        if half
    ]
    together = combined(frame, looks)
    assert not (pixels(frame, *(look.found for look in looks)) & ~pixels(together)).any()
    assert len(together) <= len(whole) + len(found)
    assert len(together) >= len(whole)


def _bright(frame: Frame) -> Regions:
    """The box of what is bright; nothing where that is less than a tenth of the frame's height."""
    rows, columns = (np.flatnonzero(frame.image[..., 0].max(axis=axis) > 0) for axis in (1, 0))
    if not len(rows) or len(rows) < frame.height / 10:
        return NOBODY
    return persons((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))


def _frame(*boxes: Box) -> Frame:
    image = np.zeros((200, 300, 3), np.uint8)
    for x0, y0, x1, y1 in boxes:
        image[y0:y1, x0:x1] = 255
    return Frame(image, pts=7)


def test_who_is_too_small_for_the_frame_is_found_in_a_tile() -> None:
    asked: list[Frame] = []

    def answer(frame: Frame) -> Regions:
        asked.append(frame)
        return _bright(frame)

    far = _frame((250, 150, 260, 168))
    assert len(_bright(far)) == 0
    found = TiledDetector(FunctionDetector(answer), 2).detect(far)
    assert edges(found) == [(250, 150, 260, 168)]
    assert [(frame.width, frame.height) for frame in asked] == [(300, 200)] + 4 * [(172, 115)]
    assert all(frame.pts == 7 and frame.image.flags.c_contiguous for frame in asked)


def test_somebody_across_all_tiles_stays_one() -> None:
    assert edges(TiledDetector(FunctionDetector(_bright), 3).detect(_frame((20, 10, 280, 190)))) == [(20, 10, 280, 190)]


def test_a_tile_that_cannot_be_looked_at_is_a_frame_that_was_not() -> None:
    def answer(frame: Frame) -> Regions:
        if frame.width < 300:
            raise DetectionError("numbers that are not finite")
        return NOBODY

    with pytest.raises(DetectionError, match="not finite"):
        TiledDetector(FunctionDetector(answer), 2).detect(_frame())


def test_it_gets_ready_for_both_sizes_and_hands_on_the_rest() -> None:
    calls: list[str] = []

    class Told:
        def detect(self, frame: Frame) -> Regions:
            return _bright(frame)

        def reset(self) -> None:
            calls.append("reset")

        def prepare(self, width: int, height: int, parallel: int) -> None:
            calls.append(f"prepare {width}x{height} {parallel}")

        def close(self) -> None:
            calls.append("close")

    detector = TiledDetector(Told(), 2)
    detector.prepare(300, 200, 3)
    detector.reset()
    detector.close()
    assert calls == ["prepare 300x200 3", "prepare 172x115 3", "reset", "close"]


@pytest.mark.parametrize("count", [1, 0, -2])
def test_less_than_two_are_no_tiles(count: int) -> None:
    with pytest.raises(ValueError, match="at least two"):
        TiledDetector(FunctionDetector(_bright), count)


@pytest.mark.parametrize(("detectors", "count", "looks"), [(1, 1, 1), (2, 1, 1), (1, 2, 5), (2, 2, 5)])
def test_every_detector_looks_at_the_frame_and_at_its_tiles(detectors: int, count: int, looks: int) -> None:
    several = [FunctionDetector(_bright) for _ in range(detectors)]
    found = together(several, count).detect(_frame((20, 10, 60, 90)))
    assert edges(found) == [(20, 10, 60, 90)]
    assert [detector.looked for detector in several] == [looks] * detectors
