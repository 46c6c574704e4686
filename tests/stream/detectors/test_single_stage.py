"""Detectors whose whole answer is in one graph."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from skimage import data

from benchmarks.common import covered_share
from engines.bundle import Bundle, open_bundle, write_bundle
from engines.errors import BundleError, DetectionError
from engines.manifest import Graph, ManifestDraft, Normalisation, Provenance, Tensor
from engines.runtime import Runtime, open_runtime
from stream.detectors.single_stage import SingleStageDetector
from stream.frame import Frame, Image
from stream.geometry import grow
from stream.regions import Kind
from tests.engines.importers.networks import imported, segmentation

_MOST = 6


def _graph(height: int | str = "h", width: int | str = "w") -> Graph:
    return Graph(
        file="detector.onnx",
        inputs=(
            Tensor(name="image", dtype="float32", shape=("N", 3, height, width), meaning="picture"),
            Tensor(name="image_size", dtype="int64", shape=("N", 2), meaning="height and width before padding"),
        ),
        outputs=(Tensor(name="boxes", dtype="float32", shape=("N", "M", 4), meaning="places"),),
    )


class _Canned(Runtime):
    """A runtime that always gives the same answer, and keeps what it was fed."""

    def __init__(self, boxes: list[list[float]], scores: list[float], changes: Mapping[str, Any] | None = None) -> None:
        super().__init__(_graph(), "cpu")
        count = len(boxes)
        padded = np.zeros((1, _MOST, 4), np.float32)
        padded[0, :count] = np.array(boxes, np.float32).reshape(-1, 4)
        weights = np.zeros((1, _MOST), np.float32)
        weights[0, :count] = scores
        self.answer = {
            "boxes": padded,
            "scores": weights,
            "classes": np.zeros((1, _MOST), np.int64),
            "count": np.array([count], np.int64),
            "floor": np.zeros(1, np.float32),
        } | dict(changes or {})
        self.feeds: Mapping[str, Any] = {}
        self.runs = 0

    @property
    def provider(self) -> str:
        return "canned"

    def _run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        self.feeds = feeds
        self.runs += 1
        return self.answer

    def close(self) -> None:
        self.answer = {}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    draft = ManifestDraft(
        name="canned",
        task="detection",
        family="test",
        kinds=("face", "plate"),
        graphs={"detector": _graph()},
        normalisation=Normalisation(colour="rgb", mean=(10, 20, 30), std=(2, 4, 5), multiple=32),
        licence="MIT",
        provenance=Provenance(artefact="canned", source="code", sha256="0" * 64, homepage="https://example.org"),
        exporter="test",
    )
    return write_bundle(tmp_path / "canned", draft, {"detector.onnx": b"never opened"})


def _fixed(bundle: Bundle, folder: Path, fit: Literal["pad", "stretch"]) -> Bundle:
    """The bundle again, of a network that takes pictures of 96x128 only."""
    normal = bundle.manifest.normalisation.model_copy(update={"fit": fit})
    kept = bundle.manifest.model_dump(exclude={"files", "graphs", "normalisation"})
    draft = ManifestDraft(**kept, graphs={"detector": _graph(96, 128)}, normalisation=normal)
    return write_bundle(folder / fit, draft, {"detector.onnx": b"never opened"})


def _frame(width: int = 100, height: int = 60, **changes: Any) -> Frame:
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0], picture[..., 1], picture[..., 2] = 50, 100, 230
    return Frame(picture, **changes)


def _detector(bundle: Bundle, runtime: Runtime, *, longest: int = 1280) -> SingleStageDetector:
    return SingleStageDetector(bundle, runtime, longest=longest, threshold=0.2)


def test_the_network_gets_the_normalised_padded_picture_and_its_size(bundle: Bundle) -> None:
    runtime = _Canned([], [])
    regions = _detector(bundle, runtime).detect(_frame())
    assert len(regions) == 0
    image = runtime.feeds["image"]
    assert image.shape == (1, 3, 64, 128)
    assert image.dtype == np.float32
    assert runtime.feeds["image_size"].tolist() == [[60, 100]]
    assert image[0, :, 0, 0].tolist() == [20.0, 20.0, 40.0]


def test_inputs_are_what_the_network_gets(bundle: Bundle) -> None:
    runtime = _Canned([], [])
    detector = _detector(bundle, runtime, longest=64)
    inputs = detector.inputs(_frame())
    assert runtime.runs == 0
    detector.detect(_frame())
    assert inputs.keys() == runtime.feeds.keys()
    for name, array in inputs.items():
        np.testing.assert_array_equal(array, runtime.feeds[name])


def test_preparing_runs_on_flat_frames_of_the_size_to_come(bundle: Bundle) -> None:
    runtime = _Canned([], [])
    _detector(bundle, runtime).prepare(100, 60, parallel=3)
    assert runtime.runs == 3
    assert runtime.feeds["image_size"].tolist() == [[60, 100]]


def test_an_engine_that_cannot_run_is_noticed_before_the_first_frame(bundle: Bundle) -> None:
    runtime = _Canned([[0, 0, 9, 9]], [0.9], {"scores": np.full((1, _MOST), np.nan, np.float32)})
    with pytest.raises(DetectionError):
        _detector(bundle, runtime).prepare(100, 60, parallel=1)


def test_boxes_come_back_in_pixels_of_the_frame(bundle: Bundle) -> None:
    runtime = _Canned([[10, 5, 20, 15]], [0.9])
    regions = _detector(bundle, runtime, longest=50).detect(_frame())
    np.testing.assert_allclose(regions.boxes, [[20, 10, 40, 30]])
    assert regions.scores.tolist() == pytest.approx([0.9])


def test_boxes_come_back_in_stored_pixels_where_pixels_are_not_square(bundle: Bundle) -> None:
    runtime = _Canned([[10, 5, 20, 15]], [0.9])
    regions = _detector(bundle, runtime).detect(_frame(pixel_aspect=Fraction(2)))
    np.testing.assert_allclose(regions.boxes, [[5, 5, 10, 15]])


@pytest.mark.parametrize(
    ("fit", "inside", "expected"),
    [("pad", (60, 128), [500, 250, 1000, 500]), ("stretch", (96, 128), [500, 156.25, 1000, 312.5])],
)
def test_a_network_of_one_size_gets_every_frame_at_that_size_once(
    bundle: Bundle, tmp_path: Path, fit: Literal["pad", "stretch"], inside: tuple[int, int], expected: list[float]
) -> None:
    runtime = _Canned([[50, 25, 100, 50]], [0.9])
    frame = _frame(1280, 600)
    regions = SingleStageDetector(_fixed(bundle, tmp_path, fit), runtime, longest=1280, threshold=0.2).detect(frame)
    assert runtime.runs == 1
    assert runtime.feeds["image"].shape == (1, 3, 96, 128)
    assert runtime.feeds["image_size"].tolist() == [list(inside)]
    np.testing.assert_allclose(regions.boxes, [expected])


def test_masks_become_outlines_of_persons_only(bundle: Bundle, tmp_path: Path) -> None:
    kept = bundle.manifest.model_dump(exclude={"files", "kinds"})
    draft = ManifestDraft(**kept | {"kinds": ("face", "person")})
    people = write_bundle(tmp_path / "people", draft, {"detector.onnx": b"never opened"})
    masks = np.zeros((1, _MOST, 16, 32), np.uint8)
    masks[0, 1, 2:8, 2:6] = 255
    masks[0, 2] = 255
    classes = np.array([[1, 1, 0, 0, 0, 0]], np.int64)
    runtime = _Canned(
        [[0, 0, 1, 1], [4, 4, 28, 36], [40, 4, 60, 20]], [0.1, 0.9, 0.8], {"masks": masks, "classes": classes}
    )
    regions = _detector(people, runtime).detect(_frame())
    assert regions.kinds.tolist() == [Kind.PERSON, Kind.FACE]
    outline = regions.outline(0)
    assert outline is not None
    assert outline.mask is not None
    tight = outline.mask.tight().box
    np.testing.assert_allclose(tight, [8, 8, 24, 32], atol=1)
    assert regions.outline(1) is None


def test_an_imported_detector_runs_from_the_file_to_the_frame(tmp_path: Path) -> None:
    # The network sees 96x64 pixels; the frame has four times as many each way.
    with open_runtime(imported(segmentation(), tmp_path, "yolo-seg")) as runtime:
        bundle = open_bundle(tmp_path / "bundle")
        regions = SingleStageDetector(bundle, runtime, longest=1280, threshold=0.2).detect(_frame(384, 256))
    assert regions.kinds.tolist() == [Kind.PERSON, Kind.FACE]
    np.testing.assert_allclose(regions.boxes, [[128, 80, 256, 176], [288, 96, 352, 160]], atol=1e-3)
    outline = regions.outline(0)
    assert outline is not None
    assert outline.mask is not None
    np.testing.assert_allclose(outline.mask.tight().box, [128, 80, 192, 176], atol=2)


def test_a_detector_that_takes_no_picture_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    kept = bundle.manifest.model_dump(exclude={"files", "graphs"})
    size = Tensor(name="image_size", dtype="int64", shape=("N", 2), meaning="height and width")
    graph = _graph().model_copy(update={"inputs": (size,)})
    draft = ManifestDraft(**kept, graphs={"detector": graph})
    blind = write_bundle(tmp_path / "blind", draft, {"detector.onnx": b"never opened"})
    with pytest.raises(BundleError, match="takes no image"):
        _detector(blind, _Canned([], []))


def test_what_is_under_the_threshold_is_left_out(bundle: Bundle) -> None:
    runtime = _Canned([[0, 0, 9, 9], [10, 0, 19, 9], [20, 0, 29, 9]], [0.9, 0.2, 0.19])
    assert _detector(bundle, runtime).detect(_frame()).boxes[:, 0].tolist() == [0, 10]


def test_classes_become_the_kinds_that_the_manifest_names(bundle: Bundle) -> None:
    classes = np.array([[1, 0, 0, 0, 0, 0]], np.int64)
    runtime = _Canned([[0, 0, 9, 9], [10, 0, 19, 9]], [0.9, 0.8], {"classes": classes})
    assert _detector(bundle, runtime).detect(_frame()).kinds.tolist() == [Kind.PLATE, Kind.FACE]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"classes": np.full((1, _MOST), 2, np.int64)}, "class"),
        ({"classes": np.full((1, _MOST), -1, np.int64)}, "class"),
        ({"floor": np.array([0.2], np.float32)}, "more candidates"),
        ({"floor": np.array([np.nan], np.float32)}, "more candidates"),
        ({"scores": np.full((1, _MOST), np.nan, np.float32)}, "finite"),
        ({"boxes": np.full((1, _MOST, 4), np.nan, np.float32)}, "finite"),
    ],
)
def test_an_answer_that_cannot_be_trusted_is_an_error(bundle: Bundle, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(DetectionError, match=says):
        _detector(bundle, _Canned([[0, 0, 9, 9]], [0.9], changes)).detect(_frame())


@pytest.fixture
def astronaut() -> Image:
    return np.ascontiguousarray(data.astronaut())  # type: ignore[no-untyped-call]


def test_centerface_finds_the_astronaut(centerface: Bundle, astronaut: Image) -> None:
    with open_runtime(centerface) as runtime:
        regions = SingleStageDetector(centerface, runtime, longest=1280, threshold=0.5).detect(Frame(astronaut))
    assert len(regions) == 1
    x0, y0, x1, y1 = regions.boxes[0]
    assert 150 < x0 < 200 < 240 < x1 < 290
    assert 40 < y0 < 100 < 150 < y1 < 230


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (33, 31), (1279, 721)])
def test_centerface_takes_frames_of_any_size(centerface: Bundle, astronaut: Image, size: tuple[int, int]) -> None:
    with open_runtime(centerface) as runtime:
        detector = SingleStageDetector(centerface, runtime, longest=1280, threshold=0.2)
        height, width = size
        tiled = np.tile(astronaut, (2, 3, 1))[:height, :width]
        regions = detector.detect(Frame(np.ascontiguousarray(tiled)))
    assert (regions.boxes[:, 0] < width).all()
    assert (regions.boxes[:, 1] < height).all()


@pytest.mark.parametrize("high", [200, 400, 600, 900])
def test_a_face_is_covered_however_much_of_the_frame_it_fills(centerface: Bundle, astronaut: Image, high: int) -> None:
    with open_runtime(centerface) as runtime:
        detector = SingleStageDetector(centerface, runtime, longest=1280, threshold=0.2)
        (face,) = detector.detect(Frame(astronaut)).boxes
        scale = high / float(face[3] - face[1])
        picture = cv2.resize(astronaut, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        left, top = (max(0, int(v * scale) - 200) for v in face[:2])
        shown = np.asarray(picture[top : top + 720, left : left + 1280], np.uint8)
        visible = np.clip(face * scale - [left, top, left, top], 0, [shown.shape[1], shown.shape[0]] * 2)
        found = grow(detector.detect(Frame(np.ascontiguousarray(shown))).boxes, 0.2)
    assert len(found)
    assert max(covered_share(visible, [box]) for box in found) >= 0.95


def test_two_faces_side_by_side_stay_two_regions(centerface: Bundle, astronaut: Image) -> None:
    pair = np.ascontiguousarray(np.concatenate([astronaut, astronaut[:, ::-1]], axis=1))
    with open_runtime(centerface) as runtime:
        assert len(SingleStageDetector(centerface, runtime, longest=1280, threshold=0.5).detect(Frame(pair))) == 2
