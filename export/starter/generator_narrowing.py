"""A narrower generator that learns to give what a bundle's gives: faster, with the same tables for the same z.

The wide network answers every question, so that nothing has to be judged (Hinton et al. 2015; for generators, Li et al.
2020): crops of people as they come at run time, any z, and the pixels that it generates there. It is told more than the
narrow one: its mask is no larger than it has to be, where masks at run time hide far more than the body. What lies
between both is background, which the narrow one learns to continue. f_w stays as it is. A track keeps its look when the
one bundle takes the other's place, and only the graph that runs in every frame changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engines.bundle import Bundle
from engines.errors import CheckpointError
from export.models.surface import SurfaceUnet
from export.starter import generator_losses as losses
from export.starter.crop_batches import Ahead
from export.starter.crops import CropSet
from export.starter.generator_answers import NarrowConfig, WideGenerator, generate, with_widths
from export.starter.generator_narrow_bundle import write_narrow
from export.starter.generator_network import prepared
from export.starter.generator_slim import slim_network
from export.starter.training import Average, Budget, Progress, State, cosine, train

Floats = NDArray[np.float32]


class NarrowingTask:
    """A narrow generator that learns from a wide one; a `Task` of `export.starter.training`.

    Args:
        config: how.
        wide: whom it asks.
        device: where to.
    """

    def __init__(self, config: NarrowConfig, wide: WideGenerator, *, device: torch.device | str = "cpu") -> None:
        self.config = config
        self._device = torch.device(device)
        self.network = prepared(narrow_network(config, wide), self._device)
        self.average = Average(self.network, 0.5 ** (config.batch / config.half_life))
        self._optimiser = torch.optim.Adam(
            [values for name, values in self.network.named_parameters() if "E_map" not in name],
            lr=config.rate,
            betas=config.betas,
        )
        if config.compiled:
            self.network.compile()
        self._steps = 0
        self._batches = Ahead(wide.batch, workers=config.workers)

    def state(self) -> State:
        """All that is needed to go on."""
        return {
            "what": "narrow generator",
            "widths": list(self.config.widths),
            "network": self.network.state_dict(),
            "average": self.average.values,
            "optimiser": self._optimiser.state_dict(),
            "steps": self._steps,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` gave."""
        self.network.load_state_dict(state["network"])
        self.average.load(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._steps = state["steps"]

    def begin(self, step: int) -> None:
        """The next step has this number."""
        self._steps = step
        self._batches.begin(step)

    def step(self, draw: np.random.Generator, done: float) -> Mapping[str, float]:  # noqa: ARG002  batches draw ahead
        """One step; see `Task`."""
        crops = self._batches.take().to(self._device)
        for group in self._optimiser.param_groups:
            group["lr"] = self.config.rate * cosine(done)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.config.bfloat16):
            made = generate(self.network, crops).float()
        near = losses.reconstruction_loss(made, crops.answer, crops.counts)
        edges = losses.gradient_loss(made, crops.answer, crops.counts)
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(near + self.config.gradient * edges)
        self._optimiser.step()
        self.average.update(self.network, self._steps)
        self._steps += 1
        return {"difference": near.item(), "gradient": edges.item()}

    def averaged(self) -> SurfaceUnet:
        """A copy of the network with averaged weights."""
        network = SurfaceUnet(self.network.spec)
        network.load_state_dict({name: values.cpu() for name, values in self.average.values.items()})
        return network.eval().requires_grad_(False)

    def close(self) -> None:
        """Ends the threads that ask."""
        self._batches.close()


def narrow_network(config: NarrowConfig, wide: WideGenerator) -> SurfaceUnet:
    """The network to begin with.

    Raises:
        CheckpointError: it cannot be cut from the wide one.
    """
    if len(config.widths) != len(wide.spec.encoder):
        raise CheckpointError(f"the bundle's network has {len(wide.spec.encoder)} levels; give as many widths")
    return slim_network(with_widths(wide.spec, config.widths), wide.weights)


def narrow_generator(
    bundle: Bundle,
    canonical: Floats,
    crops: CropSet,
    output: Path,
    budget: Budget,
    config: NarrowConfig,
    *,
    name: str,
    seed: int = 0,
    device: torch.device | str = "cpu",
    resume: bool = False,
    save_every: int = 500,
    progress: Progress | None = None,
) -> Bundle:
    """Trains a narrower generator, and writes its bundle into the run's folder.

    Args:
        bundle: of the wide one.
        canonical: (K, 3), the body at rest in metres, of the people in the crops.
        crops: what it is asked about.
        output: folder of the run, see `export.starter.training.train`.
        budget: when to end.
        config: how.
        name: of the new bundle, and of its folder in the run's.
        seed: of all draws.
        device: where to train; the wide one runs on the processor.
        resume: go on from the folder's checkpoint where there is one.
        save_every: steps between checkpoints.
        progress: is told what is being done.

    Raises:
        UsageError: the crops do not fit the generator, or the folder holds a run already.
        CheckpointError: the bundle is of another kind, or narrower than asked for.
        ExportError: the training diverged, or something cannot be written.
    """
    wide = WideGenerator(bundle, canonical, crops, config, seed)
    try:
        task = NarrowingTask(config, wide, device=device)
        try:
            train(task, output, budget, seed=seed, save_every=save_every, resume=resume, progress=progress)
        finally:
            task.close()
    finally:
        wide.close()
    return write_narrow(bundle, task.averaged(), output / name, name=name, progress=progress)
