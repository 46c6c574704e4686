"""Trains the detector on packed scenes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from engines.bundle import Bundle, open_bundle
from engines.errors import CheckpointError
from export.starter.detector import DetectorSpec, PersonNetwork
from export.starter.detector_data import Augmentation, PackedScenes, Samples, batches, stacked
from export.starter.detector_losses import LossWeights, SurfaceLoss, losses, total
from export.starter.detector_surface import Anchors, Template, smooth_table, spread_anchors, vertex_embeddings
from export.starter.detector_unfold import check_surface, read_folded, unfold
from export.starter.training import (
    Average,
    Budget,
    Progress,
    State,
    cosine,
    load_checkpoint,
    train,
)

#: Gradients are shortened to this norm: a single odd batch must not throw the rest away.
_LONGEST_GRADIENT = 5.0
#: Samples on which the statistics of a bundle's network are measured.
_MEASURED = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorOptions:
    """How a detector is trained.

    Attributes:
        spec: Its size.
        size: Height and width of the pictures that it learns from, multiples of 32.
        batch: Pictures in a step.
        rate: The highest learning rate; it goes down along half a cosine.
        warm_up: Steps until that rate is reached.
        weight_decay: Of AdamW.
        average: Decay of the averaged weights, which are the ones that count.
        anchors: Of the surface.
        weights: Of the losses.
        augmentation: See there.
        device: `cpu` or `cuda`.
        mixed: Compute in bfloat16 where that is enough.
        compiled: Whether the network is compiled, which needs a C++ compiler and a minute, and saves a third of a step.
        workers: Processes that prepare batches; 0 for none.
        learn_surface: Whether the surface's embeddings are learnt as well. As long as they are not, any detector goes
            with any generator that was trained for the same body.
    """

    spec: DetectorSpec = field(default_factory=DetectorSpec)
    size: tuple[int, int] = (256, 448)
    batch: int = 24
    rate: float = 2e-3
    warm_up: int = 200
    weight_decay: float = 1e-2
    average: float = 0.998
    anchors: int = 384
    weights: LossWeights = field(default_factory=LossWeights)
    augmentation: Augmentation = field(default_factory=Augmentation)
    device: str = "cpu"
    mixed: bool = True
    compiled: bool = False
    workers: int = 0
    learn_surface: bool = False


class DetectorTask:
    """A detector in training: a `Task`.

    Args:
        scenes: what it learns from.
        template: the surface of the people in them.
        options: see there.
        seed: of the first weights and of the samples.
    """

    def __init__(
        self,
        scenes: PackedScenes,
        template: Template,
        options: DetectorOptions,
        seed: int,
    ) -> None:
        torch.manual_seed(seed)
        self.options = options
        self._device = torch.device(options.device)
        self._anchors = spread_anchors(template.canonical, template.faces, options.anchors)
        self.network = PersonNetwork(options.spec).to(self._device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        nearest, weights = torch.from_numpy(self._anchors.nearest), torch.from_numpy(self._anchors.weights)
        table = smooth_table(template, self._anchors, options.spec.embedding)
        self.surface = SurfaceLoss(nearest, weights, torch.from_numpy(table))
        self.surface.to(self._device)
        self.surface.table.requires_grad_(options.learn_surface)
        self._learnt = nn.ModuleList([self.network, self.surface])
        self._average = Average(self._learnt, options.average)
        self._optimiser = torch.optim.AdamW(_groups(self._learnt, options.weight_decay), lr=options.rate)
        self._samples = Samples(scenes, template, options.size, seed, options.augmentation)
        self._batches: Iterator[dict[str, Tensor]] = iter(())
        self._step = 0

    def state(self) -> State:
        """See `Task`; the averaged weights are under `average`."""
        return {
            "what": "detector",
            "spec": self.options.spec.state(),
            "size": list(self.options.size),
            "anchors": self._anchors.state(),
            "learnt": self._learnt.state_dict(),
            "average": self._average.values,
            "optimiser": self._optimiser.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """See `Task`.

        Raises:
            ValueError: it is the state of another network, or of another surface.
        """
        if state["spec"] != self.options.spec.state():
            raise ValueError(f"its network is {state['spec']}, not {self.options.spec.state()}")
        self._anchors = _same_surface(self._anchors, Anchors.of(state["anchors"]))
        self._learnt.load_state_dict(state["learnt"])
        self._average.load(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])

    def begin_with(self, state: Mapping[str, Any]) -> None:
        """Takes over the averaged weights of another training, and nothing else of it."""
        _same_surface(self._anchors, Anchors.of(state["anchors"]))
        self._learnt.load_state_dict(state["average"])
        self._average.load(state["average"])

    def begin_with_bundle(self, bundle: Bundle) -> None:
        """Takes over the network of a bundle; its statistics are measured on samples.

        Raises:
            CheckpointError: it is another network, or was trained for another surface.
        """
        check_surface(bundle, vertex_embeddings(self.surface.table, self._anchors))
        pictures = (stacked([self._samples[number]])["image"].to(self._device) for number in range(_MEASURED))
        unfold(self.network, read_folded(bundle), pictures)
        self._average.load(self._learnt.state_dict())

    def begin(self, step: int) -> None:
        """See `Task`."""
        if self.options.compiled:
            # Not before weights are taken over: hooks that look into the network would make it compile again each time.
            self.network.compile()
        self._step = step
        self._batches = batches(self._samples, self.options.batch, first=step, workers=self.options.workers)

    def step(self, draw: np.random.Generator, done: float) -> dict[str, float]:
        """See `Task`."""
        del draw  # samples have generators of their own
        wanted = {name: values.to(self._device, non_blocking=True) for name, values in next(self._batches).items()}
        self._learnt.train()
        for group in self._optimiser.param_groups:
            group["lr"] = self.options.rate * min(1.0, (self._step + 1) / self.options.warm_up) * cosine(done)
        image = wanted["image"].contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.options.mixed):
            coarse, fine = self.network(image)
        parts = losses(coarse, fine, wanted, self.surface)
        cost = total(parts, self.options.weights)
        self._optimiser.zero_grad()
        cost.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._learnt.parameters(), _LONGEST_GRADIENT)
        self._optimiser.step()
        self._average.update(self._learnt, self._step)
        self._step += 1
        figures = torch.stack([cost, *parts.values()]).detach().tolist()
        return dict(zip(("total", *parts), figures, strict=True))


def _groups(learnt: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights of convolutions decay; scales, biases and the surface's embeddings do not."""
    decays = [values for values in learnt.parameters() if values.ndim == 4]
    stays = [values for values in learnt.parameters() if values.ndim != 4]
    return [{"params": decays, "weight_decay": weight_decay}, {"params": stays, "weight_decay": 0.0}]


def _same_surface(mine: Anchors, stored: Anchors) -> Anchors:
    if not (np.array_equal(mine.vertices, stored.vertices) and np.array_equal(mine.nearest, stored.nearest)):
        raise ValueError("its surface is another body's, or has other anchors")
    return stored


def train_detector(
    scenes: PackedScenes,
    template: Template,
    folder: Path,
    budget: Budget,
    options: DetectorOptions,
    *,
    seed: int = 0,
    resume: bool = False,
    weights: Path | None = None,
    save_every: int = 500,
    log_every: int = 50,
    progress: Progress | None = None,
) -> Path:
    """Trains a detector, and gives the path of its checkpoint.

    Args:
        scenes: what it learns from.
        template: the surface of the people in them.
        folder: of the run.
        budget: when to end.
        options: see there.
        seed: of everything that is drawn.
        resume: go on from the folder's checkpoint where there is one.
        weights: checkpoint of another training to begin with, such as one on smaller pictures, or a bundle's folder,
            such as that of the starter set.
        save_every: steps between checkpoints.
        log_every: steps between lines of the log.
        progress: is told what is being done.

    Raises:
        UsageError, CheckpointError, ExportError: see `train`.
    """
    task = DetectorTask(scenes, template, options, seed)
    if weights is not None:
        try:
            if weights.is_dir():
                task.begin_with_bundle(open_bundle(weights))
            else:
                task.begin_with(load_checkpoint(weights)["task"])
        except (KeyError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{weights} has no weights for this detector ({reason})") from error
    train(
        task,
        folder,
        budget,
        seed=seed,
        log_every=log_every,
        save_every=save_every,
        resume=resume,
        progress=progress,
    )
    return folder / "checkpoint.pt"


@dataclass(frozen=True, slots=True, eq=False)
class TrainedDetector:
    """What a checkpoint gives to use.

    Attributes:
        network: with averaged weights, in evaluation mode.
        size: height and width of the pictures that it learnt from.
        embeddings: (K,D) float32 of unit norm, of the body's vertices.
        steps: that it was trained for.
        seed: of its training.
    """

    network: PersonNetwork
    size: tuple[int, int]
    embeddings: npt.NDArray[np.float32]
    steps: int
    seed: int


def load_detector(path: Path) -> TrainedDetector:
    """Reads the averaged weights of a checkpoint.

    Raises:
        CheckpointError: it is not a detector's.
    """
    whole = load_checkpoint(path)
    try:
        state = whole["task"]
        spec = DetectorSpec.of(state["spec"])
        network = PersonNetwork(spec)
        average = state["average"]
        network.load_state_dict({name[2:]: values for name, values in average.items() if name.startswith("0.")})
        embeddings = vertex_embeddings(average["1.table"], Anchors.of(state["anchors"]))
        height, width = state["size"]
        network.eval().requires_grad_(False)
        return TrainedDetector(network, (height, width), embeddings, int(whole["step"]), int(whole["seed"]))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} is not a detector's ({reason}); give one that its training wrote") from error
