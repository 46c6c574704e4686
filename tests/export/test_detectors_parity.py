"""Exported detectors at full size against the published code: features, heads, final boxes, whole frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engines.bundle import Bundle
from engines.runtime import Device, open_runtime
from engines.runtime_onnx import OnnxRuntime
from export.detector_parity import match_boxes
from export.detectors import export_detector
from export.detectron2_configs import DetectorConfig
from stream.detectors.two_stage import TwoStageDetector
from stream.frame import Frame
from stream.outline import PixelMask
from tests.export.detector_cases import MASK_RCNN, all_cases, assert_close, config_of, detector_cases, normalised
from tests.parity import ParityCase

# They take minutes: what the layers compute is compared in `models/`, and every export is compared with them.
pytestmark = [pytest.mark.slow, pytest.mark.thorough, pytest.mark.timeout(1800)]


class Exporter:
    """Exports each case once, and cases with the same weights and config together."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[Any, Bundle] = {}

    def __call__(self, case: ParityCase) -> Bundle:
        config = config_of(case)
        fixed = {key: values.tobytes() for key, values in case.arrays.items() if key.startswith("fixed/")}
        key = (config.name, config.threshold, config.box.iou, tuple(case.shapes), tuple(sorted(fixed.items())))
        if key not in self._made:
            # One bundle at a time: they are hundreds of megabytes.
            checkpoint = self._folder / "checkpoint.pth"
            torch.save({"model": {name: torch.from_numpy(values) for name, values in case.state().items()}}, checkpoint)
            self._made[key] = export_detector(config.export, checkpoint, self._folder / case.name, config=config)
            checkpoint.unlink()
        return self._made[key]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exporter:
    return Exporter(tmp_path_factory.mktemp("published"))


def run(bundle: Bundle, graph: str, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    with OnnxRuntime(bundle.path / f"{graph}.onnx", bundle.manifest.graphs[graph], device="cpu") as runtime:
        return runtime.run(inputs)


def rgb(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(image[:, ::-1])


def feeds_of(case: ParityCase) -> dict[str, NDArray[Any]]:
    """The detector's inputs: the case's picture as its network takes it."""
    config = config_of(case)
    image = normalised(case.arrays["in/image_bgr"], config)
    image = rgb(image) if config.input_format == "BGR" else image
    return {"image": image, "image_size": np.array([image.shape[2:]], np.int64)}


def heads_feeds_of(case: ParityCase, found: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The heads' inputs: features that the detector found, and the case's boxes."""
    boxes = case.arrays["in/fixed_boxes"]
    given: dict[str, NDArray[Any]] = {name: found[name] for name in ("p2", "p3", "p4", "p5")}
    given |= {"boxes": boxes, "index": np.zeros(len(boxes), np.int64)}
    if config_of(case).mask is not None:
        given["classes"] = np.zeros(len(boxes), np.int64)
    return given


def assert_same_boxes(
    found: NDArray[Any], scores: NDArray[Any], arrays: dict[str, NDArray[Any]]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    persons = arrays["out/classes"] == 0
    partner = match_boxes(found, arrays["out/boxes"][persons])
    same = partner >= 0
    assert same.mean() >= 0.98
    assert np.abs(found[partner[same]] - arrays["out/boxes"][persons][same]).max() <= 0.1
    assert np.abs(scores[partner[same]] - arrays["out/scores"][persons][same]).max() <= 1e-3
    return partner, same


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name) for case in all_cases("in/image_bgr")],
)
def test_an_exported_detector_finds_what_the_published_code_finds(case: ParityCase, exported: Exporter) -> None:
    bundle, arrays = exported(case), case.arrays
    found = run(bundle, "detector", feeds_of(case))
    for level in range(2, 6):
        published = arrays[f"out/p{level}_lattice4"]
        features = found[f"p{level}"]
        assert_close(features[:, :: features.shape[1] // published.shape[1], ::4, ::4], published)
    count = int(found["count"][0])
    assert_same_boxes(found["boxes"][0, :count], found["scores"][0], arrays)
    made = run(bundle, "heads", heads_feeds_of(case, found))
    if config_of(case).mask is not None:
        assert_close(made["masks"], 1 / (1 + np.exp(-arrays["out/fixed_mask_logits_class0"])))
    else:
        assert_close(made["coarse_segm"][:, :, ::2, ::2], arrays["out/fixed_coarse_segm_lattice2"])
        assert_close(made["embedding"][:, :, ::4, ::4], arrays["out/fixed_embedding_lattice4"])
        assert_close(bundle.array("vertex_embeddings")[::97], arrays["out/embed_map_every97"])


def resized(bundle: Bundle, config: DetectorConfig) -> Bundle:
    """A bundle whose pictures are of the sizes that a config says: nothing in its graphs depends on them."""
    assert bundle.manifest.detection is not None
    sizes = {"min_size": config.min_size, "max_size": config.max_size}
    detection = bundle.manifest.detection.model_copy(update=sizes)
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"detection": detection}))


@pytest.mark.parametrize("case", detector_cases(MASK_RCNN, "in/image_rgb"), ids=lambda case: case.name)
def test_a_whole_frame_gets_the_published_boxes_and_masks(case: ParityCase, exported: Exporter) -> None:
    assert_whole_frame(case, exported(case), "cpu")


def assert_whole_frame(case: ParityCase, found: Bundle, device: Device) -> None:
    bundle, arrays = resized(found, config_of(case)), case.arrays
    frame = Frame(arrays["in/image_rgb"])
    threshold = float(arrays["out/scores"].min())
    with (
        open_runtime(bundle, "detector", device=device) as runtime,
        open_runtime(bundle, "heads", device=device) as heads,
    ):
        detector = TwoStageDetector(bundle, runtime, heads, threshold=threshold)
        regions = detector.detect(frame)
    # Of as many boxes as it gives, the published code keeps the last one too.
    partner, same = assert_same_boxes(regions.boxes, regions.scores, arrays)
    packed = arrays["out/masks_top24"]
    published = np.unpackbits(packed, axis=2)[:, :, : frame.width].astype(bool)
    for mask, row in zip(published[same[: len(packed)]], partner[: len(packed)][same[: len(packed)]], strict=True):
        outline = regions.outline(row)
        assert outline is not None
        assert outline.mask is not None
        made = PixelMask(0, 0, np.zeros(mask.shape, np.bool_))
        outline.mask.paint(made)
        # A pixel at exactly one half may fall on either side.
        assert (made.pixels != mask).mean() <= 1e-4
