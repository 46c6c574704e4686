from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from engines.errors import SourceError
from export.starter.samples import Scene, read_scenes, write_scenes

if TYPE_CHECKING:
    from pathlib import Path


def _scene(number: int, people: int = 1) -> Scene:
    rng = np.random.default_rng(number)
    instances = np.zeros((6, 8), np.uint8)
    for person in range(people):
        instances[person] = person + 1
    vertices = np.where(instances > 0, rng.integers(0, 50, instances.shape), -1).astype(np.int32)
    image = rng.integers(0, 255, (6, 8, 3)).astype(np.uint8)
    return Scene(image, instances, vertices, rng.normal(size=(people, 5)).astype(np.float32))


def test_scenes_come_back_as_they_were_written(tmp_path: Path) -> None:
    scenes = [_scene(number, people=number % 3) for number in range(5)]

    write_scenes(tmp_path, scenes, in_file=2)

    assert sorted(path.name for path in tmp_path.iterdir()) == [f"scenes-0000{number}.npz" for number in range(3)]
    back = list(read_scenes(tmp_path))
    assert len(back) == len(scenes)
    for read, written in zip(back, scenes, strict=True):
        for name in ("image", "instances", "vertices", "looks"):
            np.testing.assert_array_equal(getattr(read, name), getattr(written, name))


def test_more_scenes_go_on_after_those_that_are_there(tmp_path: Path) -> None:
    write_scenes(tmp_path, [_scene(0), _scene(1)], in_file=1)
    write_scenes(tmp_path, [_scene(2)], in_file=1)

    images = [scene.image for scene in read_scenes(tmp_path)]

    assert [bool((image == _scene(number).image).all()) for number, image in enumerate(images)] == [True] * 3


def test_a_folder_without_scenes_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has no files of scenes"):
        next(read_scenes(tmp_path))


def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    write_scenes(tmp_path, [_scene(0)])
    (tmp_path / "scenes-00000.npz").write_bytes(b"PK\x03\x04 cut off")

    with pytest.raises(SourceError, match=r"scenes-00000\.npz"):
        next(read_scenes(tmp_path))


def test_a_scene_refuses_arrays_that_do_not_agree() -> None:
    scene = _scene(0)
    with pytest.raises(ValueError, match="vertices is"):
        Scene(scene.image, scene.instances, scene.vertices[:3], scene.looks)
    with pytest.raises(ValueError, match="disagree"):
        Scene(scene.image, scene.instances, np.full_like(scene.vertices, -1), scene.looks)
    with pytest.raises(ValueError, match="name person 1"):
        Scene(scene.image, scene.instances, scene.vertices, scene.looks[:0])
