"""Faster and Mask R-CNN (Ren et al. 2015; He et al. 2017) over a pyramid, with detectron2's parameter names.

`Detector` ends in a bounded number of sorted boxes. What runs on the boxes that survive (`MaskHeads`, and `DenseHeads`
in `export.models.cse`) is apart, since it costs much and an empty street needs none of it. Each has the parameters that
it needs under their published names: `roi_heads` is in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  everyone calls it that

from export.models.boxes import NO_SCORE, apply_deltas, best, clip, suppress, take
from export.models.fpn import FeaturePyramid
from export.models.resnet import ResNet
from export.models.roi import PyramidPooler
from export.models.rpn import ProposalNetwork, ProposalSpec

#: p2 to p5: boxes are pooled from all levels but the coarsest.
POOLED_LEVELS = 4
#: float32 ends at 3.4e38.
_LARGEST_SUM = 3e38


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """The ResNet and the pyramid over it; see `ResNet`."""

    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    stem_channels: int = 64
    res2_channels: int = 256
    groups: int = 1
    width_per_group: int = 64
    stride_in_1x1: bool = True
    channels: int = 256

    def build(self) -> FeaturePyramid:
        """The network with weights to be loaded."""
        bottom_up = ResNet(
            self.blocks,
            stem_channels=self.stem_channels,
            res2_channels=self.res2_channels,
            groups=self.groups,
            width_per_group=self.width_per_group,
            stride_in_1x1=self.stride_in_1x1,
        )
        return FeaturePyramid(bottom_up, self.channels)


@dataclass(frozen=True, kw_only=True)
class PoolerSpec:
    """How boxes are sampled; see `export.models.roi.roi_align`."""

    size: int
    sampling: int = 0
    aligned: bool = True

    def build(self) -> PyramidPooler:
        """It has no weights."""
        return PyramidPooler(self.size, sampling=self.sampling, aligned=self.aligned)


@dataclass(frozen=True, kw_only=True)
class BoxSpec:
    """The box head and what it decides.

    Attributes:
        pooler: How proposals are sampled.
        convs: 3x3 convolutions before the fully connected layers.
        conv_channels: Of these.
        layers: Fully connected layers.
        width: Of these.
        classes: Without the background.
        class_agnostic: Whether all classes share one box.
        delta_weights: What regressed deltas are divided by.
        iou: Suppression within a class.
    """

    pooler: PoolerSpec = field(default_factory=lambda: PoolerSpec(size=7))
    convs: int = 0
    conv_channels: int = 256
    layers: int = 2
    width: int = 1024
    classes: int = 80
    class_agnostic: bool = False
    delta_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    iou: float = 0.5


@dataclass(frozen=True, kw_only=True)
class MaskSpec:
    """The mask head."""

    pooler: PoolerSpec = field(default_factory=lambda: PoolerSpec(size=14))
    convs: int = 4
    channels: int = 256
    class_agnostic: bool = False


class BoxHead(nn.Sequential):
    """From a proposal's values to one vector."""

    def __init__(self, channels: int, spec: BoxSpec) -> None:
        super().__init__()
        for i in range(spec.convs):
            self.add_module(f"conv{i + 1}", nn.Conv2d(channels, spec.conv_channels, 3, padding=1))
            self.add_module(f"conv_relu{i + 1}", nn.ReLU())
            channels = spec.conv_channels
        self.add_module("flatten", nn.Flatten())
        width = channels * spec.pooler.size**2
        for i in range(spec.layers):
            self.add_module(f"fc{i + 1}", nn.Linear(width, spec.width))
            self.add_module(f"fc_relu{i + 1}", nn.ReLU())
            width = spec.width


class BoxPredictor(nn.Module):
    """A logit for each class and the background, and deltas for each class."""

    def __init__(self, spec: BoxSpec) -> None:
        super().__init__()
        self.cls_score = nn.Linear(spec.width, spec.classes + 1)
        self.bbox_pred = nn.Linear(spec.width, 4 * (1 if spec.class_agnostic else spec.classes))

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(R,width) to (R,classes+1) and (R,4 boxes)."""
        return self.cls_score(hidden), self.bbox_pred(hidden)


class MaskHead(nn.Sequential):
    """Four convolutions, one that doubles the size, and a logit for each class and pixel (He et al. 2017, figure 4)."""

    def __init__(self, channels: int, spec: MaskSpec, classes: int) -> None:
        super().__init__()
        for i in range(spec.convs):
            self.add_module(f"mask_fcn{i + 1}", nn.Conv2d(channels, spec.channels, 3, padding=1))
            self.add_module(f"mask_relu{i + 1}", nn.ReLU())
            channels = spec.channels
        self.add_module("deconv", nn.ConvTranspose2d(channels, spec.channels, 2, stride=2))
        self.add_module("deconv_relu", nn.ReLU())
        self.add_module("predictor", nn.Conv2d(spec.channels, 1 if spec.class_agnostic else classes, 1))


class BoxStage(nn.Module):
    """The part of `roi_heads` that makes boxes."""

    def __init__(self, channels: int, spec: BoxSpec) -> None:
        super().__init__()
        self.pooler = spec.pooler.build()
        self.box_head = BoxHead(channels, spec)
        self.box_predictor = BoxPredictor(spec)

    def forward(self, features: list[Tensor], boxes: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (R,4) in pixels of the frames (R,) to logits (R,classes+1) and deltas (R,4 boxes)."""
        made: tuple[Tensor, Tensor] = self.box_predictor(self.box_head(self.pooler(features, boxes, index)))
        return made


@dataclass(frozen=True)
class Detections:
    """What was found.

    Attributes:
        boxes: (N,M,4) `xyxy` in pixels; 0 after `count`, like all that follows.
        scores: (N,M), descending.
        classes: (N,M) int64, index into the classes that are looked for.
        count: (N,) int64.
        floor: (N,), the lowest score that was kept where others over the threshold were not, else 0.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    count: Tensor
    floor: Tensor


class Detector(nn.Module):
    """From pictures to boxes.

    Args:
        backbone: see there.
        proposals: see there.
        box: see there.
        keep: the classes that are looked for; the others are left out before the best are taken, so that they cannot
            crowd them out. Suppression never crosses classes, so nothing else changes.
        threshold: a box with a score at or below it is none.
        most: M, boxes a frame.
    """

    def __init__(
        self,
        backbone: BackboneSpec,
        proposals: ProposalSpec,
        box: BoxSpec,
        *,
        keep: tuple[int, ...] = (0,),
        threshold: float = 0.05,
        most: int = 100,
    ) -> None:
        super().__init__()
        self.box_spec, self.keep, self.threshold, self.most = box, keep, threshold, most
        self.backbone = backbone.build()
        self.proposal_generator = ProposalNetwork(backbone.channels, proposals)
        self.roi_heads = BoxStage(backbone.channels, box)

    def forward(self, image: Tensor, image_size: Tensor) -> tuple[Tensor, ...]:
        """Boxes, and the features that heads need.

        Args:
            image: (N,3,h,w), normalised, then padded with 0; h and w are multiples of 32.
            image_size: (N,2) int64, height and width before padding.

        Returns:
            The fields of `Detections`, then p2 ... p5.
        """
        features = self.backbone(image)
        proposals, objectness = self.proposal_generator(features, image_size)
        pooled = features[:POOLED_LEVELS]
        frames, count = proposals.shape[:2]
        index = torch.arange(frames)[:, None].expand(-1, count).reshape(-1)
        logits, deltas = self.roi_heads(pooled, proposals.reshape(-1, 4), index)
        found = self.decide(
            proposals,
            objectness > 0.5 * NO_SCORE,
            logits.reshape(frames, count, logits.shape[1]),
            deltas.reshape(frames, count, deltas.shape[1] // 4, 4),
            image_size,
        )
        everything = (*features, logits.reshape(frames, -1), deltas.reshape(frames, -1))
        total = torch.stack([values.flatten(1).sum(dim=1) for values in everything]).sum(dim=0)
        found = _show_broken(found, total)
        return (found.boxes, found.scores, found.classes, found.count, found.floor, *pooled)

    def decide(
        self, proposals: Tensor, valid: Tensor, logits: Tensor, deltas: Tensor, image_size: Tensor
    ) -> Detections:
        """Thresholds, suppresses within each class, and takes the best.

        Args:
            proposals: (N,P,4) `xyxy` in pixels.
            valid: (N,P) bool, whether it is one.
            logits: (N,P,classes+1), the background last.
            deltas: (N,P,classes,4), or (N,P,1,4) for all classes.
            image_size: (N,2) int64.
        """
        spec, wanted = self.box_spec, torch.tensor(self.keep)
        scores = torch.softmax(logits, dim=-1)[..., wanted]
        chosen = deltas.expand(-1, -1, len(self.keep), -1) if spec.class_agnostic else deltas[:, :, wanted]
        boxes = apply_deltas(chosen, proposals[:, :, None], spec.delta_weights)
        # Class by class: (N,P,C) to (N,CP).
        scores = torch.where(valid[..., None] & (scores > self.threshold), scores, NO_SCORE).transpose(1, 2).flatten(1)
        boxes = clip(boxes.transpose(1, 2).flatten(1, 2), image_size)
        class_of = torch.arange(len(self.keep)).repeat_interleave(proposals.shape[1])
        by_class = (proposals.shape[0], len(self.keep), proposals.shape[1])
        stays = suppress(boxes.reshape(*by_class, 4), scores.reshape(by_class), iou=spec.iou).flatten(1)
        total = stays.sum(dim=1).long()
        scores, places = best(torch.where(stays > 0, scores, NO_SCORE), self.most)
        here = scores > 0
        places = torch.where(here, places, 0)
        return Detections(
            boxes=torch.where(here[..., None], take(boxes, places), 0.0),
            scores=torch.where(here, scores, 0.0),
            classes=torch.where(here, class_of[places], 0),
            count=total.clamp(max=self.most),
            floor=torch.where(total > self.most, scores[:, -1], 0.0),
        )


def _show_broken(found: Detections, total: Tensor) -> Detections:
    """Where a sum over all that was computed (N,) is not finite, every score is NaN.

    Comparisons with NaN are false, so that a broken network would look like an empty street otherwise.
    """
    # False for NaN and for both infinities.
    fine = total.abs() < _LARGEST_SUM
    return replace(
        found,
        scores=torch.where(fine[:, None], found.scores, float("nan")),
        count=torch.where(fine, found.count, found.scores.shape[1]),
    )


class MaskStage(nn.Module):
    """The part of `roi_heads` that makes masks."""

    def __init__(self, channels: int, spec: MaskSpec, classes: int) -> None:
        super().__init__()
        self.pooler = spec.pooler.build()
        self.mask_head = MaskHead(channels, spec, classes)

    def forward(self, features: list[Tensor], boxes: Tensor, index: Tensor) -> Tensor:
        """Logits (R,classes,2 size,2 size) of boxes (R,4) in pixels of the frames (R,)."""
        made: Tensor = self.mask_head(self.pooler(features, boxes, index))
        return made


class MaskHeads(nn.Module):
    """Masks of the boxes that survived.

    Args:
        channels: of the pyramid.
        spec: see there.
        classes: without the background.
        keep: as in `Detector`: class 0 of its boxes is the first of these.
    """

    def __init__(self, channels: int, spec: MaskSpec, classes: int, keep: tuple[int, ...] = (0,)) -> None:
        super().__init__()
        self.spec, self.keep = spec, keep
        self.roi_heads = MaskStage(channels, spec, classes)

    def forward(
        self, p2: Tensor, p3: Tensor, p4: Tensor, p5: Tensor, boxes: Tensor, index: Tensor, classes: Tensor
    ) -> Tensor:
        """Probabilities (R,28,28): boxes (R,4), their frames (R,) int64, and classes (R,) as `Detector` gives them."""
        logits = self.roi_heads([p2, p3, p4, p5], boxes, index)
        if not self.spec.class_agnostic:
            logits = logits[:, torch.tensor(self.keep)]
            places = classes[:, None, None, None].expand(-1, 1, logits.shape[2], logits.shape[3])
            logits = logits.gather(1, places)
        return F.sigmoid(logits[:, 0])
