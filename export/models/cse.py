"""DensePose with continuous surface embeddings (Neverova et al. 2020), with detectron2's parameter names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  everyone calls it that

from export.models.rcnn import POOLED_LEVELS, PoolerSpec
from export.models.resnet import NormedConv

#: Of all group normalisations.
_GROUPS = 32
#: Dilations of the spatial pyramid: half the field of view is not needed further out.
_DILATIONS = (6, 12, 56)
#: detectron2 divides by no smaller norm.
_SMALLEST_NORM = 1e-6


@dataclass(frozen=True, kw_only=True)
class DenseSpec:
    """The dense head.

    Attributes:
        head: `v1` is a stack of convolutions, `deeplab` has a spatial pyramid before and normalises.
        pooler: How boxes are sampled.
        decoder: Whether the pyramid is merged into one map first.
        decoder_width: Channels within the decoder.
        decoder_channels: Channels that it gives.
        layers: Convolutions of the stack.
        width: Of these.
        kernel: Of these.
        deconv_kernel: Of the layers that double the size.
        scale: Of the interpolation after them.
        coarse_channels: Channels of the coarse segmentation: background, then body.
        embedding_channels: D, of a surface embedding.
        mesh: Name of the surface.
        vertices: K, of the surface.
        features: Of a vertex; 0 where its embedding is learnt directly.
    """

    head: Literal["v1", "deeplab"] = "v1"
    pooler: PoolerSpec = field(default_factory=lambda: PoolerSpec(size=28, sampling=2, aligned=False))
    decoder: bool = True
    decoder_width: int = 256
    decoder_channels: int = 256
    layers: int = 8
    width: int = 512
    kernel: int = 3
    deconv_kernel: int = 4
    scale: int = 2
    coarse_channels: int = 2
    embedding_channels: int = 16
    mesh: str = "smpl_27554"
    vertices: int = 27554
    features: int = 256


class Decoder(nn.Module):
    """Merges the pyramid into one map at a quarter of the size (Kirillov et al. 2019, section 3)."""

    def __init__(self, channels: int, spec: DenseSpec) -> None:
        super().__init__()
        for level in range(POOLED_LEVELS):
            steps, inputs = nn.Sequential(), channels
            for i in range(max(1, level)):
                # Published names count the enlargement after each convolution, which has no weights.
                steps.add_module(str(2 * i), _ConvRelu(inputs, spec.decoder_width))
                inputs = spec.decoder_width
            self.add_module(f"p{level + 2}", steps)
        self.predictor = nn.Conv2d(spec.decoder_width, spec.decoder_channels, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """p2 ... p5 to (N,C,h/4,w/4)."""
        merged = self.get_submodule("p2")(features[0])
        for level in range(1, len(features)):
            values = features[level]
            for i, step in enumerate(self.get_submodule(f"p{level + 2}").children(), 1):
                # Twice the size, which is that of the next finer level.
                size = features[level - i].shape[-2:]
                values = F.interpolate(step(values), size=size, mode="bilinear", align_corners=False)
            merged = merged + values
        made: Tensor = self.predictor(merged)
        return made


class _ConvRelu(nn.Conv2d):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class _Pooling(nn.Sequential):
    """The mean of the whole box at every place of it; index 1 and 2 have weights."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.GroupNorm(_GROUPS, outputs),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        # Interpolating one value gives it everywhere.
        mean = x
        for layer in self:
            mean = layer(mean)
        return mean.expand(-1, -1, x.shape[2], x.shape[3])


class SpatialPyramid(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al. 2017, section 3.3)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        branches: list[nn.Module] = [_branch(inputs, outputs, 1)]
        branches += [_branch(inputs, outputs, 3, dilation) for dilation in _DILATIONS]
        self.convs = nn.ModuleList([*branches, _Pooling(inputs, outputs)])
        self.project = nn.Sequential(nn.Conv2d(len(self.convs) * outputs, outputs, 1, bias=False), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """(R,C,s,s) to the same size."""
        made: Tensor = self.project(torch.cat([branch(x) for branch in self.convs], dim=1))
        return made


def _branch(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation if kernel > 1 else 0
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False),
        nn.GroupNorm(_GROUPS, outputs),
        nn.ReLU(),
    )


class DenseHead(nn.Module):
    """A stack of convolutions; with `deeplab` a spatial pyramid before it and group normalisation in it."""

    def __init__(self, channels: int, spec: DenseSpec) -> None:
        super().__init__()
        self.layers = spec.layers
        deeplab = spec.head == "deeplab"
        self.ASPP = SpatialPyramid(channels, channels) if deeplab else None
        for i in range(spec.layers):
            padding = spec.kernel // 2
            layer: nn.Module = (
                NormedConv(channels, spec.width, spec.kernel, nn.GroupNorm(_GROUPS, spec.width), padding=padding)
                if deeplab
                else nn.Conv2d(channels, spec.width, spec.kernel, padding=padding)
            )
            self.add_module(f"body_conv_fcn{i + 1}", layer)
            channels = spec.width

    def forward(self, x: Tensor) -> Tensor:
        """(R,C,s,s) to (R,width,s,s)."""
        if self.ASPP is not None:
            x = self.ASPP(x)
        for i in range(self.layers):
            x = F.relu(self.get_submodule(f"body_conv_fcn{i + 1}")(x))
        return x


class DensePredictor(nn.Module):
    """Coarse segmentation and surface embedding of every place of a box."""

    def __init__(self, spec: DenseSpec) -> None:
        super().__init__()
        self.scale = float(spec.scale)
        kernel, padding = spec.deconv_kernel, spec.deconv_kernel // 2 - 1
        self.coarse_segm_lowres = nn.ConvTranspose2d(
            spec.width, spec.coarse_channels, kernel, stride=2, padding=padding
        )
        self.embed_lowres = nn.ConvTranspose2d(spec.width, spec.embedding_channels, kernel, stride=2, padding=padding)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(R,width,s,s) to (R,2,4s,4s) and (R,D,4s,4s)."""
        return self._larger(self.coarse_segm_lowres(x)), self._larger(self.embed_lowres(x))

    def _larger(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)


class Surface(nn.Module):
    """The embedding of each vertex: its features times a learnt matrix, to unit norm (section 3)."""

    features: Tensor | None

    def __init__(self, spec: DenseSpec) -> None:
        super().__init__()
        rows = spec.features or spec.vertices
        self.embeddings = nn.Parameter(torch.zeros(rows, spec.embedding_channels))
        self.register_buffer("features", torch.zeros(spec.vertices, spec.features) if spec.features else None)

    def forward(self) -> Tensor:
        """(K,D), unit norm."""
        raw: Tensor = self.embeddings
        if self.features is not None:
            raw = self.features @ raw
        norms: Tensor = torch.linalg.vector_norm(raw, dim=1, keepdim=True)
        return raw / norms.clamp(min=_SMALLEST_NORM)


class DenseStage(nn.Module):
    """The part of `roi_heads` that makes dense pose."""

    def __init__(self, channels: int, spec: DenseSpec) -> None:
        super().__init__()
        self.decoder = Decoder(channels, spec) if spec.decoder else None
        self.pooler = spec.pooler.build()
        self.densepose_head = DenseHead(spec.decoder_channels if spec.decoder else channels, spec)
        self.densepose_predictor = DensePredictor(spec)
        self.embedder = nn.Module()
        self.embedder.add_module(f"embedder_{spec.mesh}", Surface(spec))

    def forward(self, features: list[Tensor], boxes: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """See `DenseHeads`."""
        if self.decoder is not None:
            features = [self.decoder(features)]
        made: tuple[Tensor, Tensor] = self.densepose_predictor(self.densepose_head(self.pooler(features, boxes, index)))
        return made


class DenseHeads(nn.Module):
    """Dense pose of the boxes that survived."""

    def __init__(self, channels: int, spec: DenseSpec) -> None:
        super().__init__()
        self.spec = spec
        self.roi_heads = DenseStage(channels, spec)

    def forward(
        self, p2: Tensor, p3: Tensor, p4: Tensor, p5: Tensor, boxes: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Coarse segmentation (R,2,112,112) as logits and embedding (R,16,112,112) of boxes (R,4) in frames (R,)."""
        made: tuple[Tensor, Tensor] = self.roi_heads([p2, p3, p4, p5], boxes, index)
        return made

    def vertex_embeddings(self) -> Tensor:
        """(K,D), unit norm."""
        made: Tensor = self.roi_heads.embedder.get_submodule(f"embedder_{self.spec.mesh}")()
        return made
