from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from export.starter.__main__ import main
from export.starter.body import BONES, Part, save_body
from export.starter.cameras import Camera, draw_light
from export.starter.looks import LOOK_SIZE, Hair, look_of
from export.starter.poses import forward
from export.starter.render import Renderer, Thing, make_figure
from export.starter.samples import read_scenes
from export.starter.scenes import SceneMaker, SceneSettings, contact_sheet
from export.starter.things import draw_furniture, draw_held, draw_occluder
from export.starter.wardrobe import Wardrobe
from tests.export.starter.bodies import tiny_body
from tests.export.starter.drawing import skip_without_drawing

if TYPE_CHECKING:
    from pathlib import Path

    from export.starter.render import Figure


@pytest.fixture(autouse=True)
def _drawing() -> None:
    skip_without_drawing()


_LEVEL = Camera("room", 1.0, 0.0, 0.0, math.radians(60), 1.0, 1.0, 9.0)
_BEHIND = np.full((64, 64, 3), 90, np.uint8)


def _somebody(wardrobe: Wardrobe, distance: float) -> Figure:
    body = wardrobe.body
    still = np.tile(np.eye(3), (len(BONES), 1, 1))
    figure = make_figure(
        wardrobe, look_of(np.zeros(LOOK_SIZE, np.float32)), body.canonical, forward(still, body.joints)
    )
    place = np.eye(4, dtype=np.float32)
    place[1, 3] = distance
    return figure.moved(place)


def _box(distance: float, half: tuple[float, float, float]) -> Thing:
    place = np.eye(4, dtype=np.float32)
    place[:3, :3] = np.diag(half)
    place[:3, 3] = (0, distance, half[2])
    return Thing("box", place, np.ones(3), np.ones(3), 0, 1.0, 0.0)


def test_each_pixel_of_a_person_names_the_part_that_shows_there() -> None:
    wardrobe = Wardrobe(tiny_body())
    renderer = Renderer(wardrobe, 64, 64)

    image, instances, vertices = renderer.draw(
        _LEVEL, draw_light(np.random.default_rng(0)), _BEHIND, [], [_somebody(wardrobe, 2.5)]
    )

    assert set(np.unique(instances)) == {0, 1}
    np.testing.assert_array_equal(instances > 0, vertices >= 0)
    assert vertices.max() < wardrobe.body.vertices
    rows, columns = np.nonzero(instances)
    assert rows.max() - rows.min() > 25
    parts = wardrobe.body.parts[vertices[rows, columns]]
    assert np.median(rows[parts == Part.HEAD]) < np.median(rows[parts == Part.TORSO])
    assert np.median(rows[parts == Part.TORSO]) < np.median(rows[parts == Part.FOOT])
    # Somebody who faces the camera has the left side on the picture's right.
    left = wardrobe.body.canonical[vertices[rows, columns], 0] > 0.1
    assert np.median(columns[left]) > 32
    np.testing.assert_array_equal(image[0, 0], _BEHIND[0, 0])


def test_the_nearer_person_and_a_thing_in_front_hide_what_is_behind() -> None:
    wardrobe = Wardrobe(tiny_body())
    renderer = Renderer(wardrobe, 64, 64)
    light = draw_light(np.random.default_rng(0))
    near, far = _somebody(wardrobe, 2.5), _somebody(wardrobe, 4.0)

    _, alone, _ = renderer.draw(_LEVEL, light, _BEHIND, [], [near])
    _, both, _ = renderer.draw(_LEVEL, light, _BEHIND, [], [far, near])
    _, hidden, _ = renderer.draw(_LEVEL, light, _BEHIND, [_box(1.8, (1, 0.1, 0.5))], [near])
    _, before, _ = renderer.draw(_LEVEL, light, _BEHIND, [_box(3.2, (1, 0.1, 0.5))], [near])

    np.testing.assert_array_equal(both == 2, alone == 1)
    assert 0 < (hidden > 0).sum() < 0.8 * (alone > 0).sum()
    np.testing.assert_array_equal(before, alone)


def test_a_person_casts_a_shadow_on_the_ground() -> None:
    wardrobe = Wardrobe(tiny_body())
    renderer = Renderer(wardrobe, 64, 64)
    above = Camera("overhead", 3.0, 0.9, 0.0, math.radians(60), 1.0, 1.0, 5.0)

    image, instances, _ = renderer.draw(
        above, draw_light(np.random.default_rng(1)), _BEHIND, [], [_somebody(wardrobe, 2.4)]
    )

    darkened = (image.astype(int).mean(axis=2) < 85) & (cv2.dilate(instances, np.ones((5, 5))) == 0)
    assert darkened.sum() > 10


def test_looks_change_the_picture_and_not_the_labels() -> None:
    wardrobe = Wardrobe(tiny_body())
    renderer = Renderer(wardrobe, 64, 64)
    latent = np.zeros(LOOK_SIZE, np.float32)
    seen = []
    for look in (look_of(latent), look_of(latent + 0.5)):
        assert look.hair is not Hair.BALD
        figure = _somebody(wardrobe, 2.5)
        dressed = type(figure)(look, figure.pieces)
        seen.append(renderer.draw(_LEVEL, draw_light(np.random.default_rng(0)), _BEHIND, [], [dressed]))
    np.testing.assert_array_equal(seen[0][2], seen[1][2])
    assert np.abs(seen[0][0].astype(int) - seen[1][0]).max() > 20


def test_a_scene_depends_on_its_seed_and_number_alone() -> None:
    settings = SceneSettings(width=64, height=36)
    several = list(SceneMaker(tiny_body(), settings).scenes(7, 3))
    again = list(SceneMaker(tiny_body(), settings).scenes(7, 2))
    other = next(iter(SceneMaker(tiny_body(), settings).scenes(8, 1)))

    for first, second in zip(several, again, strict=False):
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.vertices, second.vertices)
        np.testing.assert_array_equal(first.looks, second.looks)
    assert not np.array_equal(several[0].image, other.image)


def test_scenes_have_people_of_many_sizes_and_some_have_none() -> None:
    scenes = list(SceneMaker(tiny_body(), SceneSettings(width=96, height=54)).scenes(1, 40))

    shares = [(scene.instances > 0).mean() for scene in scenes]
    assert 1 <= sum(share == 0 for share in shares) <= 20
    assert max(shares) > 0.08
    assert all(scene.looks.shape[1] == LOOK_SIZE for scene in scenes)


def test_in_portraits_somebody_fills_the_picture() -> None:
    settings = SceneSettings(width=64, height=64, views=("portrait",), degraded=False)
    scenes = list(SceneMaker(tiny_body(), settings).scenes(1, 12))

    heights = [np.ptp(np.nonzero(scene.instances)[0]) for scene in scenes if scene.instances.any()]
    assert len(heights) >= 11
    assert np.median(heights) > 32
    assert {len(scene.looks) for scene in scenes} <= {1, 2}


def test_things_are_finite_and_stand_about_where_they_were_put() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        things = draw_furniture(rng, 1.0, 6.0, outside=True) + draw_occluder(rng, 1.0, 6.0)
        things += draw_held(rng, np.array([1, 6, 1], np.float32))
        for thing in things:
            assert np.isfinite(thing.place).all()
            assert np.hypot(*(thing.place[:2, 3] - (1, 6))) < 4


def test_the_command_writes_scenes_and_a_sheet(tmp_path: Path) -> None:
    save_body(tmp_path / "body.npz", tiny_body())
    words = [
        "scenes",
        "--count",
        "4",
        "--seed",
        "3",
        "--size",
        "64x36",
        "--workers",
        "1",
        "--body",
        str(tmp_path / "body.npz"),
    ]

    assert main([*words, "--output", str(tmp_path / "made")]) == 0

    scenes = list(read_scenes(tmp_path / "made"))
    assert [scene.image.shape for scene in scenes] == [(36, 64, 3)] * 4
    sheet = cv2.imread(str(tmp_path / "made" / "sheet.png"))
    assert sheet is not None
    assert sheet.shape == (3 * 36, 4 * 64, 3)
    np.testing.assert_array_equal(sheet[:36, :64, ::-1], scenes[0].image)
    assert contact_sheet(scenes, tiny_body(), columns=2).shape == (6 * 36, 2 * 64, 3)


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "body.npz").write_bytes(b"nothing")
    words = [
        "scenes",
        "--count",
        "1",
        "--workers",
        "1",
        "--body",
        str(tmp_path / "body.npz"),
        "--output",
        str(tmp_path / "made"),
    ]

    assert main(words) == 1
    assert "is not the file of a body" in caplog.text
