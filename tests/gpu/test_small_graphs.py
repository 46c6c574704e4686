"""What is computed beside the networks, on the GPU against the processor: within 2 of 255 on 99.9 % of the pixels."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from engines.manifest import Normalisation
from engines.resident import as_numpy
from engines.runtime import Device
from engines.small_graphs import SmallGraph
from stream import resample
from stream.compose.resampler import HOST, DeviceResampler, levels_graph
from stream.detectors.pictures import DevicePictures, HostPictures, pictures_graph
from stream.detectors.view import shortest_edge, show_full
from stream.frame import Frame
from stream.surface import Surface
from stream.surface_search import search_graph

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(
    "graph",
    [pictures_graph(), search_graph(), levels_graph("uint8"), levels_graph("float32")],
    ids=["pictures", "search", "crops", "answers"],
)
def test_no_node_is_left_to_the_processor(graph: SmallGraph, gpu: Device) -> None:
    with graph.open(gpu) as runtime:
        assert runtime.placement is not None
        assert runtime.placement.on_cpu == {}


def test_a_detectors_input_is_the_hosts(device: Device) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), np.uint8)
    frame, normal = (
        Frame(image),
        Normalisation(colour="rgb", mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0), multiple=32),
    )
    shown = show_full(frame, lambda height, width: shortest_edge(height, width, 800, 1333))
    there = DevicePictures(pictures_graph().open(device), normal, None)
    apart = np.abs(as_numpy(there.make(frame, shown)) - HostPictures(normal, None).make(frame, shown))
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
