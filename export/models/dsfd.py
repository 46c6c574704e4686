"""DSFD, the Dual Shot Face Detector (Li et al., CVPR 2019), with the parameter names of the published checkpoint.

A ResNet as torchvision names it, a pyramid whose levels are multiplied, feature enhance modules (section 3.2), and one
prior for each cell of six levels. Of the heads' outputs only those of the second shot are used, as published.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from torch import Tensor, nn

from engines.errors import CheckpointError

#: What is subtracted from RGB values of 0..255.
MEAN: Final = (123.0, 117.0, 104.0)
#: Pixels for each cell of the six levels, and the side of its prior: width side/sqrt(1.5), height side*sqrt(1.5).
_STEPS: Final = (4, 8, 16, 32, 64, 128)
_SIDES: Final = (16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
_ASPECT: Final = 1.5
_VARIANCES: Final = (0.1, 0.2)
_CHANNELS: Final = (256, 512, 1024, 2048, 512, 256)


@dataclass(frozen=True)
class DsfdSpec:
    """What the tensors show.

    Attributes:
        blocks: bottlenecks in each stage of the ResNet; (3, 8, 36, 3) for ResNet-152.
    """

    blocks: tuple[int, int, int, int]

    @classmethod
    def of(cls, names: Mapping[str, object]) -> DsfdSpec:
        """Reads the depth from the names of a state dict.

        Raises:
            CheckpointError: they are not those of a DSFD with bottlenecks.
        """
        prefixes = (r"layer1\.4", r"layer2\.0", r"layer3\.0", r"layer4\.0")
        counts = []
        for prefix in prefixes:
            pattern = re.compile(rf"{prefix}\.(\d{{1,3}})\.conv3\.weight")
            found = {int(match[1]) for name in names if (match := pattern.fullmatch(name))}
            if not found or found != set(range(len(found))):
                raise CheckpointError("it holds no DSFD with a ResNet of bottlenecks; give the published face detector")
            counts.append(len(found))
        first, second, third, fourth = counts
        return cls((first, second, third, fourth))


class Dsfd(nn.Module):
    """The detector up to boxes and scores of all priors."""

    def __init__(self, spec: DsfdSpec) -> None:
        super().__init__()
        first, second, third, fourth = spec.blocks
        stem: list[nn.Module] = [nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
        self.layer1 = nn.Sequential(*stem, nn.MaxPool2d(3, stride=2, padding=1), _stage(64, 64, first, 1))
        self.layer2 = nn.Sequential(_stage(256, 128, second, 2))
        self.layer3 = nn.Sequential(_stage(512, 256, third, 2))
        self.layer4 = nn.Sequential(_stage(1024, 512, fourth, 2))
        self.layer5 = _smaller(2048, 512, 512)
        self.layer6 = _smaller(512, 128, 256)
        self.latlayer3, self.smooth3 = nn.Conv2d(2048, 1024, 1), nn.Conv2d(1024, 1024, 1)
        self.latlayer2, self.smooth2 = nn.Conv2d(1024, 512, 1), nn.Conv2d(512, 512, 1)
        self.latlayer1, self.smooth1 = nn.Conv2d(512, 256, 1), nn.Conv2d(256, 256, 1)
        self.cpm3_3 = _Enhance(_CHANNELS[0])
        self.cpm4_3 = _Enhance(_CHANNELS[1])
        self.cpm5_3 = _Enhance(_CHANNELS[2])
        self.cpm7 = _Enhance(_CHANNELS[3])
        self.cpm6_2 = _Enhance(_CHANNELS[4])
        self.cpm7_2 = _Enhance(_CHANNELS[5])
        # Of each level the first prior is the second shot's; the others are the first shot's, from training.
        priors = (1, 2, 3, 3, 3, 3)
        self.loc = nn.ModuleList(_Head(4 * number) for number in priors)
        self.conf = nn.ModuleList(_Head(2 + 2 * number) for number in priors)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes and scores of all priors, level by level, row by row.

        Args:
            image: (N,3,h,w), RGB 0..255 minus `MEAN`.

        Returns:
            scores: (N,P,2), of background and face, sum 1.
            boxes: (N,P,4), `xyxy` as shares of width and height, not clipped.
        """
        locations, scores, priors = [], [], []
        for level, features in enumerate(self._levels(image.flip(1))):
            locations.append(self.loc[level](features)[:, :4].permute(0, 2, 3, 1).flatten(1, 2))
            logits = _max_in_out(self.conf[level](features), background=level == 0)
            scores.append(logits.permute(0, 2, 3, 1).flatten(1, 2))
            priors.append(_priors(level, features, image))
        boxes = _decode(torch.cat(locations, 1), torch.cat(priors))
        return torch.cat(scores, 1).softmax(-1), boxes

    def _levels(self, x: Tensor) -> tuple[Tensor, ...]:
        c2 = self.layer1(x)
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        c5 = self.layer4(c4)
        c6 = self.layer5(c5)
        c7 = self.layer6(c6)
        p4 = _times_larger(self.smooth3(c4), self.latlayer3(c5))
        p3 = _times_larger(self.smooth2(c3), self.latlayer2(p4))
        p2 = _times_larger(self.smooth1(c2), self.latlayer1(p3))
        return (
            self.cpm3_3(p2),
            self.cpm4_3(p3),
            self.cpm5_3(p4),
            self.cpm7(c5),
            self.cpm6_2(c6),
            self.cpm7_2(c7),
        )


class _Bottleneck(nn.Module):
    """As torchvision has it: the stride is in the 3x3 convolution."""

    def __init__(self, inputs: int, middle: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * middle
        self.conv1 = nn.Conv2d(inputs, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(N,inputs,h,w) to (N,4*middle,h/stride,w/stride)."""
        made = F.relu(self.bn1(self.conv1(x)))
        made = F.relu(self.bn2(self.conv2(made)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn3(self.conv3(made)) + shortcut)


def _stage(inputs: int, middle: int, blocks: int, stride: int) -> nn.Sequential:
    first = _Bottleneck(inputs, middle, stride)
    return nn.Sequential(first, *(_Bottleneck(4 * middle, middle, 1) for _ in range(blocks - 1)))


def _smaller(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    """A level above the ResNet's, half its size."""
    return nn.Sequential(
        nn.Conv2d(inputs, middle, 1),
        nn.BatchNorm2d(middle),
        nn.ReLU(),
        nn.Conv2d(middle, outputs, 3, stride=2, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class _Enhance(nn.Module):
    """Feature enhance module (section 3.2, figure 3): three branches of dilated convolutions, 512 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cpm1 = nn.Conv2d(channels, 256, 3, padding=1)
        self.cpm2 = nn.Conv2d(channels, 256, 3, dilation=2, padding=2)
        self.cpm3 = nn.Conv2d(256, 128, 3, padding=1)
        self.cpm4 = nn.Conv2d(256, 128, 3, dilation=2, padding=2)
        self.cpm5 = nn.Conv2d(128, 128, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,h,w) to (N,512,h,w)."""
        wide = F.relu(self.cpm2(x))
        last = F.relu(self.cpm5(F.relu(self.cpm4(wide))))
        return torch.cat([F.relu(self.cpm1(x)), F.relu(self.cpm3(wide)), last], 1)


class _Head(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(512, 256, 3, padding=1)
        self.conv2 = nn.Conv2d(256, 256, 3, padding=1)
        self.conv3 = nn.Conv2d(256, 256, 3, padding=1)
        self.conv4 = nn.Conv2d(256, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N,512,h,w) to (N,outputs,h,w)."""
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        made: Tensor = self.conv4(F.relu(self.conv3(x)))
        return made


def _times_larger(x: Tensor, above: Tensor) -> Tensor:
    """A level times the one above it, enlarged."""
    return x * F.interpolate(above, size=x.shape[2:], mode="bilinear", align_corners=True)


def _max_in_out(logits: Tensor, *, background: bool) -> Tensor:
    """Logits of background and face (N,2,h,w): the largest of three for one of them, which differs by level.

    On the largest map, where most priors are background, that has the three (as in S3FD, section 3.3).
    """
    largest, single = logits[:, :3].amax(1, keepdim=True), logits[:, 3:4]
    return torch.cat([largest, single] if background else [single, largest], 1)


def _priors(level: int, features: Tensor, image: Tensor) -> Tensor:
    """Centres and sides of a level's priors (cells,4) as shares of the picture, in 0..1 as published."""
    height, width = image.shape[2:]
    rows, columns = features.shape[2:]
    step, side = _STEPS[level], _SIDES[level]
    y = ((torch.arange(rows, device=image.device) + 0.5) * step / height)[:, None].expand(rows, columns)
    x = ((torch.arange(columns, device=image.device) + 0.5) * step / width)[None].expand(rows, columns)
    prior_width = torch.full_like(x, side / math.sqrt(_ASPECT)) / width
    prior_height = torch.full_like(y, side * math.sqrt(_ASPECT)) / height
    return torch.stack([x, y, prior_width, prior_height], -1).flatten(0, 1).clamp(0, 1)


def _decode(locations: Tensor, priors: Tensor) -> Tensor:
    """Boxes `xyxy` (N,P,4) of offsets (N,P,4) from priors (P,4)."""
    centres = priors[:, :2] + locations[..., :2] * _VARIANCES[0] * priors[:, 2:]
    sides = priors[:, 2:] * torch.exp(locations[..., 2:] * _VARIANCES[1])
    low = centres - sides / 2
    return torch.cat([low, low + sides], -1)
