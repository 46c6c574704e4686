"""What is computed beside the networks, on the GPU against the processor: within 2 of 255 on 99.9 % of the pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from engines.bundle import Bundle
from engines.manifest import Normalisation
from engines.resident import as_numpy
from engines.runtime import Device
from engines.small_graphs import SmallGraph
from stream import resample
from stream.compose.resampler import HOST, DeviceResampler, levels_graph
from stream.detectors.pictures import DevicePictures, Form, HostPictures, pictures_graph
from stream.detectors.view import shortest_edge, show_full, show_limited
from stream.frame import Frame
from stream.generators.inputs import HostInputs, RawInputs, crops_graph
from stream.generators.open import open_generator
from stream.latents import Latents
from stream.surface import Surface
from stream.surface_search import search_graph
from tests.generator_bundles import HEIGHT, VERTICES, WIDTH, crops, vertex_embeddings, write_surface, write_unet

pytestmark = pytest.mark.gpu

HALVES = Normalisation(colour="rgb", mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5), multiple=1)
DENSE = ("image", "mask", "embedding", "embedding_mask")
GUIDED = ("image", "mask", "embedding", "vertices")


@pytest.mark.parametrize(
    "graph",
    [
        pictures_graph(),
        search_graph(),
        levels_graph("uint8"),
        levels_graph("float32"),
        crops_graph(DENSE, (HEIGHT, WIDTH), HALVES, vertex_embeddings()),
        crops_graph(GUIDED, (HEIGHT, WIDTH), HALVES, vertex_embeddings()),
    ],
    ids=["pictures", "search", "crops", "answers", "dense inputs", "guided inputs"],
)
def test_no_node_is_left_to_the_processor(graph: SmallGraph, gpu: Device) -> None:
    with graph.open(gpu) as runtime:
        assert runtime.placement is not None
        assert runtime.placement.on_cpu == {}


@pytest.mark.parametrize("one_stage", [False, True], ids=["two stages", "one stage"])
def test_a_detectors_input_is_the_hosts(one_stage: bool, device: Device) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), np.uint8)
    frame, normal = (
        Frame(image),
        Normalisation(colour="rgb", mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0), multiple=32),
    )
    full = show_full(frame, lambda height, width: shortest_edge(height, width, 800, 1333))
    shown, form = show_limited(frame, 1280) if one_stage else full, Form(normal, one_stage=one_stage)
    there = DevicePictures(pictures_graph().open(device), form)
    apart = np.abs(as_numpy(there.make(frame, shown)) - HostPictures(form).make(frame, shown))
    assert (apart <= 2).mean() >= 0.999
    assert apart.max() < 1.01
    there.close()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_crops_and_answers_are_the_hosts(dtype: Literal["uint8", "float32"], device: Device) -> None:
    image = np.random.default_rng(2).uniform(0, 256, (540, 300, 3)).astype(dtype)
    there = DeviceResampler({dtype: levels_graph(dtype).open(device)})
    for filter_, size in (("bicubic", (288, 160)), ("bilinear", (288, 160)), ("bicubic", (900, 500))):
        rows, columns = (resample.axis(filter_, image.shape[i], size[i]) for i in (0, 1))
        apart = HOST.levels(image, rows, columns).astype(int) - there.levels(image, rows, columns)
        assert (np.abs(apart) <= 2).mean() >= 0.999
    there.close()


@pytest.mark.parametrize("names", [DENSE, GUIDED], ids=["dense", "guided"])
def test_what_generators_are_shown_is_the_hosts(names: tuple[str, ...], device: Device) -> None:
    crop = crops(1, 2, 3)
    expected = HostInputs(names, HALVES, vertex_embeddings()).of(crop)
    with crops_graph(names, (HEIGHT, WIDTH), HALVES, vertex_embeddings()).open(device) as there:
        found = there.run(RawInputs(VERTICES).of(crop), names)
        for name, values in expected.items():
            np.testing.assert_allclose(as_numpy(found[name]), values, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("write", [lambda p: write_unet(p, surface=True), write_surface], ids=["dense", "guided"])
def test_generators_whose_inputs_are_made_there_give_what_the_processor_gives(
    write: Callable[[Path], Bundle], tmp_path: Path, device: Device
) -> None:
    bundle, crop = write(tmp_path / "b"), crops(1, 2, 3)
    made = []
    places: tuple[Device, ...] = ("cpu", device)
    for place in places:
        generator = open_generator(bundle, device=place, latents=Latents(1))
        generator.request(crop.track_ids)
        assert generator.wait(crop.track_ids, 60).all()
        made.append(generator.generate(crop).output)
        generator.close()
    np.testing.assert_allclose(made[1], made[0], atol=1e-3)


def test_nearest_vertices_are_as_near_as_the_hosts(device: Device) -> None:
    draw = np.random.default_rng(1)
    directions = draw.normal(size=(27_554, 16))
    points = np.asarray(directions / np.linalg.norm(directions, axis=1, keepdims=True), np.float32)
    queries = np.asarray(points[draw.integers(0, len(points), 5000)] + draw.normal(0, 0.1, (5000, 16)), np.float32)
    there = Surface(points, runtime=search_graph().open(device))
    found, expected = there.nearest(queries), Surface(points).nearest(queries)
    far, near = (np.linalg.norm(queries - points[chosen], axis=1) for chosen in (found, expected))
    assert (far <= near + 1e-4).all()
    assert (found == expected).mean() > 0.99
    there.close()
