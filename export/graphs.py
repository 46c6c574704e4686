"""The graphs of a generator's bundle: modules with the tensor names that others feed, and what declares them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.manifest import Tensor as Declared
from export.models.folded import fold, halve
from export.models.surface import SurfaceUnet
from export.models.tables import TableMapping, TableModulation
from export.models.unet import Mapping, StyleUnet

#: Persons in the inputs that a graph is traced and verified with: more than one, so that the batch stays free.
EXAMPLES = 2

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class GraphPlan:
    """One graph before it is exported.

    Attributes:
        key: its name in the manifest.
        file: its name in the bundle.
        module: takes the inputs in order.
        inputs: their declarations; words in shapes are free dimensions.
        outputs: the declarations of what it gives.
        example: an array for every input.
        half: whether it computes in float16.
    """

    key: str
    file: str
    module: nn.Module
    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]
    example: Arrays
    half: bool = False


class _UnetGenerator(nn.Module):
    """The U-Net with its inputs in the declared order."""

    def __init__(self, network: StyleUnet) -> None:
        super().__init__()
        self.network = network
        self.surface = network.spec.embedding_channels > 0

    def forward(self, image: Tensor, mask: Tensor, *rest: Tensor) -> Tensor:
        """`rest` is w, and with a surface embedding and embedding_mask before it."""
        embedding, embedding_mask = rest[:2] if self.surface else (None, None)
        made: Tensor = self.network(image, mask, rest[-1], embedding, embedding_mask)
        return made


class _SurfaceGenerator(nn.Module):
    """SG-GAN's generator that gathers its modulation from tables."""

    def __init__(self, network: SurfaceUnet, modulation: TableModulation) -> None:
        super().__init__()
        self.network, self.modulation = network, modulation

    def forward(
        self, image: Tensor, mask: Tensor, embedding: Tensor, vertices: Tensor, slot: Tensor, *tables: Tensor
    ) -> Tensor:
        """See the table of tensor names."""
        made: Tensor = self.network(image, mask, embedding, self.modulation(vertices, slot, tables))
        return made


def unet_mapping(network: Mapping, example: Arrays) -> GraphPlan:
    """The mapping network, folded in place."""
    z_channels, w_channels = example["z"].shape[1], len(network.w_avg)
    return GraphPlan(
        key="mapping",
        file="mapping.onnx",
        module=fold(network),
        inputs=(Declared(name="z", dtype="float32", shape=("N", z_channels), meaning="standard normal"),),
        outputs=(Declared(name="w", dtype="float32", shape=("N", w_channels), meaning="not truncated"),),
        example={"z": example["z"]},
    )


def unet_generator(network: StyleUnet, example: Arrays, *, half: bool) -> GraphPlan:
    """The U-Net of folded layers; halved in place if asked for."""
    spec = network.spec
    inputs = [*_pictures(spec.image_size)]
    if spec.embedding_channels:
        inputs += [
            _embedding(spec.embedding_channels, spec.image_size),
            Declared(
                name="embedding_mask",
                dtype="float32",
                shape=("N", 1, *spec.image_size),
                meaning="1 on the body, else 0",
            ),
        ]
    inputs.append(
        Declared(name="w", dtype="float32", shape=("N", spec.w_channels), meaning="a person's latent, truncated")
    )
    module = _UnetGenerator(halve(network) if half else network)
    return _generator(module, inputs, example, spec.image_size, half)


def surface_mapping(mapping: TableMapping, vertices: int, example: Arrays) -> GraphPlan:
    """From z to tables; folded in place."""
    widths = mapping.plan.widths
    return GraphPlan(
        key="mapping",
        file="mapping.onnx",
        module=fold(mapping),
        inputs=(
            Declared(name="z", dtype="float32", shape=(1, example["z"].shape[1]), meaning="standard normal"),
            Declared(
                name="truncation",
                dtype="float32",
                shape=(1,),
                meaning="0 is the average of every vertex, 1 is not truncated",
            ),
        ),
        outputs=tuple(
            Declared(
                name=f"table_{i}",
                dtype="float32",
                shape=(vertices + 2, width),
                meaning="a row per vertex, then one for known and one for border pixels",
            )
            for i, width in enumerate(widths)
        ),
        example={"z": example["z"][:1], "truncation": np.array([0.7], np.float32)},
    )


def surface_generator(network: SurfaceUnet, modulation: TableModulation, example: Arrays, *, half: bool) -> GraphPlan:
    """SG-GAN of folded layers; halved in place if asked for."""
    spec = network.spec
    size = spec.image_size
    dtype = "float16" if half else "float32"
    inputs = [
        *_pictures(size),
        _embedding(spec.embedding_channels, size),
        Declared(
            name="vertices",
            dtype="int64",
            shape=("N", *size),
            meaning=f"0..{spec.vertices - 1}, {spec.vertices} where known, {spec.vertices + 1} on the border",
        ),
        Declared(name="slot", dtype="int64", shape=("N",), meaning="which of the stacked tables is the person's"),
        *(
            Declared(
                name=f"table_{i}",
                dtype="float16" if half else "float32",
                shape=("S", spec.vertices + 2, width),
                meaning="as the mapping gives them, stacked",
            )
            for i, width in enumerate(modulation.plan.widths)
        ),
    ]
    if half:
        halve(network)
        modulation.halve()
    fed = {name: a.astype(dtype) if name.startswith("table_") else a for name, a in example.items()}
    return _generator(_SurfaceGenerator(network, modulation), inputs, fed, size, half)


def _generator(
    module: nn.Module, inputs: list[Declared], example: Arrays, size: tuple[int, int], half: bool
) -> GraphPlan:
    key = "generator_fp16" if half else "generator"
    return GraphPlan(
        key=key,
        file=f"{key}.onnx",
        module=module,
        inputs=tuple(inputs),
        outputs=(
            Declared(
                name="output",
                dtype="float32",
                shape=("N", 3, *size),
                meaning="RGB, nominally -1..1, not clipped; `image` where the mask is 1",
            ),
        ),
        example={tensor.name: example[tensor.name] for tensor in inputs},
        half=half,
    )


def _pictures(size: tuple[int, int]) -> tuple[Declared, Declared]:
    return (
        Declared(
            name="image",
            dtype="float32",
            shape=("N", 3, *size),
            meaning="RGB, -1..1; multiplied by the mask inside the graph",
        ),
        Declared(name="mask", dtype="float32", shape=("N", 1, *size), meaning="1 where known, 0 where to be generated"),
    )


def _embedding(channels: int, size: tuple[int, int]) -> Declared:
    return Declared(
        name="embedding",
        dtype="float32",
        shape=("N", channels, *size),
        meaning="of each body pixel's vertex, 0 outside the body",
    )


def random_inputs(
    size: tuple[int, int], z_channels: int, embedding_channels: int, vertices: int, *, seed: int = 1
) -> Arrays:
    """Persons in the middle of noise: body, a border round it, known pixels outside.

    Args:
        size: height and width.
        z_channels: of z.
        embedding_channels: of the embedding, 0 for none.
        vertices: K, 0 for a network without vertices.
        seed: of all draws.

    Returns:
        By the graphs' tensor names; also `border`, (N,1,H,W).
    """
    draw = np.random.Generator(np.random.PCG64(seed))
    shape = (EXAMPLES, 1, *size)
    v, u = np.meshgrid(np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1]), indexing="ij")
    radii = np.hypot(u / 0.6, v / 0.8)[None, None] * draw.uniform(0.9, 1.2, (EXAMPLES, 1, 1, 1))
    body, mask = (radii < 0.9).astype(np.float32), (radii >= 1).astype(np.float32)
    made: Arrays = {
        "image": draw.uniform(-1, 1, (EXAMPLES, 3, *size)).astype(np.float32),
        "mask": mask,
        "z": draw.standard_normal((EXAMPLES, z_channels)).astype(np.float32),
        "embedding_mask": body,
        "border": 1 - mask - body,
        "slot": np.arange(EXAMPLES, dtype=np.int64)[::-1].copy(),
    }
    if embedding_channels:
        vectors = draw.standard_normal((EXAMPLES, embedding_channels, *size)).astype(np.float32)
        made["embedding"] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) * body
    if vertices:
        index = draw.integers(0, vertices, shape)
        made["vertices"] = np.where(mask > 0, vertices, np.where(body > 0, index, vertices + 1))[:, 0].astype(np.int64)
    return made


def tensors(arrays: Arrays, *names: str) -> list[Tensor]:
    """Arrays as tensors, in the order of the names."""
    return [torch.from_numpy(arrays[name]) for name in names]
