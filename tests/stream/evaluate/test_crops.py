from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest

from engines.store import Store
from stream.assemble import Bundles, find_bundles
from stream.evaluate.crops import Cut, People
from stream.evaluate.methods import Methods, MethodSettings
from stream.evaluate.path_length import step
from stream.frame import Image
from stream.generators import classical
from stream.regions import Kind, Regions
from tests.fakes import noise
from tests.generator_bundles import HEIGHT, WIDTH
from tests.stream.evaluate.made import write_store

pytest.importorskip("onnxruntime", reason="generators run in ONNX Runtime")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write_store(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def image() -> Image:
    return noise(1, 160, 120)[0]


def found(store: Store, preset: str, image: Image) -> tuple[Bundles, Regions]:
    settings = MethodSettings()
    with contextlib.closing(Methods.open(preset, ("blur",), settings, store)) as methods:
        return find_bundles(settings.of_preset(preset), store), methods.look(image, "x").detections


@pytest.fixture(scope="module", params=["sg-gan", "deepprivacy2"])
def people_and_cuts(request: pytest.FixtureRequest, store: Store, image: Image) -> Iterator[tuple[People, list[Cut]]]:
    bundles, regions = found(store, request.param, image)
    people = People(bundles, MethodSettings().of_preset(request.param), Kind.PERSON, 1.0)
    yield people, list(people.cuts(image, regions))
    people.close()


def test_everybody_who_is_large_enough_is_cut_out_for_a_generator(
    people_and_cuts: tuple[People, list[Cut]],
) -> None:
    people, cuts = people_and_cuts
    assert len(cuts) >= 2
    assert people.sizes == f"{WIDTH}x{HEIGHT}"
    for cut in cuts:
        assert cut.real.shape == (HEIGHT, WIDTH, 3)
        assert 0 < cut.unknown.mean() < 1
        # What is under the mask shows: it is what is compared with.
        assert cut.real[cut.unknown].std() > 1


def test_a_stand_in_is_a_function_of_its_latent_and_nothing_known_changes(
    people_and_cuts: tuple[People, list[Cut]],
) -> None:
    people, cuts = people_and_cuts
    z = people.latents(cuts[0], 3, 0, 2)
    assert np.array_equal(z, people.latents(cuts[0], 3, 0, 2))
    assert not np.array_equal(z, people.latents(cuts[0], 3, 1, 2))
    first, again, other = (people.generate(cuts[0], one) for one in (z[0], z[0], z[1]))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    known = ~cuts[0].unknown
    assert np.array_equal(first[known], cuts[0].real[known].astype(np.float32))


def test_a_small_step_moves_a_stand_in_a_little(people_and_cuts: tuple[People, list[Cut]]) -> None:
    people, cuts = people_and_cuts
    z = people.latents(cuts[0], 0, 0, 2)
    start = people.generate(cuts[0], z[0])
    gaps = [np.abs(people.generate(cuts[0], step(z[0], z[1], e)) - start).max() for e in (1e-3, 1e-2, 1.0)]
    assert 0 < gaps[0] < gaps[1] < gaps[2]
    assert gaps[0] == pytest.approx(gaps[1] / 10, rel=0.2)


def test_nothing_of_what_is_hidden_reaches_a_stand_in(store: Store, image: Image) -> None:
    bundles, regions = found(store, "deepprivacy2", image)
    with contextlib.closing(People(bundles, MethodSettings().of_preset("deepprivacy2"), Kind.PERSON, 1.0)) as people:
        cut = next(people.cuts(image, regions))
        changed = next(people.cuts(255 - image, regions))
        crops = changed.crops
        crops.images[:, ~cut.unknown] = cut.real[~cut.unknown]
        z = people.latents(cut, 0, 0, 1)[0]
        first = people.generate(cut, z)
        second = people.generate(changed, z)
        assert np.array_equal(first[cut.unknown], second[cut.unknown])
        assert not np.array_equal(cut.real[cut.unknown], changed.real[cut.unknown])


def test_a_classical_method_fills_the_mask_alone(people_and_cuts: tuple[People, list[Cut]]) -> None:
    _, cuts = people_and_cuts
    filled = cuts[0].filled(classical.mask_out((1, 2, 3)))
    assert (filled[cuts[0].unknown] == (1, 2, 3)).all()
    assert np.array_equal(filled[~cuts[0].unknown], cuts[0].real[~cuts[0].unknown])


def test_faces_are_cut_out_where_they_are_asked_for(store: Store) -> None:
    image = noise(1, 640, 480)[0]
    bundles, regions = found(store, "deepprivacy2", image)
    with contextlib.closing(People(bundles, MethodSettings().of_preset("deepprivacy2"), Kind.FACE, 1.0)) as people:
        assert {cut.role for cut in people.cuts(image, regions)} == {"face"}
