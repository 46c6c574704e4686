"""V-SAM computed once per z: tables with a row for each vertex, from which a frame only gathers.

The three indicator planes that enter `global_mask` are one-hot, a pixel is body, known or border, so its output has
K + 2 distinct values: one for each vertex, one for known (row K) and one for border pixels (row K + 1). What follows it
is linear, so a layer's 1x1 convolution may be applied to the rows of the table or after the map was scaled down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.models.epsilon import plus
from export.models.folded import Probe
from export.models.layers import SLOPE, Conv, Linear
from export.models.surface import Modulation, SurfaceSpec, SurfaceUnet

#: Multiplications that take as long as gathering one number: measured as about 0.6 ns against 5 ps on two CPU cores,
#: and of the same order on GPUs, where memory is the limit too.
_GATHER_COST = 120


@dataclass(frozen=True)
class TablePlan:
    """Which tables there are.

    Attributes:
        direct: decoder layers whose convolution is applied to the table: they gather their modulation itself.
        shared: decoder layers whose convolution is applied after scaling down; all gather one table, the first.
        widths: channels of each table in order.
    """

    direct: tuple[int, ...]
    shared: tuple[int, ...]
    widths: tuple[int, ...]


def plan_tables(spec: SurfaceSpec) -> TablePlan:
    """Decides for each decoder layer by cost.

    At the finest level the convolution would cost pixels x w_channels x width per frame, far more than gathering
    `width` numbers per pixel, unless the network is narrow. Further down the pixels get four times fewer with each
    level, while a table of its own would still have to be gathered at the finest level, since the published code scales
    down from there: those layers share one table of w_channels, gathered once, and convolve what is left of it.
    """
    levels = len(spec.decoder)
    widths = [width for pair in spec.decoder for width in pair]
    narrow = spec.w_channels <= _GATHER_COST
    direct = [] if narrow else [layer for layer in range(len(widths)) if layer // 2 == levels - 1]
    shared = [layer for layer in range(len(widths)) if layer not in direct]
    first = (spec.w_channels,) if shared else ()
    return TablePlan(tuple(direct), tuple(shared), (*first, *(widths[layer] for layer in direct)))


class TableMapping(nn.Module):
    """z and truncation -> tables. Half of f_w's first layers depends on the vertex alone and is a constant here.

    Args:
        network: the published modules; not folded.
    """

    surface0: Tensor
    surface1: Tensor
    w_avg: Tensor
    indicators: Tensor
    global_weight: Tensor

    @torch.no_grad()
    def __init__(self, network: SurfaceUnet) -> None:
        super().__init__()
        self.plan = plan_tables(network.spec)
        style = network.style_net
        f_w, hidden = style.E_map, network.spec.hidden_channels
        self.layers = network.spec.combined_layers
        self.z_layers = nn.ModuleList(f_w.get_submodule(f"fromZ{i}") for i in range(network.spec.z_layers))
        surface = f_w.surface()
        for i, name in enumerate(("fc0", "residual1")):
            linear = f_w.get_submodule(name)
            assert isinstance(linear, Linear)  # noqa: S101
            weight, bias = linear.folded()
            self.register_buffer(f"surface{i}", surface @ weight[:, :hidden].T + bias)
            self.register_buffer(f"latent{i}", weight[:, hidden:].contiguous())
        for i in range(1, self.layers):
            names = [f"fc{i}"] + ([f"residual{i}"] if i % 2 and i > 1 else [])
            for name in names:
                self.add_module(name, f_w.get_submodule(name))
        self.register_buffer("w_avg", f_w.w_avg.clone())
        weight = _matrix(style.global_mask)
        channels = network.spec.w_channels
        self.register_buffer("global_weight", weight[:, :channels].contiguous())
        # Columns of the indicators, as rows: known, border, body.
        self.register_buffer("indicators", weight[:, channels:].T.contiguous())
        for layer in self.plan.direct:
            weight, bias = _modulator(style, layer)
            self.register_buffer(f"weight{layer}", weight)
            self.register_buffer(f"bias{layer}", bias)

    def forward(self, z: Tensor, truncation: Tensor) -> tuple[Tensor, ...]:
        """(1, z_channels) and truncation (1,) -> tables, each (K + 2, its width)."""
        w = torch.lerp(self.w_avg, self._w(z), truncation)
        body = functional.linear(w, self.global_weight) + self.indicators[2]
        rows = functional.leaky_relu(torch.cat([body, self.indicators[:2]]), SLOPE)
        direct = [
            functional.linear(rows, self.get_buffer(f"weight{layer}"), self.get_buffer(f"bias{layer}"))
            for layer in self.plan.direct
        ]
        return (rows, *direct) if self.plan.shared else tuple(direct)

    def _w(self, z: Tensor) -> Tensor:
        z = z * plus(z.square().mean(dim=1, keepdim=True), 1e-8).rsqrt()
        for layer in self.z_layers:
            z = layer(z)
        x = functional.leaky_relu(self.surface0 + z @ self.get_buffer("latent0").T, SLOPE)
        residual = self.surface1 + z @ self.get_buffer("latent1").T
        for i in range(1, self.layers):
            x = self.get_submodule(f"fc{i}")(x)
            if i % 2:
                # The first residual's half that knows the vertex is a constant.
                beside = residual if i == 1 else self.get_submodule(f"residual{i}")(residual)
                x = residual = (x + beside) / math.sqrt(2)
        return x


def _matrix(layer: Conv) -> Tensor:
    """A 1x1 convolution as a matrix with all gains: (outputs, inputs)."""
    return layer.weight[:, :, 0, 0] * (layer.weight_gain * layer.gain)


def _modulator(style: Modulation, layer: int) -> tuple[Tensor, Tensor]:
    convolution = style.dec_layers[layer].get_submodule("mlp")
    assert isinstance(convolution, Conv)  # noqa: S101
    assert convolution.bias is not None  # noqa: S101
    return _matrix(convolution).contiguous(), convolution.bias.detach().clone()


class TableModulation(nn.Module):
    """Tables and the vertex of every pixel -> the modulation of every decoder layer.

    Args:
        network: the published modules; not folded.
    """

    @torch.no_grad()
    def __init__(self, network: SurfaceUnet) -> None:
        super().__init__()
        self.plan = plan_tables(network.spec)
        self.levels = len(network.spec.decoder)
        self.size = network.spec.image_size
        # Rows that are fewer than pixels are multiplied each once, rather than wherever they show.
        self.by_row = network.spec.vertices + 2 < math.prod(self.size)
        self.probe: Probe | None = None
        for level in range(self.levels):
            layers = self._shared(level)
            if not layers:
                continue
            # Both layers of a level in one product.
            parts = [_modulator(network.style_net, layer) for layer in layers]
            self.register_buffer(f"weight{level}", torch.cat([weight for weight, _ in parts]).T.contiguous())
            self.register_buffer(f"bias{level}", torch.cat([bias for _, bias in parts]))
        self.widths = [width for pair in network.spec.decoder for width in pair]

    def forward(self, vertices: Tensor, slot: Tensor, tables: tuple[Tensor, ...]) -> list[Tensor]:
        """The same numbers as `export.models.surface.Modulation`.

        Args:
            vertices: (N,H,W) int64, K for known pixels, K + 1 for border pixels.
            slot: (N,) int64, which of the stacked tables is a person's.
            tables: each (S, K + 2, width).

        Returns:
            gamma of each decoder layer in order, (N, width, h, w) at that layer's resolution.
        """
        rows = vertices + (slot * tables[0].shape[1])[:, None, None]
        flat = [table.reshape(-1, table.shape[2]) for table in tables]
        gammas: dict[int, Tensor] = {}
        first = 1 if self.plan.shared else 0
        for layer, table in zip(self.plan.direct, flat[first:], strict=True):
            gammas[layer] = _rows(table, rows).permute(0, 3, 1, 2)
        if self.plan.shared:
            if self.by_row and (finest := self._shared(self.levels - 1)):
                gammas.update(self._finest(finest, vertices, tables[0].index_select(0, slot)))
            self._scale_down(rows, flat[0], gammas)
        if self.probe is not None:
            for i, table in enumerate(tables):
                self.probe(f"table_{i}", table)
            for layer, gamma in gammas.items():
                self.probe(f"modulation.{layer}", gamma)
        return [gammas[layer] for layer in range(len(self.widths))]

    def _scale_down(self, rows: Tensor, table: Tensor, gammas: dict[int, Tensor]) -> None:
        """Fills in the layers that share a table, with pixels as rows: (N,h,w,channels) until the end."""
        height, width = self.size
        x = None
        for level in reversed(range(self.levels)):
            if x is not None:
                x = _half_of(x, height, width)
            elif level < self.levels - 1:
                x = _half_of_rows(rows, table, height, width)
            if level < self.levels - 1:
                height, width = height // 2, width // 2
            layers = [layer for layer in self._shared(level) if layer not in gammas]
            if not layers:
                continue
            x = _rows(table, rows) if x is None else x
            gammas.update(self._split(layers, self._product(level, x)))

    def _finest(self, layers: list[int], vertices: Tensor, tables: Tensor) -> dict[int, Tensor]:
        """The finest level from each person's table, (N, K + 2, w_channels): multiplied first, gathered then."""
        return self._split(layers, _own_rows(self._product(self.levels - 1, tables), vertices))

    def _shared(self, level: int) -> list[int]:
        return [layer for layer in self.plan.shared if layer // 2 == level]

    def _product(self, level: int, x: Tensor) -> Tensor:
        return x @ self.get_buffer(f"weight{level}") + self.get_buffer(f"bias{level}")

    def _split(self, layers: list[int], product: Tensor) -> dict[int, Tensor]:
        """(N,h,w,widths of these layers) -> of each layer, (N,width,h,w)."""
        parts = torch.split(product.permute(0, 3, 1, 2), [self.widths[layer] for layer in layers], dim=1)
        return dict(zip(layers, parts, strict=True))

    def halve(self) -> None:
        """Products and gathered rows in float16."""
        for name, buffer in list(self.named_buffers()):
            setattr(self, name, buffer.half())


def _rows(table: Tensor, which: Tensor) -> Tensor:
    """Rows of a table, (K,C) and (...) to (...,C): as `table[which]`, but one operator for every runtime."""
    return functional.embedding(which, table)


def _own_rows(tables: Tensor, which: Tensor) -> Tensor:
    """Rows of each person's own table, (N,K,C) and (N,H,W) to (N,H,W,C)."""
    if torch.onnx.is_in_onnx_export():
        # Numbers of persons, to find the tables in one long one, would be made on the processor, beside a GPU.
        made: Tensor = torch.onnx.ops.symbolic(
            "GatherND",
            (tables, which[..., None]),
            {"batch_dims": 1},
            dtype=tables.dtype,
            shape=(*which.shape, tables.shape[2]),
        )
        return made
    return torch.stack([table[own] for table, own in zip(tables, which, strict=True)])


def _corners(length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Bilinear halving between corner pixels: the two neighbours of each new pixel and the weight of the second."""
    # In float32, as PyTorch computes it.
    place = torch.arange(length // 2) * torch.tensor((length - 1) / max(length // 2 - 1, 1) if length > 3 else 0.0)
    low = place.floor().long().clamp(max=max(length - 2, 0))
    high = (low + 1).clamp(max=length - 1)
    return low, high, place - low


def _half_of_rows(rows: Tensor, table: Tensor, height: int, width: int) -> Tensor:
    """Gathers only what the first halving needs, (N,h/2,w/2,channels).

    Every new pixel has four old ones, each old one serves one new one: as many numbers are gathered as at the full
    size, but nothing is written, transposed and read again there.
    """
    top, bottom, down = _corners(height)
    left, right, across = _corners(width)
    down, across = down[:, None, None].to(table.dtype), across[:, None].to(table.dtype)
    upper, lower = rows.index_select(1, top), rows.index_select(1, bottom)
    above = (
        _rows(table, upper.index_select(2, left)) * (1 - across) + _rows(table, upper.index_select(2, right)) * across
    )
    below = (
        _rows(table, lower.index_select(2, left)) * (1 - across) + _rows(table, lower.index_select(2, right)) * across
    )
    return above * (1 - down) + below * down


def _half_of(x: Tensor, height: int, width: int) -> Tensor:
    """(N,h,w,channels) -> (N,h/2,w/2,channels)."""
    top, bottom, down = _corners(height)
    left, right, across = _corners(width)
    down, across = down[:, None, None].to(x.dtype), across[:, None].to(x.dtype)
    # `index_select` is gathered along an axis; an index in brackets is transposed before and after.
    x = x.index_select(1, top) * (1 - down) + x.index_select(1, bottom) * down
    return x.index_select(2, left) * (1 - across) + x.index_select(2, right) * across
