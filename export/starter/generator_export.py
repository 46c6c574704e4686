"""From a trained generator to its bundle, by the very code that exports SG-GAN."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from engines.bundle import Bundle
from engines.errors import CheckpointError
from export.generators import Precision, Progress, export_generator
from export.models.surface import SurfaceUnet
from export.starter.coarse_surface import ARRAY, MEANING, VERTICES, on_vertices, spread_vertices
from export.starter.generator_network import NetworkConfig, needs_bound
from export.starter.training import load_checkpoint, save_checkpoint
from export.vertex_embeddings import check_surface_agrees

#: The bundle's name.
BUNDLE_NAME = "starter-generator"
_WEIGHTS, _CONFIG = "EMA_generator", "network"


def write_generator(path: Path, network: SurfaceUnet, config: NetworkConfig) -> None:
    """Writes averaged weights as published generators come, and beside them what no tensor shows.

    Raises:
        ExportError: it cannot be written.
    """
    weights = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    save_checkpoint(path, {_WEIGHTS: weights, _CONFIG: config.state()})


def read_generator(path: Path) -> tuple[SurfaceUnet, NetworkConfig]:
    """The network that `write_generator` wrote, ready to run.

    Raises:
        CheckpointError: the file is not of this training.
    """
    state = load_checkpoint(path)
    try:
        config, weights = NetworkConfig.of(state[_CONFIG]), state[_WEIGHTS]
        vertices, channels = weights["style_net.E_map.E"].shape
        network = SurfaceUnet(config.spec(vertices, channels))
        network.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} is no generator of this training ({reason}); give {path.name} of a run"
        ) from error
    return network.eval().requires_grad_(False), config


def export_starter(
    checkpoint: Path,
    embeddings: NDArray[np.float32],
    output: Path,
    *,
    name: str = BUNDLE_NAME,
    vertices: int = VERTICES,
    precision: Precision = "fp32",
    progress: Progress | None = None,
) -> Bundle:
    """Makes the bundle of a trained generator.

    Args:
        checkpoint: from `write_generator`.
        embeddings: (K, D) of each vertex, those that it was trained with.
        output: folder for the bundle; must not exist, or be empty.
        name: of the bundle.
        vertices: of its surface.
        precision: which generators: float32, float16 or both.
        progress: is told what is being done.

    Raises:
        CheckpointError: the checkpoint is not of this training, or was trained with another surface.
        ExportError: a graph differs from the network, or something cannot be written.
    """
    network, config = read_generator(checkpoint)
    if len(embeddings) != network.spec.vertices:
        raise CheckpointError(
            f"{checkpoint} was trained on {network.spec.vertices} vertices, the surface has {len(embeddings)}; "
            "give the detector's checkpoint that it was trained with"
        )
    check_surface_agrees(embeddings, network.style_net.E_map.E.numpy())
    chosen = spread_vertices(embeddings, vertices)
    bounded = precision != "fp32" or needs_bound(network)
    with TemporaryDirectory() as folder:
        coarser = Path(folder) / f"{checkpoint.stem}-{len(chosen)}-vertices{checkpoint.suffix}"
        write_generator(coarser, on_vertices(network, config, embeddings, chosen), config)
        return export_generator(
            name,
            coarser,
            output,
            precision=precision,
            config=config.declared(name, embeddings.shape[1], bounded=bounded),
            surface=embeddings[chosen],
            extra={ARRAY: (chosen, MEANING)},
            progress=progress,
        )
