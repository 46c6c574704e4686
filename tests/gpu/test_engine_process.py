"""Engines in a process of their own, on a GPU: what streams get of them is what engines of their own would give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.batching import Limits
from engines.bundle import Bundle
from engines.engine_process import start_engine_process
from engines.engine_server import ServerSettings
from engines.runtime import Device, open_runtime
from engines.store import Store

pytestmark = pytest.mark.gpu

Feeds = dict[str, Any]


def person(bundle: Bundle) -> Feeds:
    """A crop with a body on a border before what is known, and made-up tables."""
    draw, graph = np.random.default_rng(0), bundle.graph("generator")
    shapes = {tensor.name: [1 if isinstance(side, str) else side for side in tensor.shape] for tensor in graph.inputs}
    made: Feeds = {name: draw.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    rows, (_, height, width) = shapes["table_0"][1], shapes["vertices"]
    vertices = np.full((1, height, width), rows - 2)
    vertices[:, height // 8 : -height // 8, width // 8 : -width // 8] = rows - 1
    body = np.s_[:, height // 4 : -height // 4, width // 4 : -width // 4]
    vertices[body] = draw.integers(0, rows - 2, vertices[body].shape)
    made["mask"] = (vertices == rows - 2)[:, None].astype(np.float32)
    return made | {"vertices": vertices.astype(np.int64), "slot": np.zeros(1, np.int64)}


def picture(_: Bundle) -> Feeds:
    image = np.random.default_rng(1).normal(0, 1, (1, 3, 192, 320)).astype(np.float32)
    return {"image": image, "image_size": np.array([[192, 320]], np.int64)}


@pytest.mark.parametrize(
    ("name", "graph", "feeds_of"),
    [("starter-generator", "generator", person), ("starter-detector", "detector", picture)],
)
def test_an_engine_process_gives_what_engines_here_give(
    name: str, graph: str, feeds_of: Any, device: Device, tmp_path: Path
) -> None:
    bundle = Store(tmp_path / "store").open(name)
    feeds = feeds_of(bundle)
    process = start_engine_process(tmp_path / "run" / "engine", ServerSettings(device, 1, Limits(4, 0.001, 2)))
    try:
        with (
            open_runtime(bundle, graph, server=process.path) as there,
            open_runtime(bundle, graph, device=device, threads=1) as here,
        ):
            found, wanted = there.run(feeds), here.run(feeds)
        assert process.pulse().device == device
    finally:
        process.kill()
    assert set(found) == set(wanted)
    for output, values in wanted.items():
        np.testing.assert_allclose(found[output], values, rtol=1e-3, atol=1e-3, err_msg=output)
