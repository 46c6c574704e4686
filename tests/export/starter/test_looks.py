from __future__ import annotations

import numpy as np
import pytest

from export.starter.looks import COLOURS, LOOK_SIZE, Hair, Over, Pattern, draw_look, look_of


def _latent(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(LOOK_SIZE).astype(np.float32)


def test_one_latent_is_one_look() -> None:
    first, second = look_of(_latent(3)), look_of(_latent(3))

    np.testing.assert_array_equal(first.palette, second.palette)
    assert (first.top, first.hair, first.sleeve, first.seed) == (second.top, second.hair, second.sleeve, second.seed)
    np.testing.assert_array_equal(first.latent, _latent(3))


def test_looks_stay_in_their_ranges_and_use_every_kind() -> None:
    looks = [look_of(_latent(seed)) for seed in range(600)]

    for look in looks:
        assert look.palette.shape == (len(COLOURS), 3)
        assert 0 <= look.palette.min() <= look.palette.max() <= 1
        assert -0.05 <= look.sleeve <= 0.99
        assert look.loose_top > 0
        assert look.skirt == 0 or 0.25 < look.skirt <= 0.9
    assert {look.hair for look in looks} == set(Hair)
    assert {look.over for look in looks} == set(Over)
    assert {look.top for look in looks} == set(Pattern)
    assert len({look.hair_length > 0 for look in looks if look.hair is Hair.LONG}) == 1


def test_extreme_latents_are_looks_too() -> None:
    for value in (-40.0, 0.0, 40.0):
        look = look_of(np.full(LOOK_SIZE, value, np.float32))
        assert np.isfinite(look.palette).all()


def test_every_number_of_the_latent_matters_to_somebody() -> None:
    unused = []
    for index in range(LOOK_SIZE):
        changed = False
        for seed in range(40):
            latent = _latent(seed)
            moved = latent.copy()
            moved[index] += 1.5
            first, second = look_of(latent), look_of(moved)
            fields = [name for name in type(first).__slots__ if name not in ("latent", "palette")]
            changed |= not np.array_equal(first.palette, second.palette)
            changed |= any(getattr(first, name) != getattr(second, name) for name in fields)
        if not changed:
            unused.append(index)
    assert unused == []


def test_a_latent_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="latent has shape"):
        look_of(np.zeros(LOOK_SIZE + 1, np.float32))


def test_drawn_looks_differ() -> None:
    rng = np.random.default_rng(0)
    assert not np.array_equal(draw_look(rng).palette, draw_look(rng).palette)
