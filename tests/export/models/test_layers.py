from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import signal
from torch import Tensor

from export.models.layers import FIR_TAPS, LRELU_GAIN, SLOPE, Conv, Linear, fir_filter
from tests.export.networks import assert_near, noise, seeded

#: Not symmetric, so that a filter the wrong way round is seen.
SKEWED = fir_filter((1.0, 2.0, 4.0, 0.5))


def test_the_filter_keeps_the_brightness() -> None:
    assert fir_filter().sum() == 1
    assert torch.equal(fir_filter()[0] * 64, torch.tensor(FIR_TAPS))


def test_a_linear_layer_multiplies_weight_and_bias_at_run_time() -> None:
    layer, x = seeded(Linear(7, 5, multiplier=0.01)), noise(3, 7)
    assert_near(layer(x), 0.01 * (x @ layer.weight.T / math.sqrt(7) + layer.bias), 1e-6)


def test_a_leaky_relu_keeps_its_gain() -> None:
    plain, active = seeded(Linear(7, 5)), seeded(Linear(7, 5, activation="lrelu"))
    x = noise(3, 7)
    y = plain(x)
    assert (y < 0).any()
    assert_near(active(x), math.sqrt(2) * torch.where(y < 0, SLOPE * y, y), 1e-6)


@pytest.mark.parametrize("activation", ["linear", "lrelu"])
def test_a_folded_linear_layer_is_a_plain_one(activation: str) -> None:
    layer, x = seeded(Linear(7, 5, activation=activation, multiplier=0.01)), noise(3, 7)  # type: ignore[arg-type]
    weight, bias = layer.folded()
    y = x @ weight.T + bias
    assert_near(torch.where(y < 0, SLOPE * y, y) if activation == "lrelu" else y, layer(x), 1e-6)


def skewed(**settings: int) -> Conv:
    """One channel in and out, without anything but weight and filter."""
    layer = seeded(Conv(1, 1, **settings, activation="linear", bias=False))  # type: ignore[arg-type]
    layer.resample_filter = SKEWED
    return layer


Plane = NDArray[np.float64]


def stuffed(x: Plane) -> Plane:
    """Zeros between the pixels."""
    wide = np.zeros((2 * x.shape[0], 2 * x.shape[1]))
    wide[::2, ::2] = x
    return wide


def published_way(layer: Conv, x: Plane) -> Plane:
    """Resampling as it is defined: stuff, convolve and filter, or filter, convolve and drop."""
    weight: Plane = layer.weight[0, 0].double().numpy() * layer.weight_gain
    taps: Plane = SKEWED.double().numpy()
    made: Plane
    if layer.up == 2:
        # Stuffing cost three quarters of the brightness. The filter is centred between its second and third tap.
        made = signal.convolve2d(signal.convolve2d(stuffed(x), weight), 4 * taps)
        first = layer.kernel // 2 + 1
        made = made[first : first + 2 * x.shape[0], first : first + 2 * x.shape[1]]
    else:
        smooth = signal.convolve2d(np.pad(x, 1 + layer.kernel // 2), taps, "valid")
        made = signal.correlate2d(smooth, weight, "valid")[::2, ::2]
    return made


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("resampling", ["up", "down"])
@pytest.mark.parametrize("size", [(6, 8), (2, 4)])
def test_resampling_is_stuffing_filtering_and_dropping(kernel: int, resampling: str, size: tuple[int, int]) -> None:
    layer, x = skewed(kernel=kernel, **{resampling: 2}), noise(*size)
    expected = torch.from_numpy(published_way(layer, x.double().numpy()))
    height, width = (2 * side if resampling == "up" else side // 2 for side in size)
    assert expected.shape == (height, width)
    assert_near(layer(x[None, None])[0, 0], expected, 1e-5)


def test_doubling_spreads_a_pixel_as_the_filter_says() -> None:
    layer = skewed(kernel=1, up=2)
    layer.weight.fill_(1)
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 1
    y = layer(x)[0, 0]
    assert_near(y[3:7, 3:7], 4 * SKEWED, 1e-6)
    assert y.sum() == pytest.approx(4)


@settings(deadline=None, max_examples=50)
@given(kernel=st.sampled_from([1, 3]), up=st.sampled_from([1, 2]), down=st.sampled_from([1, 2]), level=st.floats(-3, 3))
def test_brightness_survives_far_from_the_border(kernel: int, up: int, down: int, level: float) -> None:
    if up == down == 2:
        down = 1
    layer = seeded(Conv(2, 3, kernel, up=up, down=down, activation="linear", bias=False))
    y = layer(torch.full((1, 2, 12, 12), level))
    expected = level * layer.weight.sum((1, 2, 3)) * layer.weight_gain
    middle = y.shape[2] // 2
    if not (up == 2 and kernel == 3):
        assert_near(y[0, :, middle, middle], expected, 1e-5)
    # A kernel of 3 sees a pixel in one or two of its taps; over every second pixel it sees each once.
    assert_near(y[0, :, middle : middle + 2, middle : middle + 2].mean((1, 2)), expected, 1e-5)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean((2, 3)), x.std((2, 3), correction=0)


def test_instance_norm_takes_mean_and_deviation_away() -> None:
    layer = seeded(Conv(2, 3, norm="instance", activation="linear", bias=False))
    mean, deviation = moments(layer(4 + noise(2, 2, 9, 9)))
    assert mean.abs().max() < 1e-5
    assert (deviation - 1).abs().max() < 1e-3


def test_the_other_norm_takes_only_the_deviation_away() -> None:
    layer = seeded(Conv(2, 3, norm="instance-std", activation="linear", bias=False))
    x = 4 + noise(2, 2, 9, 9)
    plain, plain_deviation = moments(layer.convolve(x))
    mean, deviation = moments(layer(x))
    assert (deviation - 1).abs().max() < 1e-3
    assert_near(mean, plain / plain_deviation, 1e-4)


def test_gain_follows_the_activation_and_the_clamp_follows_the_gain() -> None:
    plain = seeded(Conv(2, 3, activation="linear"))
    layer = seeded(Conv(2, 3, gain=0.5, clamp=0.8))
    x = 4 * noise(1, 2, 6, 6)
    y = plain(x)
    expected = (0.5 * LRELU_GAIN * torch.where(y < 0, SLOPE * y, y)).clamp(-0.4, 0.4)
    assert (expected.abs() == 0.4).any()
    assert (expected.abs() < 0.4).any()
    assert_near(layer(x), expected, 1e-5)
