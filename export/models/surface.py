"""SG-GAN's generator with variational surface-adaptive modulation, V-SAM (Hukkelås et al. 2023, section 3.2).

The published network turns z into one w per vertex of the body surface, looks w up for every pixel and runs the
modulation per pixel and frame: that is what this module does. `export.models.tables` computes the same numbers once
per z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.models.epsilon import plus
from export.models.layers import Conv, Linear


@dataclass(frozen=True)
class SurfaceSpec:
    """What a V-SAM generator looks like.

    Attributes:
        image_size: height and width in pixels.
        image_channels: 3.
        z_channels: length of the latent z.
        w_channels: length of w per vertex.
        hidden_channels: width of the mapping network.
        vertices: K, the vertices of the surface.
        embedding_channels: channels of a vertex's embedding.
        embedding_layers: layers that see the embedding alone.
        z_layers: layers that see z alone.
        combined_layers: layers that see both; every second one closes a residual.
        encoder: channels in and out of each level, finest first.
        decoder: channels in and out of each level, coarsest first.
        middle_blocks: residual blocks between encoder and decoder.
        conv_clamp: bound of the activations, None for none.
    """

    image_size: tuple[int, int]
    image_channels: int
    z_channels: int
    w_channels: int
    hidden_channels: int
    vertices: int
    embedding_channels: int
    embedding_layers: int
    z_layers: int
    combined_layers: int
    encoder: tuple[tuple[int, int], ...]
    decoder: tuple[tuple[int, int], ...]
    middle_blocks: int
    conv_clamp: float | None


class VertexMapping(nn.Module):
    """f_w of the paper: (vertex embedding, z) -> w for every vertex."""

    E: Tensor
    w_avg: Tensor

    def __init__(self, spec: SurfaceSpec) -> None:
        super().__init__()
        self.spec = spec
        hidden = spec.hidden_channels
        self.register_buffer("E", torch.empty(spec.vertices, spec.embedding_channels))
        self.register_buffer("w_avg", torch.empty(spec.vertices, spec.w_channels))
        for i in range(spec.embedding_layers):
            inputs = spec.embedding_channels if i == 0 else hidden
            self.add_module(f"fromE{i}", Linear(inputs, hidden, activation="lrelu"))
        for i in range(spec.z_layers):
            self.add_module(f"fromZ{i}", Linear(spec.z_channels, spec.z_channels, activation="lrelu"))
        widths = [hidden + spec.z_channels, *[hidden] * (spec.combined_layers - 1), spec.w_channels]
        for i in range(spec.combined_layers):
            self.add_module(f"fc{i}", Linear(widths[i], widths[i + 1], activation="lrelu"))
            if i % 2:
                self.add_module(f"residual{i}", Linear(widths[i - 1], widths[i + 1]))

    def surface(self) -> Tensor:
        """What of f_w depends on the vertex alone: (K, hidden)."""
        x = self.E
        for i in range(self.spec.embedding_layers):
            x = self.get_submodule(f"fromE{i}")(x)
        return x

    def latent(self, z: Tensor) -> Tensor:
        """What of f_w depends on z alone: (N, z_channels)."""
        z = z * plus(z.square().mean(dim=1, keepdim=True), 1e-8).rsqrt()
        for i in range(self.spec.z_layers):
            z = self.get_submodule(f"fromZ{i}")(z)
        return z

    def forward(self, z: Tensor) -> Tensor:
        """The published way: (1, z_channels) -> (K, w_channels), not truncated."""
        x = torch.cat([self.surface(), self.latent(z).expand(self.spec.vertices, -1)], dim=1)
        return self.combine(x)

    def combine(self, x: Tensor) -> Tensor:
        """The layers that see both, for any pairs of `surface` and `latent` side by side: (P, w_channels)."""
        residual = x
        for i in range(self.spec.combined_layers):
            x = self.get_submodule(f"fc{i}")(x)
            if i % 2:
                x = residual = (x + self.get_submodule(f"residual{i}")(residual)) / math.sqrt(2)
        return x


class Modulator(nn.Module):
    """The 1x1 convolution that makes one layer's modulation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mlp = Conv(inputs, outputs, 1, activation="linear")

    def forward(self, x: Tensor) -> Tensor:
        """(N, w_channels, H, W) -> gamma (N, outputs, H, W)."""
        y: Tensor = self.mlp(x)
        return y


class Modulation(nn.Module):
    """From z and the vertex of every pixel to the modulation gamma of every decoder layer."""

    def __init__(self, spec: SurfaceSpec) -> None:
        super().__init__()
        self.spec = spec
        self.E_map = VertexMapping(spec)
        # Three more inputs: which of known, border and body the pixel is.
        self.global_mask = Conv(spec.w_channels + 3, spec.w_channels, 1, bias=False)
        widths = [width for pair in spec.decoder for width in pair]
        self.dec_layers = nn.ModuleList(Modulator(spec.w_channels, width) for width in widths)

    def forward(self, w: Tensor, mask: Tensor, border: Tensor, vertices: Tensor) -> list[Tensor]:
        """The published way, per pixel and frame.

        Args:
            w: (N, K, w_channels).
            mask: (N,1,H,W), 1 where the pixel is known.
            border: (N,1,H,W), 1 where it is neither known nor body.
            vertices: (N,H,W), in 0..K-1; any value outside the body.

        Returns:
            gamma of each decoder layer in order, at that layer's resolution.
        """
        pixels = torch.stack([w[i, vertices[i]] for i in range(len(w))]).permute(0, 3, 1, 2)
        return self.spread(pixels, mask, border)

    def spread(self, pixels: Tensor, mask: Tensor, border: Tensor) -> list[Tensor]:
        """The same from the w of every pixel, (N, w_channels, H, W); outside the body it is not looked at."""
        body = 1 - mask - border
        x = self.global_mask(torch.cat([pixels * body, mask, border, body], dim=1))
        return self.of_layers(x)

    def of_layers(self, x: Tensor) -> list[Tensor]:
        """The last step: from what `global_mask` gives, (N, w_channels, H, W), to gamma of each decoder layer."""
        pyramid = downsampled(x, len(self.spec.decoder))
        return [layer(pyramid[-1 - i // 2]) for i, layer in enumerate(self.dec_layers)]


def downsampled(x: Tensor, levels: int) -> list[Tensor]:
    """`x` and its successive halves by bilinear interpolation between corner pixels, as published."""
    pyramid = [x]
    for _ in range(levels - 1):
        pyramid.append(
            functional.interpolate(
                pyramid[-1], scale_factor=0.5, mode="bilinear", align_corners=True, recompute_scale_factor=False
            )
        )
    return pyramid


class EncoderBlock(nn.Module):
    """Two convolutions and a 1x1 one beside them; all but the first halve the size."""

    def __init__(self, inputs: int, outputs: int, clamp: float | None, *, up: int = 1, down: int = 1) -> None:
        super().__init__()
        gain = math.sqrt(0.5)
        self.conv0 = Conv(inputs, outputs, down=down, norm="instance-std", clamp=clamp)
        self.conv1 = Conv(outputs, outputs, up=up, norm="instance-std", gain=gain, clamp=clamp)
        self.skip = Conv(inputs, outputs, 1, up=up, down=down, bias=False, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H * up / down, W * up / down)."""
        y: Tensor = self.skip(x) + self.conv1(self.conv0(x))
        return y


class DecoderBlock(EncoderBlock):
    """The same with a modulation before each convolution; the second one doubles the size."""

    def modulated(self, x: Tensor, gamma0: Tensor, gamma1: Tensor) -> Tensor:
        """(N, inputs, H, W), gamma0 likewise, gamma1 (N, outputs, H, W) -> (N, outputs, H * up, W * up)."""
        y: Tensor = self.skip(x) + self.conv1(self.conv0(x * gamma0) * gamma1)
        return y


class SurfaceUnet(nn.Module):
    """The whole network.

    Args:
        spec: widths and depths.
    """

    def __init__(self, spec: SurfaceSpec) -> None:
        super().__init__()
        self.spec = spec
        clamp = spec.conv_clamp
        levels = len(spec.encoder)
        width = spec.encoder[-1][1]
        self.from_rgb = Conv(spec.image_channels + 1 + spec.embedding_channels, spec.encoder[0][0], 1)
        self.encoder = nn.ModuleList(
            EncoderBlock(inputs, outputs, clamp, down=1 if i == 0 else 2)
            for i, (inputs, outputs) in enumerate(spec.encoder)
        )
        if spec.middle_blocks:
            self.middle_blocks = nn.Sequential(*(EncoderBlock(width, width, clamp) for _ in range(spec.middle_blocks)))
        for i, (inputs, _) in enumerate(spec.decoder[1:], start=1):
            self.add_module(f"unet_block{i}", Conv(inputs, inputs, 1, gain=math.sqrt(0.5), clamp=clamp))
        self.decoder = nn.ModuleList(
            DecoderBlock(inputs, outputs, clamp, up=2 if i < levels - 1 else 1)
            for i, (inputs, outputs) in enumerate(spec.decoder)
        )
        self.to_rgb = Conv(spec.decoder[-1][1], spec.image_channels, 1, activation="linear", clamp=clamp)
        self.style_net = Modulation(spec)

    def forward(self, image: Tensor, mask: Tensor, embedding: Tensor, gammas: list[Tensor]) -> Tensor:
        """Fill in what `mask` leaves open.

        Args:
            image: (N,3,H,W) RGB in [-1,1].
            mask: (N,1,H,W), 1 where the pixel is known, 0 where it is to be generated.
            embedding: (N, embedding_channels, H, W), 0 outside the body.
            gammas: the modulation of each decoder layer in order.

        Returns:
            (N,3,H,W): `image` where the mask is 1, generated elsewhere.
        """
        # Inside the network: what the mask hides cannot reach the output, whoever feeds it.
        known = image * mask
        x = self.from_rgb(torch.cat([known, mask, embedding], dim=1).to(self.from_rgb.weight.dtype))
        features = []
        for block in self.encoder:
            x = block(x)
            features.append(x)
        if self.spec.middle_blocks:
            x = self.middle_blocks(x)
        for i, block in enumerate(self.decoder):
            if i:
                x = x + self.get_submodule(f"unet_block{i}")(features[-1 - i])
            x = cast("DecoderBlock", block).modulated(x, gammas[2 * i], gammas[2 * i + 1])
        made: Tensor = self.to_rgb(x)
        return known * mask + (1 - mask) * made.to(image.dtype)
