"""The starter set's generator: SG-GAN's V-SAM network of `export.models`, narrow, and set up to be trained."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from export.configs import SurfaceConfig
from export.graphs import random_inputs, tensors
from export.models.layers import Conv, Linear
from export.models.surface import Modulator, SurfaceSpec, SurfaceUnet
from export.starter.crop_batches import Batch
from export.vertex_embeddings import standardise

_Net = TypeVar("_Net", bound=nn.Module)
Levels = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """What a generator looks like. The defaults are for a CPU; `LARGE` has twice the resolution.

    Attributes:
        image_size: height and width of a crop in pixels.
        z_channels: length of the latent z, at least that of a look; the rest of it is noise.
        w_channels: length of w per vertex, which is also the width of the tables.
        hidden_channels: width of the mapping network.
        embedding_layers: layers that see a vertex's embedding alone.
        z_layers: layers that see z alone.
        combined_layers: layers that see both, at least 2.
        widths: channels of each level, finest first; each level halves the size of the one before.
        middle_blocks: residual blocks between encoder and decoder.
        conv_clamp: bound of the activations.
    """

    image_size: tuple[int, int] = (144, 80)
    z_channels: int = 64
    w_channels: int = 48
    hidden_channels: int = 64
    embedding_layers: int = 2
    z_layers: int = 2
    combined_layers: int = 4
    widths: tuple[int, ...] = (16, 32, 64, 96)
    middle_blocks: int = 2
    conv_clamp: float = 256.0

    def spec(self, vertices: int, embedding_channels: int) -> SurfaceSpec:
        """As the network is built, for a surface of so many vertices."""
        encoder, decoder = levels_of(self.widths)
        return SurfaceSpec(
            image_size=self.image_size,
            image_channels=3,
            z_channels=self.z_channels,
            w_channels=self.w_channels,
            hidden_channels=self.hidden_channels,
            vertices=vertices,
            embedding_channels=embedding_channels,
            embedding_layers=self.embedding_layers,
            z_layers=self.z_layers,
            combined_layers=self.combined_layers,
            encoder=encoder,
            decoder=decoder,
            middle_blocks=self.middle_blocks,
            conv_clamp=self.conv_clamp,
        )

    def declared(self, name: str, embedding_channels: int, *, bounded: bool) -> SurfaceConfig:
        """As it is exported: what no tensor of a checkpoint shows.

        Args:
            name: of the export.
            embedding_channels: of a vertex.
            bounded: whether activations have a bound, which is for float16: those of a trained network are far below
                it, and without it each layer saves a pass over its pixels. See `needs_bound`.
        """
        return SurfaceConfig(
            name=name,
            export=name,
            image_size=self.image_size,
            levels=len(self.widths),
            z_channels=self.z_channels,
            embedding_channels=embedding_channels,
            conv_clamp=self.conv_clamp if bounded else None,
            kinds=("person",),
            licence="Apache-2.0",
            homepage="export/starter of this project",
            sources=("trained on synthetic people only",),
        )

    def state(self) -> dict[str, Any]:
        """As plain values, for checkpoints."""
        return asdict(self)

    @classmethod
    def of(cls, state: dict[str, Any]) -> NetworkConfig:
        """From what `state` gave."""
        return cls(**state)


#: Sharper, and about twice as slow: most of its layers see no more pixels than those of the default.
LARGE = NetworkConfig(image_size=(288, 160), widths=(16, 16, 32, 64, 96))


def levels_of(widths: tuple[int, ...]) -> tuple[Levels, Levels]:
    """Channels in and out of each level of the encoder, finest first, and of the decoder, coarsest first."""
    down = (*itertools.pairwise(widths), (widths[-1], widths[-1]))
    return down, tuple((wide, narrow) for narrow, wide in reversed(down))


def new_network(config: NetworkConfig, embeddings: NDArray[np.float32]) -> SurfaceUnet:
    """A network to be trained, with weights drawn as published.

    Args:
        config: widths and depths.
        embeddings: (K, D), of each vertex, unit norm: the detector's.
    """
    network = SurfaceUnet(config.spec(*embeddings.shape))
    draw_weights(network)
    style = network.style_net
    with torch.no_grad():
        style.E_map.E.copy_(torch.from_numpy(standardise(embeddings)))
        style.E_map.w_avg.zero_()
        # At first all pixels of the indicators are alike, and every layer is modulated by about 1.
        style.global_mask.weight[:, -3:] = 0
        for modulator in style.dec_layers:
            assert isinstance(modulator, Modulator)  # noqa: S101
            nn.init.ones_(modulator.get_parameter("mlp.bias"))
    return network


def prepared(network: _Net, device: torch.device | str) -> _Net:
    """On its device, with pixels' channels side by side, which is faster on a CPU and in half precision."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network.to(device)


@torch.no_grad()
def draw_weights(network: nn.Module) -> None:
    """Draws all layers anew: weights of unit variance, since gains are applied at run time, and biases of 0."""
    for module in network.modules():
        if isinstance(module, (Conv, Linear)):
            nn.init.normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def modulations(network: SurfaceUnet, z: Tensor, mask: Tensor, body: Tensor, vertices: Tensor) -> list[Tensor]:
    """The modulation of every decoder layer, with w computed only for the vertices that pictures show.

    The same numbers as `Modulation` gives from the w of all vertices, of which a crop shows a few.

    Args:
        network: not folded.
        z: (N, z_channels).
        mask: (N,1,H,W), 1 where the pixel is known.
        body: (N,1,H,W), 1 on the body, which is nowhere known.
        vertices: (N,H,W), in 0..K-1; not looked at outside the body.
    """
    style = network.style_net
    f_w, count = style.E_map, network.spec.vertices
    shown = body[:, 0] > 0
    numbers = torch.arange(len(z), device=z.device)[:, None, None] * count
    used, index = torch.unique((vertices + numbers)[shown], return_inverse=True)
    surface = functional.embedding(used % count, f_w.surface())
    latent = functional.embedding(used // count, f_w.latent(z))
    w = f_w.combine(torch.cat([surface, latent], dim=1))
    pixels = w.new_zeros(*vertices.shape, w.shape[1]).index_put((shown,), functional.embedding(index, w))
    return style.spread(pixels.permute(0, 3, 1, 2), mask, 1 - mask - body)


def generate(network: SurfaceUnet, z: Tensor, crops: Batch, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """One pass of the whole network.

    Args:
        network: not folded.
        z: (N, z_channels), which need not be the crops' own.
        crops: N of them.
        embeddings: (K, D) of the vertices, not standardised.

    Returns:
        The picture (N,3,H,W), known pixels as given; and the embedding of every pixel, (N,D,H,W), 0 outside the body.
    """
    inside = torch.where(crops.body[:, 0] > 0, crops.vertices, 0)
    embedding = functional.embedding(inside, embeddings).permute(0, 3, 1, 2) * crops.body
    gammas = modulations(network, z, crops.mask, crops.body, inside)
    made: Tensor = network(crops.image, crops.mask, embedding, gammas)
    return made, embedding


@torch.no_grad()
def average_w(network: SurfaceUnet, draws: int, *, seed: int = 0) -> Tensor:
    """The average w of every vertex over standard normal z, which truncation goes towards: (K, w_channels).

    Computed once at the end: an average that is kept during training lags behind the weights, and costs the w of all
    vertices in every step.
    """
    f_w = network.style_net.E_map
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros_like(f_w.w_avg)
    for _ in range(draws):
        z = torch.randn(1, network.spec.z_channels, generator=generator).to(total.device)
        total += f_w(z)
    return total / draws


def unbounded(network: SurfaceUnet) -> SurfaceUnet:
    """A copy without a bound of its activations."""
    free = SurfaceUnet(replace(network.spec, conv_clamp=None))
    free.load_state_dict(network.state_dict())
    return free.eval().requires_grad_(False)


@torch.no_grad()
def needs_bound(network: SurfaceUnet) -> bool:
    """Whether the bound of its activations changes what a network makes of made-up persons, with all of f_w's w."""
    spec, style = network.spec, network.style_net
    made = random_inputs(spec.image_size, spec.z_channels, spec.embedding_channels, spec.vertices)
    image, mask, border, embedding, vertices = tensors(made, "image", "mask", "border", "embedding", "vertices")
    w = torch.stack([style.E_map(z[None]) for z in torch.from_numpy(made["z"])])
    gammas = style(w, mask, border, vertices.clamp(max=spec.vertices - 1))
    bounded, free = (each(image, mask, embedding, gammas) for each in (network, unbounded(network)))
    return not torch.equal(bounded, free)
