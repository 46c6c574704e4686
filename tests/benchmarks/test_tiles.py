from __future__ import annotations

import numpy as np
import pytest

from benchmarks.tiles import Tally, measure
from export.starter.samples import Scene
from stream.frame import Frame
from stream.regions import Kind, Regions
from tests.fakes import FunctionDetector

#: Of somebody 30 px high, of somebody 80 px high, and of nobody.
SMALL, TALL, NOBODY = (10, 10, 20, 40), (50, 10, 80, 90), (100, 70, 120, 90)


def scene() -> Scene:
    instances = np.zeros((100, 150), np.uint8)
    for number, (x0, y0, x1, y1) in enumerate((SMALL, TALL), start=1):
        instances[y0:y1, x0:x1] = number
    vertices = np.where(instances > 0, 0, -1).astype(np.int32)
    return Scene(np.zeros((100, 150, 3), np.uint8), instances, vertices, np.zeros((2, 49), np.float32))


def test_who_is_found_missed_and_nobody_is_counted_by_height() -> None:
    tally = Tally()
    # Somebody twice is somebody once; a box of a third of somebody neither finds nor is nobody's.
    third = (50, 10, 80, 36)
    tally.add(Regions.of([TALL, TALL, third, NOBODY], Kind.PERSON, scores=[0.9, 0.8, 0.7, 0.6]), scene().instances)
    row = tally.row()
    assert [(heights["from_px"], heights["people"]) for heights in row["by_height"]] == [
        (24, 1), (60, 1), (100, 0), (200, 0),
    ]  # fmt: skip
    assert [heights["found"] for heights in row["by_height"]] == [0, 1, None, None]
    assert [heights["missed"] for heights in row["by_height"]] == [1, 0, None, None]
    assert (row["boxes"], row["nobodys"]) == (4, 1)


@pytest.mark.parametrize("found", [[], [SMALL]])
def test_a_detector_is_measured_on_all_scenes(found: list[tuple[int, int, int, int]]) -> None:
    sizes: list[tuple[int, int]] = []

    def answer(frame: Frame) -> Regions:
        sizes.append((frame.width, frame.height))
        faces = Regions.of([TALL], Kind.FACE)
        return Regions.concatenate([faces, Regions.of(found, Kind.PERSON)])

    row = measure(FunctionDetector(answer), [scene(), scene()])
    assert sizes == [(150, 100)] * 2
    assert row["scenes"] == 2
    assert [heights["found"] for heights in row["by_height"]][:2] == [len(found), 0]
    assert row["boxes"] == 2 * len(found)
