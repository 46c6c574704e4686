from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from engines.errors import SourceError
from export.starter.backgrounds import draw_background, read_photographs
from export.starter.cameras import VIEWS, draw_camera

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("view", VIEWS)
def test_backgrounds_are_pictures_that_are_not_flat(view: str) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        picture = draw_background(rng, draw_camera(rng, 16 / 9, view), 96, 54, [])
        assert picture.dtype == np.uint8
        assert picture.shape == (54, 96, 3)
        assert picture.std() > 1


def test_a_background_depends_on_the_generator_alone() -> None:
    def drawn(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return draw_background(rng, draw_camera(rng, 16 / 9, "room"), 96, 54, [])

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert not np.array_equal(drawn(1), drawn(2))


def test_photographs_of_any_size_are_read_and_used(tmp_path: Path) -> None:
    green = np.zeros((40, 3000, 3), np.uint8)
    green[..., 1] = 200
    cv2.imwrite(str(tmp_path / "wide.png"), green)
    (tmp_path / "notes.txt").write_text("no picture")

    (photograph,) = read_photographs(tmp_path)

    assert photograph.shape == (17, 1280, 3)
    rng = np.random.default_rng(0)
    camera = draw_camera(rng, 16 / 9)
    pictures = [draw_background(rng, camera, 64, 36, [photograph]) for _ in range(20)]
    used = [len(np.unique(picture.reshape(-1, 3), axis=0)) == 1 for picture in pictures]
    assert 3 < sum(used) < 18


def test_a_folder_without_pictures_and_a_broken_one_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has no photographs"):
        read_photographs(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(SourceError, match=r"broken\.jpg cannot be read"):
        read_photographs(tmp_path)
