"""From a bundle back to a network that can learn on.

A bundle's convolutions hold their normalisation (`fold`), and a network without it does not train well. What a folded
convolution gives is looked at on some pictures: a normalisation by that mean and spread, scaled and moved back by the
same, changes nothing while it is evaluated, and little once it takes statistics of its own from batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from engines.bundle import Bundle
from engines.errors import CheckpointError
from export.starter.coarse_surface import fits, vertices_of
from export.starter.detector import ConvNorm, Inverted, PersonNetwork, Residual
from export.starter.detector_surface import Floats

#: Of the network's weights in the graph.
_PREFIX: Final = "network."
#: Cosine of embeddings that are the same but for rounding.
_SAME: Final = 0.999


def read_folded(bundle: Bundle) -> dict[str, Tensor]:
    """The weights of a starter detector's bundle, by their names in a folded network.

    Raises:
        CheckpointError: it is not such a bundle.
    """
    graph = bundle.manifest.graphs.get("detector")
    if graph is None:
        raise CheckpointError(f"{bundle.path} has no graph called detector")
    model = onnx.load(bundle.file(graph.file))
    found = {
        entry.name.removeprefix(_PREFIX): torch.from_numpy(np.array(numpy_helper.to_array(entry), np.float32))
        for entry in model.graph.initializer
        if entry.name.startswith(_PREFIX)
    }
    if not found:
        raise CheckpointError(f"{bundle.path} is not the bundle of a starter detector")
    return found


def check_surface(bundle: Bundle, embeddings: Floats) -> None:
    """See that a bundle's surface is the one that a detector is to learn.

    Args:
        bundle: of a starter detector.
        embeddings: (K, D) of unit norm, of all of the body's vertices.

    Raises:
        CheckpointError: it is another one.
    """
    known = np.asarray(bundle.array("vertex_embeddings"), np.float32)
    same = known.shape[1] == embeddings.shape[1] and fits(bundle, len(embeddings))
    if not same or (known * embeddings[vertices_of(bundle)]).sum(axis=1).min() < _SAME:
        raise CheckpointError(f"{bundle.path} was trained for another surface, or learnt its embeddings")


@torch.no_grad()
def unfold(network: PersonNetwork, folded: Mapping[str, Tensor], pictures: Iterable[Tensor]) -> None:
    """Puts folded weights into a network with normalisation, in place; it is in evaluation mode then.

    A network may have more blocks than the weights are for: those begin by giving back what they are given. It may have
    more channels, too: those begin at random, and nothing that was learnt listens to them (after Chen et al. 2016, who
    copy channels instead).

    Args:
        network: of the same spec, but for more blocks and channels.
        folded: of `fold`, by name.
        pictures: (N, 3, h, w), normalised, such as it is to learn from; a hundred are enough.

    Raises:
        CheckpointError: the weights are of another network.
    """
    norms = {name: _norm(module) for name, module in network.named_modules() if isinstance(module, ConvNorm)}
    given = {_unfolded(name, norms): values for name, values in folded.items()}
    further = _further(network, given)
    norms = {name: norm for name, norm in norms.items() if not name.startswith(tuple(further))}
    state = network.state_dict()
    wanted = {
        name
        for name in state
        if (".norm." not in name or name.endswith(".norm.bias")) and not name.startswith(tuple(further))
    }
    wrong = sorted(wanted ^ given.keys()) or [name for name in wanted if not _has_room(state[name], given[name])]
    if wrong:
        raise CheckpointError(f"these are not the weights of this network: {wrong[0]} differs")
    network.load_state_dict(state | {name: _widened(state[name], values) for name, values in given.items()})
    for block in further.values():
        block.rest()
    for norm in norms.values():
        # For now it adds what was the convolution's bias, and does nothing else.
        _set(norm, torch.zeros_like(norm.bias), torch.full_like(norm.bias, 1 - norm.eps))
    for name, (mean, variance) in _measured(network, norms, pictures).items():
        norms[name].bias.add_(mean)
        _set(norms[name], mean, variance)


def _has_room(fresh: Tensor, given: Tensor) -> bool:
    """Whether there are at least as many channels, of the same kernel."""
    if fresh.ndim != given.ndim or fresh.shape[2:] != given.shape[2:]:
        return False
    return all(one >= other for one, other in zip(fresh.shape, given.shape, strict=True))


def _widened(fresh: Tensor, given: Tensor) -> Tensor:
    """Known channels as they were given, which do not look at new ones; new ones as they were drawn."""
    widened = fresh.clone()
    widened[: len(given)] = 0
    widened[tuple(slice(side) for side in given.shape)] = given
    return widened


def _further(network: PersonNetwork, given: Mapping[str, Tensor]) -> dict[str, Residual | Inverted]:
    """The blocks with a short cut of which no weight is given, by the beginnings of their weights' names."""
    return {
        f"{name}.": module
        for name, module in network.named_modules()
        if (isinstance(module, Residual) or (isinstance(module, Inverted) and module.shortcut))
        and not any(weight.startswith(f"{name}.") for weight in given)
    }


def _unfolded(name: str, norms: Mapping[str, nn.BatchNorm2d]) -> str:
    place = name.removesuffix(".conv.bias")
    return f"{place}.norm.bias" if place in norms else name


def _norm(module: ConvNorm) -> nn.BatchNorm2d:
    if not isinstance(module.norm, nn.BatchNorm2d):
        raise CheckpointError("the network to begin with is folded itself")
    return module.norm


def _set(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """Statistics, and a scale that takes them back."""
    norm.running_mean, norm.running_var = mean, variance
    norm.weight.copy_((variance + norm.eps).sqrt())


def _measured(
    network: PersonNetwork, norms: Mapping[str, nn.BatchNorm2d], pictures: Iterable[Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance of each channel that normalisations are given, over all pictures."""
    sums: dict[str, list[Tensor]] = {name: [] for name in norms}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def add(_: nn.Module, given: tuple[Tensor]) -> None:
            flat = given[0].double().transpose(0, 1).flatten(1)
            sums[name].append(torch.stack([torch.ones_like(flat[:, 0]) * flat.shape[1], flat.sum(1), (flat**2).sum(1)]))

        return add

    hooks = [norm.register_forward_pre_hook(note(name)) for name, norm in norms.items()]
    network.eval()
    for some in pictures:
        network(some)
    for hook in hooks:
        hook.remove()
    found = {}
    for name, parts in sums.items():
        count, total, squares = torch.stack(parts).sum(0)
        mean = total / count
        variance = (squares / count - mean**2).clamp(min=0)
        found[name] = mean.float(), variance.float()
    return found
