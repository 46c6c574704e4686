"""The two graphs of the detector's bundle, with the outputs that a dense pose's bundle has.

`detector.onnx` ends in a bounded number of sorted boxes and gives `pixels`, what it says of every place. `heads.onnx`
cuts `pixels` to the boxes that survived and leaves of the bodies in a box the one whose box it is.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  everyone calls it that

from engines.manifest import Tensor as Declared
from export.detector_graphs import (
    Side,
    box_inputs,
    detector_inputs,
    detector_outputs,
    example_boxes,
    example_pictures,
    pose_outputs,
)
from export.graphs import Arrays, GraphPlan
from export.models.boxes import NO_SCORE, best, clip, suppress, take
from export.models.roi import roi_align
from export.starter.detector import FINE_STRIDE, KINDS, PersonNetwork, boxes_of, by_kind, ways
from export.starter.detector_data import MEAN, STD

#: Places on each side of a box, as the heads of dense pose give them.
SIDE: Final = 112
#: Candidates that suppression chooses from. Delicate for TensorRT: TopK takes at most 3840.
_CANDIDATES: Final = 400
#: A place belongs to the box whose centre it points to, within this part of the box's sides;
_REACH: Final = 0.5
#: beyond, its logit falls by this for each side.
_STEEP: Final = 20.0
#: Sides count as at least so many pixels: a way is no more exact than that.
_SMALLEST_SIDE: Final = 16.0
#: Places of a box in each direction at which its body is looked for.
_LOOKS: Final = 8
#: float32 ends at 3.4e38.
_LARGEST_SUM: Final = 3e38


class StarterDetector(nn.Module):
    """From pictures to boxes.

    Args:
        network: see there.
        threshold: a box with a score at or below it is none.
        most: M, boxes a frame.
        iou: a box falls if it shares more than this with a better one.
    """

    def __init__(self, network: PersonNetwork, *, threshold: float = 0.1, most: int = 200, iou: float = 0.55) -> None:
        super().__init__()
        self.network, self.threshold, self.most, self.iou = network, threshold, most, iou

    def forward(self, image: Tensor, image_size: Tensor) -> tuple[Tensor, ...]:
        """Boxes, and `pixels` for the heads.

        Args:
            image: (N,3,h,w), normalised, then padded with 0; h and w are multiples of 32.
            image_size: (N,2) int64, height and width before padding.

        Returns:
            boxes (N,M,4) `xyxy` in pixels, scores (N,M) descending, classes (N,M) int64, count (N,) int64, floor (N,)
            and pixels (N,3+D,h/4,w/4).
        """
        coarse, pixels = self.network(image)
        boxes, scores, classes, count, floor = self.decide(by_kind(coarse), pixels[:, 0], image_size)
        # Comparisons with NaN are false, so that a broken network would look like an empty street otherwise.
        fine = (coarse.flatten(1).sum(dim=1) + pixels.flatten(1).sum(dim=1)).abs() < _LARGEST_SUM
        scores = torch.where(fine[:, None], scores, float("nan"))
        count = torch.where(fine, count, self.most)
        return boxes, scores, classes, count, floor, pixels

    def decide(self, coarse: Tensor, body: Tensor, image_size: Tensor) -> tuple[Tensor, ...]:
        """What `forward` gives but for `pixels`, from (N,C,5,h,w) and the logits of a body (N,2h,2w)."""
        logits = coarse[:, :, 0]
        highest = logits >= F.max_pool2d(logits, 3, stride=1, padding=1)
        likely = torch.sigmoid(logits)
        boxes = clip(boxes_of(coarse), image_size)
        # What lies in the padding has no area.
        there = (boxes[..., 2:] > boxes[..., :2]).all(dim=2) & (highest & (likely > self.threshold)).flatten(1)
        raw, places = best(torch.where(there, likely.flatten(1), NO_SCORE), _CANDIDATES)
        places = torch.where(raw > 0, places, 0)
        boxes = take(boxes, places)
        # A centre where no body is seen is mostly nobody's; what is left of its score decides.
        weaker = raw * evidence(boxes, torch.sigmoid(body)).sqrt()
        scores = torch.where(weaker > self.threshold, weaker, NO_SCORE)
        # Kinds lie one after the other. A head in a person's box is no second find of the same.
        later = torch.arange(1, len(KINDS)) * (logits.shape[2] * logits.shape[3])
        classes = (places[..., None] >= later).sum(dim=2)
        stays = suppress(boxes, scores, iou=self.iou, classes=classes)
        total = stays.sum(dim=1).long()
        kept, rows = best(torch.where(stays > 0, scores, NO_SCORE), self.most)
        here = kept > 0
        rows = torch.where(here, rows, 0)
        boxes = torch.where(here[..., None], take(boxes, rows), 0.0)
        classes = torch.where(here, classes.gather(1, rows), 0)
        left_out = torch.where(there.sum(dim=1) > _CANDIDATES, raw[:, -1], 0.0)
        cut_off = torch.where(total > self.most, kept[:, -1], 0.0)
        floor = torch.maximum(left_out, cut_off)
        return boxes, torch.where(here, kept, 0.0), classes, total.clamp(max=self.most), floor


def evidence(boxes: Tensor, body: Tensor) -> Tensor:
    """How likely the likeliest of some places of each box shows a body.

    Args:
        boxes: (N,K,4) `xyxy` in pixels.
        body: (N,h/4,w/4), 0 to 1.

    Returns:
        (N,K).
    """
    height, width = body.shape[1:]
    inside = (torch.arange(_LOOKS, dtype=boxes.dtype) + 0.5) / _LOOKS
    x0, y0, x1, y1 = (edge[..., None] for edge in boxes.unbind(dim=2))
    columns, rows = (
        ((low + (high - low) * inside) / FINE_STRIDE).long().clamp(min=0) for low, high in ((x0, x1), (y0, y1))
    )
    columns, rows = columns.clamp(max=width - 1), rows.clamp(max=height - 1)
    places = (rows[..., :, None] * width + columns[..., None, :]).flatten(1)
    return body.flatten(1).gather(1, places).reshape(*boxes.shape[:2], _LOOKS**2).amax(dim=2)


class StarterHeads(nn.Module):
    """Body and surface of the boxes that survived; it has no weights.

    Args:
        body_probability: from here on a place counts as body.
    """

    def __init__(self, *, body_probability: float = 0.5) -> None:
        super().__init__()
        self.limit = math.log(body_probability / (1 - body_probability))

    def forward(self, pixels: Tensor, boxes: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Coarse segmentation (R,2,112,112) as logits and embedding (R,D,112,112) of boxes (R,4) in frames (R,)."""
        cut = roi_align(pixels, boxes, index, SIDE, scale=1 / FINE_STRIDE, sampling=1, aligned=True)
        # Middles of places in parts of the box, and how far from its middle each one's way ends.
        middles = (torch.arange(SIDE, dtype=cut.dtype, device=cut.device) + 0.5) / SIDE - 0.5
        sides = boxes[:, 2:] - boxes[:, :2]
        soft = sides.clamp(min=_SMALLEST_SIDE)
        way = ways(cut)
        across = (middles * sides[:, 0, None, None] + way[:, 0]) / soft[:, 0, None, None]
        down = (middles[:, None] * sides[:, 1, None, None] + way[:, 1]) / soft[:, 1, None, None]
        missed = torch.sqrt(across * across + down * down)
        body = torch.minimum(cut[:, 0], _STEEP * (_REACH - missed))
        return torch.stack([torch.full_like(body, self.limit), body], dim=1), cut[:, 3:]


def _pixels(channels: int, sides: tuple[Side, Side]) -> Declared:
    shape = [side // FINE_STRIDE if isinstance(side, int) else f"{side}{FINE_STRIDE}" for side in sides]
    return Declared(
        name="pixels",
        dtype="float32",
        shape=("N", 3 + channels, *shape),
        meaning="of each 4x4 pixels: logit of a body, way to its person's centre (x, y) / 32 pixels, embedding",
    )


def detector_plan(network: StarterDetector, sides: tuple[Side, Side], example: Arrays) -> GraphPlan:
    """`detector.onnx`; a word for a side leaves it free."""
    outputs = (
        *detector_outputs(network.most, network.threshold, "x1, y1, x2, y2 in pixels"),
        _pixels(network.network.spec.embedding, sides),
    )
    return GraphPlan(
        key="detector",
        file="detector.onnx",
        module=network,
        inputs=detector_inputs(sides),
        outputs=outputs,
        example=example,
    )


def heads_plan(heads: StarterHeads, channels: int, sides: tuple[Side, Side], example: Arrays) -> GraphPlan:
    """`heads.onnx`; `example` has `pixels`, `boxes` and `index`."""
    inputs = (_pixels(channels, sides), *box_inputs())
    return GraphPlan(
        key="heads",
        file="heads.onnx",
        module=heads,
        inputs=inputs,
        outputs=pose_outputs(SIDE, channels),
        example={tensor.name: example[tensor.name] for tensor in inputs},
    )


def examples(size: tuple[int, int], pictures: Arrays | None = None) -> tuple[Arrays, Arrays]:
    """Inputs of the detector, and boxes and frames for its heads.

    Args:
        size: height and width of made-up pictures.
        pictures: `image` and `image_size` to take instead.
    """
    made = pictures or example_pictures(size, (MEAN,) * 3, (STD,) * 3)
    height, width = made["image"].shape[2:]
    boxes = example_boxes((height, width))
    index = np.arange(len(boxes["boxes"]), dtype=np.int64) % len(made["image"])
    return made, {"boxes": boxes["boxes"], "index": index}
