from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from engines.errors import TensorError
from engines.runtime import open_runtime
from stream.bench.engines import TimedRuntime
from stream.bench.people import MOST_PERSONS, PlacedRuntime, body, faces_of, places, smooth_pose
from stream.detectors.single_stage import SingleStageDetector
from stream.detectors.two_stage import TwoStageDetector
from stream.frame import Frame
from stream.regions import Kind
from tests.detector_bundles import FACES, PERSONS, write_one_stage, write_two_stage
from tests.generator_bundles import vertex_embeddings
from tests.media import picture

WIDTH, HEIGHT = 320, 180
ASPECT = WIDTH / HEIGHT


def frame() -> Frame:
    return Frame(picture(WIDTH, HEIGHT), time_base=Fraction(1, 25))


@pytest.mark.parametrize("aspect", [16 / 9, 1.0, 0.5, 0.1])
@pytest.mark.parametrize("count", [0, 1, 2, 7, MOST_PERSONS])
def test_everybody_is_in_the_frame_and_has_the_same_size(count: int, aspect: float) -> None:
    boxes = places(count, aspect)
    assert boxes.shape == (count, 4)
    assert ((boxes >= 0) & (boxes <= 1 + 1e-6)).all()
    sides = boxes[:, 2:] - boxes[:, :2]
    assert np.allclose(sides, sides[:1], atol=1e-6)
    assert (sides > 0).all()


def test_persons_stand_beside_each_other_while_there_is_room() -> None:
    boxes = places(20, 16 / 9)
    for i in range(20):
        for j in range(i):
            apart = (boxes[i, :2] >= boxes[j, 2:] - 1e-6) | (boxes[j, :2] >= boxes[i, 2:] - 1e-6)
            assert apart.any()


def test_more_persons_leave_those_who_are_there_in_their_places() -> None:
    assert np.array_equal(places(30, 1.5)[:7], places(7, 1.5))


def test_faces_are_in_their_persons() -> None:
    boxes = places(5, 1.5)
    faces = faces_of(boxes)
    assert (faces[:, :2] > boxes[:, :2]).all()
    assert (faces[:, 2:] < boxes[:, 2:]).all()


def test_a_body_fills_most_of_its_box_but_not_the_corners() -> None:
    inside = body(28, 20)
    assert 0.6 < inside.mean() < 0.9
    assert not inside[0, 0]
    assert inside[14, 10]


def test_a_smooth_pose_is_made_of_vertices_and_neighbours_are_alike() -> None:
    vertices = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
    vertices[:, 2:] *= 0.1
    pose = smooth_pose(vertices, 112)
    assert pose.shape == (16, 112, 112)
    known = {row.tobytes() for row in vertices}
    assert all(
        pixel.tobytes() in known for pixel in np.ascontiguousarray(pose.transpose(1, 2, 0)).reshape(-1, 16)[::97]
    )
    steps = np.abs(np.diff(pose[:2], axis=2)).mean()
    assert steps < 0.3 * np.abs(vertices[:-1, :2] - vertices[1:, :2]).mean()


def test_few_vertices_do_for_a_pose() -> None:
    assert smooth_pose(vertex_embeddings(), 112).shape == (vertex_embeddings().shape[1], 112, 112)


@pytest.mark.parametrize("persons", [0, 1, 5])
@pytest.mark.parametrize("architecture", ["mask-rcnn", "cse"])
def test_a_detector_finds_those_who_were_put_there(tmp_path: Path, architecture: str, persons: int) -> None:
    bundle = write_two_stage(tmp_path / "b", architecture, PERSONS)
    timed = [TimedRuntime(bundle, name, open_runtime(bundle, name)) for name in ("detector", "heads")]
    first, heads = (PlacedRuntime(bundle, r.name, r, persons=persons, aspect=ASPECT) for r in timed)
    detector = TwoStageDetector(bundle, first, heads, longest=640, threshold=0.2)
    regions = detector.detect(frame())
    detector.close()
    assert len(regions) == persons
    assert np.allclose(
        regions.boxes, places(persons, ASPECT) * np.array([WIDTH, HEIGHT, WIDTH, HEIGHT]) if persons else 0, atol=2
    )
    outlines = [regions.outline(index) for index in range(persons)]
    if architecture == "cse":
        assert all(o is not None and o.surface is not None for o in outlines)
    else:
        assert all(o is not None and o.mask is not None and o.mask.area > 100 for o in outlines)
    # The network itself ran, and its heads on as many boxes.
    assert len(timed[0].seconds) == 1
    assert (timed[1].boxes or 0) == persons


def test_without_it_the_detector_finds_others(tmp_path: Path) -> None:
    bundle = write_two_stage(tmp_path / "b", "mask-rcnn", PERSONS)
    detector = TwoStageDetector(
        bundle, open_runtime(bundle, "detector"), open_runtime(bundle, "heads"), longest=640, threshold=0.2
    )
    assert len(detector.detect(frame())) == len(PERSONS) != 5
    detector.close()


def test_a_detector_of_faces_finds_the_faces_of_persons(tmp_path: Path) -> None:
    bundle = write_one_stage(tmp_path / "b", FACES)
    placed = PlacedRuntime(bundle, "detector", open_runtime(bundle), persons=3, aspect=ASPECT)
    assert placed.provider == "CPUExecutionProvider"
    detector = SingleStageDetector(bundle, placed, longest=1280, threshold=0.2)
    regions = detector.detect(frame())
    detector.close()
    assert len(regions) == 3
    assert (regions.kinds == Kind.FACE).all()
    assert np.allclose(regions.boxes, faces_of(places(3, ASPECT)) * np.array([WIDTH, HEIGHT, WIDTH, HEIGHT]), atol=2)


def test_inputs_are_checked_as_ever(tmp_path: Path) -> None:
    bundle = write_one_stage(tmp_path / "b", FACES)
    with (
        PlacedRuntime(bundle, "detector", open_runtime(bundle), persons=3, aspect=1) as placed,
        pytest.raises(TensorError),
    ):
        placed.run({})
