from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from export.models.folded import FoldedConv, FoldedLinear, FoldedStyleConv, fold, folded_convolutions, halve
from export.models.layers import Conv, Linear, fir_filter
from export.models.unet import StyleConv, normalise_second_moment
from tests.export.networks import assert_near, noise, seeded

SKEWED = fir_filter((1.0, 2.0, 4.0, 0.5))
NORMS = ("none", "instance", "instance-std")


def conv(**settings: Any) -> Conv:
    return seeded(Conv(2, 3, **settings))


@pytest.mark.parametrize("activation", ["linear", "lrelu"])
def test_a_folded_linear_layer_gives_the_same(activation: Any) -> None:
    layer, x = seeded(Linear(6, 4, activation=activation, multiplier=0.01)), noise(3, 6)
    assert_near(FoldedLinear(layer)(x), layer(x), 1e-6)


@pytest.mark.parametrize("skewed", [False, True], ids=["published filter", "other filter"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("resampling", [{}, {"up": 2}, {"down": 2}], ids=["same", "up", "down"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_folded_convolution_gives_the_same(kernel: int, resampling: dict[str, int], norm: str, skewed: bool) -> None:
    x = 3 * noise(2, 2, 8, 6)
    for activation, bias, gain, clamp in itertools.product(("linear", "lrelu"), (True, False), (1.0, 0.3), (None, 1.0)):
        layer = conv(kernel=kernel, norm=norm, activation=activation, bias=bias, gain=gain, clamp=clamp, **resampling)
        if skewed and resampling:
            layer.resample_filter = SKEWED
        assert_near(FoldedConv(layer)(x), layer(x), 1e-5)


@pytest.mark.parametrize("up", [1, 2])
def test_a_folded_styled_convolution_gives_the_same(up: int) -> None:
    layer = seeded(StyleConv(2, 3, 5, up=up, gain=0.3, clamp=1.0))
    folded = FoldedStyleConv(layer)
    x, w = noise(2, 2, 8, 6), noise(2, 5)
    assert_near(folded.modulate(x, w), layer.modulate(x, w), 1e-5)
    assert_near(folded(folded.modulate(x, w)), layer(layer.modulate(x, w)), 1e-5)
    assert not torch.allclose(folded.modulate(x, w), folded.modulate(x, w.flip(0)))


def general_doubling(layer: Conv, x: Tensor) -> Tensor:
    """A 1x1 convolution and the filter as a transposed convolution of each channel by itself."""
    y = functional.conv2d(x, layer.weight * layer.weight_gain)
    taps = (4 * layer.resample_filter).expand(y.shape[1], 1, -1, -1)
    return functional.conv_transpose2d(y, taps, stride=2, padding=1, groups=y.shape[1])


def doubling(taps: Tensor | None = None) -> Conv:
    layer = conv(kernel=1, up=2, activation="linear", bias=False)
    if taps is not None:
        layer.resample_filter = taps
    return layer


@settings(deadline=None, max_examples=50)
@given(height=st.integers(1, 9), width=st.integers(1, 9))
def test_the_bilinear_shortcut_is_the_filter_up_to_the_border(height: int, width: int) -> None:
    layer, x = doubling(), noise(1, 2, height, width)
    folded = FoldedConv(layer)
    assert folded.bilinear
    expected = general_doubling(layer, x)
    assert expected.shape == (1, 3, 2 * height, 2 * width)
    assert_near(folded(x), expected, 1e-6)


def test_interpolation_alone_would_be_brighter_at_the_border_only() -> None:
    layer, x = doubling(), noise(1, 2, 5, 4)
    plain = functional.interpolate(
        functional.conv2d(x, layer.weight * layer.weight_gain), scale_factor=2.0, mode="bilinear", align_corners=False
    )
    expected = general_doubling(layer, x)
    assert_near(plain[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1], 1e-6)
    assert not torch.allclose(plain[:, :, 0], expected[:, :, 0], atol=1e-3)


def test_another_filter_goes_the_general_way() -> None:
    layer, x = doubling(SKEWED), noise(1, 2, 5, 4)
    folded = FoldedConv(layer)
    assert not folded.bilinear
    assert_near(folded(x), general_doubling(layer, x), 1e-6)
    # The shortcut would have been wrong.
    assert not torch.allclose(FoldedConv(doubling())(x), folded(x), atol=1e-3)


def test_only_doubling_without_a_kernel_takes_the_shortcut() -> None:
    assert not FoldedConv(conv(kernel=3, up=2)).bilinear
    assert not FoldedConv(conv(kernel=1, down=2)).bilinear
    assert not FoldedConv(conv(kernel=1)).bilinear


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Conv(2, 2, norm="instance-std")
        self.inner = nn.ModuleList([Conv(2, 2), StyleConv(2, 2, 4, up=2, gain=1.0, clamp=256.0), Linear(3, 3)])
        self.beside = nn.Identity()


def test_every_layer_is_folded_wherever_it_is_and_keeps_its_name() -> None:
    network = fold(seeded(Pair()))
    assert isinstance(network, Pair)
    assert [name for name, _ in folded_convolutions(network)] == ["first", "inner.0", "inner.1"]
    assert not [module for module in network.modules() if isinstance(module, Conv | Linear)]
    assert isinstance(network.inner[1], FoldedStyleConv)
    assert isinstance(network.inner[2], FoldedLinear)
    assert isinstance(network.beside, nn.Identity)


def test_folding_leaves_nothing_to_learn_and_the_layer_alone() -> None:
    layer = conv(norm="instance")
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    folded = FoldedConv(layer)
    assert not list(folded.parameters())
    folded.weight.mul_(2)
    folded.halve()
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_halving_keeps_scale_shift_and_linear_layers_in_float32() -> None:
    network = halve(fold(seeded(Pair())))
    dtypes = {name: tensor.dtype for name, tensor in network.named_buffers()}
    assert {name for name, dtype in dtypes.items() if dtype == torch.float32} == {
        *("first.scale", "first.bias"),
        *("inner.1.scale", "inner.1.bias"),
        *("inner.2.weight", "inner.2.bias"),
    }
    assert dtypes["first.weight"] == dtypes["inner.0.bias"] == dtypes["inner.1.taps"] == torch.float16
    assert dtypes["inner.1.style_weight"] == dtypes["inner.1.style_bias"] == torch.float16


class Statistics(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes in which precision means, deviations and norms are computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(word in str(func) for word in ("norm", "mean", "square", "rsqrt")):
            self.dtypes |= {given.dtype for given in args if isinstance(given, Tensor)}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("norm", ["instance", "instance-std"])
def test_statistics_are_computed_in_float32(norm: str) -> None:
    # Squares of such values, and their sums, are far beyond float16's 65504.
    layer = conv(kernel=1, norm=norm, activation="linear")
    x = (300 + 2000 * noise(1, 2, 64, 64)).half()
    folded = FoldedConv(layer)
    folded.weight = folded.weight.half().float()
    expected = folded(x.float())
    folded.halve()
    with Statistics() as seen:
        found = folded(x)
    assert seen.dtypes == {torch.float32}
    assert found.dtype == torch.float16
    assert_near(found.float(), expected, 5e-2)
    # Controls: half precision cannot hold what is summed up, and would have been seen.
    convolved = functional.conv2d(x, folded.weight)
    with Statistics() as seen:
        assert convolved.square().mean((2, 3)).isinf().all()
        functional.instance_norm(convolved)
    assert torch.float16 in seen.dtypes


def test_a_probe_is_told_what_flows_through() -> None:
    seen: list[tuple[str, Tensor]] = []
    x = noise(1, 2, 6, 6)
    plain, normed = FoldedConv(conv()), FoldedConv(conv(norm="instance"))
    styled = FoldedStyleConv(seeded(StyleConv(2, 3, 5, up=1, gain=1.0, clamp=256.0)))
    silent = [copy.deepcopy(layer)(x) for layer in (plain, normed)]
    for layer in (plain, normed, styled):
        layer.probe = lambda what, part: seen.append((what, part))
    assert torch.equal(plain(x), silent[0])
    assert torch.equal(normed(x), silent[1])
    styled.modulate(x, noise(1, 5))
    assert [what for what, _ in seen] == [
        *("input", "convolution"),
        *("input", "convolution", "output"),
        *("style", "scaled", "modulated"),
    ]
    assert seen[-1][1].shape == x.shape


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 4), st.floats(0.01, 100))
def test_rows_of_z_are_normalised_each_for_itself(rows: int, scale: float) -> None:
    z = scale * noise(rows, 16)
    found = normalise_second_moment(z)
    assert_near(found.square().mean(1), torch.ones(rows), 1e-3)
    assert_near(found[-1:], normalise_second_moment(z[-1:]), 1e-6)
