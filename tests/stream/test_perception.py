from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engines.errors import BundleError, UsageError
from stream.networks import NetworkSettings
from stream.perception import PerceptualNetwork, VectorNetwork, perceptual_distance
from tests.stream.evaluate.made import map_network, vector_network

pytest.importorskip("onnxruntime", reason="networks run in ONNX Runtime")


def test_features_are_as_they_come_and_identities_have_length_one(tmp_path: Path) -> None:
    network = VectorNetwork(NetworkSettings(vector_network(tmp_path / "x.onnx"), mean=0.0, std=1.0), "--x")
    picture = np.full((8, 8, 3), 5, np.uint8)
    assert np.array_equal(network.features(picture), np.full(48, 5, np.float32))
    assert np.linalg.norm(network.identity(picture)) == pytest.approx(1)
    assert network.resize == "to 4x4, area where both sides shrink, else bilinear"


def test_a_vector_needs_a_size(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--features FILE,size=WxH"):
        VectorNetwork(NetworkSettings(vector_network(tmp_path / "x.onnx", ("h", "w"))), "--features")


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    network = VectorNetwork(NetworkSettings(vector_network(tmp_path / "x.onnx")), "--x")
    with pytest.raises(BundleError, match="not finite"):
        network.features(np.full((4, 4, 3), np.inf, np.float32))


def test_the_distance_is_summed_over_layers_and_channels_and_averaged_over_pixels(tmp_path: Path) -> None:
    network = PerceptualNetwork(NetworkSettings(map_network(tmp_path / "x.onnx", layers=2), mean=0.0, std=1.0))
    one, other = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    other[0, 0] = (1, 2, 0)
    other[1, 1] = (0, 0, 3)
    # One layer: ((1 + 4) + 9) / 4 pixels; the other one is twice as strong.
    assert perceptual_distance(network.maps(one), network.maps(other)) == pytest.approx(14 / 4 * (1 + 4))
    assert perceptual_distance(network.maps(one), network.maps(one)) == 0
    assert network.any_size
    assert network.resize == "none"


def test_maps_scaled_by_the_roots_of_weights_give_lpips() -> None:
    draw = np.random.default_rng(0)
    shapes, weights = [(4, 6, 5), (8, 3, 2)], [draw.random(4), draw.random(8)]
    pictures = [[draw.standard_normal(shape) for shape in shapes] for _ in range(2)]
    unit = [[one / np.linalg.norm(one, axis=0) for one in maps] for maps in pictures]
    # Zhang et al. 2018, equation 1, with the weights of their linear layers inside the square.
    expected = sum(
        float(np.einsum("c,chw->hw", weight, (one - other) ** 2).mean())
        for one, other, weight in zip(*unit, weights, strict=True)
    )
    scaled = [
        [(one * np.sqrt(weight)[:, None, None]).astype(np.float32) for one, weight in zip(maps, weights, strict=True)]
        for maps in unit
    ]
    assert perceptual_distance(scaled[0], scaled[1]) == pytest.approx(expected, rel=1e-5)


def test_pictures_of_two_sizes_have_no_distance(tmp_path: Path) -> None:
    network = PerceptualNetwork(NetworkSettings(map_network(tmp_path / "x.onnx")))
    small, large = (network.maps(np.zeros((side, 4, 3), np.uint8)) for side in (4, 5))
    with pytest.raises(BundleError, match="same size"):
        perceptual_distance(small, large)
