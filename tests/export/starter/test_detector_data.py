from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from engines.errors import SourceError
from export.starter.detector_data import (
    MEAN,
    PLAIN,
    STD,
    Augmentation,
    Samples,
    batches,
    coloured,
    cut,
    draw_view,
    normalised,
    open_packed,
    pack_scenes,
)
from export.starter.detector_targets import make_targets
from export.starter.samples import write_scenes
from tests.export.starter.tiny_people import SIZE, make_scene, make_scenes, packed, template

ONE = make_scene([(8, 8, 32, 60)], seed=0)
PARTS = {"image": ONE.image, "instances": ONE.instances, "vertices": ONE.vertices.astype(np.int16)}


def test_packed_scenes_are_the_scenes(tmp_path: Path) -> None:
    scenes = make_scenes(5)
    made = packed(tmp_path, scenes)
    assert len(made) == 5
    for index, scene in enumerate(scenes):
        np.testing.assert_array_equal(made.images[index], scene.image)
        np.testing.assert_array_equal(made.instances[index], scene.instances)
        np.testing.assert_array_equal(made.vertices[index], scene.vertices)
    # The second time they are only opened: the scenes are not needed any more.
    again = pack_scenes(tmp_path / "gone", tmp_path / "packed")
    np.testing.assert_array_equal(again.images, made.images)


def test_another_process_opens_the_files_and_is_not_sent_them(tmp_path: Path) -> None:
    made = packed(tmp_path, make_scenes(5))
    sent = pickle.dumps(made)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).images, made.images)


def test_what_cannot_be_packed_leaves_nothing(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", [ONE, make_scene([], 0, (32, 32))])
    with pytest.raises(SourceError, match="96x64 and 32x32 pixels"):
        pack_scenes(tmp_path / "scenes", tmp_path / "packed")
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]
    with pytest.raises(SourceError):
        pack_scenes(tmp_path / "nothing", tmp_path / "packed")


def test_packed_scenes_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    packed(tmp_path, make_scenes(3))
    with (tmp_path / "packed" / "instances.bin").open("r+b") as stream:
        stream.truncate(SIZE[0] * SIZE[1])
    with pytest.raises(SourceError, match="not whole"):
        open_packed(tmp_path / "packed")
    (tmp_path / "packed" / "size.txt").unlink()
    with pytest.raises(SourceError, match="has no packed scenes"):
        open_packed(tmp_path / "packed")


def test_a_view_of_everything_changes_nothing() -> None:
    view = draw_view(np.random.default_rng(0), SIZE, SIZE, PLAIN)
    assert view == (0, 0, SIZE[1], SIZE[0])
    made = cut(PARTS, view, SIZE, (0, 0, 0))
    for name, values in PARTS.items():
        np.testing.assert_array_equal(made[name], values)


@pytest.mark.parametrize("seed", range(20))
def test_views_have_the_pictures_shape_and_touch_the_scene(seed: int) -> None:
    how = Augmentation(zoom=(0.6, 2.0), stretch=1.2)
    x0, y0, x1, y1 = draw_view(np.random.default_rng(seed), SIZE, (64, 64), how)
    zoom = SIZE[0] / (y1 - y0)
    assert 0.59 < zoom < 2.05
    assert 1 / 1.25 < (x1 - x0) / (y1 - y0) < 1.25
    assert x0 < SIZE[1]
    assert y0 < SIZE[0]
    if zoom > 1:
        assert y0 >= 0
        assert y1 <= SIZE[0]


def test_a_view_that_reaches_outside_shows_the_fill_and_nobody() -> None:
    made = cut(PARTS, (-96, -64, 96, 64), SIZE, (10, 20, 30))
    np.testing.assert_array_equal(made["image"][:32], np.broadcast_to([10, 20, 30], (32, 96, 3)))
    assert not made["instances"][:32].any()
    assert not made["instances"][:, :48].any()
    np.testing.assert_array_equal(made["instances"] > 0, made["vertices"] >= 0)
    # At half the size the person is where it should be.
    rows, columns = np.nonzero(made["instances"])
    assert (rows.min(), columns.min()) == (pytest.approx(36, abs=1), pytest.approx(52, abs=1))
    assert len(rows) == pytest.approx((ONE.instances > 0).sum() / 4, rel=0.1)


def test_image_and_labels_move_together() -> None:
    scene = make_scene([(8, 8, 32, 60)], seed=0)
    bright = {**PARTS, "image": np.repeat((scene.instances * 255)[..., None], 3, axis=2)}
    made = cut(bright, (3, 5, 69, 49), SIZE, (0, 0, 0))
    inside = made["instances"] > 0
    assert ((made["image"][..., 0] > 127) == inside).mean() > 0.98


def test_mirrored_pictures_have_the_other_sides_vertices(tmp_path: Path) -> None:
    scenes = packed(tmp_path, [ONE])
    how = Augmentation(zoom=(1.0, 1.0), stretch=1.0, mirror=True, colour=False)
    samples = Samples(scenes, template(), SIZE, 0, how)
    plain = make_targets(ONE.instances, ONE.vertices, template().head)
    turned = 0
    for number in range(8):
        sample = samples[number]
        if np.array_equal(sample["image"], normalised(ONE.image)):
            np.testing.assert_array_equal(sample["vertex"], plain["vertex"])
            continue
        turned += 1
        np.testing.assert_array_equal(sample["image"], normalised(ONE.image)[:, :, ::-1])
        # The body looks the same in a mirror: what lies on its left is its left again.
        there = sample["vertex"] >= 0
        columns = sample["vertex"] % 6
        places = np.broadcast_to(np.arange(24), there.shape)
        assert np.corrcoef(columns[there], places[there])[0, 1] > 0.9
    assert 0 < turned < 8


def test_a_sample_is_the_same_whoever_asks_and_others_differ(tmp_path: Path) -> None:
    scenes = packed(tmp_path, make_scenes(4))
    surface = template()
    one, other = (Samples(scenes, surface, SIZE, 5, Augmentation()) for _ in range(2))
    for name, values in one[7].items():
        np.testing.assert_array_equal(values, other[7][name])
    assert not np.array_equal(one[7]["image"], one[8]["image"])
    assert not np.array_equal(one[7]["image"], Samples(scenes, surface, SIZE, 6, Augmentation())[7]["image"])


def test_batches_go_on_where_others_ended(tmp_path: Path) -> None:
    samples = Samples(packed(tmp_path, make_scenes(4)), template(), SIZE, 0, Augmentation())
    whole = list(itertools.islice(batches(samples, 2, first=0, workers=0), 3))
    later = next(batches(samples, 2, first=2, workers=0))
    assert whole[2]["image"].shape == (2, 3, *SIZE)
    for name, values in later.items():
        assert torch.equal(values, whole[2][name]), name


def test_sizes_that_the_network_cannot_take_are_refused(tmp_path: Path) -> None:
    scenes = packed(tmp_path, [ONE])
    with pytest.raises(SourceError, match="90x64 is not made of multiples of 32"):
        Samples(scenes, template(), (64, 90), 0, PLAIN)


def test_colours_change_and_stay_colours() -> None:
    made = [coloured(ONE.image, np.random.default_rng(seed)) for seed in range(12)]
    assert all(image.dtype == np.uint8 and image.shape == ONE.image.shape for image in made)
    assert all(not np.array_equal(image, ONE.image) for image in made)
    assert all(image.std() > 5 for image in made)


def test_the_network_sees_channels_first_around_zero() -> None:
    image = np.full((2, 3, 3), 255, np.uint8)
    image[0, 0] = 0, 51, 102
    made = normalised(image)
    assert made.shape == (3, 2, 3)
    np.testing.assert_allclose(made[:, 0, 0], (np.array([0, 51, 102]) - MEAN) / STD, rtol=1e-5)
