from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest

from engines.errors import SourceError
from export.starter.body import save_body
from export.starter.production import make_scenes
from export.starter.scenes import SceneSettings
from tests.export.starter.bodies import tiny_body
from tests.export.starter.drawing import skip_without_drawing

if TYPE_CHECKING:
    from pathlib import Path


def test_two_processes_make_the_same_scenes_in_the_same_order_as_one(tmp_path: Path) -> None:
    skip_without_drawing()
    save_body(tmp_path / "body.npz", tiny_body())
    settings = SceneSettings(width=48, height=32)

    alone = list(make_scenes(tmp_path / "body.npz", settings, 5, 3))
    shared = list(make_scenes(tmp_path / "body.npz", settings, 5, 3, workers=2, in_turn=2))

    assert len(shared) == len(alone) == 3
    for first, second in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.vertices, second.vertices)


@pytest.mark.parametrize("workers", [1, 2])
def test_scenes_without_an_end_go_on_from_any_number(tmp_path: Path, workers: int) -> None:
    skip_without_drawing()
    save_body(tmp_path / "body.npz", tiny_body())
    settings = SceneSettings(width=48, height=32)
    whole = list(make_scenes(tmp_path / "body.npz", settings, 5, 4))

    endless = make_scenes(tmp_path / "body.npz", settings, 5, None, first=1, workers=workers, in_turn=1)
    with contextlib.closing(endless):
        later = list(itertools.islice(endless, 3))

    for first, second in zip(whole[1:], later, strict=True):
        np.testing.assert_array_equal(first.image, second.image)


def test_a_body_that_cannot_be_read_ends_the_making(tmp_path: Path) -> None:
    (tmp_path / "body.npz").write_text("no body")
    with pytest.raises(SourceError, match="is not the file of a body"):
        list(make_scenes(tmp_path / "body.npz", SceneSettings(width=48, height=32), 5, 3, workers=2, in_turn=2))
