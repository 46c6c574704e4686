from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import UsageError
from stream.latents import CHANNELS, Latents, Truncation, choose_truncation, truncate, truncate_latent
from tests.generator_bundles import some

FEW = range(40)


def test_a_track_keeps_its_latent() -> None:
    latents = Latents()
    first = latents.of(3)
    latents.of(4)
    assert latents.of(3) is first
    assert first.z.shape == (CHANNELS,)
    assert first.z.dtype == np.float32


def test_a_latent_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        Latents().of(0).z[0] = 1


@pytest.mark.parametrize("seed", [None, 0])
def test_tracks_differ(seed: int | None) -> None:
    latents = Latents(seed)
    assert len({latents.of(i).z.tobytes() for i in FEW}) == len(FEW)
    assert len({latents.of(i).centre for i in FEW}) == len(FEW)


@pytest.mark.parametrize("seed", [None, 7])
def test_z_is_standard_normal(seed: int | None) -> None:
    latents = Latents(seed)
    z = np.stack([latents.of(i).z for i in FEW])
    # 20480 numbers: the mean's deviation is 0.007, that of the standard deviation 0.005.
    assert abs(z.mean()) < 0.05
    assert abs(z.std() - 1) < 0.04


def test_with_a_seed_a_latent_depends_on_the_seed_and_the_track_alone() -> None:
    forward, backward, other = Latents(5), Latents(5), Latents(6)
    expected = {i: forward.of(i) for i in FEW}
    for i in reversed(FEW):
        again = backward.of(i)
        assert np.array_equal(again.z, expected[i].z)
        assert again.centre == expected[i].centre
        assert not np.array_equal(other.of(i).z, expected[i].z)


def test_without_a_seed_nothing_repeats() -> None:
    assert not np.array_equal(Latents().of(0).z, Latents().of(0).z)


def test_a_dropped_track_loses_its_latent_and_the_others_keep_theirs() -> None:
    latents = Latents()
    gone, stays = latents.of(1), latents.of(2)
    latents.drop(1)
    latents.drop(1)
    assert latents.tracks == 1
    assert latents.of(2) is stays
    assert not np.array_equal(latents.of(1).z, gone.z)


def test_another_stream_begins_with_other_latents() -> None:
    latents = Latents()
    before = latents.of(0)
    latents.clear()
    assert latents.tracks == 0
    assert not np.array_equal(latents.of(0).z, before.z)


def test_threads_that_ask_for_the_same_track_get_the_same_latent() -> None:
    latents = Latents()
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda i: (i % 5, latents.of(i % 5)), range(400)))
    assert len({(track, id(latent)) for track, latent in got}) == 5


def test_a_region_without_a_track_owns_no_latent() -> None:
    with pytest.raises(ValueError, match="no track's"):
        Latents().of(-1)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(UsageError, match="seed is -1"):
        Latents(-1)


@pytest.mark.parametrize("centres", [1, 2, 3, 8])
def test_every_centre_is_chosen_about_as_often(centres: int) -> None:
    latents = Latents(1)
    chosen = np.bincount([latents.of(i).centre % centres for i in range(2000)], minlength=centres)
    assert (abs(chosen / 2000 - 1 / centres) < 0.05).all()


def test_truncation_goes_from_the_average_to_the_latent() -> None:
    w, average = some(1, CHANNELS), some(2, CHANNELS)
    assert np.array_equal(truncate(w, average, 0), average)
    assert np.allclose(truncate(w, average, 1), w, atol=1e-6)
    assert np.allclose(truncate(w, average, 0.25), 0.75 * average + 0.25 * w, atol=1e-6)
    assert truncate(w, average, 0.25).dtype == np.float32


@given(st.floats(-1e6, 1e6))
def test_truncation_is_clipped(value: float) -> None:
    w, average = some(1, 4, CHANNELS), some(2, CHANNELS)
    clipped = min(1.0, max(0.0, value))
    assert np.array_equal(truncate(w, average, value), truncate(w, average, clipped))
    assert Truncation(value).clipped == clipped


@pytest.mark.parametrize("shape", [(CHANNELS + 1,), (1, CHANNELS), ()])
def test_an_average_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="its average"):
        truncate(some(1, CHANNELS), some(2, *shape), 0.5)


def test_multi_modal_truncation_goes_towards_the_tracks_own_centre() -> None:
    latents, w, average, centres = Latents(0), some(1, CHANNELS), some(2, CHANNELS), some(3, 3, CHANNELS)
    found = set()
    for track in FEW:
        latent = latents.of(track)
        drawn = truncate_latent(w, latent, Truncation(0, multi_modal=True), average, centres)
        assert np.array_equal(drawn, centres[latent.centre % 3])
        found.add(latent.centre % 3)
        half = truncate_latent(w, latent, Truncation(0.5, multi_modal=True), average, centres)
        assert np.allclose(half, (centres[latent.centre % 3] + w) / 2, atol=1e-6)
        plain = truncate_latent(w, latent, Truncation(0.5), average, centres)
        assert np.allclose(plain, (average + w) / 2, atol=1e-6)
    assert found == {0, 1, 2}


@pytest.mark.parametrize("centres", [None, some(3, 0, CHANNELS)])
def test_multi_modal_truncation_needs_centres(
    centres: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None,
) -> None:
    with pytest.raises(ValueError, match="at least one centre"):
        truncate_latent(
            some(1, CHANNELS), Latents().of(0), Truncation(0.5, multi_modal=True), some(2, CHANNELS), centres
        )


@pytest.mark.parametrize(
    ("value", "multi_modal", "centres", "expected"),
    [
        (None, None, 3, Truncation(0.5, multi_modal=True)),
        (None, None, 0, Truncation(0.7, multi_modal=False)),
        (None, False, 3, Truncation(0.7, multi_modal=False)),
        (0.2, None, 3, Truncation(0.2, multi_modal=True)),
        (0.2, None, 0, Truncation(0.2, multi_modal=False)),
        (0.2, False, 3, Truncation(0.2, multi_modal=False)),
        (0.0, True, 1, Truncation(0.0, multi_modal=True)),
    ],
)
def test_what_is_not_asked_for_is_chosen(
    value: float | None, multi_modal: bool | None, centres: int, expected: Truncation
) -> None:
    assert choose_truncation(value, multi_modal, centres=centres) == expected


def test_multi_modal_truncation_is_not_replaced_in_silence() -> None:
    with pytest.raises(UsageError, match="has none"):
        choose_truncation(None, True, centres=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_truncation_is_finite(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Truncation(value)
