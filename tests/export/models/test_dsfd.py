from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.errors import CheckpointError
from engines.manifest import Tensor as Declared
from engines.runtime_onnx import import_onnxruntime
from export.graphs import GraphPlan
from export.models.dsfd import MEAN, Dsfd, DsfdSpec
from export.to_onnx import write_onnx
from tests.parity import ParityCase, parity_cases

Floats = NDArray[np.float32]

DSFD = "DSFD"


def image_of(case: ParityCase) -> Floats:
    """The network's input (1,3,h,w)."""
    rgb = case.arrays["in/image_rgb"].astype(np.float32) - np.array(MEAN, np.float32)
    return np.ascontiguousarray(rgb.transpose(2, 0, 1)[None])


def load(case: ParityCase) -> Dsfd:
    state = {name: torch.from_numpy(np.array(values)) for name, values in case.state().items()}
    network = Dsfd(DsfdSpec.of(state))
    network.load_state_dict(state, strict=True)
    return network.eval().requires_grad_(requires_grad=False)


def assert_published(case: ParityCase, scores: Floats, boxes: Floats) -> None:
    expected = case.arrays["out/boxes_scores_every7"]
    found = np.concatenate([boxes[0], scores[0, :, 1:]], axis=1)
    assert len(found) == int(case.arrays["out/count"][0])
    found = found[::7]
    assert found.shape == expected.shape
    for columns in (slice(0, 4), slice(4, 5)):
        tolerance = 1e-3 * max(1.0, float(expected[:, columns].std()))
        assert np.abs(found[:, columns] - expected[:, columns]).max() <= tolerance
    height, width = case.arrays["in/image_rgb"].shape[:2]
    pixels = np.abs(found[:, :4] - expected[:, :4]) * [width, height, width, height]
    assert pixels.max() <= 0.1


def plan_of(network: Dsfd, image: Floats) -> GraphPlan:
    return GraphPlan(
        key="detector",
        file="network.onnx",
        module=network,
        inputs=(Declared(name="image", dtype="float32", shape=("N", 3, "h", "w"), meaning="picture"),),
        outputs=(
            Declared(name="scores", dtype="float32", shape=("N", "P", 2), meaning="scores"),
            Declared(name="boxes", dtype="float32", shape=("N", "P", 4), meaning="boxes"),
        ),
        example={"image": np.concatenate([image, image])},
    )


@pytest.mark.parametrize("case", parity_cases(DSFD), ids=lambda case: case.name)
def test_boxes_and_scores_are_those_of_the_published_code(case: ParityCase) -> None:
    network, image = load(case), image_of(case)
    scores, boxes = network(torch.from_numpy(image))
    assert_published(case, scores.numpy(), boxes.numpy())


def _small() -> Dsfd:
    torch.manual_seed(0)
    return Dsfd(DsfdSpec((1, 2, 1, 1))).eval().requires_grad_(requires_grad=False)


@pytest.mark.thorough
def test_a_graph_takes_other_sizes_than_the_one_that_it_is_traced_with(tmp_path: Path) -> None:
    network, image = _small(), np.random.default_rng(0).uniform(-100, 100, (1, 3, 128, 224)).astype(np.float32)
    write_onnx(plan_of(network, image[:, :, :96, :160].copy()), tmp_path / "network.onnx")
    options: dict[str, Any] = {"providers": ["CPUExecutionProvider"]}
    session = import_onnxruntime().InferenceSession(tmp_path / "network.onnx", **options)
    for found, wanted in zip(
        session.run(["scores", "boxes"], {"image": image}), network(torch.from_numpy(image)), strict=True
    ):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-3, atol=1e-4)


def test_the_depth_is_read_from_the_names() -> None:
    with torch.device("meta"):
        assert DsfdSpec.of(Dsfd(DsfdSpec((1, 2, 1, 3))).state_dict()) == DsfdSpec((1, 2, 1, 3))
    with pytest.raises(CheckpointError, match="no DSFD"):
        DsfdSpec.of({"layer1.4.0.conv3.weight": 0, "layer2.0.1.conv3.weight": 0})


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 97), (128, 64)])
def test_every_cell_of_six_levels_has_one_prior(height: int, width: int) -> None:
    scores, boxes = _small()(torch.zeros(1, 3, height, width))
    cells = sum(-(-height // step) * -(-width // step) for step in (4, 8, 16, 32, 64, 128))
    assert boxes.shape == (1, cells, 4)
    assert scores.shape == (1, cells, 2)
    torch.testing.assert_close(scores.sum(-1), torch.ones(1, cells))


def test_without_offsets_the_boxes_are_the_priors() -> None:
    network = _small()
    for head in network.loc:
        head.conv4.weight.zero_()  # type: ignore[union-attr, operator]
        head.conv4.bias.zero_()  # type: ignore[union-attr, operator]
    boxes: Tensor = network(torch.zeros(1, 3, 128, 256))[1][0] * torch.tensor([256, 128, 256, 128])
    # The first cell's centre is half a step in; the prior is 1.5 times as high as it is wide, and has an area of 16^2.
    half = 8 / np.sqrt(1.5), 8 * np.sqrt(1.5)
    np.testing.assert_allclose(boxes[0], [2 - half[0], 2 - half[1], 2 + half[0], 2 + half[1]], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose((boxes[65, :2] + boxes[65, 2:]) / 2, [4 + 2, 4 + 2], rtol=1e-4)


def test_pictures_of_a_batch_do_not_mix() -> None:
    network = _small()
    image = torch.from_numpy(np.random.default_rng(0).uniform(-100, 100, (2, 3, 64, 96)).astype(np.float32))
    together = network(image)
    for row in (0, 1):
        for found, alone in zip(together, network(image[row : row + 1]), strict=True):
            torch.testing.assert_close(found[row : row + 1], alone)
