"""ResNet and ResNeXt (He et al. 2016; Xie et al. 2017) with detectron2's parameter names, for inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  everyone calls it that

#: Blocks of the stages res2 to res5, by depth.
BLOCKS: Final = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
#: Inside the square root, as published.
_EPSILON: Final = 1e-5


class FrozenBatchNorm(nn.Module):
    """Batch normalisation with constant statistics: a factor and a shift for each channel."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def affine(self) -> tuple[Tensor, Tensor]:
        """Factor and shift, each (C,)."""
        factor = self.weight * (self.running_var + _EPSILON).rsqrt()
        return factor, self.bias - self.running_mean * factor

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,h,w) to the same shape."""
        factor, shift = self.affine()
        return x * factor[:, None, None] + shift[:, None, None]


class NormedConv(nn.Conv2d):
    """A convolution with its normalisation inside, as `norm`; it has no bias then."""

    def __init__(self, inputs: int, outputs: int, kernel: int, norm: nn.Module, **options: Any) -> None:
        super().__init__(inputs, outputs, kernel, bias=False, **options)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """(N,C_in,h,w) to (N,C_out,h',w')."""
        made: Tensor = self.norm(super().forward(x))
        return made


def fold_norms(module: nn.Module) -> nn.Module:
    """Multiplies frozen statistics into the convolutions before them, in place: one operator in place of three.

    Exact up to rounding. Normalisations that depend on their input (GroupNorm) stay.
    """
    for name, child in list(module.named_children()):
        if isinstance(child, NormedConv) and isinstance(child.norm, FrozenBatchNorm):
            setattr(module, name, _folded(child, child.norm))
        else:
            fold_norms(child)
    return module


def _folded(conv: NormedConv, norm: FrozenBatchNorm) -> nn.Conv2d:
    factor, shift = norm.affine()
    made = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size[0],
        stride=conv.stride[0],
        padding=int(conv.padding[0]),
        groups=conv.groups,
    )
    with torch.no_grad():
        made.weight.copy_(conv.weight * factor[:, None, None, None])
        assert made.bias is not None  # noqa: S101  it was just asked for
        made.bias.copy_(shift)
    return made


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, and a shortcut; `stride_in_1x1` as in the original (MSRA), else the 3x3 has it."""

    def __init__(
        self, inputs: int, middle: int, outputs: int, *, stride: int, groups: int, stride_in_1x1: bool
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.shortcut = (
            None if inputs == outputs else NormedConv(inputs, outputs, 1, FrozenBatchNorm(outputs), stride=stride)
        )
        self.conv1 = NormedConv(inputs, middle, 1, FrozenBatchNorm(middle), stride=first)
        self.conv2 = NormedConv(middle, middle, 3, FrozenBatchNorm(middle), stride=second, padding=1, groups=groups)
        self.conv3 = NormedConv(middle, outputs, 1, FrozenBatchNorm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(N,C_in,h,w) to (N,C_out,h/stride,w/stride)."""
        made = self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))
        return F.relu(made + (x if self.shortcut is None else self.shortcut(x)))


class Stem(nn.Module):
    """7x7 convolution and maximum pooling: a quarter of the size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = NormedConv(3, channels, 7, FrozenBatchNorm(channels), stride=2, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """(N,3,h,w) to (N,C,h/4,w/4)."""
        return F.max_pool2d(F.relu(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class ResNet(nn.Module):
    """The four stages res2 to res5.

    Args:
        blocks: per stage.
        stem_channels: channels after the stem.
        res2_channels: channels of res2; each later stage doubles them.
        groups: of the 3x3 convolutions; 1 for ResNet, 32 for ResNeXt-32x8d.
        width_per_group: channels of a group in res2.
        stride_in_1x1: true for the weights of MSRA (R-50, R-101), false for ResNeXt.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        *,
        stem_channels: int = 64,
        res2_channels: int = 256,
        groups: int = 1,
        width_per_group: int = 64,
        stride_in_1x1: bool = True,
    ) -> None:
        super().__init__()
        self.stem = Stem(stem_channels)
        inputs, self.channels = stem_channels, [res2_channels * 2**i for i in range(len(blocks))]
        for i, (count, outputs) in enumerate(zip(blocks, self.channels, strict=True)):
            stage = []
            for block in range(count):
                stage.append(
                    Bottleneck(
                        inputs,
                        groups * width_per_group * 2**i,
                        outputs,
                        stride=2 if i and not block else 1,
                        groups=groups,
                        stride_in_1x1=stride_in_1x1,
                    )
                )
                inputs = outputs
            self.add_module(f"res{i + 2}", nn.Sequential(*stage))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N,3,h,w) to the stages at 1/4, 1/8, 1/16 and 1/32 of the size."""
        x, stages = self.stem(x), []
        for i in range(len(self.channels)):
            x = self.get_submodule(f"res{i + 2}")(x)
            stages.append(x)
        return stages
