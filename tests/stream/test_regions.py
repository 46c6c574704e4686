from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stream.outline import Outline
from stream.regions import NO_TRACK, Kind, Origin, Regions


def fields(**changes: Any) -> dict[str, Any]:
    return {
        "boxes": np.array([[0, 0, 4, 4]], np.float32),
        "kinds": np.array([1], np.uint8),
        "scores": np.array([0.5], np.float32),
        "track_ids": np.array([3], np.int64),
        "origins": np.array([0], np.uint8),
    } | changes


def test_no_region_at_all() -> None:
    empty = Regions.empty()
    assert len(empty) == 0
    assert empty.boxes.shape == (0, 4)
    assert all(empty.count(origin) == 0 for origin in Origin)
    assert len(Regions.concatenate([])) == 0
    assert len(Regions.concatenate([empty, empty])) == 0
    assert len(empty[np.zeros(0, bool)]) == 0


def test_of_fills_in_what_is_not_given() -> None:
    regions = Regions.of([(0, 0, 4, 4), (1, 1, 2, 2)], Kind.PLATE, origin=Origin.MANUAL)
    assert regions.kinds.tolist() == [Kind.PLATE] * 2
    assert regions.scores.tolist() == [1, 1]
    assert regions.track_ids.tolist() == [NO_TRACK] * 2
    assert regions.count(Origin.MANUAL) == 2


def test_concatenate_keeps_the_order_and_every_field() -> None:
    first = Regions.of([(0, 0, 1, 1)], Kind.FACE, scores=[0.25], track_ids=[7])
    second = Regions.of([(2, 2, 3, 3)], Kind.PERSON, scores=[0.5], track_ids=[8], origin=Origin.HELD)
    both = Regions.concatenate([first, Regions.empty(), second])
    assert both.boxes.tolist() == [[0, 0, 1, 1], [2, 2, 3, 3]]
    assert both.kinds.tolist() == [Kind.FACE, Kind.PERSON]
    assert both.scores.tolist() == [0.25, 0.5]
    assert both.track_ids.tolist() == [7, 8]
    assert both.origins.tolist() == [Origin.DETECTED, Origin.HELD]


def test_regions_are_picked_by_index_mask_and_slice() -> None:
    regions = Regions.of([(i, 0, i + 1, 1) for i in range(4)], Kind.FACE)
    assert regions[[2, 0]].boxes[:, 0].tolist() == [2, 0]
    assert regions[regions.boxes[:, 0] > 1].boxes[:, 0].tolist() == [2, 3]
    assert regions[1:3].boxes[:, 0].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": np.zeros((1, 5), np.float32)}, r"must be \(N, 4\)"),
        ({"boxes": np.zeros((1, 4), np.float64)}, "must be float32"),
        ({"boxes": np.zeros((2, 4), np.float32)}, "Regions.kinds has shape"),
        ({"kinds": np.zeros(1, np.int64)}, "Regions.kinds must be uint8"),
        ({"scores": np.zeros((1, 1), np.float32)}, "Regions.scores has shape"),
        ({"track_ids": np.zeros(0, np.int64)}, "Regions.track_ids has shape"),
        ({"boxes": np.array([[0, 0, np.nan, 1]], np.float32)}, "boxes must be finite"),
        ({"boxes": np.array([[0, 0, np.inf, 1]], np.float32)}, "boxes must be finite"),
        ({"boxes": np.array([[4, 0, 0, 4]], np.float32)}, "x1 >= x0"),
        ({"scores": np.array([np.nan], np.float32)}, "scores must be finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    Regions(**fields())
    with pytest.raises(ValueError, match=message):
        Regions(**fields(**changes))


def test_kinds_are_found_by_their_label() -> None:
    assert [Kind.of(kind.label.upper()) for kind in Kind] == list(Kind)
    with pytest.raises(ValueError, match="unknown kind 'cat': choose from person, face, plate"):
        Kind.of("cat")


def test_outlines_go_where_their_regions_go() -> None:
    shape = Outline()
    plain = Regions.of([[0, 0, 5, 5]], Kind.FACE)
    posed = Regions.of([[0, 0, 5, 5], [1, 1, 6, 6]], Kind.PERSON, outlines=[None, shape])
    both = Regions.concatenate([plain, posed])
    assert [both.outline(i) for i in range(3)] == [None, None, shape]
    assert both[[2]].outline(0) is shape
    assert both[:2].outline(1) is None
    assert Regions.concatenate([plain, plain]).outlines is None
    assert plain.outline(0) is None


def test_as_many_outlines_as_boxes() -> None:
    with pytest.raises(ValueError, match="outlines"):
        Regions.of([[0, 0, 5, 5]], Kind.PERSON, outlines=[None, None])
