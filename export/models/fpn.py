"""The feature pyramid (Lin et al. 2017) over a ResNet, with detectron2's parameter names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  everyone calls it that

if TYPE_CHECKING:
    from export.models.resnet import ResNet


class FeaturePyramid(nn.Module):
    """Every stage with the coarser ones added (section 3): p2 to p5, and p6 as every second value of p5."""

    def __init__(self, bottom_up: ResNet, channels: int = 256) -> None:
        super().__init__()
        self.bottom_up = bottom_up
        self.stages = range(2, 2 + len(bottom_up.channels))
        for stage, inputs in zip(self.stages, bottom_up.channels, strict=True):
            self.add_module(f"fpn_lateral{stage}", nn.Conv2d(inputs, channels, 1))
            self.add_module(f"fpn_output{stage}", nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N,3,h,w), h and w multiples of 32, to p2 ... p6 at 1/4 ... 1/64 of the size, rounded up."""
        levels: list[Tensor] = []
        above: Tensor | None = None
        for stage, features in zip(reversed(self.stages), reversed(self.bottom_up(image)), strict=True):
            lateral = self.get_submodule(f"fpn_lateral{stage}")(features)
            if above is not None:
                # Twice the size, named by what it is added to: a size that is free stays one and the same then.
                lateral = lateral + F.interpolate(above, size=lateral.shape[-2:], mode="nearest")
            above = lateral
            levels.insert(0, self.get_submodule(f"fpn_output{stage}")(lateral))
        return [*levels, F.max_pool2d(levels[-1], kernel_size=1, stride=2)]
