"""The same layers with everything constant multiplied out: what is exported.

`fold` swaps every layer of a network for its folded twin, so that a network's own code is written once. Gains go into
weights (a leaky ReLU commutes with a positive factor), learning-rate multipliers too, and an instance norm takes
gain and bias as its scale and shift, which leaves one operator for each pass over the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.models.epsilon import plus
from export.models.layers import SLOPE, Conv, Linear, fir_filter
from export.models.unet import StyleConv

_Net = TypeVar("_Net", bound=nn.Module)
#: Is told the layer's part and what it gave out.
Probe = Callable[[str, Tensor], None]


def fold(network: _Net) -> _Net:
    """Replaces, in place, every layer by its folded twin, and returns the network.

    Args:
        network: any generator of this package; its results stay the same up to rounding.
    """
    for name, child in network.named_children():
        if isinstance(child, StyleConv):
            setattr(network, name, FoldedStyleConv(child))
        elif isinstance(child, Conv):
            setattr(network, name, FoldedConv(child))
        elif isinstance(child, Linear):
            setattr(network, name, FoldedLinear(child))
        else:
            fold(child)
    return network


def folded_convolutions(network: nn.Module) -> Iterator[tuple[str, FoldedConv]]:
    """Every folded convolution with its published name."""
    for name, module in network.named_modules():
        if isinstance(module, FoldedConv):
            yield name, module


def halve(network: _Net) -> _Net:
    """Turns, in place, the folded convolutions to float16; statistics of norms, with scale and shift, stay float32."""
    for _, module in folded_convolutions(network):
        module.halve()
    return network


class FoldedLinear(nn.Module):
    """A linear layer and at most a leaky ReLU."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: Linear) -> None:
        super().__init__()
        weight, bias = layer.folded()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.activated = layer.activation == "lrelu"

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        x = functional.linear(x, self.weight, self.bias)
        return functional.leaky_relu(x, SLOPE) if self.activated else x


class FoldedConv(nn.Module):
    """A convolution with its FIR filter, norm, leaky ReLU and clamp.

    Attributes:
        probe: is told the largest parts of what flows through, None for nobody.
    """

    weight: Tensor
    bias: Tensor | None
    taps: Tensor | None
    scale: Tensor | None

    def __init__(self, layer: Conv) -> None:
        super().__init__()
        self.up, self.down, self.kernel = layer.up, layer.down, layer.kernel
        self.norm, self.clamp, self.activated = layer.norm, layer.clamp, layer.activation == "lrelu"
        self.probe: Probe | None = None
        normed = layer.norm != "none"
        with torch.no_grad():
            weight = layer.weight * (layer.weight_gain * (1.0 if normed else layer.gain))
            outputs = weight.shape[0]
            if self.up == 2 and self.kernel > 1:
                weight = weight.transpose(0, 1)
            self.register_buffer("weight", weight.contiguous())
            self.register_buffer("bias", None if layer.bias is None else layer.bias * layer.gain)
            self.register_buffer("scale", torch.full((outputs,), layer.gain) if normed else None)
            self.register_buffer("taps", _taps(layer))
        #: The published filter doubles the size of an image as bilinear interpolation does.
        self.bilinear = self.up == 2 and self.kernel == 1 and torch.allclose(layer.resample_filter, fir_filter())

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H * up / down, W * up / down)."""
        # A sum or a product of what other layers gave, whose own probes saw only its parts.
        x = self._seen("input", x)
        if self.scale is None:
            x = self._seen("convolution", self._convolve(x, self.bias))
        else:
            x = self._seen("convolution", self._convolve(x, None))
            norm = _instance_norm if self.norm == "instance" else _divide_by_deviation
            bias = torch.zeros_like(self.scale) if self.bias is None else self.bias
            # In float16 the sum of some ten thousand squares would overflow, and its mean lose its digits.
            x = self._seen("output", norm(x.float(), self.scale, bias).to(x.dtype))
        if self.activated:
            x = functional.leaky_relu(x, SLOPE)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)

    def halve(self) -> None:
        """To float16, except scale and shift of a norm."""
        self.weight = self.weight.half()
        if self.taps is not None:
            self.taps = self.taps.half()
        if self.bias is not None and self.scale is None:
            self.bias = self.bias.half()

    def _seen(self, what: str, x: Tensor) -> Tensor:
        if self.probe is not None:
            self.probe(what, x)
        return x

    def _convolve(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if self.taps is None:
            return functional.conv2d(x, self.weight, bias, padding=self.kernel // 2)
        groups = self.taps.shape[0]
        if self.down == 2 and self.kernel == 1:
            # Filter and drop first: a quarter of the pixels to convolve.
            x = self._seen("filtered", functional.conv2d(x, self.taps, stride=2, padding=1, groups=groups))
            return functional.conv2d(x, self.weight, bias)
        if self.down == 2:
            x = self._seen("filtered", functional.conv2d(x, self.taps, padding=2, groups=groups))
            return functional.conv2d(x, self.weight, bias, stride=2)
        if self.kernel == 1:
            x = self._seen("unfiltered", functional.conv2d(x, self.weight))
            if self.bilinear:
                x = _double(x)
            else:
                x = functional.conv_transpose2d(x, self.taps, stride=2, padding=1, groups=groups)
            # Not before: the filter would take a part of the bias away along the border.
            return x if bias is None else x + bias.view(1, -1, 1, 1)
        x = self._seen("unfiltered", functional.conv_transpose2d(x, self.weight, stride=2))
        return functional.conv2d(x, self.taps, bias, padding=1, groups=groups)


def _taps(layer: Conv) -> Tensor | None:
    """The FIR filter for a convolution of each channel by itself: (channels,1,t,t)."""
    if layer.up == 1 and layer.down == 1:
        return None
    outputs, inputs = layer.weight.shape[:2]
    # Zeros between the pixels cost brightness: four times the filter where the size doubles.
    taps = layer.resample_filter * (4 if layer.up == 2 else 1)
    transposed = layer.up == 2 and layer.kernel == 1
    taps = taps if transposed else taps.flip(0, 1)
    return taps.expand(inputs if layer.down == 2 else outputs, 1, -1, -1).contiguous()


class FoldedStyleConv(FoldedConv):
    """A convolution whose input is scaled and shifted by w."""

    style_weight: Tensor
    style_bias: Tensor

    def __init__(self, layer: StyleConv) -> None:
        super().__init__(layer)
        gamma, beta = layer.affine.folded(), layer.affine_beta.folded()
        self.register_buffer("style_weight", torch.cat([gamma[0], beta[0]])[:, :, None, None].contiguous())
        self.register_buffer("style_bias", torch.cat([gamma[1], beta[1]]))

    def modulate(self, x: Tensor, w: Tensor) -> Tensor:
        """Gives x * gamma(w) + beta(w)."""
        # A 1x1 convolution rather than a matrix product: each person of a batch is computed alone, so that
        # a stand-in does not change, not even in its last bit, with who else is in the frame.
        style = functional.conv2d(w[:, :, None, None], self.style_weight, self.style_bias)
        gamma, beta = self._seen("style", style).chunk(2, dim=1)
        return self._seen("modulated", self._seen("scaled", x * gamma) + beta)

    def halve(self) -> None:
        """To float16, except scale and shift of the norm."""
        super().halve()
        self.style_weight, self.style_bias = self.style_weight.half(), self.style_bias.half()


def _instance_norm(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    if torch.onnx.is_in_onnx_export():
        # The exporter would take it apart; runtimes have a kernel for the whole.
        made: Tensor = torch.onnx.ops.symbolic(
            "InstanceNormalization", (x, scale, bias), {"epsilon": 1e-5}, dtype=x.dtype, shape=x.shape
        )
        return made
    return functional.instance_norm(x, weight=scale, bias=bias)


def _divide_by_deviation(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    mean = x.mean(dim=(2, 3), keepdim=True)
    centred = x - mean
    # Two passes, since the mean of squares less the square of the mean would cancel in a nearly flat channel.
    factor = plus((centred * centred).mean(dim=(2, 3), keepdim=True), 1e-8).rsqrt() * scale.view(1, -1, 1, 1)
    return centred * factor + (mean * factor + bias.view(1, -1, 1, 1))


def _double(x: Tensor) -> Tensor:
    """Twice the size through the published filter: 1 3 3 1 between zeros is bilinear interpolation.

    Beyond the border the filter sees zeros where interpolation repeats the last pixel, so that the outermost line
    gets three quarters. Depthwise transposed convolutions, the other way to write it, are four times slower.
    """
    height, width = 2 * x.shape[2], 2 * x.shape[3]
    if torch.onnx.is_in_onnx_export():
        scales = torch.tensor([1.0, 1.0, 2.0, 2.0])
        made: Tensor = torch.onnx.ops.symbolic(
            "Resize",
            (x, None, scales),
            {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
            dtype=x.dtype,
            shape=(x.shape[0], x.shape[1], height, width),
        )
    else:
        made = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
    return made * _border(height, width).to(x.dtype)


def _border(height: int, width: int) -> Tensor:
    rows, columns = torch.ones(height), torch.ones(width)
    rows[[0, -1]] = columns[[0, -1]] = 0.75
    return torch.outer(rows, columns)[None, None]
