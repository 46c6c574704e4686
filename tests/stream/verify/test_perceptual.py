from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from engines.errors import BundleError, UsageError
from stream.frame import Image
from stream.networks import NetworkSettings
from stream.regions import Kind
from stream.verify.perceptual import PerceptualLook, PerceptualSteps, summed_up, weighted
from stream.verify.raw import RawShare
from stream.verify.record import FrameRecord, RegionRecord
from tests.stream.evaluate.made import map_network, vector_network

pytest.importorskip("onnxruntime", reason="the network runs in ONNX Runtime")
STEP = 0.04


@pytest.fixture
def look(tmp_path: Path) -> PerceptualLook:
    """Sees the picture itself: the distance is the sum over channels of squared levels."""
    return PerceptualLook(NetworkSettings(map_network(tmp_path / "maps.onnx"), mean=0.0, std=1.0))


def level(value: float) -> Image:
    return np.full((40, 40, 3), value, np.uint8)


def steps(
    look: PerceptualLook,
    before: Sequence[float],
    after: Sequence[float],
    *,
    raw: Sequence[int] = (),
    flat: Sequence[int] = (),
    times: Sequence[float] | None = None,
) -> PerceptualSteps:
    """Of a face whose original and stand-in have these levels, frame by frame."""
    found = PerceptualSteps(look)
    for index, (one, other) in enumerate(zip(before, after, strict=True)):
        region = RegionRecord(Kind.FACE, (8, 8, 30, 30), 0.9, 0, RawShare(100, 100, 100 if index in raw else 0))
        time = STEP * index if times is None else times[index]
        found.add(FrameRecord(index, time, [region], flat=index in flat), level(one), level(other))
    return found


def test_it_is_the_difference_of_both_distances(look: PerceptualLook) -> None:
    found = steps(look, [10, 12, 12, 15], [80, 80, 81, 86]).result(STEP)
    assert found is not None
    # Three channels: 3 * (4, 0, 9) of the original, 3 * (0, 1, 25) of the output.
    assert found.steps == 3
    assert found.original == pytest.approx(13)
    assert found.output == pytest.approx(26)
    assert found.tlp == pytest.approx((12 + 3 + 48) / 3)
    assert found.worst == pytest.approx(48)
    assert found.worst_at == 3


def test_a_stand_in_that_changes_as_its_original_does_has_none(look: PerceptualLook) -> None:
    found = steps(look, [10, 20, 15], [50, 60, 55]).result(STEP)
    assert found is not None
    assert found.tlp == 0
    frozen = steps(look, [10, 20, 15], [50, 50, 50]).result(STEP)
    assert frozen is not None
    assert frozen.tlp == pytest.approx(3 * (100 + 25) / 2)


def test_what_is_raw_or_flat_is_no_stand_in(look: PerceptualLook) -> None:
    assert steps(look, [1, 2, 3], [5, 6, 7], raw=[1]).found == []
    assert steps(look, [1, 2, 3], [5, 6, 7], flat=[1]).found == []
    assert [one.index for one in steps(look, [1, 2, 3, 4], [5, 6, 7, 8], raw=[0]).found] == [2, 3]
    assert steps(look, [1, 2], [5, 6], flat=[0, 1]).result(STEP) is None


def test_frames_far_apart_are_no_step(look: PerceptualLook) -> None:
    far = steps(look, [1, 2, 3], [5, 6, 7], times=[0, STEP, 10 * STEP]).result(STEP)
    assert far is not None
    assert far.steps == 1


def test_a_track_that_was_away_begins_anew(look: PerceptualLook) -> None:
    found = PerceptualSteps(look)
    regions = [RegionRecord(Kind.PERSON, (8, 8, 30, 30), 0.9, track, RawShare(100, 100, 0)) for track in (0, 1)]
    for index, seen in enumerate(([0, 1], [1], [0, 1])):
        frame = FrameRecord(index, STEP * index, [regions[track] for track in seen])
        found.add(frame, level(index), level(index))
    assert [(one.index, one.track) for one in found.found] == [(1, 1), (2, 1)]


def test_clips_count_by_their_steps(look: PerceptualLook) -> None:
    one, other = steps(look, [1, 1], [1, 2]).result(STEP), steps(look, [1, 1, 1, 1], [3, 3, 3, 3]).result(STEP)
    assert one is not None
    assert other is not None
    assert weighted([one, other], lambda entry: entry.tlp) == pytest.approx(3 / 4)
    assert summed_up([]) is None


def test_a_network_of_one_size_gets_that_size(tmp_path: Path) -> None:
    fixed = PerceptualLook(NetworkSettings(map_network(tmp_path / "maps.onnx", (6, 4))))
    found = fixed.maps(level(1), RegionRecord(Kind.PERSON, (8, 8, 30, 30), 0.9, 0, RawShare(100, 100, 0)))
    assert [one.shape for one in found] == [(3, 6, 4)]
    assert fixed.name.startswith("maps.onnx (sha256 ")


def test_what_is_no_such_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        PerceptualLook(NetworkSettings(tmp_path / "nothing.onnx"))
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(BundleError, match="is not an ONNX file"):
        PerceptualLook(NetworkSettings(tmp_path / "text.onnx"))


def test_vectors_have_a_distance_as_well(tmp_path: Path) -> None:
    vectors = PerceptualLook(NetworkSettings(vector_network(tmp_path / "x.onnx", pooled=True), mean=0.0, std=1.0))
    found = steps(vectors, [1, 1], [1, 3]).result(STEP)
    assert found is not None
    assert found.tlp == pytest.approx(3 * 4)
