"""A published generator checkpoint, checked: exactly the tensors that our module of the same network needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from engines.bundle import sha256_file
from engines.errors import CheckpointError
from export.architecture import Spec, check_shapes, describe, expected_tensors, read_spec
from export.checkpoint import read_checkpoint, shown
from export.models.unet import UnetSpec

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from export.configs import Config

#: Where trainers keep the averaged weights, best first.
_AVERAGED: Final = ("EMA_generator", "running_average_generator")
#: Where they keep those of the last step.
_LAST_STEP: Final = ("generator", "G")
#: What wrappers put before every name.
_PREFIXES: Final = ("module.", "_orig_mod.", "generator.")
#: Where the centres of w are, best first; the last of these names is also used beside the state.
_CENTRES: Final = ("style_net.w_centers", "w_centers")
#: A low-pass filter that is far from sum 1 would make an image brighter at every level.
_FILTER_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Official:
    """A checkpoint that is known to be complete and of the right shapes.

    Attributes:
        config: What no tensor shows.
        spec: What the tensors show.
        state: By published name, float32, contiguous, independent of the file; fits `load_state_dict(strict=True)`.
        w_avg: The average w: (w_channels,), for V-SAM (vertices, w_channels).
        w_centers: Cluster centres of w, (centres, w_channels), where they were computed.
        unexpected: Names of tensors that the network has no place for.
        warnings: What a user should know, one line each.
        sha256: Of the file.
    """

    config: Config
    spec: Spec
    state: dict[str, Tensor]
    w_avg: Tensor
    w_centers: Tensor | None
    unexpected: tuple[str, ...]
    warnings: tuple[str, ...]
    sha256: str


def load_official(path: Path, config: Config) -> Official:
    """Reads a DeepPrivacy2 or SG-GAN generator.

    Widths and depths are read from the tensors; then every name and shape of a network with these is compared.

    Args:
        path: the published checkpoint, or one with the same content.
        config: see `export.configs.choose_config`.

    Raises:
        CheckpointError: It cannot be read, is of another family, incomplete, of wrong shapes, or not finite.
    """
    checkpoint = read_checkpoint(path)
    try:
        found, warnings = _choose_state(checkpoint)
        shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
        spec = read_spec(shapes, config)
        expected = expected_tensors(spec)
        check_shapes(shapes, expected)
        _refuse_unbacked(expected, path.stat().st_size)
        state = _all_numbers({name: found[name] for name in expected})
        _check_filters(state)
        # V-SAM has an average for every vertex and knows no centres.
        modal = isinstance(spec, UnetSpec)
        source = next((name for name in _CENTRES if modal and name in found), "")
        centres = _centres(found[source] if source else checkpoint.get(_CENTRES[-1]), spec) if modal else None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}); check the file") from None
    # Escaped: the names go into the manifest, and may hold anything.
    unexpected = tuple(sorted(shown(name) for name in shapes if name not in expected and name != source))
    # The published SG-GAN code registers a filter with every layer and uses few of them: nothing to worry about.
    odd = [name for name in unexpected if name.rpartition(".")[2] != "resample_filter"]
    if odd:
        warnings.append(f"{len(odd)} tensors have no place in the network: {shown(*odd)}")
    average = state["style_net.w_avg" if "style_net.w_avg" in state else "style_net.E_map.w_avg"]
    return Official(config, spec, state, average, centres, unexpected, tuple(warnings), sha256_file(path))


def _choose_state(checkpoint: Mapping[Any, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """The averaged weights if there are any, else what there is, with a warning."""
    for key in (*_AVERAGED, *_LAST_STEP):
        inner = checkpoint.get(key)
        if isinstance(inner, Mapping) and _tensors(inner):
            note = [] if key in _AVERAGED else [f"it has no averaged weights; those of the last step ({key}) are used"]
            return _tensors(inner), note
    bare = _tensors(checkpoint)
    if bare and any("." in name for name in bare):
        return bare, ["it is a bare dict of tensors, so whether these are the averaged weights cannot be known"]
    keys = [key for key in checkpoint if isinstance(key, str)]
    parts = {key: _tensors(checkpoint[key]) for key in keys if isinstance(checkpoint[key], Mapping)}
    largest = max(parts, key=lambda key: len(parts[key]), default="")
    seems = f"; its part {shown(largest)} looks like {describe(parts[largest])}" if largest else ""
    there = shown(*keys) or "nothing"
    raise CheckpointError(f"it holds no generator: expected EMA_generator, found {there}{seems}; give another file")


def _tensors(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """What is a tensor in a state dict, by name without what wrappers put before it."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(name, str) and isinstance(value, torch.Tensor):
            found[name] = value
        elif isinstance(name, str) and isinstance(value, np.ndarray):
            found[name] = torch.from_numpy(value.astype(value.dtype.newbyteorder("="), copy=True))
    while prefix := next((p for p in _PREFIXES if found and all(name.startswith(p) for name in found)), ""):
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _refuse_unbacked(expected: Mapping[str, tuple[int, ...]], size: int) -> None:
    """A tensor may repeat a few numbers over any shape; copying it would then need any memory."""
    numbers = sum(int(np.prod(shape, dtype=np.float64)) for shape in expected.values())
    if numbers > size:
        raise CheckpointError(f"its tensors claim {numbers} numbers, but the file has {size} bytes; download it again")


def _all_numbers(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each float32, contiguous, of its own memory: half and double precision are converted, nothing else is."""
    other = [f"{name} is {tensor.dtype}" for name, tensor in found.items() if not _is_weight(tensor)]
    if other:
        raise CheckpointError(f"{shown(*other)}, expected real numbers; save the weights as float32")
    made = {
        name: tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        for name, tensor in found.items()
    }
    counts = {name: int((~torch.isfinite(tensor)).sum()) for name, tensor in made.items()}
    broken = [f"{name} has {count} values" for name, count in counts.items() if count]
    if broken:
        raise CheckpointError(f"{shown(*broken)} that are not finite; the training diverged or the file is damaged")
    return made


def _is_weight(tensor: Tensor) -> bool:
    # Whole numbers are counters, masks or quantised weights, whose scale would be missing.
    return tensor.is_floating_point() and tensor.layout == torch.strided


def _check_filters(state: Mapping[str, Tensor]) -> None:
    for name, tensor in state.items():
        if re.search(r"\.resample_filter$", name) and abs(float(tensor.sum()) - 1) > _FILTER_TOLERANCE:
            raise CheckpointError(f"{name} sums to {float(tensor.sum()):.3g}, expected 1; it is no low-pass filter")


def _centres(value: object, spec: Spec) -> Tensor | None:
    if value is None:
        return None
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value.astype(value.dtype.newbyteorder("="), copy=True))
    shape = tuple(value.shape) if isinstance(value, torch.Tensor) else ()
    if not isinstance(value, torch.Tensor) or len(shape) != 2 or not shape[0] or shape[1] != spec.w_channels:
        raise CheckpointError(
            f"w_centers is {shape or type(value).__name__}, expected (centres, {spec.w_channels}); compute it again"
        )
    return _all_numbers({"w_centers": value})["w_centers"]
