from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.errors import UsageError
from engines.store import Store
from stream.assemble import find_bundles
from stream.evaluate.crop_measures import CropMeasures, CropTools
from stream.evaluate.crops import People
from stream.evaluate.methods import Methods, MethodSettings
from stream.evaluate.path_length import EPSILON, step
from stream.frame import Image
from stream.generators import classical
from stream.networks import NetworkSettings
from stream.perception import PerceptualNetwork, VectorNetwork, perceptual_distance
from stream.regions import Kind, Regions
from tests.fakes import noise
from tests.stream.evaluate.made import map_network, vector_network, write_store

pytest.importorskip("onnxruntime", reason="networks run in ONNX Runtime")
IMAGES = noise(3, 160, 120)


def shift(real: Any, made: Any) -> float:
    return float(np.square(real.mean(axis=0) - made.mean(axis=0)).sum())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write_store(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def people(store: Store) -> Iterator[People]:
    settings = MethodSettings().of_preset("sg-gan")
    with contextlib.closing(People(find_bundles(settings, store), settings, Kind.PERSON, 1.0)) as people:
        yield people


@pytest.fixture(scope="module")
def regions(store: Store) -> Regions:
    with contextlib.closing(Methods.open("sg-gan", ("blur",), MethodSettings(), store)) as methods:
        return methods.look(IMAGES[0], "x").detections


def tools(folder: Path, *, size: tuple[int | str, int | str] = ("h", "w")) -> CropTools:
    features = VectorNetwork(
        NetworkSettings(vector_network(folder / "f.onnx", pooled=True), mean=0.0, std=1.0), "--features"
    )
    perceptual = PerceptualNetwork(NetworkSettings(map_network(folder / "p.onnx", size), mean=0.0, std=1.0))
    return CropTools((features, shift), perceptual, seed=0, truncation=1.0)


def measured(people: People, regions: Regions, its: CropTools, images: list[Image]) -> dict[str, dict[str, Any]]:
    fills = {"mask-out": classical.mask_out((127, 127, 127)), "nothing": lambda region: region.copy()}
    measures = CropMeasures(people, fills, "sg-gan", its)
    for image in images:
        measures.add(image, regions)
    return measures.figures()


def test_each_method_has_its_figures_and_what_changes_nothing_has_no_distance(
    people: People, regions: Regions, tmp_path: Path
) -> None:
    found = measured(people, regions, tools(tmp_path), IMAGES)
    assert set(found["mask-out"]) == {"fid", "lpips"}
    assert set(found["sg-gan"]) == {"fid", "lpips", "diversity", "ppl", "ppl_float"}
    assert found["nothing"]["fid"].value == pytest.approx(0, abs=1e-6)
    assert found["nothing"]["lpips"].value == 0
    assert found["mask-out"]["lpips"].value > 0
    assert found["sg-gan"]["diversity"].value > 0
    count = len(IMAGES) * sum(1 for _ in people.cuts(IMAGES[0], regions))
    for figures in found.values():
        assert {figure.count for figure in figures.values()} == {count}
        assert all(figure.network for figure in figures.values())
    assert found["sg-gan"]["lpips"].notes == ("crops of 16x24", "truncation 1")


def test_the_figures_are_those_of_the_definitions(people: People, regions: Regions, tmp_path: Path) -> None:
    its = tools(tmp_path, size=(24, 16))
    assert its.perceptual is not None
    network = its.perceptual
    found = measured(people, regions, its, IMAGES[:1])["sg-gan"]
    diversity, lengths = [], []
    for index, cut in enumerate(people.cuts(IMAGES[0], regions)):
        z0, z1 = people.latents(cut, 0, index, 2)
        ends = [people.generate(cut, z) for z in (z0, z1, step(z0, z1))]
        diversity.append(perceptual_distance(network.maps(np.rint(ends[0])), network.maps(np.rint(ends[1]))))
        lengths.append(perceptual_distance(network.maps(ends[0]), network.maps(ends[2])) / EPSILON**2)
    assert found["diversity"].value == pytest.approx(np.mean(diversity))
    assert found["ppl_float"].value == pytest.approx(np.mean(lengths), rel=1e-6)
    # A level more or less is far more than so small a step: what is published is mostly rounding.
    assert found["ppl"].value >= 0
    assert "to 16x24" in (found["ppl"].resize or "")


def test_path_lengths_are_taken_in_64_pixels_where_the_network_takes_them(
    people: People, regions: Regions, tmp_path: Path
) -> None:
    found = measured(people, regions, tools(tmp_path), IMAGES[:1])["sg-gan"]
    assert (found["ppl"].resize or "").startswith("to 64x64")
    assert found["lpips"].resize == "none"
    assert "epsilon 0.0001" in found["ppl"].notes[-1]


def test_pictures_of_nobody_cannot_be_measured(people: People, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nobody"):
        measured(people, Regions.empty(), tools(tmp_path), IMAGES)
