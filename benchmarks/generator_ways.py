"""What the generators' benchmark runs: networks of the published sizes, crops, and the ways to generate them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.vertex_search import smooth_map, smooth_surface
from engines.bundle import Bundle
from engines.manifest import Graph
from engines.runtime import Runtime
from export.models.surface import SurfaceSpec, SurfaceUnet
from export.models.unet import StyleUnet, UnetSpec
from stream.generators.base import Crops, Generator
from stream.generators.inputs import HostInputs, shown_by
from stream.latents import Latents
from stream.surface import Surface

Floats = npt.NDArray[np.float32]
Spec = UnetSpec | SurfaceSpec
Network = StyleUnet | SurfaceUnet

#: Of the published networks: w, vertices of the surface.
LATENT, VERTICES = 512, 27_554
TRUNCATION = 0.7


@dataclass(frozen=True)
class Way:
    """One way to generate a batch: `run` gives the images (N, 3, H, W), `before` is not timed."""

    run: Callable[[], Floats]
    before: Callable[[], object] = tuple


def random_crops(spec: Spec, count: int, seed: int = 0) -> Crops:
    """Noise with a body in its middle and a border round it, on a smooth surface where the network knows surfaces."""
    height, width = spec.image_size
    draw = np.random.default_rng(seed)
    v, u = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    radii = np.hypot(u / 0.6, v / 0.8)
    body = np.repeat(radii[None] < 0.9, count, axis=0)
    known = np.repeat(radii[None] >= 1, count, axis=0)
    images = draw.integers(0, 256, (count, height, width, 3), np.uint8)
    tracks = np.arange(count, dtype=np.int64)
    if not spec.embedding_channels:
        return Crops(images, known, tracks)
    embeddings = surface_of(spec, seed)
    regressed = smooth_map(0.01, seed)[:, :height, :width].reshape(spec.embedding_channels, -1).T
    nearest = Surface(embeddings).nearest(np.ascontiguousarray(regressed)).reshape(1, height, width)
    vertices = np.where(body, nearest, 0).astype(np.int64)
    return Crops(images, known, tracks, body, vertices)


def surface_of(spec: Spec, seed: int = 0) -> Floats:
    """The embeddings of the vertices of `random_crops`, which random networks do not come with."""
    return smooth_surface(spec.vertices if isinstance(spec, SurfaceSpec) else VERTICES, seed)


def published_way(network: Network, crops: Crops, bundle: Bundle, latents: Latents) -> Way:
    """Everything from z, for every frame, all persons in one run."""
    shown = {name: torch.from_numpy(array) for name, array in _shown(bundle.graph("generator"), crops, bundle).items()}
    image, mask, embedding = shown["image"], shown["mask"], shown.get("embedding")
    z = torch.from_numpy(np.stack([latents.of(int(track)).z for track in crops.track_ids]))
    body = None if crops.body is None else torch.from_numpy(crops.body[:, None].astype(np.float32))

    @torch.no_grad()
    def unet() -> Floats:
        assert isinstance(network, StyleUnet)
        w = torch.lerp(network.style_net.w_avg, network.style_net(z), TRUNCATION)
        images: Tensor = network(image, mask, w, embedding, body)
        return images.numpy()

    @torch.no_grad()
    def surface() -> Floats:
        assert isinstance(network, SurfaceUnet)
        assert crops.vertices is not None
        assert body is not None
        f_w = network.style_net.E_map
        w = torch.stack([torch.lerp(f_w.w_avg, f_w(z[i : i + 1]), TRUNCATION) for i in range(len(z))])
        gammas = network.style_net(w, mask, 1 - mask - body, torch.from_numpy(crops.vertices))
        images: Tensor = network(image, mask, embedding, gammas)
        return images.numpy()

    return Way(unet if isinstance(network, StyleUnet) else surface)


def our_ways(generator: Generator, crops: Crops) -> dict[str, Way]:
    """`first` frame of tracks, and `steady` from the second on."""
    tracks = crops.track_ids

    def known() -> None:
        generator.request(tracks)
        generator.wait(tracks)

    def run() -> Floats:
        made = generator.generate(crops)
        assert made.done.all()
        return made.output

    def forget() -> None:
        for track in tracks:
            generator.forget(int(track))

    def first() -> Floats:
        known()
        return run()

    return {"first": Way(first, forget), "steady": Way(run, known)}


def engine_feeds(runtime: Runtime, mapping: Runtime, crops: Crops, bundle: Bundle) -> dict[str, npt.NDArray[Any]]:
    """Inputs of the bare graph for all crops; everybody looks alike, which costs the same."""
    feeds = _shown(runtime.graph, crops, bundle) | {"w": np.zeros((len(crops), LATENT), np.float32)}
    if "vertices" in feeds:
        tables = mapping.run({"z": np.ones((1, LATENT), np.float32), "truncation": np.ones(1, np.float32)})
        feeds |= {name: np.repeat(table[None], len(crops), axis=0) for name, table in tables.items()}
        feeds |= {"slot": np.arange(len(crops), dtype=np.int64)}
    return {tensor.name: feeds[tensor.name] for tensor in runtime.inputs}


def _shown(graph: Graph, crops: Crops, bundle: Bundle) -> dict[str, npt.NDArray[Any]]:
    """What of a graph's inputs shows the crops."""
    generation = bundle.manifest.generation
    vertices = VERTICES if generation is None or not generation.vertices else generation.vertices
    embeddings = None if crops.vertices is None else smooth_surface(vertices, 0)
    return HostInputs(shown_by(graph), bundle.manifest.normalisation, embeddings).of(crops)


def engine_way(runtime: Runtime, feeds: Mapping[str, npt.NDArray[Any]], batch: int) -> Way:
    """The bare graph with a batch in one run."""
    part = {name: values[:batch] for name, values in feeds.items()}
    return Way(lambda: np.asarray(runtime.run(part)["output"], np.float32))
