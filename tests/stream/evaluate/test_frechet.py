from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.errors import UsageError
from stream.evaluate.frechet import frechet_figure
from stream.networks import NetworkSettings
from stream.perception import VectorNetwork
from tests.stream.evaluate.made import vector_network

pytest.importorskip("onnxruntime", reason="networks run in ONNX Runtime")


@pytest.fixture
def network(tmp_path: Path) -> VectorNetwork:
    return VectorNetwork(NetworkSettings(vector_network(tmp_path / "x.onnx", pooled=True)), "--features")


def shift(real: Any, made: Any) -> float:
    return float(np.square(real.mean(axis=0) - made.mean(axis=0)).sum())


def vectors(count: int) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    return list(np.random.default_rng(0).standard_normal((count, 3)).astype(np.float32))


def test_the_figure_says_of_how_many_and_by_which_network(network: VectorNetwork) -> None:
    figure = frechet_figure(vectors(9), [one + 1 for one in vectors(8)], network, shift, "crops", ["a note"])
    assert (figure.count, figure.of, figure.network, figure.resize) == (8, "crops", network.name, network.resize)
    assert figure.notes == ("a note",)


def test_fewer_pictures_than_features_are_noted(network: VectorNetwork) -> None:
    (note,) = frechet_figure(vectors(9), vectors(3), network, shift, "crops").notes
    assert "only 3 crops for 3 features" in note
    assert "full rank" in note


def test_one_picture_has_no_covariance(network: VectorNetwork) -> None:
    with pytest.raises(UsageError, match="at least 2 crops on both sides, got 5 and 1"):
        frechet_figure(vectors(5), vectors(1), network, shift, "crops")


def test_rounding_gives_no_distance_below_zero(network: VectorNetwork) -> None:
    assert frechet_figure(vectors(9), vectors(9), network, lambda real, made: -1e-9, "crops").value == 0
