"""A bundle's generator that learns on before a discriminator, to become sharper: as fast, with the same tables.

What learnt by differences alone (`generator_narrowing`) gives the middle of what may be there: cloth without folds,
heads without faces. A discriminator does not let that pass. f_w stays as it is, so that each z keeps its look, and true
crops with their own z hold the network to what z says (`reconstruction`, `gradient`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from engines.bundle import Bundle
from engines.errors import UsageError
from export.models.surface import SurfaceUnet
from export.starter import generator_losses as losses
from export.starter.bundle_inputs import BundleInputs, Floats, gathered
from export.starter.crop_batches import Ahead, AugmentConfig, make_batch, nearest_vertices
from export.starter.crops import CropSet
from export.starter.discriminator import DiscriminatorConfig
from export.starter.generator_adversary import Adversary, Shown, descend
from export.starter.generator_answers import spec_of
from export.starter.generator_losses import LossConfig
from export.starter.generator_narrow_bundle import write_narrow
from export.starter.generator_network import prepared
from export.starter.generator_slim import read_wide, slim_network
from export.starter.training import Average, Budget, Progress, State, cosine, train

_BATCHES: Final = 1


@dataclass(frozen=True, kw_only=True)
class SharpenConfig:
    """How a bundle's generator learns on.

    Attributes:
        discriminator: what it is judged by.
        losses: what it is judged for; `adversarial_after` is not looked at.
        alone: pictures from which the discriminator alone learns, before the generator does.
        augment: how crops differ from what the renderer knows.
        batch: crops in a step.
        rate: of Adam, for the generator,
        discriminator_rate: and for the discriminator; both fall along half a cosine.
        betas: of Adam.
        half_life: of the averaged weights, in pictures.
        bfloat16: whether networks compute in bfloat16 where that is safe.
        compiled: whether the generator is compiled, which needs a C++ compiler and a minute.
        workers: threads that prepare batches.
    """

    discriminator: DiscriminatorConfig = field(default_factory=lambda: DiscriminatorConfig(widths=(16, 32, 64, 128)))
    losses: LossConfig = field(default_factory=lambda: LossConfig(reconstruction=8.0, gradient=4.0, r1=1.0))
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(dilation=(0.5, 8.0), box=0.15))
    alone: int = 0
    batch: int = 16
    rate: float = 0.0015
    discriminator_rate: float = 0.003
    betas: tuple[float, float] = (0.0, 0.99)
    half_life: float = 5_000
    bfloat16: bool = False
    compiled: bool = False
    workers: int = 1


class Known(NamedTuple):
    """True crops as a bundle's generator takes them, with the z that their people were drawn from.

    Attributes:
        image: (N,3,H,W) in [-1,1].
        mask: (N,1,H,W), 1 where known.
        body: (N,1,H,W).
        wanted: (N,1,H,W), 1 on unknown pixels whose truth z tells.
        embedding: (N,D,H,W), 0 outside the body.
        rows: (N,W,H,W), each pixel's row of its table, with `w_channels` channels.
    """

    image: Tensor
    mask: Tensor
    body: Tensor
    wanted: Tensor
    embedding: Tensor
    rows: Tensor

    def to(self, device: torch.device | str) -> Known:
        """The same on another device."""
        return Known(*(part.to(device, non_blocking=True) for part in self))


class SharpeningTask:
    """A bundle's generator and a discriminator in training; a `Task` of `export.starter.training`.

    Args:
        config: how.
        bundle: of a V-SAM generator with a surface.
        canonical: (K, 3), the body at rest in metres, of the people in the crops.
        crops: what with.
        seed: of all draws.
        device: where to.

    Raises:
        CheckpointError: the bundle is of another kind, or for another body.
        UsageError: the crops do not fit the generator.
    """

    def __init__(
        self,
        config: SharpenConfig,
        bundle: Bundle,
        canonical: Floats,
        crops: CropSet,
        *,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        weights = read_wide(bundle)
        spec = spec_of(bundle, weights)
        if spec.image_size != crops.size:
            raise UsageError(f"crops are {crops.size}, the generator {spec.image_size}; cut them again")
        if crops.looks.shape[1] > spec.z_channels:
            raise UsageError(f"looks have {crops.looks.shape[1]} channels, the bundle's z {spec.z_channels}")
        torch.manual_seed(seed)
        self.config = config
        self._device = torch.device(device)
        self.network = prepared(slim_network(spec, weights), self._device)
        self.average = Average(self.network, 0.5 ** (config.batch / config.half_life))
        self._optimiser = torch.optim.Adam(
            [values for name, values in self.network.named_parameters() if "E_map" not in name],
            lr=config.rate,
            betas=config.betas,
        )
        if config.compiled:
            self.network.compile()
        self.adversary = Adversary(
            config.discriminator,
            config.losses,
            spec.image_size,
            spec.embedding_channels,
            rate=config.discriminator_rate,
            betas=config.betas,
            bfloat16=config.bfloat16,
            device=device,
        )
        self._steps = 0
        self._seed, self._crops = seed, crops
        self._near = nearest_vertices(canonical, config.augment.neighbours)
        self._inputs = BundleInputs(bundle, spec, canonical)
        self._batches = Ahead(self.batch, workers=config.workers)

    def state(self) -> State:
        """All that is needed to go on."""
        return {
            "what": "sharpened generator",
            "network": self.network.state_dict(),
            "adversary": self.adversary.state(),
            "average": self.average.values,
            "optimiser": self._optimiser.state_dict(),
            "steps": self._steps,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` gave."""
        self.network.load_state_dict(state["network"])
        self.adversary.load(state["adversary"])
        self.average.load(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._steps = state["steps"]

    def batch(self, step: int) -> Known:
        """The crops of a step, which depend on nothing but its number and the seed."""
        config, channels = self.config, self.network.spec.z_channels
        draw = np.random.default_rng((self._seed, _BATCHES, step))
        chosen = draw.integers(0, len(self._crops), config.batch)
        made = make_batch(self._crops, chosen, self._near, config.augment, channels, draw)
        body, known = made.body[:, 0].numpy() > 0, made.mask[:, 0].numpy() > 0
        vertex = self._inputs.vertex(made)
        tables = self._inputs.tables(made.z.numpy(), np.ones(config.batch, np.float32))
        rows = gathered(tables, self._inputs.rows(body, known, vertex))
        parts = self._inputs.embedding(body, vertex), rows
        return Known(made.image, made.mask, made.body, made.wanted, *(torch.from_numpy(part) for part in parts))

    def begin(self, step: int) -> None:
        """The next step has this number."""
        self._steps = step
        self._batches.begin(step)

    def step(self, draw: np.random.Generator, done: float) -> Mapping[str, float]:  # noqa: ARG002  batches draw ahead
        """One step of both networks; see `Task`."""
        known, factor = self._batches.take().to(self._device), cosine(done)
        for group in self._optimiser.param_groups:
            group["lr"] = self.config.rate * factor
        alone = self._steps * self.config.batch < self.config.alone
        judged = self.config.losses.adversarial > 0
        with torch.set_grad_enabled(not alone), self._autocast():
            gammas = self.network.style_net.of_layers(known.rows)
            made = self.network(known.image, known.mask, known.embedding, gammas)
        crops = Shown(made.float(), known.image, known.mask, known.body, known.embedding)
        figures = self.adversary.learn(crops, self._steps, factor) if judged else self.adversary.resting(crops.made)
        figures |= {
            "reconstruction": losses.reconstruction_loss(crops.made, known.image, known.wanted),
            "gradient": losses.gradient_loss(crops.made, known.image, known.wanted),
        }
        nothing = crops.made.new_zeros(())
        figures |= {"adversarial": nothing, "surface": nothing}
        if judged and not alone:
            figures |= self.adversary.says(crops)
        if not alone:
            descend(self._optimiser, losses.generator_total(figures, self.config.losses))
            self.average.update(self.network, self._steps)
        self._steps += 1
        values = torch.stack([value.detach().float() for value in figures.values()]).tolist()
        return dict(zip(figures, values, strict=True))

    def averaged(self) -> SurfaceUnet:
        """A copy of the network with averaged weights."""
        network = SurfaceUnet(self.network.spec)
        network.load_state_dict({name: values.cpu() for name, values in self.average.values.items()})
        return network.eval().requires_grad_(False)

    def close(self) -> None:
        """Ends the threads that prepare batches, and releases the bundle."""
        self._batches.close()
        self._inputs.close()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self.config.bfloat16)


def sharpen_generator(
    bundle: Bundle,
    canonical: Floats,
    crops: CropSet,
    output: Path,
    budget: Budget,
    config: SharpenConfig,
    *,
    name: str,
    seed: int = 0,
    device: torch.device | str = "cpu",
    resume: bool = False,
    save_every: int = 500,
    progress: Progress | None = None,
) -> Bundle:
    """Trains a bundle's generator on, and writes the bundle that comes of it into the run's folder.

    Args:
        bundle: whose generator.
        canonical: (K, 3), the body at rest in metres, of the people in the crops.
        crops: what with.
        output: folder of the run, see `export.starter.training.train`.
        budget: when to end.
        config: how.
        name: of the new bundle, and of its folder in the run's.
        seed: of all draws.
        device: where to train.
        resume: go on from the folder's checkpoint where there is one.
        save_every: steps between checkpoints.
        progress: is told what is being done.

    Raises:
        UsageError: the crops do not fit the generator, or the folder holds a run already.
        CheckpointError: the bundle is of another kind, or for another body.
        ExportError: the training diverged, or something cannot be written.
    """
    task = SharpeningTask(config, bundle, canonical, crops, seed=seed, device=device)
    try:
        train(task, output, budget, seed=seed, save_every=save_every, resume=resume, progress=progress)
    finally:
        task.close()
    return write_narrow(bundle, task.averaged(), output / name, name=name, progress=progress)
