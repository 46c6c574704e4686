from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import SourceError
from export.starter.crops import BACKGROUND, OTHERS, Box, crop_box, crops_of, open_crops, write_crops
from export.starter.samples import Scene
from stream.compose import boxes
from tests.export.starter.made_people import LOOK, SIZE, VERTICES, person, scene


@st.composite
def frames_and_boxes(draw: st.DrawFn) -> tuple[tuple[int, int], Box, int]:
    height, width = draw(st.integers(1, 2000)), draw(st.integers(1, 2000))
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
    return (height, width), (x0, y0, x1, y1), draw(st.integers(1, (x1 - x0) * (y1 - y0)))


@given(frames_and_boxes())
def test_boxes_are_cut_as_at_run_time(drawn: tuple[tuple[int, int], Box, int]) -> None:
    frame, tight, pixels = drawn
    share = pixels / ((tight[2] - tight[0]) * (tight[3] - tight[1]))
    assert crop_box(tight, pixels, frame, (288, 160)) == boxes.surface_box(tight, share, tight, frame, (288, 160))


def alone(middle: tuple[float, float] = (48, 64), radii: tuple[float, float] = (36, 14)) -> Scene:
    drawn = np.full((96, 128, 3), 200, np.uint8), np.zeros((96, 128), np.uint8), np.full((96, 128), -1, np.int32)
    looks = np.array([[-2, -2, -2, 2, 2, 2]], np.float32)
    person(drawn, 1, middle, radii, looks[0])
    return Scene(*drawn, looks)


def test_a_crop_shows_its_person_in_the_middle() -> None:
    (crop,) = crops_of(alone(), (64, 32))
    assert crop.image.shape == (64, 32, 3)
    body = crop.labels >= 0
    rows, columns = np.nonzero(body)
    assert abs(rows.mean() - 31.5) < 1
    assert abs(columns.mean() - 15.5) < 1
    assert 0.4 < body.mean() <= 0.7
    # The upper half is dark, the lower bright, and the background in between.
    assert crop.image[16, 16].max() < 20
    assert crop.image[48, 16].min() > 240
    assert crop.image[1, 1].tolist() == [200, 200, 200]


def test_labels_lie_where_the_pixels_do() -> None:
    (crop,) = crops_of(alone(), (64, 32))
    body = crop.labels >= 0
    shown = np.abs(crop.image[..., 0].astype(int) - 200) > 20
    assert np.count_nonzero(body ^ shown) < 0.05 * np.count_nonzero(body)
    assert crop.labels[body].max() < VERTICES
    assert crop.labels[16, 16] < crop.labels[48, 16]


def test_a_crop_that_reaches_outside_is_black_and_background_there() -> None:
    (crop,) = crops_of(alone((48, 64), (47, 60)), (64, 32))
    assert crop.image[0].max() == 0
    assert (crop.labels[0] == BACKGROUND).all()


def test_neighbours_are_labelled_as_others() -> None:
    drawn = alone()
    parts = drawn.image.copy(), drawn.instances.copy(), drawn.vertices.copy()
    looks = np.concatenate([drawn.looks, np.zeros((1, LOOK), np.float32)])
    person(parts, 2, (60, 74), (25, 12), looks[1])
    first, second = crops_of(Scene(*parts, looks), SIZE)
    assert (first.labels == OTHERS).any()
    assert (second.labels == OTHERS).any()
    assert first.look.tolist() == looks[0].tolist()


def test_small_people_are_left_out() -> None:
    assert list(crops_of(alone(radii=(15, 10)), SIZE)) == []
    assert len(list(crops_of(alone(radii=(20, 14)), SIZE))) == 1


def test_boxes_are_moved_where_asked_for() -> None:
    still = [next(crops_of(alone(), SIZE)).labels for _ in range(2)]
    moved = next(crops_of(alone(), SIZE, np.random.default_rng(3))).labels
    np.testing.assert_array_equal(still[0], still[1])
    assert (moved != still[0]).any()


def test_crops_come_back_from_their_folder(tmp_path: Path) -> None:
    scenes = [scene(seed) for seed in range(3)]
    count = write_crops(tmp_path / "crops", scenes, SIZE, cuts=2, seed=5)
    found = open_crops(tmp_path / "crops")
    assert len(found) == count == len(found.looks)
    assert found.size == SIZE
    expected = []
    for number, one in enumerate(scenes):
        draw = np.random.default_rng((5, number))
        expected += [crop for _ in range(2) for crop in crops_of(one, SIZE, draw)]
    assert len(expected) == count
    for i, crop in enumerate(expected):
        np.testing.assert_array_equal(found.images[i], crop.image)
        np.testing.assert_array_equal(found.labels[i], crop.labels)
        np.testing.assert_array_equal(found.looks[i], crop.look)


def test_a_folder_without_crops_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no crops"):
        open_crops(tmp_path)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    write_crops(tmp_path, [scene(0)], SIZE)
    labels = (tmp_path / "labels.bin").read_bytes()
    (tmp_path / "labels.bin").write_bytes(labels[:-2])
    with pytest.raises(SourceError, match="bytes long"):
        open_crops(tmp_path)


def test_scenes_of_nobody_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nobody"):
        write_crops(tmp_path, [scene(0, people=0)], SIZE)
