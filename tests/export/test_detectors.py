"""From a detectron2 checkpoint to a bundle: what runs in ONNX Runtime finds what the networks find."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from engines.bundle import Bundle, open_bundle
from engines.errors import CheckpointError, ExportError, UsageError
from engines.runtime_onnx import OnnxRuntime
from export.detector_checkpoint import build_networks, load_detector
from export.detector_parity import match_boxes, measure_detections
from export.detectors import export_detector
from export.detectron2_configs import DetectorConfig
from export.graphs import GraphPlan
from export.models.cse import DenseSpec
from export.models.rcnn import BackboneSpec, BoxSpec, MaskSpec
from export.models.rpn import ProposalSpec
from tests.export.bundles import refused_by_tensorrt

Arrays = Mapping[str, NDArray[Any]]

BACKBONE = BackboneSpec(blocks=(1, 2, 1, 1), stem_channels=8, res2_channels=16, width_per_group=4, channels=32)
MASKS = DetectorConfig(
    name="tiny-masks",
    export="maskrcnn",
    backbone=BACKBONE,
    proposals=ProposalSpec(level_candidates=120, proposals=60),
    box=BoxSpec(classes=3, width=24),
    mask=MaskSpec(channels=16, convs=2),
    pixel_std=(57.375, 57.12, 58.395),
    threshold=0.2,
    most=12,
    kinds=((0, "person"), (2, "face")),
)
DENSE = replace(
    MASKS,
    name="tiny-dense",
    export="cse",
    box=BoxSpec(classes=1, width=24),
    mask=None,
    dense=DenseSpec(
        head="deeplab",
        decoder_width=32,
        decoder_channels=64,
        layers=2,
        width=64,
        vertices=40,
        features=8,
    ),
    kinds=((0, "person"),),
)


def weights(config: DetectorConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights as a trainer would save them."""
    torch.manual_seed(seed)
    state: dict[str, torch.Tensor] = {}
    for network in build_networks(config):
        state |= network.state_dict()
    return {name: drawn(name, tensor) for name, tensor in state.items()}


def drawn(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Numbers that keep activations near 1 through all layers, and decisions away from being sure."""
    if tensor.ndim > 1:
        unsure = 0.2 if re.search("cls_score|bbox_pred|objectness_logits|anchor_deltas", name) else 1.0
        return torch.randn(tensor.shape) * unsure * float(np.sqrt(2 / tensor[0].numel()))
    if name.endswith((".weight", ".running_var")):
        return 0.6 + 0.2 * torch.rand(tensor.shape)
    return 0.1 * torch.randn(tensor.shape)


def saved(path: Path, state: Mapping[str, torch.Tensor]) -> Path:
    torch.save({"model": dict(state), "iteration": 9}, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("detectors")
    saved(made / "masks.pth", weights(MASKS))
    saved(made / "dense.pth", weights(DENSE))
    return made


@pytest.fixture(scope="module")
def masks(folder: Path) -> Bundle:
    return export_detector("maskrcnn", folder / "masks.pth", folder / "masks", config=MASKS)


@pytest.fixture(scope="module")
def dense(folder: Path) -> Bundle:
    return export_detector("cse", folder / "dense.pth", folder / "dense", config=DENSE, input_size=(128, 192))


def test_tensorrt_takes_every_graph(masks: Bundle, dense: Bundle) -> None:
    assert refused_by_tensorrt(masks) == []
    assert refused_by_tensorrt(dense) == []


def run(bundle: Bundle, graph: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
    with OnnxRuntime(bundle.path / f"{graph}.onnx", bundle.manifest.graphs[graph], device="cpu") as runtime:
        return runtime.run(dict(inputs))


def pictures(frames: int, height: int, width: int) -> dict[str, NDArray[Any]]:
    draw = np.random.default_rng(5)
    image = draw.normal(0, 1.2, (frames, 3, height, width)).astype(np.float32)
    sizes = np.array([[height - 9 * i, width - 30 * i] for i in range(frames)], np.int64)
    for picture, (h, w) in zip(image, sizes, strict=True):
        picture[:, h:] = 0
        picture[:, :, w:] = 0
    return {"image": image, "image_size": sizes}


def published(config: DetectorConfig, path: Path, inputs: Arrays) -> list[NDArray[Any]]:
    """What the network gives that takes BGR."""
    detector, _ = load_detector(path, config)
    image = torch.from_numpy(inputs["image"]).flip(1)
    return [values.numpy() for values in detector(image, torch.from_numpy(inputs["image_size"]))]


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 96, 160), (3, 224, 128)])
def test_any_number_of_frames_of_any_size_gives_what_the_network_gives(
    masks: Bundle, folder: Path, frames: int, height: int, width: int
) -> None:
    inputs = pictures(frames, height, width)
    found = run(masks, "detector", inputs)
    expected = published(MASKS, folder / "masks.pth", inputs)
    names = [tensor.name for tensor in masks.manifest.graphs["detector"].outputs]
    assert list(found) == names
    for name, values in zip(names, expected, strict=True):
        assert found[name].shape == values.shape
        if name.startswith("p"):
            np.testing.assert_allclose(found[name], values, atol=1e-3)
    assert found["count"].min() > 0
    assert found["count"].tolist() == expected[3].tolist()
    for frame, count in enumerate(found["count"]):
        partner = match_boxes(found["boxes"][frame, :count], expected[0][frame, :count])
        assert (partner >= 0).mean() >= 0.98
        np.testing.assert_allclose(found["scores"][frame], expected[1][frame], atol=1e-3)
        height_limit, width_limit = inputs["image_size"][frame]
        assert (found["boxes"][frame] <= [width_limit, height_limit, width_limit, height_limit]).all()


def heads_inputs(bundle: Bundle, inputs: Arrays) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """What a program gives to the heads: the features, and the boxes of all frames one after the other."""
    found = run(bundle, "detector", inputs)
    index = np.repeat(np.arange(len(found["count"])), found["count"]).astype(np.int64)
    given = {name: found[name] for name in ("p2", "p3", "p4", "p5")}
    for name in ("boxes", "classes"):
        given[name] = np.concatenate([found[name][i, :n] for i, n in enumerate(found["count"])])
    return given | {"index": index}, found


def test_masks_of_the_boxes_that_survived_are_the_network_s(masks: Bundle, folder: Path) -> None:
    given, _ = heads_inputs(masks, pictures(2, 128, 160))
    found = run(masks, "heads", given)["masks"]
    _, heads = load_detector(folder / "masks.pth", MASKS)
    names = [tensor.name for tensor in masks.manifest.graphs["heads"].inputs]
    expected = heads(*(torch.from_numpy(given[name]) for name in names))
    assert found.shape == (len(given["boxes"]), 28, 28)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-3)


def test_dense_pose_of_the_boxes_that_survived_is_the_network_s(dense: Bundle, folder: Path) -> None:
    given, _ = heads_inputs(dense, pictures(2, 128, 192))
    del given["classes"]
    found = run(dense, "heads", given)
    _, heads = load_detector(folder / "dense.pth", DENSE)
    names = [tensor.name for tensor in dense.manifest.graphs["heads"].inputs]
    coarse, embedding = heads(*(torch.from_numpy(given[name]) for name in names))
    for name, values in (("coarse_segm", coarse), ("embedding", embedding)):
        np.testing.assert_allclose(found[name], values.numpy(), atol=1e-3 * max(1.0, float(values.std())))
    vertices = dense.array("vertex_embeddings")
    assert vertices.shape == (40, 16)
    np.testing.assert_allclose(np.linalg.norm(vertices, axis=1), 1, atol=1e-5)


def test_a_frame_that_is_not_a_number_is_not_taken_for_an_empty_one(masks: Bundle) -> None:
    inputs = pictures(2, 96, 160)
    inputs["image"][1, 0, 3, 3] = np.nan
    found = run(masks, "detector", inputs)
    assert np.isfinite(found["scores"][0]).all()
    assert np.isnan(found["scores"][1]).all()
    assert found["count"][1] == MASKS.most


def test_graphs_have_no_custom_operator_and_no_best_of_more_than_tensorrt_takes(masks: Bundle, dense: Bundle) -> None:
    for bundle in (masks, dense):
        for graph in bundle.manifest.graphs.values():
            model = onnx.load(bundle.path / graph.file)
            assert [entry.domain for entry in model.opset_import] == [""]
            assert not model.functions
            assert {node.domain for node in model.graph.node} == {""}
            constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
            for node in model.graph.node:
                if node.op_type == "TopK":
                    assert constants[node.input[1]].max() <= 3840


def test_the_manifest_says_what_feeds_and_reads_it(masks: Bundle, dense: Bundle) -> None:
    manifest = masks.manifest
    assert manifest.kinds == ("person", "face")
    # The network takes BGR; the bundle RGB.
    assert manifest.normalisation.mean == (123.675, 116.28, 103.53)
    assert manifest.normalisation.std == (58.395, 57.12, 57.375)
    assert manifest.normalisation.multiple == 32
    assert manifest.detection is not None
    assert manifest.detection.architecture == "mask-rcnn"
    assert (manifest.detection.min_size, manifest.detection.max_size) == (800, 1333)
    assert {(result.graph, result.output) for result in manifest.parity} >= {("detector", "p2"), ("heads", "masks")}
    assert dense.manifest.detection is not None
    assert dense.manifest.detection.embedding_channels == 16
    assert dense.manifest.graphs["detector"].inputs[0].shape == ("N", 3, 128, 192)
    assert open_bundle(masks.path).manifest == manifest


def test_a_pickle_of_the_model_zoo_is_read_as_well_as_a_trainer_s_file(tmp_path: Path) -> None:
    state = weights(MASKS)
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}))
    for network, other in zip(
        load_detector(tmp_path / "zoo.pkl", MASKS),
        load_detector(saved(tmp_path / "own.pth", state), MASKS),
        strict=True,
    ):
        for name, values in network.state_dict().items():
            assert torch.equal(values, other.state_dict()[name])


def deeper(state: dict[str, torch.Tensor]) -> None:
    for name in [name for name in state if ".res3.1." in name]:
        state[name.replace(".res3.1.", ".res3.2.")] = state[name]


def broken(state: dict[str, torch.Tensor]) -> None:
    state["roi_heads.box_head.fc1.bias"][0] = float("nan")


def other_pixels(state: dict[str, torch.Tensor]) -> None:
    state["pixel_mean"] = torch.tensor([0.0, 0.0, 0.0]).view(3, 1, 1)


def other_anchors(state: dict[str, torch.Tensor]) -> None:
    state["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)


def incomplete(state: dict[str, torch.Tensor]) -> None:
    del state["roi_heads.mask_head.deconv.weight"]


def no_detector(state: dict[str, torch.Tensor]) -> None:
    for name in list(state):
        state[f"encoder.{name}"] = state.pop(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (deeper, "have no place in tiny-masks: backbone.bottom_up.res3.2"),
        (broken, "fc1.bias is not made of finite"),
        (other_pixels, "pixel_mean is [0.0, 0.0, 0.0]"),
        (other_anchors, "cell_anchors.0"),
        (incomplete, "lacks 1 of"),
        (no_detector, "no detector of detectron2"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    state = weights(MASKS)
    change(state)
    with pytest.raises(CheckpointError) as caught:
        load_detector(saved(tmp_path / "x.pth", state), MASKS)
    assert message in str(caught.value)


def test_what_lies_beside_the_weights_is_left(tmp_path: Path) -> None:
    state = weights(MASKS) | {
        "pixel_mean": torch.tensor(MASKS.pixel_mean).view(3, 1, 1),
        "backbone.bottom_up.stem.conv1.norm.num_batches_tracked": torch.tensor(3),
    }
    assert load_detector(saved(tmp_path / "x.pth", state), MASKS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": None}, "--config NAME"),
        ({"config": DENSE}, "is for 'cse'"),
        ({"input_size": (100, 160)}, "give 128x160"),
        ({"opset": 9}, "opset 9"),
        ({"classes": {7: "person"}}, "classes [7]"),
        ({"classes": {}}, "classes []"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_read(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        export_detector("maskrcnn", tmp_path / "missing", tmp_path / "out", **{"config": MASKS, **options})
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="not an empty folder"):
        export_detector("maskrcnn", tmp_path / "missing", tmp_path, config=MASKS)


def test_a_graph_that_finds_something_else_is_not_verified(masks: Bundle, folder: Path) -> None:
    graph, inputs = masks.manifest.graphs["detector"], pictures(2, 96, 160)
    outputs = published(MASKS, folder / "masks.pth", inputs)
    expected = {tensor.name: values for tensor, values in zip(graph.outputs, outputs, strict=True)}
    plan = GraphPlan("detector", graph.file, torch.nn.Identity(), graph.inputs, graph.outputs, inputs)
    path = masks.path / graph.file
    assert {result.output for result in measure_detections(plan, path, expected)} >= {"boxes", "scores", "p5"}
    for name in ("boxes", "scores", "p3"):
        changed = expected | {name: expected[name] + 0.5}
        with pytest.raises(ExportError, match=name):
            measure_detections(plan, path, changed)
    moved = expected | {"boxes": expected["boxes"] + 40}
    with pytest.raises(ExportError, match=r"of \d+ boxes"):
        measure_detections(plan, path, moved)
