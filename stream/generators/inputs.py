"""The inputs of a generator that show its crops, made on the host, or where its graph runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from engines.manifest import Graph, Normalisation, Tensor
from engines.small_graphs import SmallGraph, small_graph
from stream.generators.base import Array, Crops, Floats, Ints
from stream.vertex_map import case_embeddings, pixel_embeddings, vertex_map

if TYPE_CHECKING:
    from collections.abc import Collection

#: Every input of a generator that shows crops; its others say what they are to become.
NAMES = ("image", "mask", "embedding", "embedding_mask", "vertices")


class Inputs(Protocol):
    """Makes the inputs that show crops."""

    @property
    def vertices(self) -> int | None:
        """K, the vertices of the surface; None for generators that take no surface."""

    def of(self, crops: Crops) -> dict[str, Array]:
        """By name, one row for each crop.

        Args:
            crops: that `check_crops` let pass.
        """


def shown_by(graph: Graph) -> list[str]:
    """The names of a generator's inputs that show crops."""
    return [tensor.name for tensor in graph.inputs if tensor.name in NAMES]


def to_network(crops: Crops, normal: Normalisation) -> tuple[Floats, Floats]:
    """Image and mask as graphs take them: (N, 3, H, W) in about [-1, 1] and (N, 1, H, W), 1 where known.

    Unknown pixels are blanked here although every graph multiplies by the mask once more: a graph that was exported
    wrongly must not see them either.
    """
    mean, std = np.array(normal.mean, np.float32), np.array(normal.std, np.float32)
    scaled = (crops.images.astype(np.float32) - mean) / std
    known = crops.known[:, None]
    image = np.where(known, scaled.transpose(0, 3, 1, 2), np.float32(0))
    return np.ascontiguousarray(image, np.float32), known.astype(np.float32)


class HostInputs:
    """Makes them on the processor.

    Args:
        names: of `NAMES`, those that the graph takes.
        normalisation: of the image.
        embeddings: float32 (K, C), the embedding of each vertex; None for generators that take no surface.
    """

    def __init__(self, names: Collection[str], normalisation: Normalisation, embeddings: Floats | None) -> None:
        self.names = names
        self.normalisation = normalisation
        self.vertices = None if embeddings is None else len(embeddings)
        self._columns = None if embeddings is None else np.ascontiguousarray(case_embeddings(embeddings).T)

    def of(self, crops: Crops) -> dict[str, Array]:
        """See `Inputs`."""
        image, mask = to_network(crops, self.normalisation)
        made: dict[str, Array] = {"image": image, "mask": mask}
        if self._columns is not None and self.vertices is not None:
            made["vertices"] = places = _places(crops, self.vertices)
            made["embedding"] = pixel_embeddings(self._columns, places)
            made["embedding_mask"] = (places < self.vertices)[:, None].astype(np.float32)
        return {name: made[name] for name in self.names}


class RawInputs:
    """Leaves them to `crops_graph`, which runs before the generator's own.

    What travels is an eleventh of what is made of it, a quarter where there is no surface.

    Args:
        vertices: K, None for generators that take no surface.
    """

    def __init__(self, vertices: int | None) -> None:
        self.vertices = vertices

    def of(self, crops: Crops) -> dict[str, Array]:
        """See `Inputs`."""
        made: dict[str, Array] = {"pixels": crops.images, "known": crops.known}
        if self.vertices is not None:
            made["places"] = _places(crops, self.vertices).astype(np.int32)
        return made


def crops_graph(
    names: Collection[str], size: tuple[int, int], normalisation: Normalisation, embeddings: Floats | None
) -> SmallGraph:
    """What `HostInputs` makes, of the inputs of `RawInputs`, as a graph.

    Args:
        names: of `NAMES`, those that the generator takes.
        size: height and width of a crop.
        normalisation: of the image.
        embeddings: float32 (K, C), the embedding of each vertex; None for generators that take no surface.
    """
    # The package onnx is not needed on a processor.
    from onnx import TensorProto

    from engines.nodes import Nodes

    nodes = Nodes("crops")
    plane = "N", *size
    inputs = [
        Tensor(name="pixels", dtype="uint8", shape=(*plane, 3), meaning="RGB"),
        Tensor(name="known", dtype="bool", shape=plane, meaning="whether the pixel stays"),
    ]
    levels = nodes.one("Sub", nodes.real("pixels"), nodes.numbers(*normalisation.mean))
    channels = nodes.one("Transpose", nodes.one("Div", levels, nodes.numbers(*normalisation.std)), perm=[0, 3, 1, 2])
    seen = nodes.one("Unsqueeze", "known", nodes.integers(1))
    # Nothing of what is replaced gets further than here, see `to_network`.
    nodes.named("image", "Where", seen, channels, nodes.number(0))
    nodes.named("mask", "Cast", seen, to=TensorProto.FLOAT)
    shapes: dict[str, tuple[int, ...]] = {"image": (3, *size), "mask": (1, *size)}
    if embeddings is not None:
        inputs.append(Tensor(name="places", dtype="int32", shape=plane, meaning="a vertex, K known, K + 1 border"))
        rows = nodes.constant(case_embeddings(embeddings), np.float32)
        nodes.named("embedding", "Transpose", nodes.one("Gather", rows, "places", axis=0), perm=[0, 3, 1, 2])
        body = nodes.one("Less", "places", nodes.constant(len(embeddings), np.int32))
        nodes.named("embedding_mask", "Cast", nodes.one("Unsqueeze", body, nodes.integers(1)), to=TensorProto.FLOAT)
        nodes.named("vertices", "Cast", "places", to=TensorProto.INT64)
        shapes |= {"embedding": (embeddings.shape[1], *size), "embedding_mask": (1, *size), "vertices": size}
    outputs = [
        Tensor(
            name=name,
            dtype="int64" if name == "vertices" else "float32",
            shape=("N", *shapes[name]),
            meaning="as the generator takes it",
        )
        for name in names
    ]
    return small_graph("crops.onnx", inputs, outputs, nodes)


def _places(crops: Crops, count: int) -> Ints:
    if crops.vertices is None or crops.body is None:
        raise ValueError("the crops have no vertices; check_crops says so")
    return vertex_map(crops.vertices, crops.known, crops.body, count)
