"""The graphs of a detector's bundle: boxes with all that follows from them, and heads for the boxes that survived.

What is delicate for TensorRT, here and in `export.models`:

- TopK takes at most 3840: 1000 candidates a level and 1000 proposals stay below, whatever the picture's size.
- NonMaxSuppression gives as many rows as the data has; what stands for it has constant shapes (`export.models.boxes`).
- RoiAlign has the modes that are used from TensorRT 8.6 on.
- The size of a picture may be fixed when exporting. Free sizes need a profile with a range there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engines.detector_tensors import decided_tensors
from engines.manifest import Tensor as Declared
from export.graphs import EXAMPLES, Arrays, GraphPlan
from export.models.rcnn import POOLED_LEVELS, Detector, MaskHeads

if TYPE_CHECKING:
    from export.models.cse import DenseHeads

#: Pictures are padded to multiples of the coarsest stage's stride.
MULTIPLE = 32
#: Boxes in the example of the heads.
_BOXES = 3

Side = int | str


def detector_inputs(sides: tuple[Side, Side]) -> tuple[Declared, ...]:
    """`image` and `image_size`; a word for a side leaves it free."""
    return (
        Declared(
            name="image",
            dtype="float32",
            shape=("N", 3, *sides),
            meaning=f"RGB, normalised, then padded with 0 at the bottom and right; sides are multiples of {MULTIPLE}",
        ),
        Declared(name="image_size", dtype="int64", shape=("N", 2), meaning="height and width in pixels before padding"),
    )


def feature_tensors(channels: int, sides: tuple[Side, Side]) -> tuple[Declared, ...]:
    """p2 ... p5, which the detector gives and heads take."""
    made = []
    for level in range(2, 2 + POOLED_LEVELS):
        shape = [side // 2**level if isinstance(side, int) else f"{side}{level}" for side in sides]
        made.append(
            Declared(
                name=f"p{level}",
                dtype="float32",
                shape=("N", channels, *shape),
                meaning=f"features at 1/{2**level} of the size, for the heads",
            )
        )
    return tuple(made)


def detector_plan(network: Detector, channels: int, sides: tuple[Side, Side], example: Arrays) -> GraphPlan:
    """`detector.onnx`.

    Args:
        network: in evaluation mode.
        channels: of its features.
        sides: of the picture in pixels; a word leaves one free.
        example: `image` and `image_size`.
    """
    outputs = detector_outputs(
        network.most, network.threshold, "x1, y1, x2, y2 in pixels of `image`, within image_size"
    )
    return GraphPlan(
        key="detector",
        file="detector.onnx",
        module=network,
        inputs=detector_inputs(sides),
        outputs=(*outputs, *feature_tensors(channels, sides)),
        example=example,
    )


def heads_plan(network: MaskHeads | DenseHeads, channels: int, sides: tuple[Side, Side], example: Arrays) -> GraphPlan:
    """`heads.onnx`.

    Args:
        network: in evaluation mode.
        channels: of the features.
        sides: of the picture in pixels, as for `detector_plan`.
        example: `p2` ... `p5`, `boxes`, `index`, and `classes` for masks.
    """
    inputs = [*feature_tensors(channels, sides), *box_inputs()]
    outputs: tuple[Declared, ...]
    if isinstance(network, MaskHeads):
        inputs.append(Declared(name="classes", dtype="int64", shape=("R",), meaning="of each box, index into kinds"))
        side = 2 * network.spec.pooler.size
        outputs = (_per_box("masks", (), side, "probability that a place of the box is the object"),)
    else:
        spec = network.spec
        side = 2 * spec.scale * spec.pooler.size
        outputs = pose_outputs(side, spec.embedding_channels, spec.coarse_channels)
    return GraphPlan(
        key="heads",
        file="heads.onnx",
        module=network,
        inputs=tuple(inputs),
        outputs=outputs,
        example={tensor.name: example[tensor.name] for tensor in inputs},
    )


def detector_outputs(most: int, threshold: float, boxes: str) -> tuple[Declared, ...]:
    """What `detector.onnx` gives before the features of its heads.

    Args:
        most: M, boxes a frame.
        threshold: a box with a score at or below it is none.
        boxes: what their numbers mean.
    """
    return decided_tensors(
        most,
        boxes=f"{boxes}; 0 after `count`",
        scores="descending; 0 after `count`; NaN where something that was computed is not finite",
        classes="index into kinds",
        floor=f"0 if all boxes with a score over {threshold:g} are there, else the lowest score that is",
    )


def box_inputs() -> tuple[Declared, ...]:
    """What heads take beside features: the boxes that survived."""
    return (
        Declared(name="boxes", dtype="float32", shape=("R", 4), meaning="as `detector.onnx` gives them"),
        Declared(name="index", dtype="int64", shape=("R",), meaning="which of the N frames a box is in"),
    )


def pose_outputs(side: int, channels: int, coarse_channels: int = 2) -> tuple[Declared, ...]:
    """What the heads of a dense pose give, on a grid of `side` places each way."""
    return (
        _per_box("coarse_segm", (coarse_channels,), side, "logits of background and body"),
        _per_box("embedding", (channels,), side, "surface embedding, not normalised"),
    )


def _per_box(name: str, channels: tuple[int, ...], side: int, meaning: str) -> Declared:
    return Declared(name=name, dtype="float32", shape=("R", *channels, side, side), meaning=meaning)


def example_pictures(size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]) -> Arrays:
    """Made-up pictures of (height, width), the first without padding and the second with some."""
    height, width = size
    draw = np.random.default_rng(0)
    # Coarse blobs with some noise: pure noise looks the same everywhere to a trained network.
    coarse = draw.uniform(0, 255, (EXAMPLES, 3, -(-height // 16), -(-width // 16)))
    pixels = coarse.repeat(16, axis=2).repeat(16, axis=3)[:, :, :height, :width]
    pixels = np.clip(pixels + draw.normal(0, 10, pixels.shape), 0, 255)
    image = (pixels - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    image_size = np.array([[height, width]] * EXAMPLES, np.int64)
    image_size[1:] -= [height // 8, width // 8]
    for picture, (h, w) in zip(image, image_size, strict=True):
        picture[:, h:] = 0
        picture[:, :, w:] = 0
    return {"image": image.astype(np.float32), "image_size": image_size}


def example_boxes(size: tuple[int, int]) -> Arrays:
    """Made-up boxes in the pictures of `example_pictures`: a large one, and smaller ones of other levels."""
    height, width = size
    parts = np.array([[0.1, 0.05, 0.9, 0.95], [0.2, 0.3, 0.5, 0.6], [0.05, 0.1, 0.15, 0.3]], np.float32)[:_BOXES]
    return {
        "boxes": parts * np.array([width, height, width, height], np.float32),
        "index": np.arange(_BOXES, dtype=np.int64) % EXAMPLES,
        "classes": np.zeros(_BOXES, np.int64),
    }
