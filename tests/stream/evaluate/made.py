"""Networks and sets for measures, made in code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from engines.store import Store
from stream.evaluate.synthetic import write_synthetic
from tests.detector_bundles import PERSONS, install_presets, write_one_stage

Side = int | str


def vector_network(path: Path, size: tuple[Side, Side] = (4, 4), *, batch: Side = "N", pooled: bool = False) -> Path:
    """Gives the picture itself as a vector, or the means of its channels; `size` is height and width."""
    node = (
        helper.make_node("ReduceMean", ["picture"], ["vector"], axes=[2, 3], keepdims=0)
        if pooled
        else helper.make_node("Flatten", ["picture"], ["vector"], axis=1)
    )
    return _save(path, [node], size, batch, ["vector"], 2)


def map_network(path: Path, size: tuple[Side, Side] = ("h", "w"), *, layers: int = 1) -> Path:
    """Gives the picture itself as so many maps, each twice as strong as the one before."""
    nodes = [helper.make_node("Identity", ["picture"], ["map_0"])]
    nodes += [helper.make_node("Add", [f"map_{layer - 1}"] * 2, [f"map_{layer}"]) for layer in range(1, layers)]
    return _save(path, nodes, size, "N", [f"map_{layer}" for layer in range(layers)], 4)


def _save(
    path: Path, nodes: Sequence[onnx.NodeProto], size: tuple[Side, Side], batch: Side, outputs: Sequence[str], axes: int
) -> Path:
    sides = [f"side_{axis}" for axis in range(1, axes)]
    graph = helper.make_graph(
        list(nodes),
        "made",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [batch, 3, *size])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *sides]) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def write_set(folder: Path, *, pictures: int = 3, people: int = 2) -> Path:
    """The synthetic set, small."""
    write_synthetic(folder, pictures=pictures, people=people)
    return folder


def write_store(folder: Path) -> Store:
    """The presets with generators, and a detector of persons that is in none of them."""
    install_presets(folder)
    write_one_stage(folder / "bundles" / "judge", PERSONS, name="judge", kind="person")
    return Store(folder, known={}, built_in=folder / "none")


def with_moments(mean: Sequence[float], covariance: Sequence[Sequence[float]], count: int, seed: int) -> np.ndarray:
    """Vectors whose sample mean and unbiased sample covariance are exactly these, (count, D)."""
    raw = np.random.default_rng(seed).standard_normal((count, len(mean)))
    raw -= raw.mean(axis=0)
    white = np.linalg.solve(np.linalg.cholesky(np.cov(raw, rowvar=False)), raw.T).T
    return np.asarray(white @ np.linalg.cholesky(np.asarray(covariance, np.float64)).T + np.asarray(mean))
