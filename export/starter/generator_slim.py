"""From a generator's bundle to a narrower network that begins with what counts most in it.

A bundle's graph holds the folded weights of its network. Of the channels that lie between layers, those stay whose
weights in the layers behind them are the largest (Li et al. 2017, by the side that reads): what is normalised before
has the same spread in every channel. The network that is left gives something like the wide one's pictures at once, and
learns the rest from it (`generator_narrowing`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from engines.bundle import Bundle
from engines.errors import CheckpointError
from export.models.layers import Conv
from export.models.surface import Modulator, SurfaceSpec, SurfaceUnet
from export.starter.generator_network import draw_weights

#: Of names of weights in a generator's graph.
_NETWORK: Final = "network."
_MODULATION: Final = "modulation."
#: Operators through which what a convolution gives reaches the sum with its bias.
_BEHIND: Final = frozenset({"Conv", "ReduceMean", "Sub", "Pow", "Mul", "Add", "Sqrt", "Reciprocal", "Div", "Cast"})

Weights = dict[str, Tensor]
Channels = Tensor


def read_wide(bundle: Bundle) -> Weights:
    """The folded weights of a V-SAM generator's bundle, by the names of its network's layers.

    Convolutions have their outputs first, also those that double the size; every normalised one has its bias. The
    modulations of one level are side by side, as `modulation.weight0` and `modulation.bias0`, the coarsest first.

    Raises:
        CheckpointError: it is not such a bundle, or has no float32 generator.
    """
    generation = bundle.manifest.generation
    graph = bundle.manifest.graphs.get("generator")
    if generation is None or generation.architecture != "v-sam" or graph is None:
        raise CheckpointError(f"{bundle.path} is no bundle of a V-SAM generator in float32")
    model = onnx.load(bundle.file(graph.file)).graph
    constants = {entry.name: torch.from_numpy(np.array(numpy_helper.to_array(entry))) for entry in model.initializer}
    weights = {
        name.removeprefix(_NETWORK): values
        for name, values in constants.items()
        if name.startswith((_NETWORK, _MODULATION)) and not name.endswith(".taps")
    }
    doubled = {
        node.input[1].removeprefix(_NETWORK) for node in model.node if node.op_type == "ConvTranspose"
    } & weights.keys()
    for name in doubled:
        weights[name] = weights[name].transpose(0, 1).contiguous()
    weights |= dict(_normalised_biases(model, constants))
    if not weights:
        raise CheckpointError(f"{bundle.path} has a graph whose weights have no names that are known here")
    return weights


def _normalised_biases(graph: onnx.GraphProto, constants: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Biases that are added behind a normalisation: constants without a name of their own."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in graph.node:
        name = node.input[1] if node.op_type in ("Conv", "ConvTranspose") else ""
        layer = name.removesuffix(".weight")
        if not name.startswith(_NETWORK) or not layer.endswith(("conv0", "conv1")):
            continue
        bias = _added_behind(node.output[0], readers, constants)
        if bias is None:
            raise CheckpointError(f"the graph adds no bias behind {layer}; export the generator again")
        yield f"{layer.removeprefix(_NETWORK)}.bias", bias


def _added_behind(
    start: str, readers: Mapping[str, list[onnx.NodeProto]], constants: Mapping[str, Tensor]
) -> Tensor | None:
    """The first constant per channel, (C,), that is added to what an output becomes."""
    waiting, met = deque([start]), {start}
    while waiting:
        for node in readers.get(waiting.popleft(), []):
            if node.op_type not in _BEHIND:
                continue
            for name in node.input:
                values = constants.get(name)
                if node.op_type == "Add" and values is not None and values.ndim == 4 and values.shape[1] > 1:
                    return values.flatten()
            met_now = [name for name in node.output if name not in met]
            met.update(met_now)
            waiting.extend(met_now)
    return None


def slim_network(spec: SurfaceSpec, wide: Mapping[str, Tensor]) -> SurfaceUnet:
    """A network that begins with a wider one's weights, or with those of one as wide; see `slim`.

    Raises:
        CheckpointError: see `slim`.
    """
    network = SurfaceUnet(spec)
    draw_weights(network)
    f_w = network.style_net.E_map
    # Nothing asks f_w; but what is kept of a training is to be the same each time.
    f_w.E.zero_()
    f_w.w_avg.zero_()
    slim(network, wide)
    return network


@torch.no_grad()
def slim(network: SurfaceUnet, wide: Mapping[str, Tensor]) -> None:
    """Gives a network the weights of a wider one, or of one as wide, in place.

    What f_w and `global_mask` give is not looked at: the rows of a bundle's tables take their place.

    Args:
        network: not folded; with as many levels and middle blocks.
        wide: from `read_wide`.

    Raises:
        CheckpointError: the other one has other levels, or is narrower somewhere.
    """
    try:
        _Slimming(network, wide).run()
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"no such network can be cut from the bundle's ({reason}); give smaller widths"
        ) from error


class _Slimming:
    """Goes through a network from its input to its output, with the channels that stay at each place."""

    def __init__(self, network: SurfaceUnet, wide: Mapping[str, Tensor]) -> None:
        self._network, self._wide = network, wide
        self._spec = network.spec

    def run(self) -> None:
        spec, network = self._spec, self._network
        deepest = len(spec.encoder) - 1
        after = [*(f"encoder.{i}" for i in range(1, deepest + 1)), "middle_blocks.0" if spec.middle_blocks else ""]
        kept = self._most_read(spec.encoder[0][0], "encoder.0.conv0", "encoder.0.skip")
        self._conv("from_rgb", None, kept)
        features = []
        for level, (_, outputs) in enumerate(spec.encoder):
            following = [f"{after[level] or 'decoder.0'}.{part}" for part in ("conv0", "skip")]
            if level < deepest:
                following.append(f"unet_block{deepest - level}")
            kept = self._block(f"encoder.{level}", kept, outputs, following)
            features.append(kept)
        for number in range(spec.middle_blocks):
            block = f"middle_blocks.{number + 1}" if number + 1 < spec.middle_blocks else "decoder.0"
            kept = self._block(f"middle_blocks.{number}", kept, len(kept), [f"{block}.conv0", f"{block}.skip"])
        for level, (_, outputs) in enumerate(spec.decoder):
            if level:
                self._conv(f"unet_block{level}", features[deepest - level], kept)
            following = [f"decoder.{level + 1}.{part}" for part in ("conv0", "skip")] if level < deepest else ["to_rgb"]
            before, inner = kept, self._most_read(outputs, f"decoder.{level}.conv1")
            kept = self._block(f"decoder.{level}", before, outputs, following, inner)
            self._modulate(level, before, inner)
        self._conv("to_rgb", kept, None)
        if {name for name in self._wide if name.startswith("unet_block")} != {
            name for name in network.state_dict() if name.startswith("unet_block")
        }:
            raise ValueError("it has another number of levels")

    def _most_read(self, count: int, *readers: str) -> Channels:
        """The numbers of so many channels that these layers read most, in order."""
        energy = torch.stack([self._wide[f"{name}.weight"].square().sum(dim=(0, 2, 3)) for name in readers]).sum(0)
        if count > len(energy):
            raise ValueError(f"{readers[0]} reads {len(energy)} channels, fewer than {count}")
        return energy.topk(count).indices.sort().values

    def _block(
        self, name: str, inputs: Channels, outputs: int, following: list[str], inner: Channels | None = None
    ) -> Channels:
        kept = self._most_read(outputs, *following)
        inner = self._most_read(outputs, f"{name}.conv1") if inner is None else inner
        self._conv(f"{name}.conv0", inputs, inner)
        self._conv(f"{name}.conv1", inner, kept)
        self._conv(f"{name}.skip", inputs, kept)
        return kept

    def _conv(self, name: str, inputs: Channels | None, outputs: Channels | None) -> None:
        layer = self._network.get_submodule(name)
        assert isinstance(layer, Conv)  # noqa: S101
        weight = _part(_part(self._wide[f"{name}.weight"], 0, outputs), 1, inputs)
        # A folded layer has its gains in its weights, unless a normalisation would take them out again.
        layer.weight.copy_(weight / (layer.weight_gain * (layer.gain if layer.norm == "none" else 1.0)))
        if layer.bias is not None:
            layer.bias.copy_(_part(self._wide[f"{name}.bias"], 0, outputs) / layer.gain)

    def _modulate(self, level: int, first: Channels, second: Channels) -> None:
        weight, bias = (self._wide[f"{_MODULATION}{kind}{level}"] for kind in ("weight", "bias"))
        read = self._wide[f"decoder.{level}.conv0.weight"].shape[1]
        for number, (low, kept) in enumerate(((0, first), (read, second))):
            layer = self._network.style_net.dec_layers[2 * level + number]
            assert isinstance(layer, Modulator)  # noqa: S101
            conv = layer.mlp
            assert conv.bias is not None  # noqa: S101
            conv.weight.copy_(weight[:, low + kept].T[:, :, None, None] / (conv.weight_gain * conv.gain))
            conv.bias.copy_(bias[low + kept])


def _part(values: Tensor, axis: int, kept: Channels | None) -> Tensor:
    return values if kept is None else values.index_select(axis, kept)


def widths_of(wide: Mapping[str, Tensor]) -> tuple[tuple[int, ...], int]:
    """The channels of each level of the network that weights are of, finest first, and its middle blocks."""
    levels = [wide[name] for name in sorted(wide) if name.startswith("encoder.") and name.endswith(".conv0.weight")]
    middle = len({name.split(".")[1] for name in wide if name.startswith("middle_blocks.")})
    return tuple(weight.shape[1] for weight in levels), middle
