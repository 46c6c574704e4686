"""The generator's stages: crops, training, its bundle, and how well it does on crops that it has not seen."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from engines.bundle import Bundle, open_bundle
from engines.errors import SourceError, UsageError
from export.generators import Precision
from export.starter import generator_losses as losses
from export.starter.body import load_body
from export.starter.crop_batches import PLAIN, make_batch, nearest_vertices
from export.starter.crops import CropSet, Size, open_crops, write_crops
from export.starter.detector_training import load_detector
from export.starter.generator_answers import NarrowConfig
from export.starter.generator_export import BUNDLE_NAME, export_starter, read_generator
from export.starter.generator_losses import LossConfig
from export.starter.generator_narrowing import narrow_generator
from export.starter.generator_network import LARGE, NetworkConfig, generate
from export.starter.generator_sharpening import SharpenConfig, sharpen_generator
from export.starter.generator_sheets import draw_sheet, pick_poses, write_sheet
from export.starter.generator_training import BodySurface, TrainingConfig, train_generator
from export.starter.samples import read_scenes, scene_files
from export.starter.settings import with_settings
from export.starter.stages import until
from export.starter.stages_detector import Run, check_device, in_bfloat16, megabytes
from export.starter.training import CHECKPOINT_NAME

log = logging.getLogger(__name__)

#: What a processor can afford: larger steps, and a discriminator that joins where most is learnt.
ON_CPU: Final = TrainingConfig(
    rate=0.004,
    betas=(0.5, 0.99),
    cosine=True,
    appearance_steps=1500,
    losses=LossConfig(adversarial_after=150_000),
)
#: Rows, each of another z, and columns of a sheet.
_SHEET: Final = (8, 12)
_AT_ONCE: Final = 16


def training_config(settings: Sequence[str], device: str, *, large: bool) -> TrainingConfig:
    """What a generator is trained with where nothing else is said, and what is said.

    Raises:
        UsageError: no such setting.
    """
    config = replace(ON_CPU, bfloat16=in_bfloat16(device)) if device == "cpu" else TrainingConfig()
    return with_settings(replace(config, network=LARGE) if large else config, settings)


def bundle_name(*, large: bool) -> str:
    """What the generator's bundle goes by."""
    return f"{BUNDLE_NAME}-large" if large else BUNDLE_NAME


def cut_crops(
    scenes: Sequence[Path],
    output: Path,
    *,
    size: Size | None = None,
    large: bool = False,
    cuts: int = 1,
    seed: int = 0,
    minutes: float | None = None,
    resume: bool = False,
) -> int:
    """Cuts the people of scenes into a folder of crops.

    Args:
        scenes: folders of scenes.
        output: folder for the crops.
        size: height and width of a crop; None for what the generator takes.
        large: whether that is the large one.
        cuts: how often each person is cut, always a little differently.
        seed: of the cuts.
        minutes: after which no further scene is cut.
        resume: leave crops that are there.

    Returns:
        How many crops there are.

    Raises:
        UsageError: there are crops already.
        SourceError: there are no scenes, or nobody in them is large enough.
    """
    if (output / "crops.json").exists():
        if not resume:
            raise UsageError(f"{output} holds crops already; give another folder, or remove it")
        return len(open_crops(output))
    if missing := [str(folder) for folder in scenes if not scene_files(folder)]:
        raise SourceError(f"{', '.join(missing)} has no files of scenes (scenes-00000.npz ...)")
    size = size or (LARGE if large else NetworkConfig()).image_size
    every = itertools.chain.from_iterable(read_scenes(folder) for folder in scenes)
    count = write_crops(output, until(every, minutes), size, seed=seed, cuts=cuts)
    log.info("wrote %d crops to %s", count, output)
    return count


def read_embeddings(detector: Path) -> NDArray[np.float32]:
    """The vertex embeddings, (K, D), of a detector's checkpoint; its bundle has some of them only.

    Raises:
        UsageError: there is none.
        CheckpointError: it is no detector's.
    """
    if not detector.is_file():
        raise UsageError(f"{detector} is no file; give a detector's checkpoint")
    return load_detector(detector).embeddings


def _surface(body: Path, detector: Path) -> BodySurface:
    surface = BodySurface(load_body(body).canonical, read_embeddings(detector))
    if len(surface.canonical) != len(surface.embeddings):
        raise UsageError(
            f"{body} has {len(surface.canonical)} vertices, {detector} knows {len(surface.embeddings)}; "
            "give the body that the detector was trained with"
        )
    return surface


def train_a_generator(
    crops: Path,
    body: Path,
    detector: Path,
    output: Path,
    run: Run,
    *,
    large: bool = False,
    weights: Path | None = None,
) -> Path:
    """Trains a generator, and gives the path of its averaged weights; a sheet of samples lies beside them.

    Args:
        crops: folder of crops.
        body: the body's file, of the people in them.
        detector: whose surface it is, a checkpoint.
        output: folder of the run.
        run: see there.
        large: twice the resolution.
        weights: averaged weights of another training to begin with.

    Raises:
        UsageError: a setting that does not fit, or the folder holds a run and is not to be resumed.
        SourceError: there are no crops.
        CheckpointError, ExportError: see `train_generator`.
    """
    check_device(run.device)
    config = training_config(run.settings, run.device, large=large)
    if (output / CHECKPOINT_NAME).exists() and not run.resume:
        raise UsageError(f"{output} holds a training already; resume it, or give another folder")
    given, surface = open_crops(crops), _surface(body, detector)
    log.info("training the generator on %d crops", len(given))
    path = train_generator(
        config,
        given,
        surface,
        output,
        run.budget,
        seed=run.seed,
        device=run.device,
        resume=run.resume,
        weights=weights,
        progress=log.info,
    )
    log.info("wrote %s, and a sheet of samples beside it", path)
    return path


def make_generator_bundle(
    checkpoint: Path,
    detector: Path,
    output: Path,
    *,
    name: str,
    precision: Precision = "fp32",
    resume: bool = False,
) -> None:
    """Makes the generator's bundle.

    Args:
        checkpoint: averaged weights, as a training wrote them.
        detector: whose surface it is, a checkpoint.
        output: folder of the bundle, new.
        name: of the bundle.
        precision: of its graphs.
        resume: leave a bundle that is there.

    Raises:
        UsageError: the folder is not new.
        CheckpointError, ExportError: see `export_starter`.
    """
    if resume and output.exists():
        log.info("the bundle is there: %s", output)
        return
    embeddings = read_embeddings(detector)
    bundle = export_starter(checkpoint, embeddings, output, name=name, precision=precision, progress=log.info)
    log.info("wrote %s, %.1f MB", bundle.path, megabytes(bundle))


def narrow_a_generator(wide: Path, crops: Path, body: Path, output: Path, run: Run, *, name: str) -> None:
    """Trains a narrower generator to give what a bundle's gives, and makes its bundle in the run's folder.

    Args:
        wide: folder of the bundle.
        crops: folder of crops that it is asked about.
        body: the body's file, of the people in them.
        output: folder of the run.
        run: see there.
        name: of the new bundle.

    Raises:
        UsageError: a setting that does not fit, or the folder holds a run and is not to be resumed.
        SourceError: there are no crops.
        BundleError: there is no bundle.
        CheckpointError, ExportError: see `narrow_generator`.
    """
    _learn_from_bundle(narrow_generator, NarrowConfig(), wide, crops, body, output, run, name)


def sharpen_a_generator(given: Path, crops: Path, body: Path, output: Path, run: Run, *, name: str) -> None:
    """Trains a bundle's generator on before a discriminator, and makes its bundle in the run's folder.

    Args:
        given: folder of the bundle.
        crops: folder of crops, whose people are drawn from looks that fit its z.
        body: the body's file, of the people in them.
        output: folder of the run.
        run: see there.
        name: of the new bundle.

    Raises:
        UsageError: a setting that does not fit, or the folder holds a run and is not to be resumed.
        SourceError: there are no crops.
        BundleError: there is no bundle.
        CheckpointError, ExportError: see `sharpen_generator`.
    """
    _learn_from_bundle(sharpen_generator, SharpenConfig(), given, crops, body, output, run, name)


def _learn_from_bundle(
    learn: Callable[..., Bundle],
    config: NarrowConfig | SharpenConfig,
    given: Path,
    crops: Path,
    body: Path,
    output: Path,
    run: Run,
    name: str,
) -> None:
    """What both trainings that begin with a bundle do, each with its own function and config."""
    check_device(run.device)
    bundle = learn(
        open_bundle(given),
        load_body(body).canonical,
        open_crops(crops),
        output,
        run.budget,
        with_settings(replace(config, bfloat16=in_bfloat16(run.device)), run.settings),
        name=name,
        seed=run.seed,
        device=run.device,
        resume=run.resume,
        progress=log.info,
    )
    log.info("wrote %s, %.1f MB", bundle.path, megabytes(bundle))


def evaluate_generator(
    checkpoint: Path, detector: Path, crops: Path, *, minutes: float | None = None
) -> dict[str, Any]:
    """How far a trained network is from people whom it has not seen, as figures for a file.

    Args:
        checkpoint: averaged weights, as a training wrote them.
        detector: whose surface it is, a checkpoint.
        crops: folder of crops from another seed.
        minutes: after which no further crops are made.

    Raises:
        CheckpointError: the checkpoint is not a generator's.
        SourceError: there are no crops.
    """
    network, config = read_generator(checkpoint)
    embeddings = torch.from_numpy(read_embeddings(detector))
    given = open_crops(crops)
    itself = nearest_vertices(np.zeros((1, 3), np.float32), 1)
    sums, count = np.zeros(2), 0
    with torch.no_grad():
        for start in until(range(0, len(given), _AT_ONCE), minutes):
            chosen = list(range(start, min(start + _AT_ONCE, len(given))))
            batch = make_batch(given, chosen, itself, PLAIN, config.z_channels, np.random.default_rng(start))
            made, _ = generate(network, batch.z, batch, embeddings)
            near, edges = (
                how(made, batch.image, batch.wanted) for how in (losses.reconstruction_loss, losses.gradient_loss)
            )
            sums += len(chosen) * np.array([near.item(), edges.item()])
            count += len(chosen)
    figures = {"crops": count, "l1": round(sums[0] / count, 4), "gradient_l1": round(sums[1] / count, 4)}
    log.info("%s", json.dumps(figures))
    return figures


def write_sample_sheet(checkpoint: Path, detector: Path, crops: Path, output: Path, *, seed: int = 0) -> None:
    """Draws people whom a generator has not seen, each row with another z.

    Args:
        checkpoint: averaged weights, as a training wrote them.
        detector: whose surface it is, a checkpoint.
        crops: folder of crops from another seed.
        output: the PNG file.
        seed: of the choice and of z.

    Raises:
        CheckpointError: the checkpoint is not a generator's.
        SourceError: there are no crops.
    """
    network, config = read_generator(checkpoint)
    given: CropSet = open_crops(crops)
    poses = pick_poses(given, _SHEET[1], config.z_channels, seed=seed)
    z = torch.randn(_SHEET[0], config.z_channels, generator=torch.Generator().manual_seed(seed))
    write_sheet(output, draw_sheet(network, torch.from_numpy(read_embeddings(detector)), poses, z))
    log.info("wrote %s", output)
