"""DeepPrivacy2's style-based U-Net (Hukkelås & Lindseth 2023, section 4), for persons and faces."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from export.models.epsilon import plus
from export.models.layers import Activation, Conv, Linear

#: The mapping network learns a hundred times slower than the rest, as in StyleGAN.
_MAPPING_MULTIPLIER = 0.01


@dataclass(frozen=True)
class UnetSpec:
    """What a style-based U-Net looks like.

    Attributes:
        image_size: height and width in pixels.
        image_channels: 3.
        z_channels: length of the latent z.
        w_channels: length of the intermediate latent w.
        mapping_layers: depth of the mapping network.
        embedding_channels: channels of the surface embedding, 0 for a network without it.
        encoder: channels in and out of each level, finest first.
        decoder: channels in and out of each level, coarsest first.
        middle_blocks: residual blocks between encoder and decoder.
        fix_errors: whether the published corrections of the residual gains are on.
        conv_clamp: bound of the activations, None for none.
    """

    image_size: tuple[int, int]
    image_channels: int
    z_channels: int
    w_channels: int
    mapping_layers: int
    embedding_channels: int
    encoder: tuple[tuple[int, int], ...]
    decoder: tuple[tuple[int, int], ...]
    middle_blocks: int
    fix_errors: bool
    conv_clamp: float | None

    @property
    def input_channels(self) -> int:
        """Image and mask, and with a surface its embedding and the embedding's mask."""
        surface = self.embedding_channels + 1 if self.embedding_channels else 0
        return self.image_channels + 1 + surface


class Mapping(nn.Module):
    """z -> w. Its `w_avg` is what truncation interpolates towards."""

    w_avg: Tensor

    def __init__(self, spec: UnetSpec) -> None:
        super().__init__()
        self.layers = spec.mapping_layers
        for i in range(self.layers):
            inputs = spec.z_channels if i == 0 else spec.w_channels
            self.add_module(
                f"fc{i}", Linear(inputs, spec.w_channels, activation="lrelu", multiplier=_MAPPING_MULTIPLIER)
            )
        self.register_buffer("w_avg", torch.empty(spec.w_channels))

    def forward(self, z: Tensor) -> Tensor:
        """(N, z_channels) -> (N, w_channels), not truncated."""
        x = normalise_second_moment(z)
        for i in range(self.layers):
            x = self.get_submodule(f"fc{i}")(x)
        return x


def normalise_second_moment(z: Tensor) -> Tensor:
    """Divide by the root mean square of each row."""
    return z * plus(z.square().mean(dim=1, keepdim=True), 1e-8).rsqrt()


class StyleConv(Conv):
    """A convolution whose input is scaled and shifted per channel by w, before it (not its weights)."""

    def __init__(
        self, inputs: int, outputs: int, w_channels: int, *, up: int, gain: float, clamp: float | None
    ) -> None:
        super().__init__(inputs, outputs, up=up, norm="instance", gain=gain, clamp=clamp)
        self.affine = Linear(w_channels, inputs)
        self.affine_beta = Linear(w_channels, inputs)

    def modulate(self, x: Tensor, w: Tensor) -> Tensor:
        """Gives x * gamma(w) + beta(w)."""
        gamma: Tensor = self.affine(w)
        beta: Tensor = self.affine_beta(w)
        return x * gamma[:, :, None, None] + beta[:, :, None, None]


class EncoderBlock(nn.Module):
    """Two convolutions and a 1x1 one beside them; all but the first halve the size."""

    def __init__(self, inputs: int, outputs: int, down: int, spec: UnetSpec) -> None:
        super().__init__()
        gain = math.sqrt(0.5)
        self.conv0 = Conv(inputs, outputs, down=down, clamp=spec.conv_clamp)
        self.conv1 = Conv(outputs, outputs, gain=gain, clamp=spec.conv_clamp)
        self.skip = _skip(inputs, outputs, spec, gain, down=down)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / down, W / down)."""
        y: Tensor = self.skip(x) + self.conv1(self.conv0(x))
        return y


class DecoderBlock(nn.Module):
    """As the encoder's, with styles and instance norm; the second convolution doubles the size."""

    def __init__(self, inputs: int, outputs: int, up: int, spec: UnetSpec, gain: float) -> None:
        super().__init__()
        clamp = spec.conv_clamp
        self.conv0 = StyleConv(inputs, outputs, spec.w_channels, up=1, gain=1.0, clamp=clamp)
        self.conv1 = StyleConv(outputs, outputs, spec.w_channels, up=up, gain=gain, clamp=clamp)
        self.skip = _skip(inputs, outputs, spec, gain, up=up)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, inputs, H, W) and w (N, w_channels) -> (N, outputs, H * up, W * up)."""
        y = self.conv0(self.conv0.modulate(x, w))
        made: Tensor = self.skip(x) + self.conv1(self.conv1.modulate(y, w))
        return made


def _skip(inputs: int, outputs: int, spec: UnetSpec, gain: float, up: int = 1, down: int = 1) -> Conv:
    # One of the published networks was trained with a leaky ReLU here by mistake: fix_errors is off for it.
    activation: Activation = "linear" if spec.fix_errors else "lrelu"
    return Conv(inputs, outputs, 1, up=up, down=down, bias=False, activation=activation, gain=gain)


class StyleUnet(nn.Module):
    """The whole network.

    Args:
        spec: widths, depths and switches.
    """

    def __init__(self, spec: UnetSpec) -> None:
        super().__init__()
        self.spec = spec
        levels = len(spec.encoder)
        self.style_net = Mapping(spec)
        self.from_rgb = Conv(spec.input_channels, spec.encoder[0][0], 1)
        self.encoder = nn.ModuleList(
            EncoderBlock(inputs, outputs, 1 if i == 0 else 2, spec) for i, (inputs, outputs) in enumerate(spec.encoder)
        )
        width = spec.encoder[-1][1]
        if spec.middle_blocks:
            gain = math.sqrt(0.5) if spec.fix_errors else math.sqrt(1 / 3)
            self.middle_blocks = nn.ModuleList(
                DecoderBlock(width, width, 1, spec, gain) for _ in range(spec.middle_blocks)
            )
        for i, (inputs, _) in enumerate(spec.decoder[1:], start=1):
            gain = math.sqrt(1 / 3) if spec.fix_errors else math.sqrt(0.5)
            self.add_module(
                f"unet_block{i}", Conv(inputs, inputs, 1, norm="instance", gain=gain, clamp=spec.conv_clamp)
            )
        self.decoder = nn.ModuleList(
            DecoderBlock(inputs, outputs, 2 if i < levels - 1 else 1, spec, math.sqrt(1 / 3))
            for i, (inputs, outputs) in enumerate(spec.decoder)
        )
        self.to_rgb = Conv(spec.decoder[-1][1], spec.image_channels, 1, activation="linear", clamp=spec.conv_clamp)

    def forward(
        self,
        image: Tensor,
        mask: Tensor,
        w: Tensor,
        embedding: Tensor | None = None,
        embedding_mask: Tensor | None = None,
    ) -> Tensor:
        """Fill in what `mask` leaves open.

        Args:
            image: (N,3,H,W) RGB in [-1,1].
            mask: (N,1,H,W), 1 where the pixel is known, 0 where it is to be generated.
            w: (N, w_channels).
            embedding: (N, embedding_channels, H, W), 0 outside the body; None for a network without surface.
            embedding_mask: (N,1,H,W), 1 on the body.

        Returns:
            (N,3,H,W): `image` where the mask is 1, generated elsewhere.
        """
        # Inside the network: what the mask hides cannot reach the output, whoever feeds it.
        known = image * mask
        surface = [part for part in (embedding, embedding_mask) if part is not None]
        dtype = self.from_rgb.weight.dtype
        w = w.to(dtype)
        x = self.from_rgb(torch.cat([known, mask, *surface], dim=1).to(dtype))
        features = []
        for block in self.encoder:
            x = block(x)
            features.append(x)
        if self.spec.middle_blocks:
            for block in self.middle_blocks:
                x = block(x, w)
        for i, block in enumerate(self.decoder):
            if i:
                x = x + self.get_submodule(f"unet_block{i}")(features[-1 - i])
            x = block(x, w)
        made: Tensor = self.to_rgb(x)
        return known * mask + (1 - mask) * made.to(image.dtype)
