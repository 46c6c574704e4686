"""Training of the generator: the paper's objective, with a reconstruction term that its synthetic people allow.

A synthetic person's z is what the person was drawn from, so that a generator can be asked for the very person that it
does not see. That teaches clothes and hair to follow z in minutes; the adversarial part makes them sharp.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.errors import CheckpointError, UsageError
from export.models.surface import SurfaceUnet
from export.starter import generator_losses as losses
from export.starter.crop_batches import Ahead, AugmentConfig, Batch, make_batch, nearest_vertices
from export.starter.crops import CropSet
from export.starter.discriminator import DiscriminatorConfig
from export.starter.generator_adversary import Adversary, Shown, descend
from export.starter.generator_appearance import learn_appearance
from export.starter.generator_export import read_generator, write_generator
from export.starter.generator_losses import LossConfig
from export.starter.generator_network import (
    NetworkConfig,
    average_w,
    generate,
    new_network,
    prepared,
)
from export.starter.generator_sheets import draw_sheet, pick_poses, write_sheet
from export.starter.training import CHECKPOINT_NAME, Average, Budget, Progress, State, cosine, train

GENERATOR_NAME, SHEET_NAME = "generator.ckpt", "sheet.png"
#: Rows, each of another z, and columns of its sheet.
_SHEET = (8, 12)
#: Between the numbers of steps and other draws from the same seed.
_BATCHES = 1


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a generator is trained.

    Attributes:
        network: what it looks like.
        discriminator: what it is judged by.
        losses: what it is judged for.
        augment: how crops differ from what the renderer knows.
        batch: crops in a step.
        rate: of Adam, for the generator,
        discriminator_rate: and for the discriminator.
        betas: of Adam.
        cosine: whether the rates fall to nearly 0 over the budget; published they do not.
        appearance_steps: in which f_w learns what people look like before anything is drawn; published 0.
        half_life: of the averaged weights, in pictures.
        average_draws: of z, for the average w.
        bfloat16: whether networks compute in bfloat16 where that is safe.
        compiled: whether the generator is compiled, which needs a C++ compiler and a minute, and nearly halves a step.
        workers: threads that prepare batches.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    batch: int = 16
    rate: float = 0.001
    discriminator_rate: float = 0.001
    betas: tuple[float, float] = (0.0, 0.99)
    cosine: bool = False
    appearance_steps: int = 0
    half_life: float = 10_000
    average_draws: int = 256
    bfloat16: bool = False
    compiled: bool = False
    workers: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class BodySurface:
    """The surface that people are given on. K vertices.

    Attributes:
        canonical: float32 (K, 3), the body at rest in metres.
        embeddings: float32 (K, D), of each vertex, unit norm: the detector's.
    """

    canonical: NDArray[np.float32]
    embeddings: NDArray[np.float32]


class GeneratorTask:
    """A generator and its discriminator in training; a `Task` of `export.starter.training`.

    Args:
        config: how.
        crops: what with.
        surface: of the people in the crops.
        seed: of the weights and of all draws of batches.
        device: where to.

    Raises:
        UsageError: crops have another size than the generator, or looks do not fit into z.
    """

    def __init__(
        self,
        config: TrainingConfig,
        crops: CropSet,
        surface: BodySurface,
        *,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        if crops.size != config.network.image_size:
            raise UsageError(f"crops are {crops.size}, the generator {config.network.image_size}; cut them again")
        if crops.looks.shape[1] > config.network.z_channels:
            raise UsageError(
                f"looks have {crops.looks.shape[1]} channels, z {config.network.z_channels}; give z at least as many"
            )
        torch.manual_seed(seed)
        self.config = config
        self.network = prepared(new_network(config.network, surface.embeddings), device)
        self.adversary = Adversary(
            config.discriminator,
            config.losses,
            config.network.image_size,
            surface.embeddings.shape[1],
            rate=config.discriminator_rate,
            betas=config.betas,
            bfloat16=config.bfloat16,
            device=device,
        )
        self.average = self._new_average()
        self._device = torch.device(device)
        self._embeddings = torch.from_numpy(surface.embeddings).to(device)
        self._optimiser = torch.optim.Adam(self.network.parameters(), lr=config.rate, betas=config.betas)
        if config.compiled:
            self.network.compile()  # in place: names of weights stay
        self._steps = 0
        self._seed, self._crops = seed, crops
        self._near = nearest_vertices(surface.canonical, config.augment.neighbours)
        self._batches = Ahead(self.batch, workers=config.workers)

    def state(self) -> State:
        """All that is needed to go on."""
        return {
            "network": self.network.state_dict(),
            "adversary": self.adversary.state(),
            "average": self.average.values,
            "optimiser": self._optimiser.state_dict(),
            "steps": self._steps,
            "config": self.config.network.state(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` gave."""
        self.network.load_state_dict(state["network"])
        self.adversary.load(state["adversary"])
        self.average.load(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._steps = state["steps"]

    def begin_with(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over the weights of another generator, which may have been trained on crops of another size."""
        self.network.load_state_dict(weights)
        self.average = self._new_average()

    def learn_appearance(self, progress: Progress | None = None) -> None:
        """Teaches f_w by itself, for as many steps as the config says."""
        f_w = self.network.style_net.E_map
        learn_appearance(f_w, self._crops, self.config.appearance_steps, seed=self._seed, progress=progress)
        self.average = self._new_average()

    def _new_average(self) -> Average:
        return Average(self.network, 0.5 ** (self.config.batch / self.config.half_life))

    def batch(self, step: int) -> Batch:
        """The crops of a step, which depend on nothing but its number and the seed."""
        config = self.config
        draw = np.random.default_rng((self._seed, _BATCHES, step))
        chosen = draw.integers(0, len(self._crops), config.batch)
        return make_batch(self._crops, chosen, self._near, config.augment, config.network.z_channels, draw)

    def begin(self, step: int) -> None:
        """The next step has this number."""
        self._steps = step
        self._batches.begin(step)

    def step(self, draw: np.random.Generator, done: float) -> Mapping[str, float]:  # noqa: ARG002  batches draw ahead
        """One step of both networks; see `Task`."""
        batch = self._batches.take().to(self._device)
        factor = cosine(done) if self.config.cosine else 1.0
        for group in self._optimiser.param_groups:
            group["lr"] = self.config.rate * factor
        weights = self.config.losses
        joined = weights.adversarial > 0 and self._steps * self.config.batch >= weights.adversarial_after
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.config.bfloat16):
            made, embedding = generate(self.network, batch.z, batch, self._embeddings)
        crops = Shown(made, batch.image, batch.mask, batch.body, embedding)
        figures = self.adversary.learn(crops, self._steps, factor) if joined else self.adversary.resting(made)
        figures |= self._improve(crops, batch.wanted, joined=joined)
        self.average.update(self.network, self._steps)
        self._steps += 1
        values = torch.stack([value.detach().float() for value in figures.values()]).tolist()
        return dict(zip(figures, values, strict=True))

    def averaged(self) -> SurfaceUnet:
        """A copy of the generator with averaged weights and the average w."""
        network = SurfaceUnet(self.network.spec).to(self._device)
        network.load_state_dict(self.average.values)
        network.style_net.E_map.w_avg.copy_(average_w(network, self.config.average_draws))
        return network.eval().requires_grad_(False)

    def close(self) -> None:
        """Ends the threads that prepare batches."""
        self._batches.close()

    def _improve(self, crops: Shown, wanted: Tensor, *, joined: bool) -> dict[str, Tensor]:
        """A step of the generator."""
        weights, nothing = self.config.losses, crops.made.new_zeros(())
        figures = {
            "reconstruction": losses.reconstruction_loss(crops.made, crops.image, wanted),
            "gradient": losses.gradient_loss(crops.made, crops.image, wanted),
            "adversarial": nothing,
            "surface": nothing,
        }
        if joined:
            figures |= self.adversary.says(crops)
        descend(self._optimiser, losses.generator_total(figures, weights))
        return figures


def train_generator(
    config: TrainingConfig,
    crops: CropSet,
    surface: BodySurface,
    folder: Path,
    budget: Budget,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    resume: bool = False,
    weights: Path | None = None,
    save_every: int = 500,
    progress: Progress | None = None,
) -> Path:
    """Trains a generator and writes its averaged weights, and a sheet of samples, beside the run's checkpoint.

    Args:
        config: how.
        crops: what with.
        surface: of the people in the crops.
        folder: of the run, see `export.starter.training.train`.
        budget: when to end.
        seed: of all draws.
        device: where to train.
        resume: go on from the folder's checkpoint where there is one.
        weights: averaged weights of another training to begin with, such as one on smaller crops.
        save_every: steps between checkpoints.
        progress: is told what is being done.

    Returns:
        The file for `export.starter.generator_export.export_starter`.

    Raises:
        UsageError: the crops do not fit the config, or the folder holds a run already.
        CheckpointError: the checkpoint is not of this training, or the weights are another network's.
        ExportError: the training diverged, or something cannot be written.
    """
    task = GeneratorTask(config, crops, surface, seed=seed, device=device)
    try:
        if not (folder / CHECKPOINT_NAME).exists():
            _prepare(task, weights, progress)
        train(task, folder, budget, seed=seed, save_every=save_every, resume=resume, progress=progress)
    finally:
        task.close()
    path = folder / GENERATOR_NAME
    network = task.averaged().cpu()
    write_generator(path, network, config.network)
    poses = pick_poses(crops, _SHEET[1], config.network.z_channels, seed=seed)
    z = torch.randn(_SHEET[0], config.network.z_channels, generator=torch.Generator().manual_seed(seed))
    write_sheet(folder / SHEET_NAME, draw_sheet(network, torch.from_numpy(surface.embeddings), poses, z))
    return path


def _prepare(task: GeneratorTask, weights: Path | None, progress: Progress | None) -> None:
    """What comes before the first step."""
    if weights is None:
        task.learn_appearance(progress)
        return
    try:
        task.begin_with(read_generator(weights)[0].state_dict())
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{weights} has no weights for this generator ({reason})") from error
