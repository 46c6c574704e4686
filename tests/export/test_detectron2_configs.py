"""Declared configs, and those that YAML files of detectron2 describe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engines.errors import UsageError
from export.detector_checkpoint import build_networks
from export.detectron2_configs import (
    DetectorConfig,
    choose_detector_config,
    detector_configs,
    read_detectron2_config,
)
from tests.export.detector_cases import all_cases, config_of
from tests.parity import ParityCase

BASE = """
MODEL:
  META_ARCHITECTURE: "GeneralizedRCNN"
  BACKBONE:
    NAME: "build_resnet_fpn_backbone"
  RESNETS:
    OUT_FEATURES: ["res2", "res3", "res4", "res5"]
  FPN:
    IN_FEATURES: ["res2", "res3", "res4", "res5"]
  ANCHOR_GENERATOR:
    SIZES: [[32], [64], [128], [256], [512]]
    ASPECT_RATIOS: [[0.5, 1.0, 2.0]]
  RPN:
    IN_FEATURES: ["p2", "p3", "p4", "p5", "p6"]
    PRE_NMS_TOPK_TEST: 1000
    POST_NMS_TOPK_TEST: 1000
  ROI_HEADS:
    NAME: "StandardROIHeads"
    IN_FEATURES: ["p2", "p3", "p4", "p5"]
  ROI_BOX_HEAD:
    NAME: "FastRCNNConvFCHead"
    NUM_FC: 2
    POOLER_RESOLUTION: 7
  ROI_MASK_HEAD:
    NUM_CONV: 4
VERSION: 2
"""
RESNEXT = """
_BASE_: "base.yaml"
MODEL:
  MASK_ON: True
  PIXEL_STD: [57.375, 57.120, 58.395]
  RESNETS:
    STRIDE_IN_1X1: False
    NUM_GROUPS: 32
    WIDTH_PER_GROUP: 8
    DEPTH: 101
"""
CSE = """
_BASE_: "base.yaml"
MODEL:
  RESNETS:
    DEPTH: 101
  DENSEPOSE_ON: True
  ROI_HEADS:
    NAME: "DensePoseROIHeads"
    NUM_CLASSES: 1
  ROI_BOX_HEAD:
    POOLER_SAMPLING_RATIO: 2
    POOLER_TYPE: "ROIAlign"
  ROI_DENSEPOSE_HEAD:
    NAME: "DensePoseDeepLabHead"
    POOLER_TYPE: "ROIAlign"
    PREDICTOR_NAME: "DensePoseEmbeddingPredictor"
    CSE:
      EMBEDDERS:
        "smpl_27554":
          TYPE: vertex_feature
          NUM_VERTICES: 27554
          FEATURE_DIM: 256
        "cat_5001":
          TYPE: vertex_feature
"""


def read(folder: Path, text: str, base: str = BASE, name: str = "own") -> DetectorConfig:
    (folder / "base.yaml").write_text(base)
    (folder / f"{name}.yaml").write_text(text)
    return read_detectron2_config(folder / f"{name}.yaml")


def bare(config: DetectorConfig) -> DetectorConfig:
    """Without what a YAML file does not say of published weights."""
    return replace(config, name="", licence="", homepage="", source=None)


@pytest.mark.parametrize(
    ("text", "name"),
    [(RESNEXT, "mask_rcnn_X_101_32x8d_FPN_3x"), (CSE, "densepose_rcnn_R_101_FPN_DL_soft_s1x")],
)
def test_published_files_say_what_is_declared(tmp_path: Path, text: str, name: str) -> None:
    assert bare(read(tmp_path, text)) == bare(detector_configs()[name])


def test_one_s_own_settings_are_read(tmp_path: Path) -> None:
    made = read(
        tmp_path,
        """
_BASE_: base.yaml
MODEL:
  MASK_ON: True
  ROI_HEADS: {NUM_CLASSES: 3, SCORE_THRESH_TEST: 0.4, NMS_THRESH_TEST: 0.6}
  ROI_MASK_HEAD: {CLS_AGNOSTIC_MASK: True}
  RPN: {NMS_THRESH: 0.8, POST_NMS_TOPK_TEST: 300}
INPUT: {MIN_SIZE_TEST: 640, MAX_SIZE_TEST: 1000, FORMAT: "RGB"}
TEST: {DETECTIONS_PER_IMAGE: 40}
""",
    )
    assert made.mask is not None
    assert made.mask.class_agnostic
    assert (made.box.classes, made.threshold, made.box.iou) == (3, 0.4, 0.6)
    assert (made.proposals.iou, made.proposals.proposals) == (0.8, 300)
    assert (made.min_size, made.max_size, made.input_format, made.most) == (640, 1000, "RGB", 300)
    assert made.name == "own"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("MODEL: {MASK_ON: True, RESNETS: {DEPTH: 18}}", "MODEL.RESNETS.DEPTH"),
        ("MODEL: {MASK_ON: True, RESNETS: {RES5_DILATION: 2}}", "MODEL.RESNETS.RES5_DILATION"),
        ("MODEL: {MASK_ON: True, META_ARCHITECTURE: RetinaNet}", "MODEL.META_ARCHITECTURE"),
        ("MODEL: {MASK_ON: True, ROI_BOX_HEAD: {NORM: GN}}", "MODEL.ROI_BOX_HEAD.NORM"),
        ("MODEL: {MASK_ON: True, ROI_HEADS: {NUM_CLASSES: many}}", "MODEL.ROI_HEADS.NUM_CLASSES"),
        ("MODEL: {MASK_ON: True, PIXEL_MEAN: [1, 2]}", "MODEL.PIXEL_MEAN"),
        ("MODEL: {MASK_ON: True, ANCHOR_GENERATOR: {SIZES: [[32], [64]]}}", "MODEL.ANCHOR_GENERATOR"),
        ("MODEL: {MASK_ON: True, KEYPOINT_ON: True}", "MODEL.KEYPOINT_ON"),
        ("VERSION: 1", "VERSION"),
        ("MODEL: {MASK_ON: False}", "MODEL.MASK_ON"),
        ("INPUT: {FORMAT: YUV}\nMODEL: {MASK_ON: True}", "INPUT.FORMAT"),
    ],
)
def test_what_cannot_be_exported_is_named_by_its_key(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, f"_BASE_: base.yaml\n{text}\n")
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ("smpl_27554", "dog_5002", "EMBEDDERS"),
        ("DensePoseEmbeddingPredictor", "DensePoseChartPredictor", "PREDICTOR_NAME"),
        ("DensePoseDeepLabHead", "OwnHead", "ROI_DENSEPOSE_HEAD.NAME"),
    ],
)
def test_dense_pose_without_a_surface_of_people_is_refused(tmp_path: Path, before: str, after: str, key: str) -> None:
    with pytest.raises(UsageError, match=key):
        read(tmp_path, CSE.replace(before, after))


@pytest.mark.parametrize("case", all_cases("out/boxes"), ids=lambda case: case.name)
def test_a_declared_config_has_the_published_tensors(case: ParityCase) -> None:
    with torch.device("meta"):
        networks = build_networks(config_of(case))
    shapes: dict[str, tuple[int, ...]] = {}
    for network in networks:
        shapes |= {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes == case.shapes


def test_the_config_is_named_or_a_file(tmp_path: Path) -> None:
    assert choose_detector_config("maskrcnn", "mask_rcnn_R_50_FPN_3x").export == "maskrcnn"
    read(tmp_path, RESNEXT, name="mine")
    assert choose_detector_config("maskrcnn", str(tmp_path / "mine.yaml")).name == "mine"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (None, "--config NAME, with NAME from: mask_rcnn_R_50_FPN_1x"),
        ("densepose_rcnn_R_50_FPN_s1x", "it belongs to: standin export cse"),
        ("other", "choose from"),
        ("missing.yaml", "missing.yaml cannot be read"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(wanted: str | None, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose_detector_config("maskrcnn", wanted)
    assert message in str(caught.value)


def test_a_file_of_the_other_verb_is_refused(tmp_path: Path) -> None:
    read(tmp_path, CSE)
    with pytest.raises(UsageError, match="standin export cse"):
        choose_detector_config("maskrcnn", str(tmp_path / "own.yaml"))
