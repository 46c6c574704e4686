"""Constants in half precision: exact once they were rounded, and left alone where they were not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from export.halves import round_to_halves, store_halves

SIDE = 64


def write(path: Path, weight: np.ndarray) -> Path:
    """x times a matrix."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, len(weight)])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, weight.shape[1]])],
        [numpy_helper.from_array(weight, "weight")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def run(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def matrix(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((SIDE, SIDE)).astype(np.float32)


def test_what_was_rounded_takes_half_the_file_and_computes_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", matrix().astype(np.float16).astype(np.float32))
    x, before = matrix(1)[:1], path.stat().st_size
    expected = run(path, x)
    assert store_halves(path) == 2 * SIDE * SIDE
    assert before - path.stat().st_size == pytest.approx(2 * SIDE * SIDE, abs=200)
    assert np.array_equal(run(path, x), expected)


@pytest.mark.parametrize("weight", [matrix(), np.full((SIDE, SIDE), 1e6, np.float32), np.ones((8, 8), np.float32)])
def test_what_would_change_or_is_small_stays(weight: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", weight)
    (stored,) = onnx.load(path).graph.initializer
    assert store_halves(path) == 0
    assert list(onnx.load(path).graph.initializer) == [stored]


def test_large_weights_and_buffers_are_rounded_in_place() -> None:
    module = nn.Sequential(nn.Linear(SIDE, SIDE), nn.Linear(2, 2))
    module.register_buffer("table", torch.randn(SIDE, SIDE))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    round_to_halves(module)
    after = module.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"0.weight", "table"}
    assert all(torch.equal(after[name], before[name].half().float()) for name in changed)


def test_what_half_precision_has_not_is_refused() -> None:
    module = nn.Linear(SIDE, SIDE)
    with torch.no_grad():
        module.weight[0, 0] = 1e6
    with pytest.raises(OverflowError, match="weight has 1e"):
        round_to_halves(module)
