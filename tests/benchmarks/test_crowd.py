"""The crowd of the benchmark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.crowd import crowd, measure, with_growth
from stream.compose.waves import waves
from stream.outline import PixelMask
from tests.generator_bundles import vertex_embeddings, write_unet

SIZE = (2160, 3840)


@pytest.mark.parametrize("count", [0, 1, 12, 60])
def test_people_stand_inside_the_frame_and_each_has_a_track(count: int) -> None:
    regions = crowd(count, SIZE, vertex_embeddings())
    assert len(regions) == count
    assert len(set(regions.track_ids.tolist())) == count
    assert (regions.boxes >= 0).all()
    assert (regions.boxes <= [3840, 2160, 3840, 2160]).all()
    outlines = [regions.outline(i) for i in range(count)]
    assert all(outline is not None and outline.surface is not None for outline in outlines)
    # Nobody's mask is as large as the frame.
    masks = [outline.mask for outline in outlines if outline is not None and outline.mask is not None]
    assert sum(mask.pixels.size for mask in masks) < 3 * SIZE[0] * SIZE[1]


def test_people_are_of_one_size_where_the_frame_holds_as_many() -> None:
    alone, all_of_them = crowd(1, SIZE, None, places=60), crowd(60, SIZE, None)
    np.testing.assert_array_equal(alone.boxes, all_of_them.boxes[:1])
    # The control: one by itself is as tall as the frame.
    assert crowd(1, SIZE, None).boxes[0, 3] == SIZE[0] > 3 * alone.boxes[0, 3]
    # There is room for all, however few places there are.
    np.testing.assert_array_equal(crowd(60, SIZE, None, places=1).boxes, all_of_them.boxes)


def test_sixty_people_stand_close_enough_to_need_more_than_one_wave() -> None:
    regions = crowd(60, SIZE, None)
    boxes = [tuple(int(v) for v in box) for box in regions.boxes]
    assert 1 < len(waves(boxes)) < 60  # type: ignore[arg-type]


def test_growth_compares_the_cost_of_a_person_with_the_case_before() -> None:
    rows = [
        {"generator": "a", "generated": 0, "frame_ms": 5.0},
        {"generator": "a", "generated": 1, "frame_ms": 10.0},
        {"generator": "a", "generated": 4, "frame_ms": 60.0},
        {"generator": "b", "generated": 2, "frame_ms": 10.0},
    ]
    assert [row["growth"] for row in with_growth(rows)] == [None, None, 1.5, None]


def test_a_case_is_measured(tmp_path: Path) -> None:
    bundle = write_unet(tmp_path / "bundle", halves=(False,))
    row = measure(bundle.path, "dp2-person", 3, (240, 320), "cpu", 1)
    assert (row["persons"], row["generated"]) == (3, 3)
    assert row["frame_ms"] > 0
    assert row["peak_mib"] > 50
    assert row["megapixels"] > 0


def test_masks_are_kept_in_their_own_boxes() -> None:
    outline = crowd(1, (100, 200), None).outline(0)
    assert outline is not None
    assert isinstance(outline.mask, PixelMask)
    assert outline.surface is None
    assert np.count_nonzero(outline.mask.pixels) < outline.mask.pixels.size
