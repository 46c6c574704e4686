from __future__ import annotations

import numpy as np

from export.starter.degradation import degrade


def _picture() -> np.ndarray:
    rows, columns = np.mgrid[0:36, 0:64]
    return np.stack([rows * 7, columns * 4, (rows + columns) * 2], axis=2).astype(np.uint8)


def test_pictures_change_but_stay_recognisable() -> None:
    picture = _picture()
    changes = []
    for seed in range(60):
        worse = degrade(np.random.default_rng(seed), picture)
        assert (worse.dtype, worse.shape) == (picture.dtype, picture.shape)
        changes.append(float(np.abs(worse.astype(int) - picture).mean()))
        grey, before = worse.mean(axis=2).ravel(), picture.mean(axis=2).ravel()
        assert np.corrcoef(grey, before)[0, 1] > 0.7
    assert min(changes) > 0.5
    assert max(changes) > 20


def test_the_same_generator_gives_the_same_faults() -> None:
    first, second = (degrade(np.random.default_rng(5), _picture()) for _ in range(2))
    np.testing.assert_array_equal(first, second)
