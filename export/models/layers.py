"""Layers that DeepPrivacy2's and SG-GAN's generators share, with the published parameter names.

Both follow StyleGAN2 (Karras et al. 2020): weights are drawn with unit variance and multiplied by a gain at run
time ("equalised learning rate"), resampling goes through a FIR filter, activations are clamped. What a checkpoint
stores stays a parameter here; `fold` multiplies the gains into the weights once, so that an exported graph
holds plain convolutions.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.models.epsilon import plus

#: StyleGAN2's leaky ReLU: slope, and the gain that keeps the variance of its output.
SLOPE = 0.2
LRELU_GAIN = math.sqrt(2.0)
#: Taps of the low-pass filter of all published configurations.
FIR_TAPS = (1.0, 3.0, 3.0, 1.0)

Activation = Literal["linear", "lrelu"]
Norm = Literal["none", "instance", "instance-std"]


def fir_filter(taps: tuple[float, ...] = FIR_TAPS) -> Tensor:
    """The two-dimensional filter of separable taps, normalised to sum 1: (t,t)."""
    line = torch.tensor(taps)
    square = torch.outer(line, line)
    return square / square.sum()


class Linear(nn.Module):
    """Fully connected layer with equalised learning rate.

    Args:
        inputs: features in.
        outputs: features out.
        activation: `lrelu` includes the gain sqrt(2).
        multiplier: the learning-rate multiplier, which scales weight and bias at run time.
    """

    def __init__(
        self, inputs: int, outputs: int, *, activation: Activation = "linear", multiplier: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.activation = activation
        self.weight_gain = multiplier / math.sqrt(inputs)
        self.bias_gain = multiplier

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        x = functional.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)
        if self.activation == "lrelu":
            x = functional.leaky_relu(x, SLOPE) * LRELU_GAIN
        return x

    @torch.no_grad()
    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight (outputs, inputs) and bias (outputs,) with all gains, so that only a leaky ReLU follows."""
        gain = LRELU_GAIN if self.activation == "lrelu" else 1.0
        return self.weight * (self.weight_gain * gain), self.bias * (self.bias_gain * gain)


class Conv(nn.Module):
    """Convolution, resampling, normalisation, bias, activation, gain and clamp, in the published order.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: side of the kernel.
        up: 2 doubles the size.
        down: 2 halves it.
        norm: `instance` subtracts the mean and divides by the standard deviation of each channel (eps 1e-5);
            `instance-std` only divides (eps 1e-8).
        activation: `lrelu` includes the gain sqrt(2).
        bias: whether there is one.
        gain: multiplies the output, and the clamp with it.
        clamp: bound of the absolute output before the gain; None for none.
    """

    resample_filter: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        *,
        up: int = 1,
        down: int = 1,
        norm: Norm = "none",
        activation: Activation = "lrelu",
        bias: bool = True,
        gain: float = 1.0,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        if up != 1 or down != 1:
            self.register_buffer("resample_filter", fir_filter())
        self.up, self.down, self.norm, self.activation = up, down, norm, activation
        self.weight_gain = 1 / math.sqrt(inputs * kernel**2)
        self.gain = gain * (LRELU_GAIN if activation == "lrelu" else 1.0)
        self.clamp = None if clamp is None else clamp * gain

    @property
    def kernel(self) -> int:
        """Side of the kernel."""
        return int(self.weight.shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H * up / down, W * up / down)."""
        x = self.convolve(x)
        if self.norm == "instance":
            x = functional.instance_norm(x)
        elif self.norm == "instance-std":
            x = x * plus(x.var(dim=(2, 3), keepdim=True, correction=0), 1e-8).rsqrt()
        if self.bias is not None:
            x = x + self.bias.view(1, -1, 1, 1)
        if self.activation == "lrelu":
            x = functional.leaky_relu(x, SLOPE)
        if self.gain != 1:
            x = x * self.gain
        if self.clamp is not None:
            x = x.clamp(-self.clamp, self.clamp)
        return x

    def convolve(self, x: Tensor) -> Tensor:
        """Only the convolution with its resampling."""
        weight = self.weight * self.weight_gain
        channels = weight.shape[0 if self.up == 2 and self.kernel == 1 else 1]
        if self.down == 2:
            taps = self.resample_filter.flip(0, 1).expand(channels, 1, -1, -1)
            if self.kernel == 1:
                # Filter and drop first: a quarter of the pixels to convolve.
                return functional.conv2d(functional.conv2d(x, taps, stride=2, padding=1, groups=channels), weight)
            return functional.conv2d(functional.conv2d(x, taps, padding=2, groups=channels), weight, stride=2)
        if self.up == 2:
            # Zeros between the pixels cost brightness: four times the filter.
            taps = 4 * self.resample_filter
            if self.kernel == 1:
                x = functional.conv2d(x, weight)
                return functional.conv_transpose2d(
                    x, taps.expand(channels, 1, -1, -1), stride=2, padding=1, groups=channels
                )
            x = functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            channels = weight.shape[0]
            taps = taps.flip(0, 1).expand(channels, 1, -1, -1)
            return functional.conv2d(x, taps, padding=1, groups=channels)
        return functional.conv2d(x, weight, padding=self.kernel // 2)
