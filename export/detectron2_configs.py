"""Configs of detectron2's detectors: those of the published models by name, and any that its YAML files describe.

They hold what no tensor of a checkpoint shows. What a config says and tensors do show is compared when loading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from engines.checkpoints import checkpoints, published
from engines.errors import UsageError
from export.config_files import read_config_file
from export.models.cse import DenseSpec
from export.models.rcnn import BackboneSpec, BoxSpec, MaskSpec, PoolerSpec
from export.models.resnet import BLOCKS
from export.models.rpn import ProposalSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Verb = Literal["maskrcnn", "cse"]
Three = tuple[float, float, float]

_HOMEPAGES: Final = {
    "maskrcnn": "https://github.com/facebookresearch/detectron2/blob/main/MODEL_ZOO.md",
    "cse": "https://github.com/facebookresearch/detectron2/blob/main/projects/DensePose/doc/DENSEPOSE_CSE.md",
}
#: Boxes a frame at least. Published models stop at 100, of all classes; here a frame with more than fit is withheld,
#: and a crowd should not be.
MOST_BOXES: Final = 300


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """What a detector of detectron2 is.

    Attributes:
        name: As in `--config NAME`, or the YAML file's.
        export: The verb of `standin export` that it belongs to.
        backbone: And the others: the network; exactly one of `mask` and `dense` is there.
        input_format: Order of the channels that the network was trained with.
        pixel_mean: In this order, on the scale 0 to 255.
        pixel_std: In this order.
        min_size: The shorter side that pictures are resized to, in pixels,
        max_size: unless the longer one would be more than this.
        threshold: A box with a score at or below it is none.
        most: Boxes a frame; more than published where that is less than `MOST_BOXES`.
        kinds: The class of the network -> kind of region; others are left out.
        licence: Of the published weights.
        homepage: Where they are described.
        source: Where they are.
    """

    name: str
    export: Verb
    backbone: BackboneSpec = field(default_factory=BackboneSpec)
    proposals: ProposalSpec = field(default_factory=ProposalSpec)
    box: BoxSpec = field(default_factory=BoxSpec)
    mask: MaskSpec | None = None
    dense: DenseSpec | None = None
    input_format: Literal["BGR", "RGB"] = "BGR"
    pixel_mean: Three = (103.53, 116.28, 123.675)
    pixel_std: Three = (1.0, 1.0, 1.0)
    min_size: int = 800
    max_size: int = 1333
    threshold: float = 0.05
    most: int = MOST_BOXES
    kinds: tuple[tuple[int, str], ...] = ((0, "person"),)
    licence: str = "not known: the weights are your own"
    homepage: str = ""
    source: str | None = None


def _mask_rcnn(name: str, **backbone: Any) -> DetectorConfig:
    made = DetectorConfig(name=name, export="maskrcnn", backbone=BackboneSpec(**backbone), mask=MaskSpec())
    return _published(made)


def _cse(name: str, depth: int, head: Literal["v1", "deeplab"]) -> DetectorConfig:
    # The CSE configs ask for the older RoIAlign, which does not subtract half a cell, with two samples a bin.
    pooler = PoolerSpec(size=7, sampling=2, aligned=False)
    return _published(
        DetectorConfig(
            name=name,
            export="cse",
            backbone=BackboneSpec(blocks=BLOCKS[depth]),
            box=BoxSpec(classes=1, pooler=pooler),
            dense=DenseSpec(head=head, pooler=replace(pooler, size=28)),
        )
    )


def _published(config: DetectorConfig) -> DetectorConfig:
    known = published(config.name)
    # The model zoo has one licence for all.
    licence = checkpoints()[config.export].licence
    return replace(
        config, licence=licence, homepage=_HOMEPAGES[config.export], source=None if known is None else known.url
    )


def _all() -> dict[str, DetectorConfig]:
    made = []
    for schedule in ("1x", "3x"):
        made.append(_mask_rcnn(f"mask_rcnn_R_50_FPN_{schedule}"))
        made.append(_mask_rcnn(f"mask_rcnn_R_101_FPN_{schedule}", blocks=BLOCKS[101]))
    # Weights of Caffe2: pixels are divided by their deviation, and the stride is in the 3x3 convolution.
    resnext = _mask_rcnn(
        "mask_rcnn_X_101_32x8d_FPN_3x", blocks=BLOCKS[101], groups=32, width_per_group=8, stride_in_1x1=False
    )
    made.append(replace(resnext, pixel_std=(57.375, 57.12, 58.395)))
    for depth in (50, 101):
        for middle in ("", "_soft"):
            made.append(_cse(f"densepose_rcnn_R_{depth}_FPN{middle}_s1x", depth, "v1"))
            made.append(_cse(f"densepose_rcnn_R_{depth}_FPN_DL{middle}_s1x", depth, "deeplab"))
    return {config.name: config for config in made}


def detector_configs(verb: str | None = None) -> dict[str, DetectorConfig]:
    """The declared configs by name: all, or those of one verb of `standin export`."""
    return {name: config for name, config in _all().items() if verb in (None, config.export)}


def choose_detector_config(verb: Verb, wanted: str | None) -> DetectorConfig:
    """The config that was asked for.

    A checkpoint shows its widths and depths, but neither where strides are nor what its pixels are divided by: a wrong
    guess would load, and find fewer people. So the config is always named.

    Args:
        verb: of `standin export`.
        wanted: a declared name, or the path of a YAML file of detectron2.

    Raises:
        UsageError: there is none, it is not understood, or belongs to another verb.
    """
    fitting = detector_configs(verb)
    if wanted is None:
        raise UsageError(
            f"the settings of this {verb} checkpoint cannot be known from it; say which it was trained with: "
            f"--config NAME, with NAME from: {', '.join(fitting)}; or --config FILE.yaml"
        )
    if wanted in fitting:
        return fitting[wanted]
    if wanted.endswith((".yaml", ".yml")):
        from pathlib import Path

        config = read_detectron2_config(Path(wanted))
        if config.export != verb:
            raise UsageError(f"{wanted} describes a model for: standin export {config.export}; use that")
        return config
    known = detector_configs()
    hint = f"it belongs to: standin export {known[wanted].export}; " if wanted in known else ""
    raise UsageError(f"--config {wanted} does not fit {verb!r}; {hint}choose from: {', '.join(fitting)}")


def read_detectron2_config(path: Path) -> DetectorConfig:
    """Reads a YAML file of detectron2, with its `_BASE_`.

    Raises:
        UsageError: it is not understood, or describes a network that is not supported; the message names the key.
    """
    keys = _Keys(path, read_config_file(path))
    _refuse_unsupported(keys)
    dense_on = keys.flag("MODEL.DENSEPOSE_ON", False)
    if not dense_on and not keys.flag("MODEL.MASK_ON", False):
        raise UsageError(
            f"{path} has neither MODEL.MASK_ON nor MODEL.DENSEPOSE_ON, so that there is nothing to cover with"
        )
    return DetectorConfig(
        name=path.stem,
        export="cse" if dense_on else "maskrcnn",
        backbone=_backbone(keys),
        proposals=_proposals(keys),
        box=_box(keys),
        mask=None if dense_on else _mask(keys),
        dense=_dense(keys) if dense_on else None,
        input_format=keys.one_of("INPUT.FORMAT", "BGR", ("BGR", "RGB")),
        pixel_mean=keys.numbers("MODEL.PIXEL_MEAN", (103.53, 116.28, 123.675)),
        pixel_std=keys.numbers("MODEL.PIXEL_STD", (1.0, 1.0, 1.0)),
        min_size=keys.whole("INPUT.MIN_SIZE_TEST", 800),
        max_size=keys.whole("INPUT.MAX_SIZE_TEST", 1333),
        threshold=keys.number("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.05),
        most=max(keys.whole("TEST.DETECTIONS_PER_IMAGE", 100), MOST_BOXES),
    )


class _Keys:
    """Values by dotted key, with detectron2's defaults, checked."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path, self._values = path, values

    def get(self, key: str, default: Any) -> Any:
        at: Any = self._values
        for part in key.split("."):
            if not isinstance(at, dict) or part not in at:
                return default
            at = at[part]
        return at

    def wrong(self, key: str, value: object, expected: str) -> UsageError:
        return UsageError(f"{self.path}: {key} is {value!r}, expected {expected}")

    def whole(self, key: str, default: int) -> int:
        value = self.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong(key, value, "a whole number")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self.wrong(key, value, "a number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, (bool, int)):
            raise self.wrong(key, value, "True or False")
        return bool(value)

    def one_of(self, key: str, default: Any, allowed: Sequence[Any]) -> Any:
        value = self.get(key, default)
        if value not in allowed:
            raise self.wrong(key, value, " or ".join(str(item) for item in allowed) + ", which is what can be exported")
        return value

    def numbers(self, key: str, default: Sequence[float]) -> Any:
        """As many numbers as the default has."""
        value = self.get(key, default)
        fits = isinstance(value, (list, tuple)) and len(value) == len(default)
        if not fits or not all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in value):
            raise self.wrong(key, value, f"{len(default)} numbers")
        return tuple(float(x) for x in value)


_STAGES = ["res2", "res3", "res4", "res5"]
_LEVELS = ["p2", "p3", "p4", "p5", "p6"]
#: Key, detectron2's default, and what can be exported.
_SUPPORTED: Final[tuple[tuple[str, Any, tuple[Any, ...]], ...]] = (
    ("VERSION", 2, (2,)),
    ("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", ("GeneralizedRCNN",)),
    ("MODEL.BACKBONE.NAME", "build_resnet_backbone", ("build_resnet_fpn_backbone",)),
    ("MODEL.RESNETS.OUT_FEATURES", ["res4"], (_STAGES,)),
    ("MODEL.RESNETS.NORM", "FrozenBN", ("FrozenBN", "BN", "SyncBN", "nnSyncBN")),
    ("MODEL.RESNETS.RES5_DILATION", 1, (1,)),
    ("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False] * 4, ([False] * 4,)),
    ("MODEL.FPN.IN_FEATURES", [], (_STAGES,)),
    ("MODEL.FPN.NORM", "", ("", None)),
    ("MODEL.FPN.FUSE_TYPE", "sum", ("sum",)),
    ("MODEL.PROPOSAL_GENERATOR.NAME", "RPN", ("RPN",)),
    ("MODEL.PROPOSAL_GENERATOR.MIN_SIZE", 0, (0,)),
    ("MODEL.ANCHOR_GENERATOR.NAME", "DefaultAnchorGenerator", ("DefaultAnchorGenerator",)),
    ("MODEL.RPN.HEAD_NAME", "StandardRPNHead", ("StandardRPNHead",)),
    ("MODEL.RPN.IN_FEATURES", ["res4"], (_LEVELS,)),
    ("MODEL.RPN.CONV_DIMS", [-1], ([-1],)),
    ("MODEL.ROI_HEADS.NAME", "Res5ROIHeads", ("StandardROIHeads", "DensePoseROIHeads")),
    ("MODEL.ROI_HEADS.IN_FEATURES", ["res4"], (_LEVELS[:4],)),
    ("MODEL.ROI_BOX_HEAD.NAME", "", ("FastRCNNConvFCHead",)),
    ("MODEL.ROI_BOX_HEAD.NORM", "", ("", None)),
    ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", False, (False,)),
    ("MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead", ("MaskRCNNConvUpsampleHead",)),
    ("MODEL.ROI_MASK_HEAD.NORM", "", ("", None)),
    ("MODEL.KEYPOINT_ON", False, (False,)),
)


def _refuse_unsupported(keys: _Keys) -> None:
    for key, default, allowed in _SUPPORTED:
        value = keys.get(key, default)
        keys_value = list(value) if isinstance(value, tuple) else value
        if keys_value not in allowed:
            options = " or ".join(str(item) for item in allowed if item not in ("", None)) or "none"
            raise keys.wrong(key, value, f"{options}, which is what can be exported")


def _backbone(keys: _Keys) -> BackboneSpec:
    depth = keys.one_of("MODEL.RESNETS.DEPTH", 50, tuple(BLOCKS))
    return BackboneSpec(
        blocks=BLOCKS[depth],
        stem_channels=keys.whole("MODEL.RESNETS.STEM_OUT_CHANNELS", 64),
        res2_channels=keys.whole("MODEL.RESNETS.RES2_OUT_CHANNELS", 256),
        groups=keys.whole("MODEL.RESNETS.NUM_GROUPS", 1),
        width_per_group=keys.whole("MODEL.RESNETS.WIDTH_PER_GROUP", 64),
        stride_in_1x1=keys.flag("MODEL.RESNETS.STRIDE_IN_1X1", True),
        channels=keys.whole("MODEL.FPN.OUT_CHANNELS", 256),
    )


def _proposals(keys: _Keys) -> ProposalSpec:
    sizes = keys.get("MODEL.ANCHOR_GENERATOR.SIZES", [[32, 64, 128, 256, 512]])
    ratios = keys.get("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[0.5, 1.0, 2.0]])
    levels = len(_LEVELS)
    # One entry counts for all levels.
    sizes = sizes * levels if isinstance(sizes, list) and len(sizes) == 1 else sizes
    for key, value in (("SIZES", sizes), ("ASPECT_RATIOS", ratios)):
        if not isinstance(value, list) or not value or not all(isinstance(row, (list, tuple)) for row in value):
            raise keys.wrong(f"MODEL.ANCHOR_GENERATOR.{key}", value, "a list of lists of numbers")
    if len(sizes) != levels or len({len(row) for row in sizes}) != 1 or any(row != ratios[0] for row in ratios):
        raise keys.wrong("MODEL.ANCHOR_GENERATOR", (sizes, ratios), f"as many anchors on each of {levels} levels")
    return ProposalSpec(
        anchor_sizes=tuple(tuple(float(x) for x in row) for row in sizes),
        aspect_ratios=tuple(float(x) for x in ratios[0]),
        anchor_offset=keys.number("MODEL.ANCHOR_GENERATOR.OFFSET", 0.0),
        level_candidates=keys.whole("MODEL.RPN.PRE_NMS_TOPK_TEST", 6000),
        proposals=keys.whole("MODEL.RPN.POST_NMS_TOPK_TEST", 1000),
        iou=keys.number("MODEL.RPN.NMS_THRESH", 0.7),
        delta_weights=keys.numbers("MODEL.RPN.BBOX_REG_WEIGHTS", (1.0, 1.0, 1.0, 1.0)),
    )


def _pooler(keys: _Keys, head: str, size: int, sampling: int) -> PoolerSpec:
    kind = keys.one_of(f"MODEL.{head}.POOLER_TYPE", "ROIAlignV2", ("ROIAlignV2", "ROIAlign"))
    return PoolerSpec(
        size=keys.whole(f"MODEL.{head}.POOLER_RESOLUTION", size),
        sampling=keys.whole(f"MODEL.{head}.POOLER_SAMPLING_RATIO", sampling),
        aligned=kind == "ROIAlignV2",
    )


def _box(keys: _Keys) -> BoxSpec:
    return BoxSpec(
        pooler=_pooler(keys, "ROI_BOX_HEAD", 14, 0),
        convs=keys.whole("MODEL.ROI_BOX_HEAD.NUM_CONV", 0),
        conv_channels=keys.whole("MODEL.ROI_BOX_HEAD.CONV_DIM", 256),
        layers=keys.whole("MODEL.ROI_BOX_HEAD.NUM_FC", 0),
        width=keys.whole("MODEL.ROI_BOX_HEAD.FC_DIM", 1024),
        classes=keys.whole("MODEL.ROI_HEADS.NUM_CLASSES", 80),
        class_agnostic=keys.flag("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", False),
        delta_weights=keys.numbers("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", (10.0, 10.0, 5.0, 5.0)),
        iou=keys.number("MODEL.ROI_HEADS.NMS_THRESH_TEST", 0.5),
    )


def _mask(keys: _Keys) -> MaskSpec:
    return MaskSpec(
        pooler=_pooler(keys, "ROI_MASK_HEAD", 14, 0),
        convs=keys.whole("MODEL.ROI_MASK_HEAD.NUM_CONV", 0),
        channels=keys.whole("MODEL.ROI_MASK_HEAD.CONV_DIM", 256),
        class_agnostic=keys.flag("MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", False),
    )


_HEADS: Final[dict[str, Literal["v1", "deeplab"]]] = {"DensePoseV1ConvXHead": "v1", "DensePoseDeepLabHead": "deeplab"}


def _dense(keys: _Keys) -> DenseSpec:
    at = "MODEL.ROI_DENSEPOSE_HEAD"
    head = _HEADS[keys.one_of(f"{at}.NAME", "", tuple(_HEADS))]
    keys.one_of(f"{at}.PREDICTOR_NAME", "DensePoseChartWithConfidencePredictor", ("DensePoseEmbeddingPredictor",))
    keys.one_of(f"{at}.DECODER_NORM", "", ("", None))
    keys.one_of(f"{at}.DECODER_COMMON_STRIDE", 4, (4,))
    keys.one_of(f"{at}.DEEPLAB.NONLOCAL_ON", 0, (0, False))
    if head == "deeplab":
        keys.one_of(f"{at}.DEEPLAB.NORM", "GN", ("GN",))
    return DenseSpec(
        head=head,
        pooler=_pooler(keys, "ROI_DENSEPOSE_HEAD", 28, 2),
        decoder=keys.flag(f"{at}.DECODER_ON", True),
        decoder_width=keys.whole(f"{at}.DECODER_CONV_DIMS", 256),
        decoder_channels=keys.whole(f"{at}.DECODER_NUM_CLASSES", 256),
        layers=keys.whole(f"{at}.NUM_STACKED_CONVS", 8),
        width=keys.whole(f"{at}.CONV_HEAD_DIM", 512),
        kernel=keys.whole(f"{at}.CONV_HEAD_KERNEL", 3),
        deconv_kernel=keys.whole(f"{at}.DECONV_KERNEL", 4),
        scale=keys.whole(f"{at}.UP_SCALE", 2),
        coarse_channels=keys.whole(f"{at}.NUM_COARSE_SEGM_CHANNELS", 2),
        embedding_channels=keys.whole(f"{at}.CSE.EMBED_SIZE", 16),
        **_surface(keys, f"{at}.CSE.EMBEDDERS"),
    )


def _surface(keys: _Keys, key: str) -> dict[str, Any]:
    """The people's surface; there may be those of animals beside it."""
    meshes = keys.get(key, {})
    people = [name for name in meshes if str(name).startswith("smpl")] if isinstance(meshes, dict) else []
    if len(people) != 1:
        raise keys.wrong(key, list(meshes) if isinstance(meshes, dict) else meshes, "one surface of people (smpl_*)")
    at = f"{key}.{people[0]}"
    kind = keys.one_of(f"{at}.TYPE", "vertex_direct", ("vertex_feature", "vertex_direct"))
    return {
        "mesh": people[0],
        "vertices": keys.whole(f"{at}.NUM_VERTICES", 27554),
        "features": keys.whole(f"{at}.FEATURE_DIM", 256) if kind == "vertex_feature" else 0,
    }
