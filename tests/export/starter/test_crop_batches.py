from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.starter.crop_batches import (
    PLAIN,
    Ahead,
    AugmentConfig,
    Batch,
    grown,
    make_batch,
    nearest_vertices,
    padded,
    planes_of,
)
from export.starter.crops import BACKGROUND, OTHERS
from tests.export.starter.made_people import LOOK, SIZE, VERTICES, crops, surface

NEAR = nearest_vertices(surface().canonical, 5)


def labels() -> np.ndarray[tuple[int, int], np.dtype[np.int16]]:
    """A body whose vertices grow downwards, with somebody else beside it."""
    made = np.full((64, 36), BACKGROUND, np.int16)
    made[8:56, 10:26] = (np.arange(48) * VERTICES // 48)[:, None]
    made[20:50, 26:34] = OTHERS
    return made


def test_plain_planes_are_what_the_renderer_knows() -> None:
    planes = planes_of(labels(), NEAR, PLAIN, np.random.default_rng(0))
    own = labels() >= 0
    np.testing.assert_array_equal(planes.body, own)
    np.testing.assert_array_equal(planes.vertices, np.where(own, labels(), 0))
    np.testing.assert_array_equal(planes.wanted, grown(own, 1) & (labels() != OTHERS))
    np.testing.assert_array_equal(planes.known, ~(grown(own, 1) | grown(labels() == OTHERS, 1)))


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_drawn_nothing_of_the_person_is_known(seed: int) -> None:
    planes = planes_of(labels(), NEAR, AugmentConfig(), np.random.default_rng(seed))
    assert not planes.known[labels() >= 0].any()
    assert not planes.known[planes.body].any()
    assert planes.wanted[labels() >= 0].all()
    assert not planes.wanted[planes.known].any()
    assert not planes.wanted[labels() == OTHERS].any()
    assert planes.vertices.min() >= 0
    assert planes.vertices.max() < VERTICES
    assert (planes.vertices[~planes.body] == 0).all()


def shares(config: AugmentConfig) -> list[float]:
    """How much is unknown, over many draws."""
    found = [planes_of(labels(), NEAR, config, np.random.default_rng(i)).known for i in range(30)]
    return [1 - float(known.mean()) for known in found]


def test_masks_are_grown_by_chance() -> None:
    assert len(set(shares(PLAIN))) == 1
    wide = shares(replace(PLAIN, dilation=(1.0, 8.0)))
    assert len(set(wide)) > 3
    assert min(wide) >= shares(PLAIN)[0]


def test_the_whole_box_is_unknown_where_asked_for() -> None:
    planes = planes_of(np.where(labels() == OTHERS, BACKGROUND, labels()), NEAR, replace(PLAIN, box=1.0), _draw())
    rows, columns = np.nonzero(~planes.known)
    assert not planes.known[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].any()


def test_others_may_stay_known() -> None:
    planes = planes_of(labels(), NEAR, replace(PLAIN, hide_others=0.0), _draw())
    assert planes.known[30, 33]
    assert not planes_of(labels(), NEAR, PLAIN, _draw()).known[30, 33]


def _draw() -> np.random.Generator:
    return np.random.default_rng(7)


def test_coarse_planes_are_the_same_all_over_a_cell() -> None:
    planes = planes_of(labels(), NEAR, replace(PLAIN, coarse=1.0, cells=(4, 4)), _draw())
    cells = planes.vertices.reshape(16, 4, 9, 4).transpose(0, 2, 1, 3).reshape(16, 9, 16)
    assert (cells == cells[..., :1]).all()
    body = planes.body.reshape(16, 4, 9, 4).transpose(0, 2, 1, 3).reshape(16, 9, 16)
    assert (body == body[..., :1]).all()
    assert (planes.body != (labels() >= 0)).any()


def test_a_warp_moves_vertices_a_little_and_no_body() -> None:
    config = replace(PLAIN, warp=1.0, warp_by=0.05)
    planes = planes_of(labels(), NEAR, config, _draw())
    own = labels() >= 0
    np.testing.assert_array_equal(planes.body, own)
    moved = np.abs(planes.vertices - labels())[own]
    assert 0 < moved.max() <= 0.05 * 64 + 1


def test_jitter_takes_vertices_near_by() -> None:
    planes = planes_of(labels(), NEAR, replace(PLAIN, jitter=1.0), _draw())
    own = labels() >= 0
    given, found = labels()[own], planes.vertices[own]
    assert (found != given).any()
    assert all(vertex in NEAR[before] for before, vertex in zip(given.tolist(), found.tolist(), strict=True))


def test_the_nearest_vertex_is_the_vertex_itself() -> None:
    np.testing.assert_array_equal(NEAR[:, 0], np.arange(VERTICES))
    assert NEAR.shape == (VERTICES, 5)


def test_looks_are_padded_with_noise() -> None:
    looks = np.ones((500, LOOK), np.float32)
    z = padded(looks, LOOK + 4, _draw())
    np.testing.assert_array_equal(z[:, :LOOK], looks)
    assert z.dtype == np.float32
    assert 0.9 < z[:, LOOK:].std() < 1.1
    with pytest.raises(ValueError, match="z has 5"):
        padded(looks, 5, _draw())


def test_a_batch_is_what_networks_take(tmp_path: Path) -> None:
    given = crops(tmp_path, 3)
    batch = make_batch(given, [1, 0], NEAR, PLAIN, 8, _draw())
    assert batch.image.shape == (2, 3, *SIZE)
    assert batch.mask.shape == batch.body.shape == batch.wanted.shape == (2, 1, *SIZE)
    assert batch.vertices.shape == (2, *SIZE)
    assert batch.z.shape == (2, 8)
    np.testing.assert_allclose(batch.image[0].permute(1, 2, 0).numpy(), given.images[1] / 127.5 - 1, atol=1e-6)
    assert (batch.mask * batch.body).max() == 0
    np.testing.assert_array_equal(batch.z[:, :LOOK].numpy(), given.looks[[1, 0]])


@pytest.mark.parametrize("workers", [0, 2])
def test_steps_are_made_in_order_wherever_they_begin(tmp_path: Path, workers: int) -> None:
    given = crops(tmp_path, 3)

    def make(step: int) -> Batch:
        return make_batch(given, [0], NEAR, AugmentConfig(), 8, np.random.default_rng(step))

    ahead = Ahead(make, workers=workers)
    ahead.begin(0)
    whole = [ahead.take().z for _ in range(6)]
    ahead.begin(4)
    assert ahead.take().z.tolist() == whole[4].tolist()
    assert ahead.take().z.tolist() == whole[5].tolist()
    assert whole[4].tolist() != whole[5].tolist()
    ahead.close()
