"""A narrower generator that learns to give what a bundle's gives: faster, with the same tables for the same z.

The wide network answers every question, so that nothing has to be judged (Hinton et al. 2015; for generators, Li et al.
2020): crops of people as they come at run time, any z, and the pixels that it generates there. It is told more than the
narrow one: its mask is no larger than it has to be, where masks at run time hide far more than the body. What lies
between both is background, which the narrow one learns to continue. f_w stays as it is. A track keeps its look when the
one bundle takes the other's place, and only the graph that runs in every frame changes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.bundle import Bundle, open_bundle, write_bundle
from engines.errors import CheckpointError, UsageError
from engines.manifest import Graph, ManifestDraft
from engines.runtime import Runtime, open_runtime
from export import graphs
from export.bundle_folder import new_bundle_folder
from export.models.folded import fold
from export.models.surface import SurfaceSpec, SurfaceUnet, downsampled
from export.models.tables import TableModulation, plan_tables
from export.starter import generator_losses as losses
from export.starter.coarse_surface import nearest_of, vertices_of
from export.starter.crop_batches import (
    BODY,
    RADIUS,
    Ahead,
    AugmentConfig,
    Bools,
    grown,
    make_batch,
    nearest_vertices,
)
from export.starter.crops import OTHERS, CropSet
from export.starter.generator_network import draw_weights
from export.starter.generator_slim import read_wide, slim, widths_of
from export.starter.training import Average, Budget, Progress, State, cosine, train
from export.to_onnx import DEFAULT_OPSET
from export.written import write_and_compare

Floats = NDArray[np.float32]
_BATCHES: Final = 1


@dataclass(frozen=True, kw_only=True)
class NarrowConfig:
    """How a generator is made narrower.

    Attributes:
        widths: channels of each level, finest first; as many levels as the wide one has, none wider.
        augment: how crops differ from what the renderer knows, as the narrow network sees them.
        truncation: least and largest of the z that are asked for.
        gradient: how much differences between neighbouring pixels count, beside the pixels' own.
        batch: crops in a step.
        rate: of Adam, falling along half a cosine.
        betas: of Adam.
        half_life: of the averaged weights, in pictures.
        bfloat16: whether the network computes in bfloat16 where that is safe.
        compiled: whether it is compiled, which needs a C++ compiler and a minute.
        workers: threads that ask the wide network.
    """

    widths: tuple[int, ...] = (16, 16, 48, 64)
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(dilation=(0.5, 8.0), box=0.15))
    truncation: tuple[float, float] = (0.4, 1.0)
    gradient: float = 1.0
    batch: int = 16
    rate: float = 0.003
    betas: tuple[float, float] = (0.5, 0.99)
    half_life: float = 5_000
    bfloat16: bool = True
    compiled: bool = False
    workers: int = 1


class Answered(NamedTuple):
    """Crops as the narrow network sees them, and what it should make of them.

    Attributes:
        image: (N,3,H,W) in [-1,1].
        mask: (N,1,H,W), 1 where known.
        embedding: (N,D,H,W), 0 outside the body.
        rows: (N,W,H,W), each pixel's row of its table, with `w_channels` channels.
        answer: (N,3,H,W), what is to be generated.
        counts: (N,1,H,W), 1 where it is: unknown pixels but those of other people, of whom nobody knows anything.
    """

    image: Tensor
    mask: Tensor
    embedding: Tensor
    rows: Tensor
    answer: Tensor
    counts: Tensor

    def to(self, device: torch.device | str) -> Answered:
        """The same on another device."""
        return Answered(*(part.to(device, non_blocking=True) for part in self))


class WideGenerator:
    """A bundle's generator, asked about crops.

    Args:
        bundle: of a V-SAM generator with a surface.
        canonical: (K, 3), the body at rest in metres, of the people in the crops.
        crops: where from.
        config: how they are drawn.
        seed: of all draws.

    Raises:
        CheckpointError: the bundle is of another kind, or for another body.
    """

    def __init__(self, bundle: Bundle, canonical: Floats, crops: CropSet, config: NarrowConfig, seed: int) -> None:
        self.weights = read_wide(bundle)
        self.spec = spec_of(bundle, self.weights)
        if len(plan_tables(self.spec).widths) != 1:
            raise CheckpointError(f"{bundle.path} has several tables for each track; only one with a single one fits")
        if self.spec.image_size != crops.size:
            raise UsageError(f"crops are {crops.size}, the generator {self.spec.image_size}; cut them again")
        numbers = vertices_of(bundle)
        if numbers.max() >= len(canonical):
            raise CheckpointError(f"{bundle.path} is for another body; give the one that it was trained with")
        self._crops, self._config, self._seed = crops, config, seed
        self._embeddings = np.asarray(bundle.array("vertex_embeddings"), np.float32)
        self._vertex = nearest_of(canonical, numbers)
        self._near = nearest_vertices(canonical, config.augment.neighbours)
        self._mapping, self._generator = (open_runtime(bundle, graph, threads=1) for graph in ("mapping", "generator"))

    def batch(self, step: int) -> Answered:
        """The crops of a step with their answers, which depend on nothing but its number and the seed."""
        config, count = self._config, self._config.batch
        draw = np.random.default_rng((self._seed, _BATCHES, step))
        chosen = draw.integers(0, len(self._crops), count)
        made = make_batch(self._crops, chosen, self._near, config.augment, self.spec.z_channels, draw)
        z = draw.standard_normal((count, 1, self.spec.z_channels), np.float32)
        truncation = draw.uniform(*config.truncation, (count, 1)).astype(np.float32)
        tables = np.stack(
            [self._mapping.run({"z": z[i], "truncation": truncation[i]})["table_0"] for i in range(count)]
        )
        labels = np.stack([self._crops.labels[i] for i in chosen])
        body, known = made.body[:, 0].numpy() > 0, made.mask[:, 0].numpy() > 0
        told = np.stack([~_hidden(label, own) for label, own in zip(labels, body, strict=True)])
        vertex = self._vertex[made.vertices.numpy()]
        embedding = np.where(body[..., None], self._embeddings[vertex], np.float32(0)).transpose(0, 3, 1, 2)
        feeds = {
            "image": made.image.numpy(),
            "mask": told[:, None].astype(np.float32),
            "embedding": np.ascontiguousarray(embedding),
            "vertices": self._rows(body, told, vertex),
            "slot": np.arange(count),
            "table_0": tables,
        }
        rows = tables[np.arange(count)[:, None, None], self._rows(body, known, vertex)].transpose(0, 3, 1, 2)
        counts = (~known & ~(told & (labels == OTHERS)))[:, None].astype(np.float32)
        parts = feeds["embedding"], rows, self._generator.run(feeds)["output"], counts
        return Answered(made.image, made.mask, *(torch.from_numpy(part) for part in parts))

    def _rows(self, body: Bools, known: Bools, vertex: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which row of a table each pixel takes."""
        return np.where(body, vertex, np.where(known, self.spec.vertices, self.spec.vertices + 1))

    def close(self) -> None:
        """Releases the runtimes."""
        self._mapping.close()
        self._generator.close()


def _hidden(labels: NDArray[np.int16], body: Bools) -> Bools:
    """What the wide network is to generate: the person, wherever the body is thought to be, and SG-GAN's dilation."""
    own = labels >= 0
    return grown(own | body, max(1, math.ceil(RADIUS * math.sqrt(np.count_nonzero(own) / BODY))))


def spec_of(bundle: Bundle, wide: Mapping[str, Tensor]) -> SurfaceSpec:
    """What the network of a bundle looks like; f_w apart, of which nothing is trained here."""
    generation = bundle.manifest.generation
    assert generation is not None  # noqa: S101  read_wide has seen to it
    widths, middle = widths_of(wide)
    return with_widths(
        SurfaceSpec(
            image_size=generation.image_size,
            image_channels=3,
            z_channels=generation.z_channels,
            w_channels=wide["modulation.weight0"].shape[0],
            hidden_channels=1,
            vertices=generation.vertices,
            embedding_channels=generation.embedding_channels,
            embedding_layers=1,
            z_layers=1,
            combined_layers=2,
            encoder=(),
            decoder=(),
            middle_blocks=middle,
            conv_clamp=256.0,
        ),
        widths,
    )


def with_widths(spec: SurfaceSpec, widths: tuple[int, ...]) -> SurfaceSpec:
    """The same with other channels."""
    down = (*itertools.pairwise(widths), (widths[-1], widths[-1]))
    return replace(spec, encoder=down, decoder=tuple((wide, narrow) for narrow, wide in reversed(down)))


def generate(network: SurfaceUnet, crops: Answered) -> Tensor:
    """What a network that is not folded makes of crops: (N,3,H,W), known pixels as given."""
    style = network.style_net
    pyramid = downsampled(crops.rows, len(network.spec.decoder))
    gammas = [layer(pyramid[-1 - number // 2]) for number, layer in enumerate(style.dec_layers)]
    made: Tensor = network(crops.image, crops.mask, crops.embedding, gammas)
    return made


class NarrowingTask:
    """A narrow generator that learns from a wide one; a `Task` of `export.starter.training`.

    Args:
        config: how.
        wide: whom it asks.
        device: where to.
    """

    def __init__(self, config: NarrowConfig, wide: WideGenerator, *, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.network = narrow_network(config, wide)
        self._device = torch.device(device)
        self.network.to(self._device)
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
    network = SurfaceUnet(with_widths(wide.spec, config.widths))
    draw_weights(network)
    slim(network, wide.weights)
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


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


def write_narrow(
    bundle: Bundle, network: SurfaceUnet, output: Path, *, name: str, progress: Progress | None = None
) -> Bundle:
    """Writes the bundle of a narrower generator: its graph, and all else of the wide one's.

    Args:
        bundle: of the wide one.
        network: not folded; folded afterwards.
        output: folder for the bundle; must not exist, or be empty.
        name: of the bundle.
        progress: is told what is being done.

    Raises:
        ExportError: the graph differs from the network, or something cannot be written.
    """
    say = progress or (lambda _: None)
    known, spec = bundle.manifest, network.spec
    assert known.generation is not None  # noqa: S101
    example = graphs.random_inputs(spec.image_size, spec.z_channels, spec.embedding_channels, spec.vertices)
    with open_runtime(bundle, "mapping") as mapping:
        tables = [_table(mapping, z) for z in example["z"]]
    example["table_0"] = np.stack(tables)
    rows = example["table_0"][example["slot"][:, None, None], example["vertices"]].transpose(0, 3, 1, 2)
    image, mask, embedding = graphs.tensors(example, "image", "mask", "embedding")
    with torch.no_grad(), new_bundle_folder(output) as work:
        crops = Answered(image, mask, embedding, torch.from_numpy(rows), image, 1 - mask)
        expected = {"output": generate(network, crops).numpy()}
        modulation = TableModulation(network)
        del network.style_net
        plan = graphs.surface_generator(fold(network), modulation, example, half=False)
        parity = write_and_compare(plan, expected, work, DEFAULT_OPSET, say)
        files = {known.graphs["mapping"].file, *(array.file for array in known.arrays.values())}
        draft = {
            **{field: getattr(known, field) for field in ManifestDraft.model_fields},
            "name": name,
            "graphs": {
                "mapping": known.graphs["mapping"],
                plan.key: Graph(file=plan.file, inputs=plan.inputs, outputs=plan.outputs),
            },
            "exporter": f"standin {metadata.version('standin')}, torch {torch.__version__}",
            "parity": (*(case for case in known.parity if case.graph == "mapping"), *parity),
            # Those of the wide one say nothing of this one.
            "generation": known.generation.model_copy(update={"activations": (), "config": name}),
        }
        contents: dict[str, bytes | Path] = {file: bundle.file(file) for file in files}
        write_bundle(work / "bundle", ManifestDraft(**draft), contents | {plan.file: work / plan.file})
    return open_bundle(output)


def _table(mapping: Runtime, z: Floats) -> Floats:
    return np.asarray(mapping.run({"z": z[None], "truncation": np.ones(1, np.float32)})["table_0"], np.float32)
