"""A checkpoint of a detectron2 detector, checked: exactly the tensors that the config's network has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from engines.errors import CheckpointError
from export.architecture import check_shapes
from export.checkpoint import read_checkpoint, shown
from export.models.cse import DenseHeads
from export.models.rcnn import Detector, MaskHeads
from export.models.rpn import cell_anchors

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from export.detectron2_configs import DetectorConfig

#: What lies beside the weights and is not needed: counters of training, and surfaces of animals.
_SPARE: Final = re.compile(
    r".*\.num_batches_tracked|pixel_(?:mean|std)|proposal_generator\.anchor_generator\.cell_anchors\.\d+"
    r"|roi_heads\.embedder\.embedder_\w+\.\w+"
)
#: Pixels, on the scale 0 to 255; anchors, in pixels. Both were computed in float32 by someone else.
_AGREES = 0.01

Networks = tuple[Detector, MaskHeads | DenseHeads]


def build_networks(config: DetectorConfig) -> Networks:
    """The detector and the heads of a config, with weights to be loaded."""
    keep = tuple(index for index, _ in config.kinds)
    detector = Detector(
        config.backbone, config.proposals, config.box, keep=keep, threshold=config.threshold, most=config.most
    )
    channels = config.backbone.channels
    if config.dense is not None:
        return detector, DenseHeads(channels, config.dense)
    assert config.mask is not None  # noqa: S101  a config has one of the two
    return detector, MaskHeads(channels, config.mask, config.box.classes, keep)


def load_detector(path: Path, config: DetectorConfig) -> Networks:
    """Reads a checkpoint (.pkl or .pth) into the networks of its config, in evaluation mode.

    Raises:
        CheckpointError: it cannot be read, is of another network than the config's, incomplete, or not finite.
    """
    found = _state(read_checkpoint(path))
    try:
        with torch.device("meta"):
            networks = build_networks(config)
        expected: dict[str, tuple[int, ...]] = {}
        for network in networks:
            expected |= {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
        _refuse_others(shapes, expected, config)
        check_shapes(shapes, expected)
        _check_constants(found, config)
        state = {name: _numbers(name, found[name], path.stat().st_size) for name in expected}
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    for network in networks:
        network.load_state_dict({name: state[name] for name in network.state_dict()}, strict=True, assign=True)
        network.eval().requires_grad_(requires_grad=False)
    return networks


def _state(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Tensors by name. Model zoos keep numpy arrays, trainers tensors, both below `model`."""
    inner = content.get("model", content)
    found: dict[str, Tensor] = {}
    for name, value in (inner if isinstance(inner, Mapping) else content).items():
        if isinstance(name, str) and isinstance(value, torch.Tensor):
            found[name] = value
        elif isinstance(name, str) and isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
            found[name] = torch.from_numpy(value.astype(value.dtype.newbyteorder("="), copy=True))
    prefixed = bool(found) and all(name.startswith("module.") for name in found)
    return {name.removeprefix("module."): value for name, value in found.items()} if prefixed else found


def _refuse_others(
    shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], config: DetectorConfig
) -> None:
    if not any(name.startswith("backbone.") for name in shapes):
        raise CheckpointError(
            "it has no backbone.*, so it is no detector of detectron2; give the .pkl or .pth as trained"
        )
    # A deeper network than the config's would load otherwise, and its last blocks would be left out.
    spare = [name for name in shapes if name not in expected and not _SPARE.fullmatch(name)]
    if spare:
        raise CheckpointError(
            f"{len(spare)} tensors have no place in {config.name}: {shown(*spare)}; "
            "give the config that it was trained with"
        )


def _check_constants(found: Mapping[str, Tensor], config: DetectorConfig) -> None:
    """What a config says and some checkpoints hold as well."""
    spec = config.proposals
    said: dict[str, Any] = {"pixel_mean": config.pixel_mean, "pixel_std": config.pixel_std}
    for level, sizes in enumerate(spec.anchor_sizes):
        said[f"proposal_generator.anchor_generator.cell_anchors.{level}"] = cell_anchors(sizes, spec.aspect_ratios)
    for name, value in said.items():
        if name in found:
            wanted, held = torch.tensor(value).flatten(), found[name].flatten().float()
            if held.shape != wanted.shape or not bool(((held - wanted).abs() <= _AGREES).all()):
                raise CheckpointError(
                    f"{name} is {[round(x, 3) for x in held.tolist()[:4]]}, but {config.name} has "
                    f"{[round(x, 3) for x in wanted.tolist()[:4]]}; give the config that it was trained with"
                )


def _numbers(name: str, tensor: Tensor, size: int) -> Tensor:
    if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
        raise CheckpointError(f"{shown(name)} is not made of finite real numbers; download it again")
    if tensor.numel() > size:
        raise CheckpointError(f"{shown(name)} claims {tensor.numel()} numbers, but the file has {size} bytes")
    return tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
