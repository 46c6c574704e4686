from __future__ import annotations

import math

import numpy as np
import pytest

from export.starter.cameras import VIEWS, Camera, draw_camera, draw_light


def _camera(pitch: float = 0.3, roll: float = 0.1) -> Camera:
    return Camera("room", 1.7, pitch, roll, math.radians(50), 16 / 9, 1.0, 9.0)


def test_a_pixel_s_ray_and_the_projection_agree() -> None:
    camera = _camera()
    rays = camera.rays(32, 18).astype(np.float64)
    for row, column in ((0, 0), (9, 16), (17, 31)):
        point = camera.position + 3.0 * rays[row, column]
        x, y, distance = camera.project(point[None])[0]
        assert (x * 32 - 0.5, y * 18 - 0.5) == (pytest.approx(column, abs=1e-4), pytest.approx(row, abs=1e-4))
        assert distance == pytest.approx(3.0, abs=1e-4)


def test_pitch_looks_down_and_the_left_of_the_world_is_left() -> None:
    level, down = (_camera(pitch, roll=0.0) for pitch in (0.0, 0.4))
    ahead = np.array([[0.0, 5.0, 1.7]])
    assert level.project(ahead)[0, 1] == pytest.approx(0.5, abs=1e-6)
    assert down.project(ahead)[0, 1] < 0.4
    assert level.project(np.array([[-1.0, 5.0, 1.7]]))[0, 0] < 0.5


@pytest.mark.parametrize("view", VIEWS)
def test_somebody_between_the_distances_is_in_the_picture(view: str) -> None:
    for seed in range(30):
        camera = draw_camera(np.random.default_rng(seed), 16 / 9, view)
        assert camera.farthest > camera.nearest
        middle = (camera.nearest + camera.farthest) / 2
        height = camera.height if view == "webcam" else 1.0
        x, _, distance = camera.project(np.array([[0.0, middle, height]]))[0]
        assert distance > 0
        assert 0 <= x <= 1


def test_light_comes_from_above() -> None:
    for seed in range(30):
        light = draw_light(np.random.default_rng(seed))
        assert light.sun[2] > 0.1
        assert np.linalg.norm(light.sun) == pytest.approx(1)
        assert light.sky_colour.min() > 0
        assert 0 < light.shadow < 1
