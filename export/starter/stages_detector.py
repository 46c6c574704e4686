"""The detector's stages: training, its bundle, and how well it does on scenes that it has not seen."""

from __future__ import annotations

import functools
import itertools
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from engines.bundle import Bundle
from engines.errors import ExportError, RuntimeUnavailableError, UsageError
from engines.machine import computes_bfloat16
from export.bundle_folder import new_bundle_folder
from export.graphs import Arrays
from export.quantize import quantize_detector
from export.starter.body import load_body
from export.starter.detector import MULTIPLE
from export.starter.detector_data import PackedScenes, normalised, open_packed, pack_scenes
from export.starter.detector_evaluation import Evaluation, TorchFinder, evaluate
from export.starter.detector_export import BundleOptions, export_starter_detector
from export.starter.detector_surface import Template
from export.starter.detector_training import DetectorOptions, load_detector, train_detector
from export.starter.samples import Scene, read_scenes
from export.starter.settings import with_settings
from export.starter.stages import until
from export.starter.training import CHECKPOINT_NAME, Budget

log = logging.getLogger(__name__)

PACKED_NAME = "packed"
#: Scenes that an exported detector is compared on,
_COMPARED = 2
#: and those that give the ranges of integers, and are looked at with them.
_LOOKED_AT = 400


def check_device(device: str) -> None:
    """Whether networks can be trained there.

    Raises:
        RuntimeUnavailableError: there is no GPU that torch can use.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeUnavailableError(
            f"torch {torch.__version__} finds no GPU here; install a build of torch for it, or train with --device cpu"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What every training is told.

    Attributes:
        budget: when to end.
        seed: of everything that is drawn.
        device: `cpu` or `cuda`.
        resume: go on where there is a checkpoint.
        settings: of the training, as `name=value` each.
    """

    budget: Budget
    seed: int = 0
    device: str = "cpu"
    resume: bool = False
    settings: Sequence[str] = ()


def detector_options(settings: Sequence[str], device: str) -> DetectorOptions:
    """What a detector is trained with where nothing else is said, and what is said.

    Raises:
        UsageError: no such setting.
    """
    return with_settings(replace(DetectorOptions(), device=device, mixed=in_bfloat16(device)), settings)


def in_bfloat16(device: str) -> bool:
    """Whether a training computes in bfloat16 there by itself: on a processor where that multiplies such numbers."""
    return device != "cpu" or computes_bfloat16()


def train_a_detector(scenes: Path, body: Path, output: Path, run: Run, *, weights: Path | None = None) -> Path:
    """Trains a detector, and gives the path of its checkpoint.

    Args:
        scenes: folder of scenes, or of packed ones.
        body: the body's file, of the people in them.
        output: folder of the run; scenes are packed inside it.
        run: see there.
        weights: checkpoint of another training, or folder of a bundle, to begin with.

    Raises:
        UsageError: a setting that does not fit, or the folder holds a run and is not to be resumed.
        SourceError: there are no scenes, or they do not fit together.
        CheckpointError, ExportError: see `train_detector`.
    """
    check_device(run.device)
    options = detector_options(run.settings, run.device)
    if (output / CHECKPOINT_NAME).exists() and not run.resume:
        raise UsageError(f"{output} holds a training already; resume it, or give another folder")
    template = Template.of(load_body(body))
    packed = _packed(scenes, output)
    log.info("training the detector on %d scenes", len(packed))
    checkpoint = train_detector(
        packed,
        template,
        output,
        run.budget,
        options,
        seed=run.seed,
        resume=run.resume,
        weights=weights,
        progress=log.info,
    )
    log.info("wrote %s", checkpoint)
    return checkpoint


def _packed(scenes: Path, output: Path) -> PackedScenes:
    if (scenes / "size.txt").exists():
        return open_packed(scenes)
    if not (output / PACKED_NAME).exists():
        log.info("unpacking the scenes of %s", scenes)
    return pack_scenes(scenes, output / PACKED_NAME)


def make_detector_bundle(
    checkpoint: Path, output: Path, options: BundleOptions, *, scenes: Path | None = None, resume: bool = False
) -> None:
    """Makes the detector's bundle.

    Args:
        checkpoint: of the training.
        output: folder of the bundle, new.
        options: see there.
        scenes: folder of scenes to compare network and graphs on, and to get 8-bit integers from; without it there are
            made-up pictures, and no integers.
        resume: leave a bundle that is there.

    Raises:
        UsageError: the folder is not new.
        SourceError: there are no scenes.
        CheckpointError, ExportError: see `export_starter_detector`.
    """
    if resume and output.exists():
        log.info("the bundle is there: %s", output)
        return
    with new_bundle_folder(output) as work:
        pictures = None
        if scenes is not None:
            some = [seen(scene.image, None) for scene in itertools.islice(read_scenes(scenes), _COMPARED)]
            pictures = {name: np.concatenate([one[name] for one in some]) for name in some[0]}
        bundle = export_starter_detector(checkpoint, work / "float", options, pictures=pictures, progress=log.info)
        if scenes is not None:
            bundle = with_integers(bundle, scenes, options, work / "integers")
        size = megabytes(bundle)
        bundle.path.rename(work / "bundle")
    log.info("wrote %s, %.1f MB", output, size)


def with_integers(bundle: Bundle, scenes: Path, options: BundleOptions, output: Path) -> Bundle:
    """The bundle with 8-bit integers, in a new folder; or as it is where they lose people.

    Args:
        bundle: of a detector.
        scenes: folder of scenes.
        options: that it was made with.
        output: the new folder.
    """
    scales = (1.0, options.near_scale) if options.near else (1.0,)
    chosen = itertools.islice(read_scenes(scenes), _LOOKED_AT)
    looks = [[functools.partial(seen, scene.image, options.view, scale) for scale in scales] for scene in chosen]
    try:
        return quantize_detector(bundle, looks, output, progress=log.info)
    except (ExportError, UsageError) as error:
        log.warning("no 8-bit integers: %s", error)
        return bundle


def megabytes(bundle: Bundle) -> float:
    """The size of a bundle's files."""
    return sum(path.stat().st_size for path in bundle.path.rglob("*") if path.is_file()) / 1e6


def seen(picture: npt.NDArray[np.uint8], view: tuple[int, int] | None, part: float = 1.0) -> Arrays:
    """A picture as the detector takes it, but for the filter: a run's needs what only runs have.

    Args:
        picture: (h,w,3), uint8.
        view: the shorter and the longer side that it is looked at in pixels; None for the picture's own.
        part: of that size.
    """
    if view is not None:
        height, width = picture.shape[:2]
        scale = part * min(view[0] / min(height, width), view[1] / max(height, width))
        size = max(1, round(scale * width)), max(1, round(scale * height))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    height, width = picture.shape[:2]
    image = np.zeros((1, 3, *(-(-side // MULTIPLE) * MULTIPLE for side in (height, width))), np.float32)
    image[0, :, :height, :width] = normalised(picture)
    return {"image": image, "image_size": np.array([[height, width]], np.int64)}


def evaluate_detector(
    checkpoint: Path, scenes: Path, body: Path, *, threshold: float, minutes: float | None = None
) -> dict[str, Any]:
    """How well a trained network does on scenes that it has not seen, as figures for a file.

    The bundle is measured, with the settings of a run, by `benchmarks/starter.py`.

    Args:
        checkpoint: of the training.
        scenes: folder of scenes from another seed.
        body: the body's file.
        threshold: scores below it do not count.
        minutes: after which no further scene is looked at.

    Raises:
        CheckpointError: the checkpoint is not a detector's.
        SourceError: there are no scenes.
    """
    finder = TorchFinder(load_detector(checkpoint), threshold=threshold)
    seen = 0

    def counted(scenes: Iterable[Scene]) -> Iterator[Scene]:
        nonlocal seen
        for scene in scenes:
            seen += 1
            yield scene

    made = evaluate(finder, until(counted(read_scenes(scenes)), minutes), load_body(body).canonical)
    figures = {"scenes": seen, "threshold": threshold} | _figures(made)
    log.info("%s", json.dumps(figures))
    return figures


def _figures(made: Evaluation) -> dict[str, Any]:
    """Rounded; None for what there was nothing to measure on."""
    values: dict[str, Any] = {
        "recall": _rounded(made.recall),
        "precision": _rounded(made.precision),
        "mask_iou": _rounded(made.mask_iou),
        "surface_median_cm": _rounded(made.surface_median),
        "surface_within_10_cm": _rounded(made.surface_within[0]),
        "surface_within_20_cm": _rounded(made.surface_within[1]),
    }
    heights = [
        {"from_px": counted.lowest, "people": counted.people, "recall": _rounded(counted.recall)}
        for counted in made.heights
    ]
    return values | {"by_height": heights}


def _rounded(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None
