"""An exported Mask R-CNN against detectron2 itself: its own config file, its own network, its own steps.

Skipped where it is not installed; `test_detectors_parity.py`, which needs nothing, compares with outputs that were
recorded from it. Written from detectron2's source (commit 02b5c4e), and so far run with its Python code alone: slow
Python stood in for NMS and RoIAlign of torchvision; never yet with a compiled build.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engines.bundle import Bundle
from engines.runtime import open_runtime
from engines.runtime_onnx import OnnxRuntime
from export.detector_parity import match_boxes
from export.detectors import export_detector
from stream.detectors.two_stage import TwoStageDetector
from stream.detectors.view import full_picture, shortest_edge, show_full
from stream.frame import Frame
from stream.outline import PixelMask
from tests.export.detector_cases import assert_close
from tests.parity import ParityCase, parity_case

detectron2 = pytest.importorskip("detectron2")

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    # What it imports and how it uses PyTorch is its own affair.
    pytest.mark.filterwarnings("ignore"),
]

CONFIG = "model_zoo/configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"
#: Both sides read this file. Pictures are small for speed, and seeded weights find too much below 0.3.
OWN = """
_BASE_: {base}
MODEL:
  DEVICE: cpu
  ROI_HEADS: {{SCORE_THRESH_TEST: 0.3}}
INPUT: {{MIN_SIZE_TEST: 256, MAX_SIZE_TEST: 426}}
"""


@dataclass(frozen=True)
class Theirs:
    """What detectron2 computes.

    Attributes:
        resized: uint8 (h,w,3), RGB, by its own `ResizeShortestEdge`.
        image: (1,3,h,w) resized, normalised and padded, BGR.
        size: its height and width before padding.
        features: p2 ... p5.
        raw: `Instances` in pixels of the resized picture, with masks of 28x28.
        final: `Instances` in pixels of the frame, with masks of its size, of the picture that our runtime resized.
    """

    resized: NDArray[np.uint8]
    image: NDArray[np.float32]
    size: tuple[int, int]
    features: dict[str, NDArray[np.float32]]
    raw: Any
    final: Any


@pytest.fixture(scope="module")
def case() -> ParityCase:
    """Seeded weights, each drawn from its own name, and a made-up picture."""
    return parity_case("maskrcnn_r50_fpn_frame")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("config") / "own.yaml"
    path.write_text(OWN.format(base=Path(str(detectron2.__file__)).parent / CONFIG))
    return path


@pytest.fixture(scope="module")
def theirs(case: ParityCase, config: Path) -> Iterator[Theirs]:
    """As `DefaultPredictor` goes, which loads its weights from a file and has no other difference.

    `final` is of the picture as our runtime resizes it: seeded weights make three boxes of a hundred of single levels.
    """
    settings = import_module("detectron2.config").get_cfg()
    settings.merge_from_file(str(config))
    model = import_module("detectron2.modeling").build_model(settings).eval()
    model.load_state_dict({name: torch.from_numpy(values) for name, values in case.state().items()}, strict=True)
    shortest = import_module("detectron2.data.transforms").ResizeShortestEdge(
        [settings.INPUT.MIN_SIZE_TEST] * 2, settings.INPUT.MAX_SIZE_TEST
    )
    frame = case.arrays["in/image_rgb"]
    assert settings.INPUT.FORMAT == "BGR"
    original = np.ascontiguousarray(frame[:, :, ::-1])
    resized = shortest.get_transform(original).apply_image(original)
    own = view_of(frame, settings.INPUT.MIN_SIZE_TEST, settings.INPUT.MAX_SIZE_TEST)
    inputs, finally_given = ([given(picture, frame)] for picture in (resized, own[:, :, ::-1]))
    with torch.no_grad():
        images = model.preprocess_image(inputs)
        features = model.backbone(images.tensor)
        yield Theirs(
            resized[:, :, ::-1],
            images.tensor.numpy(),
            tuple(images.image_sizes[0]),
            {level: features[level].numpy() for level in ("p2", "p3", "p4", "p5")},
            model.inference(inputs, do_postprocess=False)[0],
            model(finally_given)[0]["instances"],
        )


def view_of(frame: NDArray[np.uint8], shorter: int, longer: int) -> NDArray[np.uint8]:
    """The frame as our runtime resizes it."""
    whole = Frame(frame)
    return full_picture(whole, show_full(whole, lambda height, width: shortest_edge(height, width, shorter, longer)))


def given(picture: NDArray[np.uint8], frame: NDArray[np.uint8]) -> dict[str, Any]:
    """What a model of detectron2 takes: the resized picture in BGR, and the size for its answers."""
    tensor = torch.as_tensor(picture.astype("float32").transpose(2, 0, 1))
    return {"image": tensor, "height": frame.shape[0], "width": frame.shape[1]}


@pytest.fixture(scope="module")
def bundle(case: ParityCase, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("exported")
    checkpoint = folder / "checkpoint.pth"
    torch.save({"model": {name: torch.from_numpy(values) for name, values in case.state().items()}}, checkpoint)
    return export_detector("maskrcnn", checkpoint, folder / "bundle", config=str(config))


def run(bundle: Bundle, graph: str, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    with OnnxRuntime(bundle.path / f"{graph}.onnx", bundle.manifest.graphs[graph], device="cpu") as runtime:
        return runtime.run(inputs)


def persons(instances: Any) -> Any:
    """The first of detectron2's classes; ours gives out no others."""
    found = instances[instances.pred_classes == 0]
    assert len(found) >= 10, "too few persons to compare"
    return found


def assert_same(boxes: NDArray[Any], scores: NDArray[Any], expected: Any) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """At least 98 of 100 of detectron2's persons have a partner, which agrees. Returns partners, and who has one."""
    published = expected.pred_boxes.tensor.numpy()
    partner = match_boxes(boxes, published)
    same = partner >= 0
    assert same.mean() >= 0.98
    assert np.abs(boxes[partner[same]] - published[same]).max() <= 0.1
    assert np.abs(scores[partner[same]] - expected.scores.numpy()[same]).max() <= 1e-3
    return partner, same


def test_the_graphs_compute_what_detectron2_computes(theirs: Theirs, bundle: Bundle) -> None:
    image = np.ascontiguousarray(theirs.image[:, ::-1])
    found = run(bundle, "detector", {"image": image, "image_size": np.array([theirs.size], np.int64)})
    for level, expected in theirs.features.items():
        assert_close(found[level], expected)
    expected = persons(theirs.raw)
    count = int(found["count"][0])
    partner, same = assert_same(found["boxes"][0, :count], found["scores"][0], expected)
    chosen = partner[same]
    given = {level: found[level] for level in theirs.features}
    given |= {"boxes": found["boxes"][0, chosen], "index": np.zeros(len(chosen), np.int64)}
    masks = run(bundle, "heads", given | {"classes": np.zeros(len(chosen), np.int64)})["masks"]
    # Boxes that differ in their last digits are sampled at places that do so too.
    assert np.abs(masks - expected.pred_masks[:, 0].numpy()[same]).max() <= 5e-3


def test_pictures_are_resized_as_detectron2_does_but_for_rounding(case: ParityCase, theirs: Theirs) -> None:
    own = view_of(case.arrays["in/image_rgb"], 256, 426)
    # Pillow computes in whole numbers, and rounds between the two directions.
    assert own.shape == theirs.resized.shape
    assert np.abs(own.astype(np.int16) - theirs.resized).max() <= 1


def test_a_frame_gets_detectron2_s_boxes_and_masks(case: ParityCase, theirs: Theirs, bundle: Bundle) -> None:
    frame = Frame(case.arrays["in/image_rgb"])
    expected = persons(theirs.final)
    assert bundle.manifest.detection is not None
    with open_runtime(bundle, "detector") as runtime, open_runtime(bundle, "heads") as heads:
        detector = TwoStageDetector(bundle, runtime, heads, threshold=bundle.manifest.detection.threshold)
        regions = detector.detect(frame)
    partner, same = assert_same(regions.boxes, regions.scores, expected)
    for mask, row in zip(expected.pred_masks.numpy()[same], partner[same], strict=True):
        outline = regions.outline(int(row))
        assert outline is not None
        assert outline.mask is not None
        made = PixelMask(0, 0, np.zeros(mask.shape, np.bool_))
        outline.mask.paint(made)
        # A pixel at exactly one half may fall on either side.
        assert (made.pixels != mask).mean() <= 1e-4
