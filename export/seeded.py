"""Bundles of the published networks at full size with seeded random weights, to measure a machine without checkpoints.

How fast a network runs does not depend on its weights. Such bundles find and make nothing that means anything. They are
kept beside a store's bundles and never among them, where a run would take them for the published ones.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from filelock import FileLock

from engines.bundle import open_bundle
from engines.errors import BundleError, ExportError, UsageError
from export.configs import Config, UnetConfig, configs
from export.detector_checkpoint import build_networks
from export.detectors import export_detector
from export.detectron2_configs import detector_configs
from export.dsfd import export_dsfd
from export.generators import export_generator
from export.models.dsfd import Dsfd, DsfdSpec
from export.models.surface import SurfaceSpec, SurfaceUnet
from export.models.unet import StyleUnet, UnetSpec
from export.vertex_embeddings import PERSON_MESH, standardise

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from engines.bundle import Bundle

#: What the bundles' provenance says, and by what they are known.
LABEL: Final = "seeded-random-weights"
#: Where they are kept, below a store's folder.
FOLDER: Final = "seeded"
#: Of the published networks: channels at the finest level, most channels, w, vertices and channels of the surface.
_WIDTH, _WIDEST, _LATENT, _VERTICES, _CHANNELS = 64, 512, 512, 27_554, 16
_DETECTORS: Final = {
    "maskrcnn": "mask_rcnn_X_101_32x8d_FPN_3x",
    "cse": "densepose_rcnn_R_101_FPN_DL_soft_s1x",
}
_DSFD: Final = "dsfd"
_DSFD_BLOCKS: Final = (3, 8, 36, 3)
_SEED: Final = 0
#: The vertex map inside of SG-GAN's weights.
_MAP: Final = "style_net.E_map.E"

Progress = Callable[[str], None]


def seeded_names() -> tuple[str, ...]:
    """What bundles can be made."""
    return (*dict.fromkeys(config.export for config in configs().values()), *_DETECTORS, _DSFD)


def seeded_bundle(name: str, output: Path, *, progress: Progress | None = None) -> Bundle:
    """Makes a bundle of a published network with seeded random weights, the same in every call.

    Args:
        name: as in `seeded_names`.
        output: folder for the bundle; must not exist, or be empty.
        progress: is told what is being done.

    Raises:
        UsageError: there is no such network.
        StandinError: it cannot be exported here.
    """
    if name not in seeded_names():
        raise UsageError(f"no network named {name!r} is known; expected one of {', '.join(seeded_names())}")
    with tempfile.TemporaryDirectory(prefix="standin-seeded-") as folder:
        path = Path(folder) / f"{LABEL}-{name}.pth"
        if name in _DETECTORS:
            torch.save({"model": _detector_state(_DETECTORS[name])}, path)
            return export_detector(name, path, output, config=_DETECTORS[name], progress=progress)  # type: ignore[arg-type]
        if name == _DSFD:
            torch.save(_calm(Dsfd(DsfdSpec(_DSFD_BLOCKS)).state_dict()), path)
            return export_dsfd(path, output, progress=progress)
        config = configs()[name]
        torch.save({"EMA_generator": seeded_network(published_spec(config)).state_dict()}, path)
        surface = seeded_surface() if config.embedding_channels else None
        return export_generator(name, path, output, config=name, surface=surface, progress=progress)


def kept_bundle(name: str, root: Path, *, progress: Progress | None = None) -> Path:
    """The folder of such a bundle below a store's; made now if it is not there, not whole, or of another release.

    Processes that want the same one wait for each other, and only the first makes it.

    Args:
        name: as in `seeded_names`.
        root: the store's folder.
        progress: is told what is being done.

    Raises:
        UsageError: there is no such network.
        StandinError: it cannot be exported here, or the folder cannot be written.
    """
    if name not in seeded_names():
        raise UsageError(f"no network named {name!r} is known; expected one of {', '.join(seeded_names())}")
    folder = root / FOLDER / name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{name}.lock")):
            if not _is_current(folder):
                if folder.exists():
                    shutil.rmtree(folder)
                seeded_bundle(name, folder, progress=progress)
    except OSError as error:
        raise ExportError(f"cannot write {folder.parent}: {error.strerror or error}") from error
    return folder


def _is_current(folder: Path) -> bool:
    try:
        exporter = open_bundle(folder).manifest.exporter
    except BundleError:
        return False
    return exporter.partition(",")[0] == f"standin {metadata.version('standin')}"


def seeded_surface(vertices: int = _VERTICES) -> NDArray[np.float32]:
    """The vertex embeddings that all of these bundles share, (K, 16) float32 of unit norm, on a smooth surface."""
    draw = np.random.default_rng(_SEED)
    step = np.arange(vertices) + 0.5
    height, turn = 1 - 2 * step / vertices, step * np.pi * (3 - np.sqrt(5))
    across = np.sqrt(1 - height**2)
    sphere = np.stack([across * np.cos(turn), across * np.sin(turn), height], axis=1)
    waves = np.sin(sphere @ draw.normal(0, 2, (3, _CHANNELS)) + draw.uniform(0, 2 * np.pi, _CHANNELS))
    return np.asarray(waves / np.linalg.norm(waves, axis=1, keepdims=True), np.float32)


def _detector_state(config_name: str) -> dict[str, Tensor]:
    config = detector_configs()[config_name]
    torch.manual_seed(_SEED)
    state: dict[str, Tensor] = {}
    for network in build_networks(config):
        state |= network.state_dict()
    if config.dense is not None:
        # Features times a learnt matrix are the embeddings: here, the embeddings times one that changes nothing.
        features, learnt = (state[f"roi_heads.embedder.embedder_{PERSON_MESH}.{n}"] for n in ("features", "embeddings"))
        features.zero_()[:, :_CHANNELS] = torch.from_numpy(seeded_surface())
        learnt.copy_(torch.eye(*learnt.shape))
    return state


def published_spec(
    config: Config, *, width: int = _WIDTH, widest: int = _WIDEST, vertices: int = _VERTICES
) -> UnetSpec | SurfaceSpec:
    """The network that a config was published with.

    Args:
        config: of a generator.
        width: channels at the finest level.
        widest: most channels of any level.
        vertices: of the surface.
    """
    widths = [min(width * 2**level, widest) for level in range(config.levels)]
    pairs = tuple(zip(widths, [*widths[1:], widths[-1]], strict=True))
    fields: dict[str, Any] = {
        "image_size": config.image_size,
        "image_channels": 3,
        "z_channels": config.z_channels,
        "w_channels": _LATENT,
        "embedding_channels": config.embedding_channels,
        "encoder": pairs,
        "decoder": tuple((outputs, inputs) for inputs, outputs in reversed(pairs)),
        "conv_clamp": config.conv_clamp,
    }
    if isinstance(config, UnetConfig):
        return UnetSpec(**fields, mapping_layers=2, middle_blocks=0, fix_errors=config.fix_errors)
    fields |= {"embedding_layers": 2, "z_layers": 3, "combined_layers": 6, "middle_blocks": 2}
    return SurfaceSpec(**fields, hidden_channels=_LATENT, vertices=vertices)


def random_network(spec: UnetSpec | SurfaceSpec, seed: int = _SEED) -> StyleUnet | SurfaceUnet:
    """A generator whose random weights keep the size of what flows through: normal, spread 1, biases 0.1, scales 1."""
    network = StyleUnet(spec) if isinstance(spec, UnetSpec) else SurfaceUnet(spec)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("resample_filter"):
                continue
            # The U-Net's mapping multiplies its weights by 0.01.
            slow = name.startswith("style_net.fc") and name.endswith("weight")
            spread = 100.0 if slow else 0.1 if name.endswith(("bias", "w_avg")) else 1.0
            layers = name.startswith("style_net.dec_layers") and name.endswith("bias")
            scales = name.endswith(".affine.bias") or layers
            tensor.normal_(1.0 if scales else 0.0, spread, generator=random)
    return network.eval()


def seeded_network(spec: UnetSpec | SurfaceSpec) -> StyleUnet | SurfaceUnet:
    """A random generator, with a surface that is smooth as published ones are."""
    network = random_network(spec)
    if isinstance(spec, SurfaceSpec):
        network.state_dict()[_MAP].copy_(torch.from_numpy(standardise(seeded_surface(spec.vertices))))
    return network


def _calm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convolutions drawn so that a layer neither grows nor fades; statistics as they are in the beginning."""
    random = torch.Generator().manual_seed(_SEED)
    for name, tensor in state.items():
        if name.endswith("weight") and tensor.ndim == 4:
            tensor.normal_(0.0, (2.0 / tensor[0].numel()) ** 0.5, generator=random)
            # Pixels come as they are, up to 150 from the middle, and levels are multiplied by each other; what ends a
            # residual block is added 36 times; sizes of boxes are exponentials.
            tensor.mul_(0.01 if name == "layer1.0.weight" else 0.1 if "conv3" in name or name.startswith("loc") else 1)
        elif name.endswith("bias"):
            tensor.zero_()
    return state
