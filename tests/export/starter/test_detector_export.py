from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from engines.bundle import Bundle, open_bundle
from engines.errors import CheckpointError, ExportError, UsageError
from engines.manifest import SecondLook
from engines.runtime import Runtime
from engines.runtime_onnx import OnnxRuntime
from export import written
from export.graphs import GraphPlan
from export.starter.detector_data import normalised
from export.starter.detector_evaluation import TorchFinder, evaluate
from export.starter.detector_export import BundleOptions, export_starter_detector
from export.starter.detector_graphs import StarterDetector, StarterHeads, evidence
from export.starter.detector_training import load_detector
from export.starter.training import load_checkpoint, save_checkpoint
from stream.detectors.two_stage import TwoStageDetector
from stream.frame import Frame
from stream.regions import Kind, Regions
from tests.export.starter.tiny_people import SIZE, canonical, make_scene, make_scenes
from tests.export.starter.trained import SCENE, bundle_once, trained_once

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_once(tmp_path_factory)


@pytest.fixture(scope="module")
def bundle(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_once(tmp_path_factory)


def runtime(bundle: Bundle, key: str) -> Runtime:
    graph = bundle.graph(key)
    return OnnxRuntime(bundle.file(graph.file), graph, device="cpu")


def detector(bundle: Bundle, threshold: float = 0.3) -> TwoStageDetector:
    return TwoStageDetector(bundle, runtime(bundle, "detector"), runtime(bundle, "heads"), threshold=threshold)


def test_the_bundle_says_what_the_cse_bundle_says(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.kinds == ("person", "face")
    assert manifest.detection is not None
    assert (manifest.detection.architecture, manifest.detection.embedding_channels) == ("cse", 16)
    assert (manifest.detection.min_size, manifest.detection.max_size) == SIZE
    assert manifest.detection.second_look is None
    outputs = {tensor.name: tensor.shape for tensor in bundle.graph("heads").outputs}
    assert outputs == {"coarse_segm": ("R", 2, 112, 112), "embedding": ("R", 16, 112, 112)}
    assert [tensor.name for tensor in bundle.graph("detector").outputs[:5]] == [
        "boxes",
        "scores",
        "classes",
        "count",
        "floor",
    ]
    embeddings = bundle.array("vertex_embeddings")
    assert embeddings.shape == (len(canonical()), 16)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    assert {result.output for result in manifest.parity} == {"pixels", "boxes", "scores", "coarse_segm", "embedding"}


def test_graphs_hold_standard_operators_only(bundle: Bundle) -> None:
    for key in ("detector", "heads"):
        model = onnx.load(bundle.file(bundle.graph(key).file))
        assert {entry.domain for entry in model.opset_import} <= {"", "ai.onnx"}
        assert not model.functions
    operators = [node.op_type for node in onnx.load(bundle.file("detector.onnx")).graph.node]
    # How many rows it gives would depend on the picture.
    assert "NonMaxSuppression" not in operators
    assert "BatchNormalization" not in operators


def test_the_two_stage_detector_finds_what_torch_finds(bundle: Bundle, checkpoint: Path) -> None:
    found = detector(bundle).detect(Frame(SCENE.image))
    network = load_detector(checkpoint).network
    with torch.no_grad():
        image = torch.from_numpy(normalised(SCENE.image))[None]
        graph = StarterDetector(network, threshold=0.3).eval()
        boxes, scores, classes, count, _, pixels = graph(image, torch.tensor([SIZE]))
        boxes, classes = boxes[0, : int(count)], classes[0, : int(count)]
        heads = StarterHeads(body_probability=BundleOptions().body_probability)
        segmented, embedding = heads(pixels, boxes, torch.zeros(len(boxes), dtype=torch.int64))
    assert len(found) == len(boxes) == 4
    assert found.kinds.tolist() == [(Kind.PERSON, Kind.FACE)[kind] for kind in classes.tolist()]
    assert (found.kinds == Kind.PERSON).sum() == 2
    np.testing.assert_allclose(found.boxes, boxes.numpy(), atol=0.05)
    np.testing.assert_allclose(found.scores, scores[0, : int(count)].numpy(), atol=1e-3)
    for index in np.flatnonzero(found.kinds == Kind.PERSON).tolist():
        outline = found.outline(index)
        assert outline is not None
        assert outline.surface is not None
        body = segmented[index].argmax(dim=0).numpy() > 0
        assert 0.4 < body.mean() < 0.99
        assert (outline.surface.segmentation == body).mean() > 0.999
        np.testing.assert_allclose(outline.surface.embedding, embedding[index].numpy(), atol=2e-2)


def test_it_finds_the_tiny_people(checkpoint: Path) -> None:
    """The control of the test above: both could agree on nonsense."""
    made = evaluate(TorchFinder(load_detector(checkpoint), threshold=0.3), make_scenes(12, seed=500), canonical())
    assert made.recall > 0.8
    assert made.precision > 0.8
    assert made.mask_iou > 0.7
    # Of a body that is 180 cm high.
    assert made.surface_median < 25


def people(found: Regions) -> Regions:
    return found[found.kinds == Kind.PERSON]


def test_frames_of_other_sizes_are_looked_at_whole(bundle: Bundle) -> None:
    image = np.repeat(np.repeat(SCENE.image, 3, axis=0), 3, axis=1)
    found, once = (people(detector(bundle).detect(Frame(picture))) for picture in (image, SCENE.image))
    assert len(found) == 2
    np.testing.assert_allclose(found.boxes[np.argsort(found.boxes[:, 0])] / 3, _by_x(once.boxes), atol=8)


def _by_x(boxes: np.ndarray) -> np.ndarray:
    return np.asarray(boxes[np.argsort(boxes[:, 0])])


def test_nobody_is_found_in_an_empty_scene(bundle: Bundle) -> None:
    made = detector(bundle)
    made.prepare(96, 64, 1)
    assert len(made.detect(Frame(make_scene([], 5).image))) == 0


def test_pixels_outside_the_picture_are_no_boxes(bundle: Bundle) -> None:
    padded = np.zeros((1, 3, 64, 128), np.float32)
    padded[0, :, :, :96] = normalised(SCENE.image)
    with runtime(bundle, "detector") as graph:
        found = graph.run({"image": padded, "image_size": np.array([[64, 48]], np.int64)})
    count = int(found["count"][0])
    assert count >= 1
    assert (found["boxes"][0, :count, 2] <= 48).all()
    assert (found["boxes"][0, :count, 0] < 48).all()


def body(coarse: torch.Tensor, logit: float = 20.0) -> torch.Tensor:
    """A map of bodies for it, sure of one everywhere unless told otherwise."""
    return torch.full((len(coarse), 2 * coarse.shape[3], 2 * coarse.shape[4]), logit)


def network_like(checkpoint: Path) -> StarterDetector:
    return StarterDetector(load_detector(checkpoint).network, threshold=0.2, most=3).eval()


def test_boxes_that_are_cut_off_raise_the_floor(checkpoint: Path) -> None:
    graph = network_like(checkpoint)
    coarse = torch.full((1, 2, 5, 8, 12), -10.0)
    coarse[0, :, 1:] = -2
    places = [(1, 1), (1, 5), (5, 1), (5, 5)]
    for rank, (row, column) in enumerate(places):
        coarse[0, 0, 0, row, column] = 2.0 - 0.5 * rank
    size = torch.tensor([[64, 96]])
    _, scores, _, count, floor = graph.decide(coarse, body(coarse), size)
    assert count.tolist() == [3]
    assert floor.item() == pytest.approx(scores[0, 2].item()) == pytest.approx(float(torch.sigmoid(torch.tensor(1.0))))
    coarse[0, 0, 0, 5, 5] = -10
    assert graph.decide(coarse, body(coarse), size)[4].item() == 0


def test_a_centre_without_a_body_counts_less(checkpoint: Path) -> None:
    graph = network_like(checkpoint)
    coarse = torch.full((1, 2, 5, 8, 12), -10.0)
    coarse[0, 0, 0, 3, 3] = 2.0
    size, raw = torch.tensor([[64, 96]]), float(torch.sigmoid(torch.tensor(2.0)))
    for logit in (20.0, 0.0, -2.0):
        likely = float(torch.sigmoid(torch.tensor(logit)))
        _, scores, _, count, _ = graph.decide(coarse, body(coarse, logit), size)
        assert count.tolist() == [1]
        assert scores[0, 0].item() == pytest.approx(raw * likely**0.5, rel=1e-4)
    assert graph.decide(coarse, body(coarse, -6.0), size)[3].tolist() == [0]


def test_a_body_is_looked_for_in_the_box_alone() -> None:
    likely = torch.zeros(1, 16, 24)
    likely[0, 4, 6] = 0.7
    boxes = torch.tensor([[[20.0, 12.0, 32.0, 24.0], [40.0, 12.0, 60.0, 24.0], [-50.0, -50.0, 500.0, 500.0]]])
    found = evidence(boxes, likely)
    assert found.tolist()[0][:2] == [pytest.approx(0.7), 0.0]
    assert found.isfinite().all()


def test_a_lower_place_beside_a_peak_is_no_second_person(checkpoint: Path) -> None:
    graph = network_like(checkpoint)
    coarse = torch.full((1, 2, 5, 8, 12), -10.0)
    coarse[0, 0, 0, 3, 3], coarse[0, 0, 0, 3, 4] = 2, 1
    assert graph.decide(coarse, body(coarse), torch.tensor([[64, 96]]))[3].tolist() == [1]


def test_a_head_in_a_persons_box_is_found_as_well(checkpoint: Path) -> None:
    graph = network_like(checkpoint)
    coarse = torch.full((1, 2, 5, 8, 12), -10.0)
    coarse[0, :, 1:] = -1
    coarse[0, 0, 0, 3, 3], coarse[0, 1, 0, 3, 3] = 1, 2
    boxes, scores, classes, count, _ = graph.decide(coarse, body(coarse), torch.tensor([[64, 96]]))
    assert count.tolist() == [2]
    assert classes[0, :2].tolist() == [1, 0]
    torch.testing.assert_close(boxes[0, 0], boxes[0, 1])
    assert scores[0, 0] > scores[0, 1]


def test_a_broken_network_is_not_an_empty_street(checkpoint: Path) -> None:
    graph = network_like(checkpoint)
    image = torch.zeros(2, 3, 64, 96)
    image[1, 0, 0, 0] = float("nan")
    with torch.no_grad():
        _, scores, _, count, _, _ = graph(image, torch.tensor([[64, 96]] * 2))
    assert not scores[0].isnan().any()
    assert scores[1].isnan().all()
    assert count[1] == 3


def test_of_two_bodies_in_a_box_the_one_whose_box_it_is_counts() -> None:
    pixels = torch.full((1, 19, 16, 24), -5.0)
    pixels[:, 1:3] = 0
    y, x = torch.meshgrid(torch.arange(16) * 4.0 + 2, torch.arange(24) * 4.0 + 2, indexing="ij")
    for x0, x1 in ((0, 48), (48, 96)):
        there = (x >= x0) & (x < x1)
        pixels[0, 0, there] = 5
        pixels[0, 1, there] = ((x0 + x1) / 2 - x[there]) / 32
        pixels[0, 2, there] = (32 - y[there]) / 32
    boxes = torch.tensor([[0.0, 0.0, 48.0, 64.0], [0.0, 0.0, 64.0, 64.0]])
    segmented, embedding = StarterHeads()(pixels, boxes, torch.zeros(2, dtype=torch.int64))
    body = segmented.argmax(dim=1) == 1
    assert body[0].float().mean() > 0.97
    # The second box reaches 16 pixels into the other person, who is not in it.
    assert body[1, :, :80].float().mean() > 0.95
    assert body[1, :, 88:].float().mean() < 0.05
    assert embedding.shape == (2, 16, 112, 112)


def test_a_lower_probability_covers_more() -> None:
    pixels = torch.zeros(1, 19, 8, 8)
    pixels[0, 0] = -1
    box, index = torch.tensor([[8.0, 8.0, 24.0, 24.0]]), torch.zeros(1, dtype=torch.int64)
    covered = [
        int((StarterHeads(body_probability=p)(pixels, box, index)[0].argmax(dim=1) == 1).sum()) for p in (0.5, 0.2)
    ]
    assert covered[0] == 0 < covered[1]


@pytest.mark.thorough
def test_sizes_may_be_fixed(checkpoint: Path, tmp_path: Path) -> None:
    options = BundleOptions(input_size=(64, 96), view=SIZE, near=40, near_scale=0.5)
    made = export_starter_detector(checkpoint, tmp_path / "fixed", options)
    assert made.manifest.detection is not None
    assert made.manifest.detection.second_look == SecondLook(from_size=40, scale=0.5)
    assert made.graph("detector").inputs[0].shape == ("N", 3, 64, 96)
    assert len(people(detector(made).detect(Frame(SCENE.image)))) == 2


def test_a_graph_that_differs_is_not_written(
    checkpoint: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = load_checkpoint(checkpoint)
    state["task"]["average"]["0.fine_head.1.weight"] *= 1.1
    save_checkpoint(tmp_path / "changed.pt", state)

    def write_another(plan: GraphPlan, path: Path, opset: int) -> None:
        path.write_bytes(bundle.file(plan.file).read_bytes())

    monkeypatch.setattr(written, "write_onnx", write_another)
    with pytest.raises(ExportError, match=r"detector\.onnx differs .*: pixels by"):
        export_starter_detector(tmp_path / "changed.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # The control: unchanged weights fit the graph.
    export_starter_detector(checkpoint, tmp_path / "out", BundleOptions(threshold=0.2))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (BundleOptions(body_probability=0), "not between 0 and 1"),
        (BundleOptions(input_size=(60, 96)), "multiples of 32"),
        (BundleOptions(near=-1), "near is -1"),
        (BundleOptions(near_scale=1.0), "near scale 1.0 is not from 0.1 to 0.9"),
    ],
)
def test_options_that_cannot_be_are_refused(
    checkpoint: Path, tmp_path: Path, options: BundleOptions, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        export_starter_detector(checkpoint, tmp_path / "out", options)


def test_a_checkpoint_of_something_else_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    state = load_checkpoint(checkpoint)
    del state["task"]["anchors"]
    save_checkpoint(tmp_path / "a.pt", state)
    with pytest.raises(CheckpointError, match="is not a detector's"):
        export_starter_detector(tmp_path / "a.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bundle_is_opened_again(bundle: Bundle) -> None:
    assert open_bundle(bundle.path).digest == bundle.digest
