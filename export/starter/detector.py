"""A small network that finds people in one look: boxes at 1/8 of the picture's size, body and surface at 1/4.

At 1/8, heat-maps of the centres of people and of their heads, and the distances to the four edges of each one's box
(after Zhou et al. 2019 and Tian et al. 2019). At 1/4, whether a place is on a body, the way to the centre of its
person's box, which tells people apart whose boxes overlap (after Neven et al. 2019), and where on the body's surface it
lies, as an embedding (Neverova et al. 2020). Dense convolutions where channels are few and inverted residuals
(Sandler et al. 2018) where they are many, with a pyramid; most weights are where places are few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  everyone calls it that
from torch.nn.utils.fusion import fuse_conv_bn_eval

#: What is found, each with a map of centres and boxes of its own. A head says `face` in the terms of a run: from behind
#: it has to be covered as well.
KINDS: Final = ("person", "face")
#: Sides of pictures are multiples of this.
MULTIPLE: Final = 32
#: Pixels of a place of the two outputs.
COARSE_STRIDE: Final = 8
FINE_STRIDE: Final = 4
#: An output of 0 is an edge this far away from the centre, in pixels,
_EDGE: Final = 40.0
#: and none leaves this many natural logarithms of it.
_EDGE_RANGE: Final = 4.0
#: Pixels of a way of 1.
_WAY: Final = 32.0
#: Before training, one place in a hundred is a centre: the loss of the many others must not drown everything.
_PRIOR: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSpec:
    """The size of the network.

    Attributes:
        widths: Channels at 1/2, 1/4, 1/8, 1/16 and 1/32 of the picture's size.
        blocks: Blocks at 1/4 ... 1/32 after the one that halves the size.
        expansion: Of inverted residuals.
        pyramid: Channels of the pyramid at 1/8 and above.
        fine: Channels at 1/4.
        head_blocks: Blocks before what is said of places at 1/8 (inverted residuals), and of those at 1/4 (dense).
        embedding: Channels of the surface embedding.
    """

    widths: tuple[int, int, int, int, int] = (16, 32, 80, 160, 256)
    blocks: tuple[int, int, int, int] = (1, 2, 4, 4)
    expansion: int = 3
    pyramid: int = 80
    fine: int = 48
    head_blocks: tuple[int, int] = (1, 2)
    embedding: int = 16

    def state(self) -> dict[str, Any]:
        """As plain values, for checkpoints."""
        return asdict(self)

    @classmethod
    def of(cls, state: dict[str, Any]) -> DetectorSpec:
        """From what `state` gave."""
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, Sequence) else value for name, value in state.items()
        }
        return cls(**plain)


class ConvNorm(nn.Module):
    """A convolution without bias, its normalisation, and a ReLU unless told otherwise."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, groups: int = 1, active: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        """(N,inputs,h,w) to (N,outputs,h/stride,w/stride)."""
        x = self.norm(self._convolved(x))
        return F.relu(x) if self.active else x

    def _convolved(self, x: Tensor) -> Tensor:
        if self.conv.groups == 1 or not torch.is_autocast_enabled("cpu"):
            return self.conv(x)  # type: ignore[no-any-return]
        # Gradients of convolutions by channel are four times as slow in half precision on processors.
        with torch.autocast("cpu", enabled=False):
            return self.conv(x.float()).to(x.dtype)  # type: ignore[no-any-return]

    def fold(self) -> None:
        """Puts the statistics into the convolution, for evaluation."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


class Residual(nn.Module):
    """Two dense convolutions beside a short cut: on CPUs the cheapest way to see more where channels are few."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels, active=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,h,w) to the same."""
        return F.relu(x + self.second(self.first(x)))

    def rest(self) -> None:
        """Gives back what it is given, as long as it has learnt nothing (that is positive already)."""
        _silence(self.second)


class Inverted(nn.Module):
    """Wide in the middle, where each channel sees 5x5 places of its own; a short cut where the size stays."""

    def __init__(self, inputs: int, outputs: int, expansion: int, *, stride: int = 1) -> None:
        super().__init__()
        inner = inputs * expansion
        self.widen = ConvNorm(inputs, inner, 1)
        self.look = ConvNorm(inner, inner, 5, stride=stride, groups=inner)
        self.narrow = ConvNorm(inner, outputs, 1, active=False)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N,inputs,h,w) to (N,outputs,h/stride,w/stride)."""
        made: Tensor = self.narrow(self.look(self.widen(x)))
        return x + made if self.shortcut else made

    def rest(self) -> None:
        """Gives back what it is given, as long as it has learnt nothing; for one with a short cut."""
        if not self.shortcut:
            raise ValueError("a block without a short cut has to do something")
        _silence(self.narrow)


def _silence(layer: ConvNorm) -> None:
    scale, moved = layer.norm.weight, layer.norm.bias
    assert isinstance(scale, Tensor)  # noqa: S101  not folded
    assert isinstance(moved, Tensor)  # noqa: S101  not folded
    nn.init.zeros_(scale)
    nn.init.zeros_(moved)


class PersonNetwork(nn.Module):
    """From pictures to what is said of each place; see the module."""

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__()
        self.spec = spec
        half, w4, w8, w16, w32 = spec.widths
        b4, b8, b16, b32 = spec.blocks
        self.stem = ConvNorm(3, half, stride=2)
        self.stage4 = nn.Sequential(ConvNorm(half, w4, stride=2), *(Residual(w4) for _ in range(b4)))
        self.stage8 = nn.Sequential(ConvNorm(w4, w8, stride=2), *(Residual(w8) for _ in range(b8)))
        self.stage16 = _inverted(w8, w16, b16, spec.expansion)
        self.stage32 = _inverted(w16, w32, b32, spec.expansion)
        self.lateral4 = ConvNorm(w4, spec.fine, 1)
        self.lateral8 = ConvNorm(w8, spec.pyramid, 1)
        self.lateral16 = ConvNorm(w16, spec.pyramid, 1)
        self.lateral32 = ConvNorm(w32, spec.pyramid, 1)
        self.merge16 = Inverted(spec.pyramid, spec.pyramid, 2)
        self.merge8 = Inverted(spec.pyramid, spec.pyramid, 2)
        self.to_fine = ConvNorm(spec.pyramid, spec.fine)
        coarse_blocks, fine_blocks = spec.head_blocks
        self.coarse_blocks = nn.Sequential(*(Inverted(spec.pyramid, spec.pyramid, 2) for _ in range(coarse_blocks)))
        self.fine_blocks = nn.Sequential(*(Residual(spec.fine) for _ in range(fine_blocks)))
        self.coarse_head = nn.Sequential(
            ConvNorm(spec.pyramid, spec.pyramid), nn.Conv2d(spec.pyramid, 5 * len(KINDS), 1)
        )
        self.fine_head = nn.Sequential(ConvNorm(spec.fine, spec.fine), nn.Conv2d(spec.fine, 3 + spec.embedding, 1))
        bias = self.coarse_head[-1].bias
        assert isinstance(bias, Tensor)  # noqa: S101  it has one
        nn.init.constant_(bias[::5], math.log(_PRIOR / (1 - _PRIOR)))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Looks at pictures.

        Args:
            image: (N,3,h,w), normalised; h and w are multiples of 32.

        Returns:
            (N,5C,h/8,w/8), for each of the C `KINDS` the logit of a centre and `edges` before their exponential; and
            (N,3+D,h/4,w/4), the logit of a body, the way to the centre of its person's box in units of 32 pixels
            (x, y), and the embedding.
        """
        at4 = self.stage4(self.stem(image))
        at8 = self.stage8(at4)
        at16 = self.stage16(at8)
        top = self.lateral32(self.stage32(at16))
        # What the whole picture shows helps to judge each of its places.
        top = top + top.mean(dim=(2, 3), keepdim=True)
        at16 = self.merge16(_joined(self.lateral16(at16), top))
        at8 = self.merge8(_joined(self.lateral8(at8), at16))
        fine = _joined(self.lateral4(at4), self.to_fine(at8))
        return self.coarse_head(self.coarse_blocks(at8)), self.fine_head(self.fine_blocks(fine))


def _inverted(inputs: int, outputs: int, blocks: int, expansion: int) -> nn.Sequential:
    first = Inverted(inputs, outputs, expansion, stride=2)
    return nn.Sequential(first, *(Inverted(outputs, outputs, expansion) for _ in range(blocks)))


def _joined(finer: Tensor, coarser: Tensor) -> Tensor:
    # Named by the size of what it is added to: a size that is free stays one and the same then.
    return finer + F.interpolate(coarser, size=finer.shape[-2:], mode="nearest")


def fold(network: PersonNetwork) -> PersonNetwork:
    """Puts all normalisation into the convolutions, in place: faster, and for evaluation only."""
    network.eval()
    for module in list(network.modules()):
        if isinstance(module, ConvNorm):
            module.fold()
    return network


def by_kind(coarse: Tensor) -> Tensor:
    """What the network gives at 1/8, (N,5C,h,w), as (N,C,5,h,w)."""
    return torch.stack(coarse.chunk(len(KINDS), dim=1), dim=1)


def edges(coarse: Tensor) -> Tensor:
    """Distances from a place's middle to the left, top, right and bottom edge in pixels: (N,C,5,h,w) to (N,C,4,h,w)."""
    return torch.exp(coarse[:, :, 1:].clamp(-_EDGE_RANGE, _EDGE_RANGE)) * _EDGE


def boxes_of(coarse: Tensor) -> Tensor:
    """The boxes of each place as `xyxy` in pixels, by kind, rows first: (N,C,5,h,w) to (N,Chw,4)."""
    y, x = (
        (torch.arange(side, dtype=coarse.dtype, device=coarse.device) + 0.5) * COARSE_STRIDE
        for side in coarse.shape[-2:]
    )
    left, top, right, bottom = edges(coarse).unbind(dim=2)
    boxes = torch.stack([x - left, y[:, None] - top, x + right, y[:, None] + bottom], dim=4)
    return boxes.flatten(1, 3)


def ways(fine: Tensor) -> Tensor:
    """The way from each place to its person's centre (x, y) in pixels: (N,3+D,h,w) to (N,2,h,w)."""
    return fine[:, 1:3] * _WAY


def parameters(network: nn.Module) -> int:
    """How many numbers a network has learnt."""
    return sum(values.numel() for values in network.parameters())
