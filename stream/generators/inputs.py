"""The inputs of a generator that show its crops, made on the host, or where its graph runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from engines.manifest import Graph, Normalisation, Tensor
from engines.small_graphs import SmallGraph, small_graph
from stream.generators.base import Array, Bools, Crops, Floats, Ints

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


def graph_vertices(vertices: Ints, known: Bools, body: Bools, count: int) -> Ints:
    """The row of the tables that each pixel takes: its vertex, K for known pixels, K + 1 for border pixels.

    The three indicator planes of V-SAM (known, border, body) are one-hot, so that each pixel is one of K + 2 cases. A
    pixel that is both known and body counts as body.

    Args:
        vertices: int64 (..., H, W), 0 to K - 1 on the body; elsewhere it is not looked at.
        known: bool, same shape.
        body: bool, same shape.
        count: K, the vertices of the surface.
    """
    return np.asarray(np.where(body, vertices, np.where(known, count, count + 1)), np.int64)


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
        self._columns = None if embeddings is None else np.ascontiguousarray(_rows(embeddings).T)

    def of(self, crops: Crops) -> dict[str, Array]:
        """See `Inputs`."""
        image, mask = to_network(crops, self.normalisation)
        made: dict[str, Array] = {"image": image, "mask": mask}
        if self._columns is not None and self.vertices is not None:
            made["vertices"] = places = _places(crops, self.vertices)
            made["embedding"] = _looked_up(self._columns, places)
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
        rows = nodes.constant(_rows(embeddings), np.float32)
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


def _rows(embeddings: Floats) -> Floats:
    """With a row for known and one for border pixels, which have no embedding: (K + 2, C)."""
    return np.concatenate([embeddings, np.zeros((2, embeddings.shape[1]), np.float32)])


def _places(crops: Crops, count: int) -> Ints:
    if crops.vertices is None or crops.body is None:
        raise ValueError("the crops have no vertices; check_crops says so")
    return graph_vertices(crops.vertices, crops.known, crops.body, count)


def _looked_up(columns: Floats, places: Ints) -> Floats:
    """The embedding of each pixel's vertex, (N, C, H, W)."""
    out = np.empty((len(places), len(columns), *places.shape[1:]), np.float32)
    for plane, index in zip(out, places, strict=True):
        # All of them are rows; "clip" only spares a second buffered check.
        np.take(columns, index, axis=1, out=plane, mode="clip")
    return out
