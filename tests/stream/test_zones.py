from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import UsageError
from stream.anonymizer import Anonymizer
from stream.config import AnonymizerSettings
from stream.regions import Kind, Origin, Regions
from stream.zones import Zone, Zones, read_zones
from tests.fakes import FILLS, FixedDetector, flat_settings, frames, noise

SQUARE = ((10, 10), (50, 10), (50, 50), (10, 50))
#: An L round the upper right quarter of the square from 0 to 100.
CORNER = ((0, 0), (50, 0), (50, 50), (100, 50), (100, 100), (0, 100))


def covered(
    zones: Zones, *boxes: tuple[float, ...], kind: Kind = Kind.FACE, origin: Origin = Origin.DETECTED
) -> list[bool]:
    regions = Regions.of(boxes, kind, origin=origin)
    return [bool(value) for value in zones.covered(regions, regions.boxes)]


def zone(points: Any = SQUARE, **fields: Any) -> Zone:
    return Zone(points=points, **fields)


def test_no_region_is_no_trouble() -> None:
    assert Zones((zone(),)).covered(Regions.empty(), Regions.empty().boxes).shape == (0,)


def test_only_what_lies_wholly_in_an_ignored_zone_stays() -> None:
    boxes = ((15, 15, 30, 30), (10, 10, 50, 50), (5, 15, 30, 30), (15, 15, 50.5, 30), (60, 60, 70, 70), (0, 0, 90, 90))
    assert covered(Zones((zone(),)), *boxes) == [False, False, True, True, True, True]


def test_a_zone_need_not_be_convex() -> None:
    # All four corners lie in the L, the box does not.
    assert covered(Zones((zone(CORNER),)), (40, 40, 60, 60), (10, 60, 90, 90)) == [True, False]


def test_zones_that_touch_count_as_one() -> None:
    left, right = ((0, 0), (50, 0), (50, 100), (0, 100)), ((50, 0), (100, 0), (100, 100), (50, 100))
    assert covered(Zones((zone(left), zone(right))), (40, 40, 60, 60)) == [False]


def test_what_touches_an_only_zone_is_covered() -> None:
    boxes = ((15, 15, 30, 30), (45, 45, 90, 90), (50, 20, 60, 30), (51, 20, 60, 30), (0, 0, 90, 90))
    assert covered(Zones(only=(zone(),)), *boxes) == [True, True, True, False, True]


def test_both_may_be_given() -> None:
    zones = Zones((zone(((10, 10), (30, 10), (30, 50), (10, 50))),), (zone(),))
    assert covered(zones, (12, 12, 20, 20), (32, 12, 40, 20), (60, 60, 70, 70)) == [False, True, False]


def test_a_zone_for_one_kind_is_none_for_another() -> None:
    ignore = Zones((zone(kinds=("plate",)),))
    assert covered(ignore, (15, 15, 30, 30), kind=Kind.PLATE) == [False]
    assert covered(ignore, (15, 15, 30, 30), kind=Kind.FACE) == [True]
    only = Zones(only=(zone(kinds=("plate",)),))
    assert covered(only, (15, 15, 30, 30), kind=Kind.FACE) == [False]


def test_regions_by_hand_are_covered_wherever_they_lie() -> None:
    assert covered(Zones((zone(),), (zone(),)), (15, 15, 30, 30), (80, 80, 90, 90), origin=Origin.MANUAL) == [True] * 2


@given(
    st.lists(st.tuples(*[st.integers(-50, 150)] * 2), min_size=2, max_size=2),
    st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 60), st.integers(1, 60)),
)
def test_rectangles_agree_with_plain_arithmetic(
    corners: list[tuple[int, ...]], rectangle: tuple[int, int, int, int]
) -> None:
    (ax, ay), (bx, by) = corners
    box = (min(ax, bx), min(ay, by), max(ax, bx) + 1, max(ay, by) + 1)
    x, y, w, h = rectangle
    drawn = zone(((x, y), (x + w, y), (x + w, y + h), (x, y + h)))
    inside = box[0] >= x and box[1] >= y and box[2] <= x + w and box[3] <= y + h
    apart = box[0] > x + w or box[1] > y + h or box[2] < x or box[3] < y
    assert covered(Zones((drawn,)), box) == [not inside]
    assert covered(Zones(only=(drawn,)), box) == [not apart]


def test_a_run_leaves_what_lies_in_the_zone_and_counts_it(tmp_path: Path) -> None:
    path = tmp_path / "zones.json"
    path.write_text(json.dumps([{"points": [[0, 0], [40, 0], [40, 64], [0, 64]]}]))
    detector = FixedDetector((4, 4, 20, 20), (50, 4, 60, 20))
    settings = flat_settings(lookahead=0)
    (picture,) = noise(1, 96, 64)
    with Anonymizer([detector], FILLS, settings, zones=Zones(read_zones(path))) as anonymizer:
        made = anonymizer.anonymize(next(iter(frames([picture]))))
    assert made.ignored == 1
    assert len(made.regions) == 1
    assert np.array_equal(made.image[:, :40], picture[:, :40])
    assert not np.array_equal(made.image[:, 40:], picture[:, 40:])


def test_a_zone_that_ends_at_the_frames_edge_holds_what_reaches_beyond_it(tmp_path: Path) -> None:
    path = tmp_path / "zones.json"
    path.write_text(json.dumps([{"points": [[0, 0], [40, 0], [40, 64], [0, 64]]}]))
    # Its margin, and the box itself, reach outside the frame.
    detector = FixedDetector((-6, 4, 20, 20))
    (picture,) = noise(1, 96, 64)
    with Anonymizer([detector], FILLS, flat_settings(margin=0.3), zones=Zones(read_zones(path))) as anonymizer:
        made = anonymizer.anonymize(next(iter(frames([picture]))))
    assert made.ignored == 1
    assert np.array_equal(made.image, picture)


def test_settings_read_the_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the zones file"):
        Anonymizer.from_settings(AnonymizerSettings(only_zones=tmp_path / "missing.json"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not valid JSON"),
        ("[]", "must hold a JSON list of zones"),
        ("{}", "must hold a JSON list of zones"),
        ('[{"points": [[0, 0], [1, 1]]}]', "entry 1: points: .*at least 3"),
        (
            '[{"points": [[0, 0], [9, 9], [9, 0], [0, 9]]}]',
            "entry 1: points: the polygon has no inside, or crosses itself",
        ),
        ('[{"points": [[0, 0], [5, 5], [9, 9]]}]', "entry 1: points: the polygon has no inside"),
        ('[{"points": [[0, 0], [9, 0], [0, NaN]]}]', "entry 1: points.2.1: "),
        ('[{"points": [[0, 0], [9, 0], [0, 9]], "kinds": ["cat"]}]', "entry 1: kinds: unknown kind 'cat'"),
        ('[{"points": [[0, 0], [9, 0], [0, 9]]}, {"corners": []}]', "entry 2: "),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "zones.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_zones(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
