"""What tests do with exported bundles: crops for them, and a graph with its guard taken out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from engines.bundle import Bundle
from engines.manifest import Generation
from export.tensorrt_checks import check_onnx
from stream.generators.base import Crops


def crops_of(generation: Generation, tracks: Sequence[int], looks: Sequence[int]) -> Crops:
    """Noise with a body in its middle and a border round it.

    Args:
        generation: of the bundle.
        tracks: an id for each crop.
        looks: what the crop shows: the same number, the same crop.
    """
    height, width = generation.image_size
    v, u = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    radii = np.repeat(np.hypot(u / 0.6, v / 0.8)[None], len(tracks), axis=0)
    body, known = radii < 0.9, radii >= 1
    draws = [np.random.default_rng(look) for look in looks]
    images = np.stack([draw.integers(0, 256, (height, width, 3), np.uint8) for draw in draws])
    ids = np.array(tracks, np.int64)
    if not generation.embedding_channels:
        return Crops(images, known, ids)
    vertices = np.stack([draw.integers(0, vertices_of(generation), (height, width)) for draw in draws])
    return Crops(images, known, ids, body, vertices.astype(np.int64))


def vertices_of(generation: Generation) -> int:
    """How many vertices the surface of `crops_of` has."""
    return generation.vertices or 50


def embeddings_of(generation: Generation) -> npt.NDArray[np.float32] | None:
    """The embeddings of these vertices, (K, C), which bundles of random weights do not come with."""
    if not generation.embedding_channels:
        return None
    draw = np.random.default_rng(0)
    return draw.standard_normal((vertices_of(generation), generation.embedding_channels)).astype(np.float32)


def write_without_the_guard(bundle: Bundle, graph: str, path: Path) -> None:
    """Writes a graph, for controls, into which `image` goes as it is, not multiplied by `mask`.

    Raises:
        LookupError: the graph has no such multiplication.
    """
    model = onnx.load(bundle.file(bundle.graph(graph).file))
    guards = [node for node in model.graph.node if node.op_type == "Mul" and set(node.input) == {"image", "mask"}]
    if len(guards) != 1:
        raise LookupError(f"{graph} multiplies image by mask {len(guards)} times")
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == guards[0].output[0]:
                node.input[i] = "image"
    model.graph.node.remove(guards[0])
    onnx.save(model, path)


def refused_by_tensorrt(bundle: Bundle) -> list[str]:
    """What TensorRT's parser would not take of a bundle's graphs."""
    return [
        str(problem)
        for name, graph in bundle.manifest.graphs.items()
        for problem in check_onnx(onnx.load(bundle.file(graph.file)))
    ]
