"""Exported detectors at full size against the published code: features, heads, final boxes, whole frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812  everyone calls it that

from engines.bundle import Bundle
from engines.runtime_onnx import OnnxRuntime
from export.detector_parity import match_boxes
from export.detectors import export_detector
from tests.export.detector_cases import MASK_RCNN, all_cases, assert_close, config_of, detector_cases, normalised
from tests.parity import ParityCase

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


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


@pytest.mark.parametrize("case", all_cases("in/image_bgr"), ids=lambda case: case.name)
def test_an_exported_detector_finds_what_the_published_code_finds(case: ParityCase, exported: Exporter) -> None:
    bundle, arrays = exported(case), case.arrays
    config = config_of(case)
    image = normalised(arrays["in/image_bgr"], config)
    image = rgb(image) if config.input_format == "BGR" else image
    size = np.array([image.shape[2:]], np.int64)
    found = run(bundle, "detector", {"image": image, "image_size": size})
    for level in range(2, 6):
        published = arrays[f"out/p{level}_lattice4"]
        features = found[f"p{level}"]
        assert_close(features[:, :: features.shape[1] // published.shape[1], ::4, ::4], published)
    count = int(found["count"][0])
    assert_same_boxes(found["boxes"][0, :count], found["scores"][0], arrays)
    boxes = arrays["in/fixed_boxes"]
    given: dict[str, NDArray[Any]] = {name: found[name] for name in ("p2", "p3", "p4", "p5")}
    given |= {"boxes": boxes, "index": np.zeros(len(boxes), np.int64)}
    if config.mask is not None:
        masks = run(bundle, "heads", given | {"classes": np.zeros(len(boxes), np.int64)})["masks"]
        assert_close(masks, 1 / (1 + np.exp(-arrays["out/fixed_mask_logits_class0"])))
    else:
        made = run(bundle, "heads", given)
        assert_close(made["coarse_segm"][:, :, ::2, ::2], arrays["out/fixed_coarse_segm_lattice2"])
        assert_close(made["embedding"][:, :, ::4, ::4], arrays["out/fixed_embedding_lattice4"])
        assert_close(bundle.array("vertex_embeddings")[::97], arrays["out/embed_map_every97"])


def pasted(masks: NDArray[Any], boxes: NDArray[Any], height: int, width: int) -> NDArray[np.bool_]:
    """Masks (R,s,s) of boxes (R,4) at every pixel's middle, bilinear, over one half (He et al. 2017, section 3.1)."""
    x0, y0, x1, y1 = (torch.from_numpy(boxes[:, i])[:, None] for i in range(4))
    y = ((torch.arange(height) + 0.5)[None] - y0) / (y1 - y0) * 2 - 1
    x = ((torch.arange(width) + 0.5)[None] - x0) / (x1 - x0) * 2 - 1
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=3)
    values = F.grid_sample(torch.from_numpy(masks)[:, None], grid, align_corners=False)
    return (values[:, 0] >= 0.5).numpy()


@pytest.mark.parametrize("case", detector_cases(MASK_RCNN, "in/image_rgb"), ids=lambda case: case.name)
def test_a_whole_frame_gets_the_published_boxes_and_masks(case: ParityCase, exported: Exporter) -> None:
    bundle, arrays, config = exported(case), case.arrays, config_of(case)
    frame = arrays["in/image_rgb"]
    (height, width), (h, w) = frame.shape[:2], arrays["out/resized_hw"].tolist()
    picture = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    # Pixels are whole numbers again before they are normalised; without that, 4 of 100 boxes find no partner.
    resized = F.interpolate(picture, (h, w), mode="bilinear", antialias=True).round()[0].permute(1, 2, 0).numpy()
    bgr = resized[:, :, ::-1] if config.input_format == "BGR" else resized
    values = normalised(bgr, config)
    values = rgb(values) if config.input_format == "BGR" else values
    multiple = bundle.manifest.normalisation.multiple
    image = np.pad(values, ((0, 0), (0, 0), (0, -h % multiple), (0, -w % multiple)))
    found = run(bundle, "detector", {"image": image, "image_size": np.array([[h, w]], np.int64)})
    count = int(found["count"][0])
    boxes = found["boxes"][0, :count] * np.array([width / w, height / h] * 2, np.float32)
    partner, same = assert_same_boxes(boxes, found["scores"][0], arrays)
    packed = arrays["out/masks_top24"]
    chosen = partner[: len(packed)][same[: len(packed)]]
    masks = run(
        bundle,
        "heads",
        {name: found[name] for name in ("p2", "p3", "p4", "p5")}
        | {
            "boxes": found["boxes"][0, chosen],
            "index": np.zeros(len(chosen), np.int64),
            "classes": np.zeros(len(chosen), np.int64),
        },
    )["masks"]
    published = np.unpackbits(packed, axis=2)[same[: len(packed)], :, :width].astype(bool)
    made = pasted(masks, boxes[chosen], height, width)
    # A pixel at exactly one half may fall on either side.
    assert (made != published).mean() <= 1e-4
