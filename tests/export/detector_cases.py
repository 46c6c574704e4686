"""Parity cases of detectron2's detectors: their configs, networks with seeded weights, and inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.detector_checkpoint import build_networks
from export.detectron2_configs import DetectorConfig, detector_configs
from export.models.cse import DenseHeads
from export.models.rcnn import Detector, MaskHeads
from tests.parity import OWN, ParityCase, parity_cases, parity_folder

MASK_RCNN = "Mask R-CNN"
CSE = "DensePose CSE"


def detector_cases(architecture: str, array: str) -> list[ParityCase]:
    """Cases of an architecture that hold an array.

    Raises:
        LookupError: The project's own folder has none. Another one may hold cases of other architectures only.
    """
    found = [case for case in parity_cases("") if str(case.spec.get("architecture", "")).startswith(architecture)]
    found = [case for case in found if array in case.arrays]
    if not found and parity_folder() == OWN:
        raise LookupError(f"no parity case of {architecture!r} with {array}")
    return found


def all_cases(array: str) -> list[ParityCase]:
    """Cases of both."""
    return detector_cases(MASK_RCNN, array) + detector_cases(CSE, array)


def config_of(case: ParityCase) -> DetectorConfig:
    """The declared config that the case names, with the case's own thresholds and sizes."""
    config = detector_configs()[PurePath(case.spec["detectron2_config"]).stem]
    return replace(
        config,
        input_format=case.spec["input_format"],
        pixel_mean=tuple(case.spec["pixel_mean"]),
        pixel_std=tuple(case.spec["pixel_std"]),
        min_size=case.spec["min_size_test"],
        max_size=case.spec["max_size_test"],
        threshold=case.spec["score_thresh_test"],
        box=replace(config.box, iou=case.spec["nms_thresh_test"]),
    )


@dataclass(frozen=True)
class Loaded:
    """A case with its networks.

    Attributes:
        image: (1,3,h,w), normalised, channels as the network was trained.
        size: (1,2), its height and width.
        features: p2 ... p6.
    """

    case: ParityCase
    config: DetectorConfig
    detector: Detector
    heads: MaskHeads | DenseHeads
    arrays: dict[str, NDArray[Any]]
    image: Tensor
    size: Tensor
    features: list[Tensor]

    @property
    def fixed(self) -> tuple[Tensor, Tensor]:
        """The case's boxes, and the frame of each."""
        boxes = torch.from_numpy(self.arrays["in/fixed_boxes"])
        return boxes, torch.zeros(len(boxes), dtype=torch.int64)


def normalised(image: NDArray[Any], config: DetectorConfig) -> NDArray[np.float32]:
    """(h,w,3) as the network was trained to (1,3,h,w)."""
    mean, std = np.array(config.pixel_mean, np.float32), np.array(config.pixel_std, np.float32)
    made = (image.astype(np.float32) - mean) / std
    return np.ascontiguousarray(made.transpose(2, 0, 1)[None], dtype=np.float32)


@cache
def _loaded(name: str, path: str) -> Loaded:
    case = next(case for case in all_cases("in/image_bgr") if (case.name, str(case.path)) == (name, path))
    config, arrays = config_of(case), case.arrays
    state = {key: torch.from_numpy(values) for key, values in case.state().items()}
    detector, heads = build_networks(config)
    for network in (detector, heads):
        network.load_state_dict({key: state[key] for key in network.state_dict()}, strict=True)
        network.eval().requires_grad_(requires_grad=False)
    image = torch.from_numpy(normalised(arrays["in/image_bgr"], config))
    size = torch.tensor([image.shape[2:]])
    return Loaded(case, config, detector, heads, arrays, image, size, detector.backbone(image))


def loaded(case: ParityCase) -> Loaded:
    """Networks and features of a case with an image that is already resized; computed once."""
    return _loaded(case.name, str(case.path))


def assert_close(found: Tensor | NDArray[Any], expected: NDArray[Any]) -> None:
    """Within the tolerance of network outputs in float32."""
    values = found.numpy() if isinstance(found, Tensor) else found
    assert values.shape == expected.shape
    tolerance = 1e-3 * max(1.0, float(expected.std()))
    assert float(np.abs(values.astype(np.float64) - expected).max()) <= tolerance


def lattice(values: Tensor, published: NDArray[Any], step: int) -> Tensor:
    """Every n-th place, as the published array's name says, and as many channels as it has, evenly."""
    return values[:, :: values.shape[1] // published.shape[1], ::step, ::step]
