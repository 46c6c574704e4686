"""Several detectors together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import DetectionError
from stream.detectors.ensemble import Ensemble, unite
from stream.frame import Frame
from stream.regions import Kind, Regions


class _Canned:
    """A detector that always finds the same, and counts what it was asked."""

    def __init__(self, regions: Regions | DetectionError) -> None:
        self.regions = regions
        self.calls: list[str] = []

    def detect(self, frame: Frame) -> Regions:
        if isinstance(self.regions, DetectionError):
            raise self.regions
        return self.regions

    def reset(self) -> None:
        self.calls.append("reset")

    def prepare(self, width: int, height: int, parallel: int) -> None:
        self.calls.append(f"prepare {width} {height} {parallel}")

    def close(self) -> None:
        self.calls.append("close")


def _faces(*boxes: list[float], scores: list[float] | None = None, kind: Kind = Kind.FACE) -> Regions:
    return Regions.of(boxes, kind, scores=scores)


_FRAME = Frame(np.zeros((60, 100, 3), np.uint8))


def test_nothing_and_nothing_is_nothing() -> None:
    assert len(unite([])) == 0
    assert len(unite([Regions.empty(), Regions.empty()])) == 0


def test_what_only_one_detector_finds_counts() -> None:
    united = unite([_faces([0, 0, 10, 10]), Regions.empty(), _faces([50, 0, 60, 10])])
    assert united.boxes.tolist() == [[0, 0, 10, 10], [50, 0, 60, 10]]


def test_the_same_find_is_one_region_that_holds_both_boxes() -> None:
    united = unite([_faces([0, 0, 10, 10], scores=[0.3]), _faces([2, -1, 11, 9], scores=[0.6])])
    assert united.boxes.tolist() == [[0, -1, 11, 10]]
    assert united.scores.tolist() == pytest.approx([0.6])


def test_finds_that_overlap_little_stay_two() -> None:
    assert len(unite([_faces([0, 0, 10, 10]), _faces([6, 0, 16, 10])])) == 2
    assert len(unite([_faces([0, 0, 10, 10]), _faces([6, 0, 16, 10])], iou=0.2)) == 1


def test_finds_of_different_kinds_stay_two() -> None:
    united = unite([_faces([0, 0, 10, 10]), _faces([0, 0, 10, 10], kind=Kind.PERSON)])
    assert united.kinds.tolist() == [Kind.FACE, Kind.PERSON]


def test_two_people_whom_one_detector_tells_apart_stay_two() -> None:
    united = unite([_faces([0, 0, 10, 10], [1, 0, 11, 10]), _faces([0.5, 0, 10.5, 10])])
    assert len(united) == 2


def test_a_third_detector_joins_what_two_found() -> None:
    united = unite([_faces([0, 0, 10, 10]), _faces([1, 0, 11, 10]), _faces([0, 1, 10, 11])])
    assert united.boxes.tolist() == [[0, 0, 11, 11]]


_BOX = st.tuples(*[st.integers(0, 20)] * 4).map(lambda v: [v[0], v[1], v[0] + v[2] + 1, v[1] + v[3] + 1])
_PART = st.lists(st.tuples(_BOX, st.sampled_from([Kind.FACE, Kind.PERSON])), max_size=5)


@given(parts=st.lists(_PART, max_size=4))
def test_every_find_lies_in_a_region_of_its_kind(parts: list[list[tuple[list[int], Kind]]]) -> None:
    regions = [Regions.concatenate([Regions.of([box], kind) for box, kind in part]) for part in parts]
    united = unite(regions)
    assert len(united) <= sum(map(len, parts))
    assert len(united) >= max((len(part) for part in parts), default=0)
    for box, kind in (find for part in parts for find in part):
        holds = (united.boxes[:, :2] <= box[:2]).all(axis=1) & (united.boxes[:, 2:] >= box[2:]).all(axis=1)
        assert (holds & (united.kinds == kind)).any()


def test_an_ensemble_is_a_detector() -> None:
    parts = [_Canned(_faces([0, 0, 10, 10])), _Canned(_faces([50, 0, 60, 10]))]
    ensemble = Ensemble(parts)
    ensemble.prepare(100, 60, 2)
    ensemble.reset()
    assert len(ensemble.detect(_FRAME)) == 2
    ensemble.close()
    assert [part.calls for part in parts] == [["prepare 100 60 2", "reset", "close"]] * 2


def test_a_failure_of_one_is_a_failure_of_all() -> None:
    ensemble = Ensemble([_Canned(_faces([0, 0, 10, 10])), _Canned(DetectionError("broken"))])
    with pytest.raises(DetectionError, match="broken"):
        ensemble.detect(_FRAME)


def test_an_ensemble_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Ensemble([])
