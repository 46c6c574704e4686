"""RoIAlign: by rows and columns here, sample by sample as published, and as the ONNX operator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor

from export.models.roi import PyramidPooler, pyramid_level, roi_align

WAYS = [(0, True), (2, False), (2, True), (0, False)]


def sample(values: NDArray[np.float32], y: float, x: float) -> float:
    """One bilinear sample of (h,w), as the paper's figure 3 and the published code's borders have it."""
    height, width = values.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = max(y, 0.0), max(x, 0.0)
    y0, x0 = min(int(y), height - 1), min(int(x), width - 1)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    ly, lx = (y - y0 if y0 < height - 1 else 0.0), (x - x0 if x0 < width - 1 else 0.0)
    top = values[y0, x0] * (1 - lx) + values[y0, x1] * lx
    bottom = values[y1, x0] * (1 - lx) + values[y1, x1] * lx
    return float(top * (1 - ly) + bottom * ly)


def one_by_one(values: NDArray[np.float32], box: list[float], bins: int, scale: float, way: tuple[int, bool]) -> Any:
    sampling, aligned = way
    x0, y0, x1, y1 = (side * scale - (0.5 if aligned else 0.0) for side in box)
    width, height = x1 - x0, y1 - y0
    if not aligned:
        width, height = max(width, 1.0), max(height, 1.0)
    rows = sampling or math.ceil(height / bins)
    columns = sampling or math.ceil(width / bins)
    made = np.zeros((bins, bins))
    for i in range(bins):
        for j in range(bins):
            total = 0.0
            for r in range(rows):
                for c in range(columns):
                    y = y0 + i * height / bins + (r + 0.5) * height / bins / rows
                    x = x0 + j * width / bins + (c + 0.5) * width / bins / columns
                    total += sample(values, y, x)
            made[i, j] = total / max(rows * columns, 1)
    return made


boxes = st.tuples(*[st.floats(-20, 90, width=32)] * 2, *[st.floats(0.125, 120, width=32)] * 2)


@settings(max_examples=60, deadline=None)
@given(box=boxes, way=st.sampled_from(WAYS))
def test_any_box_is_sampled_as_published(box: tuple[float, float, float, float], way: tuple[int, bool]) -> None:
    values = np.random.default_rng(0).standard_normal((9, 13)).astype(np.float32)
    corners = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    made = roi_align(
        torch.from_numpy(values)[None, None],
        torch.tensor([corners]),
        torch.zeros(1, dtype=torch.int64),
        3,
        scale=0.125,
        sampling=way[0],
        aligned=way[1],
    )
    single = torch.tensor(corners).tolist()
    # A side of a whole number of cells may be rounded up by float32 to one sample more.
    sides = [(single[i + 2] - single[i]) * 0.125 / 3 for i in (0, 1)]
    if not way[0] and any(abs(side - round(side)) < 1e-5 for side in sides):
        return
    np.testing.assert_allclose(made[0, 0].numpy(), one_by_one(values, single, 3, 0.125, way), atol=2e-4)


def operator(way: tuple[int, bool], scale: float, bins: int) -> bytes:
    """The ONNX operator as an exported graph has it."""
    node = helper.make_node(
        "RoiAlign",
        ["x", "boxes", "index"],
        ["y"],
        coordinate_transformation_mode="half_pixel" if way[1] else "output_half_pixel",
        mode="avg",
        output_height=bins,
        output_width=bins,
        sampling_ratio=way[0],
        spatial_scale=scale,
    )
    infos = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "C", "h", "w"]),
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["R", 4]),
        helper.make_tensor_value_info("index", TensorProto.INT64, ["R"]),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "roi", infos, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


def drawn_boxes(count: int, draw: np.random.Generator) -> NDArray[np.float32]:
    low = draw.uniform(-30, 300, (count, 2))
    return np.concatenate([low, low + draw.uniform(0.5, 250, (count, 2))], axis=1).astype(np.float32)


@pytest.mark.parametrize("way", WAYS)
def test_the_onnx_operator_gives_the_same(way: tuple[int, bool]) -> None:
    draw = np.random.default_rng(1)
    x = draw.standard_normal((2, 3, 20, 30)).astype(np.float32)
    corners, index = drawn_boxes(40, draw), draw.integers(0, 2, 40)
    session = onnxruntime.InferenceSession(operator(way, 0.125, 7), providers=["CPUExecutionProvider"])
    published = session.run(None, {"x": x, "boxes": corners, "index": index})[0]
    made = roi_align(
        torch.from_numpy(x),
        torch.from_numpy(corners),
        torch.from_numpy(index),
        7,
        scale=0.125,
        sampling=way[0],
        aligned=way[1],
    )
    np.testing.assert_allclose(made.numpy(), published, atol=1e-4)


def test_the_onnx_operator_takes_no_sample_of_a_box_without_extent() -> None:
    session = onnxruntime.InferenceSession(operator((0, True), 0.25, 7), providers=["CPUExecutionProvider"])
    given_boxes = {"boxes": np.zeros((1, 4), np.float32), "index": np.zeros(1, np.int64)}
    made = session.run(None, {"x": np.full((1, 2, 8, 8), np.nan, np.float32), **given_boxes})[0]
    assert (made == 0).all()


def test_boxes_belong_to_levels_by_their_size() -> None:
    sides = torch.tensor([1.0, 111.9, 112.1, 223.9, 224.1, 447.0, 449.0, 2000.0])
    corners = torch.stack([sides * 0, sides * 0, sides, sides], dim=1)
    assert pyramid_level(corners, 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert pyramid_level(torch.zeros(1, 4), 4).tolist() == [0]


def test_a_pooler_samples_each_box_at_its_own_level_and_frame() -> None:
    draw = np.random.default_rng(2)
    levels = [torch.from_numpy(draw.standard_normal((2, 3, 64 >> i, 80 >> i)).astype(np.float32)) for i in range(4)]
    corners = torch.tensor([[0.0, 0, 30, 40], [10, 20, 150, 170], [0, 0, 320, 256], [5, 5, 470, 475]])
    index = torch.tensor([0, 1, 1, 0])
    made = PyramidPooler(7, sampling=0, aligned=True)(levels, corners, index)
    for i, level in enumerate([0, 1, 2, 3]):
        alone = roi_align(
            levels[level],
            corners[i : i + 1],
            index[i : i + 1],
            7,
            scale=0.25 / 2**level,
            sampling=0,
            aligned=True,
        )
        torch.testing.assert_close(made[i : i + 1], alone)


def test_no_boxes_give_no_values() -> None:
    empty: Tensor = PyramidPooler(7, sampling=2, aligned=False)(
        [torch.zeros(1, 3, 8, 8)] * 4, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    )
    assert empty.shape == (0, 3, 7, 7)
