"""Detectors on a GPU against the published code, in float32 with TF32 off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.bundle import Bundle
from engines.manifest import Graph
from engines.runtime import Device, open_runtime
from engines.runtime_onnx import OnnxRuntime
from export.to_onnx import DEFAULT_OPSET, write_onnx
from tests.export.detector_cases import (
    MASK_RCNN,
    all_cases,
    assert_close,
    config_of,
    detector_cases,
)
from tests.export.models.test_dsfd import DSFD, assert_published, image_of, load, plan_of
from tests.export.test_detectors_parity import (
    Exporter,
    assert_same_boxes,
    assert_whole_frame,
    exported,
    feeds_of,
    heads_feeds_of,
)
from tests.parity import ParityCase, parity_cases

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.timeout(1800)]

__all__ = ["exported"]

Arrays = dict[str, NDArray[Any]]


def run(bundle: Bundle, graph: str, device: Device, feeds: Arrays) -> Arrays:
    with open_runtime(bundle, graph, device=device) as runtime:
        return runtime.run(feeds)


@pytest.mark.parametrize("case", all_cases("in/image_bgr"), ids=lambda case: case.name)
def test_a_detector_finds_what_the_published_code_finds(case: ParityCase, exported: Exporter, device: Device) -> None:
    bundle, arrays = exported(case), case.arrays
    found = run(bundle, "detector", device, feeds_of(case))
    for level in range(2, 6):
        published = arrays[f"out/p{level}_lattice4"]
        features = found[f"p{level}"]
        assert_close(features[:, :: features.shape[1] // published.shape[1], ::4, ::4], published)
    count = int(found["count"][0])
    assert_same_boxes(found["boxes"][0, :count], found["scores"][0], arrays)
    made = run(bundle, "heads", device, heads_feeds_of(case, found))
    if config_of(case).mask is not None:
        assert_close(made["masks"], 1 / (1 + np.exp(-arrays["out/fixed_mask_logits_class0"])))
    else:
        assert_close(made["coarse_segm"][:, :, ::2, ::2], arrays["out/fixed_coarse_segm_lattice2"])
        assert_close(made["embedding"][:, :, ::4, ::4], arrays["out/fixed_embedding_lattice4"])


@pytest.mark.parametrize("case", detector_cases(MASK_RCNN, "in/image_rgb"), ids=lambda case: case.name)
def test_a_whole_frame_gets_the_published_boxes_and_masks(case: ParityCase, exported: Exporter, device: Device) -> None:
    assert_whole_frame(case, exported(case), device)


@pytest.mark.parametrize("case", parity_cases(DSFD), ids=lambda case: case.name)
def test_faces_are_those_of_the_published_code(case: ParityCase, device: Device, tmp_path: Path) -> None:
    network, image = load(case), image_of(case)
    plan = plan_of(network, image)
    write_onnx(plan, tmp_path / plan.file, DEFAULT_OPSET)
    graph = Graph(file=plan.file, inputs=plan.inputs, outputs=plan.outputs)
    with OnnxRuntime(tmp_path / plan.file, graph, device=device) as runtime:
        found = runtime.run(plan.example)
    assert_published(case, found["scores"], found["boxes"])
