"""What a wide generator makes of crops, for a narrow one to learn from; see `generator_narrowing`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.bundle import Bundle
from engines.errors import UsageError
from engines.runtime import open_runtime
from export.models.surface import SurfaceSpec, SurfaceUnet
from export.starter.bundle_inputs import Bools, BundleInputs, Floats, gathered
from export.starter.crop_batches import (
    BODY,
    RADIUS,
    AugmentConfig,
    grown,
    make_batch,
    nearest_vertices,
)
from export.starter.crops import OTHERS, CropSet
from export.starter.generator_network import levels_of
from export.starter.generator_slim import read_wide, widths_of

_BATCHES: Final = 1


@dataclass(frozen=True, kw_only=True)
class NarrowConfig:
    """How a generator is made narrower.

    Attributes:
        widths: channels of each level, finest first; as many levels as the wide one has, none wider.
        augment: how crops differ from what the renderer knows, as the narrow network sees them.
        truncation: least and largest of the z that are asked for.
        gradient: how much differences between neighbouring pixels count, beside the pixels' own.
        batch: crops in a step.
        rate: of Adam, falling along half a cosine.
        betas: of Adam.
        half_life: of the averaged weights, in pictures.
        bfloat16: whether the network computes in bfloat16 where that is safe.
        compiled: whether it is compiled, which needs a C++ compiler and a minute.
        workers: threads that ask the wide network.
    """

    widths: tuple[int, ...] = (16, 16, 32, 64)
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(dilation=(0.5, 8.0), box=0.15))
    truncation: tuple[float, float] = (0.4, 1.0)
    gradient: float = 1.0
    batch: int = 16
    rate: float = 0.003
    betas: tuple[float, float] = (0.5, 0.99)
    half_life: float = 5_000
    bfloat16: bool = False
    compiled: bool = False
    workers: int = 1


class Answered(NamedTuple):
    """Crops as the narrow network sees them, and what it should make of them.

    Attributes:
        image: (N,3,H,W) in [-1,1].
        mask: (N,1,H,W), 1 where known.
        embedding: (N,D,H,W), 0 outside the body.
        rows: (N,W,H,W), each pixel's row of its table, with `w_channels` channels.
        answer: (N,3,H,W), what is to be generated.
        counts: (N,1,H,W), 1 where it is: unknown pixels but those of other people, of whom nobody knows anything.
    """

    image: Tensor
    mask: Tensor
    embedding: Tensor
    rows: Tensor
    answer: Tensor
    counts: Tensor

    def to(self, device: torch.device | str) -> Answered:
        """The same on another device."""
        return Answered(*(part.to(device, non_blocking=True) for part in self))


class WideGenerator:
    """A bundle's generator, asked about crops.

    Args:
        bundle: of a V-SAM generator with a surface.
        canonical: (K, 3), the body at rest in metres, of the people in the crops.
        crops: where from.
        config: how they are drawn.
        seed: of all draws.

    Raises:
        CheckpointError: the bundle is of another kind, or for another body.
    """

    def __init__(self, bundle: Bundle, canonical: Floats, crops: CropSet, config: NarrowConfig, seed: int) -> None:
        self.weights = read_wide(bundle)
        self.spec = spec_of(bundle, self.weights)
        if self.spec.image_size != crops.size:
            raise UsageError(f"crops are {crops.size}, the generator {self.spec.image_size}; cut them again")
        self._crops, self._config, self._seed = crops, config, seed
        self._near = nearest_vertices(canonical, config.augment.neighbours)
        self._inputs = BundleInputs(bundle, self.spec, canonical)
        self._generator = open_runtime(bundle, "generator", threads=1)

    def batch(self, step: int) -> Answered:
        """The crops of a step with their answers, which depend on nothing but its number and the seed."""
        config, count = self._config, self._config.batch
        draw = np.random.default_rng((self._seed, _BATCHES, step))
        chosen = draw.integers(0, len(self._crops), count)
        made = make_batch(self._crops, chosen, self._near, config.augment, self.spec.z_channels, draw)
        z = draw.standard_normal((count, self.spec.z_channels), np.float32)
        tables = self._inputs.tables(z, draw.uniform(*config.truncation, count).astype(np.float32))
        labels = np.stack([self._crops.labels[i] for i in chosen])
        body, known = made.body[:, 0].numpy() > 0, made.mask[:, 0].numpy() > 0
        told = np.stack([~_hidden(label, own) for label, own in zip(labels, body, strict=True)])
        vertex = self._inputs.vertex(made)
        feeds = {
            "image": made.image.numpy(),
            "mask": told[:, None].astype(np.float32),
            "embedding": self._inputs.embedding(body, vertex),
            "vertices": self._inputs.rows(body, told, vertex),
            "slot": np.arange(count),
            "table_0": tables,
        }
        rows = gathered(tables, self._inputs.rows(body, known, vertex))
        counts = (~known & ~(told & (labels == OTHERS)))[:, None].astype(np.float32)
        parts = feeds["embedding"], rows, self._generator.run(feeds)["output"], counts
        return Answered(made.image, made.mask, *(torch.from_numpy(part) for part in parts))

    def close(self) -> None:
        """Releases the runtimes."""
        self._inputs.close()
        self._generator.close()


def _hidden(labels: NDArray[np.int16], body: Bools) -> Bools:
    """What the wide network is to generate: the person, wherever the body is thought to be, and SG-GAN's dilation."""
    own = labels >= 0
    return grown(own | body, max(1, math.ceil(RADIUS * math.sqrt(np.count_nonzero(own) / BODY))))


def spec_of(bundle: Bundle, wide: Mapping[str, Tensor]) -> SurfaceSpec:
    """What the network of a bundle looks like; f_w apart, of which nothing is trained here."""
    generation = bundle.manifest.generation
    assert generation is not None  # noqa: S101  read_wide has seen to it
    widths, middle = widths_of(wide)
    return with_widths(
        SurfaceSpec(
            image_size=generation.image_size,
            image_channels=3,
            z_channels=generation.z_channels,
            w_channels=wide["modulation.weight0"].shape[0],
            hidden_channels=1,
            vertices=generation.vertices,
            embedding_channels=generation.embedding_channels,
            embedding_layers=1,
            z_layers=1,
            combined_layers=2,
            encoder=(),
            decoder=(),
            middle_blocks=middle,
            conv_clamp=256.0,
        ),
        widths,
    )


def with_widths(spec: SurfaceSpec, widths: tuple[int, ...]) -> SurfaceSpec:
    """The same with other channels."""
    encoder, decoder = levels_of(widths)
    return replace(spec, encoder=encoder, decoder=decoder)


def generate(network: SurfaceUnet, crops: Answered) -> Tensor:
    """What a network that is not folded makes of crops: (N,3,H,W), known pixels as given."""
    made: Tensor = network(crops.image, crops.mask, crops.embedding, network.style_net.of_layers(crops.rows))
    return made
