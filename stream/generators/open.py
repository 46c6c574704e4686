"""Opens the generator of a bundle."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np

from engines.bundle import Bundle
from engines.errors import BundleError, UsageError
from engines.manifest import Generation
from engines.runtime import Device, Runtime, open_runtime
from engines.runtime_chained import ChainedRuntime
from engines.runtime_joined import JoinedRuntime
from engines.small_graphs import open_small
from stream.cores import share_cores_of_crops
from stream.generators.base import Floats, Generator, most_crops
from stream.generators.inputs import HostInputs, Inputs, RawInputs, crops_graph, shown_by
from stream.generators.surface import SurfaceGenerator
from stream.generators.tables import DEFAULT_BUDGET, LINGER
from stream.generators.unet import UnetGenerator
from stream.latents import Latents, choose_truncation
from stream.regions import Kind

Precision = Literal["fp32", "fp16", "bf16"]

#: The graph of each. In bfloat16 the one of float32 is computed, by OpenVINO alone.
GENERATOR_GRAPHS: Final[Mapping[Precision, str]] = {
    "fp32": "generator",
    "fp16": "generator_fp16",
    "bf16": "generator",
}
_UNET = {"image", "mask", "w"}
_UNET_SURFACE = {"embedding", "embedding_mask"}
_SURFACE = {"image", "mask", "embedding", "vertices", "slot"}


def computes(device: Device, precision: Precision) -> bool:
    """Whether a device can compute in a precision at all."""
    return precision != "bf16" or device == "openvino"


def open_generator(
    bundle: Bundle,
    *,
    device: Device = "cpu",
    precision: Precision = "fp32",
    threads: int | None = None,
    latents: Latents | None = None,
    truncation: float | None = None,
    multi_modal: bool | None = None,
    budget: int = DEFAULT_BUDGET,
    linger: int = LINGER,
    most: int | None = None,
    embeddings: Floats | None = None,
    server: Path | None = None,
    timeout: float = 10.0,
) -> Generator:
    """Opens a bundle's generator; its architecture says which class.

    Args:
        bundle: a verified generation bundle.
        device: where it runs; never another one than asked for.
        precision: which of the bundle's graphs, and whether it is computed in bfloat16; never another than asked for.
        threads: on the CPU, None for all cores.
        latents: of the tracks; may be shared by generators, so that a track looks alike in both. None for new ones.
        truncation: None for the default (multi-modal 0.5 where there are centres, plain 0.7 elsewhere).
        multi_modal: None for multi-modal where there are centres.
        budget: bytes for the tables of all tracks, where the architecture has tables.
        linger: frames after which a track that is not requested may lose its tables to another.
        most: crops in one run of the graph, None for what suits the device (`most_crops`).
        embeddings: float32 (K, C), the embedding of each vertex, in place of the bundle's own.
        server: socket of the engine process that runs the graphs, None for this process.
        timeout: seconds that a run over there may take.

    Raises:
        UsageError: no such precision, or not on this device, multi-modal truncation without centres, or latents of
            another length.
        BundleError: it is no generation bundle, lacks the graph or an array, or does not fit together.
        RuntimeUnavailableError: the device is not usable here.
    """
    generation, kind = _declared(bundle)
    if precision not in get_args(Precision):
        raise UsageError(f"precision {precision!r} is not known; expected one of {', '.join(get_args(Precision))}")
    most = most_crops(device) if most is None else most
    if most < 1:
        raise UsageError(f"most is {most}; expected at least 1 crop in a run")
    graph, halved = _find_graph(bundle, precision), precision == "bf16"
    surface = generation.architecture == "v-sam"
    _check_inputs(bundle, graph, generation)
    posed = surface or bool(generation.embedding_channels)
    embeddings = _embeddings(bundle, generation, embeddings) if posed else None
    average = None if surface else _average(bundle)
    centres = None if average is None else _centres(bundle, len(average))
    chosen = choose_truncation(truncation, multi_modal, centres=0 if centres is None else len(centres))
    latents = Latents(channels=generation.z_channels) if latents is None else latents
    if latents.channels != generation.z_channels:
        raise UsageError(
            f"bundle {bundle.manifest.name!r} takes latents of {generation.z_channels} channels, those given have "
            f"{latents.channels}; give it latents of its own"
        )
    at_once, each = share_cores_of_crops(device, threads, generation.image_size)
    with contextlib.ExitStack() as opened:

        def enter(name: str, *, bfloat16: bool = False) -> Runtime:
            return opened.enter_context(
                open_runtime(
                    bundle, name, device=device, threads=each, bfloat16=bfloat16, server=server, timeout=timeout
                )
            )

        drawing = enter(graph, bfloat16=halved)
        on_host = HostInputs(shown_by(drawing.graph), bundle.manifest.normalisation, embeddings)
        inputs: Inputs = on_host
        if server is None and device not in ("cpu", "openvino"):
            drawing, inputs = _beside(drawing, on_host, generation.image_size, embeddings)
            # An engine process joins by itself, and on processors a stand-in would depend on who else is there.
            drawing = JoinedRuntime(drawing, most)
        generator: Generator
        if average is None:
            generator = SurfaceGenerator(
                enter("mapping"),
                drawing,
                kind=kind,
                size=generation.image_size,
                inputs=inputs,
                truncation=chosen,
                latents=latents,
                budget=budget,
                linger=linger,
                most=most,
                at_once=at_once,
            )
        else:
            generator = UnetGenerator(
                enter("mapping"),
                drawing,
                kind=kind,
                size=generation.image_size,
                inputs=inputs,
                truncation=chosen,
                average=average,
                centres=centres,
                latents=latents,
                most=most,
                at_once=at_once,
            )
        # From here on the generator closes them.
        opened.pop_all()
        return generator


def _beside(
    drawing: Runtime, inputs: HostInputs, size: tuple[int, int], embeddings: Floats | None
) -> tuple[Runtime, Inputs]:
    """A generator's graph whose inputs are made where it runs, if they can be."""
    make = partial(crops_graph, inputs.names, size, inputs.normalisation, embeddings)
    there = open_small(make, drawing.device)
    if there is None:
        return drawing, inputs
    return ChainedRuntime(there, drawing), RawInputs(None if embeddings is None else len(embeddings))


def _declared(bundle: Bundle) -> tuple[Generation, Kind]:
    manifest = bundle.manifest
    name, generation = manifest.name, manifest.generation
    if manifest.task != "generation" or generation is None:
        raise BundleError(f"bundle {name!r} is for {manifest.task}; a generator needs one for generation")
    try:
        (label,) = manifest.kinds
        return generation, Kind.of(label)
    except ValueError:
        raise BundleError(
            f"bundle {name!r} is for the kinds {', '.join(manifest.kinds) or 'none'}; "
            f"expected one of {', '.join(kind.label for kind in Kind)}"
        ) from None


def _find_graph(bundle: Bundle, precision: Precision) -> str:
    name = GENERATOR_GRAPHS[precision]
    if name not in bundle.manifest.graphs:
        there = [known for known, graph in GENERATOR_GRAPHS.items() if graph in bundle.manifest.graphs]
        raise BundleError(
            f"bundle {bundle.manifest.name!r} has no generator in {precision}; it has {', '.join(there) or 'none'}"
        )
    return name


def _check_inputs(bundle: Bundle, graph: str, generation: Generation) -> None:
    """What would otherwise fail in every frame fails at the start."""
    tensors = {tensor.name: tensor for tensor in bundle.graph(graph).inputs}
    if generation.architecture == "v-sam":
        plain = {name for name in tensors if not name.startswith("table_")}
        wanted = _SURFACE
    else:
        plain = set(tensors)
        wanted = _UNET | (_UNET_SURFACE if generation.embedding_channels else set())
    if plain != wanted:
        raise BundleError(
            f"{bundle.graph(graph).file} of bundle {bundle.manifest.name!r} takes {', '.join(sorted(plain))}; "
            f"expected {', '.join(sorted(wanted))}; build the bundle again"
        )
    if tensors["image"].shape[1:] != (3, *generation.image_size):
        raise BundleError(
            f"{bundle.graph(graph).file} of bundle {bundle.manifest.name!r} takes images {tensors['image'].shape}, "
            f"its manifest says {generation.image_size}; build the bundle again"
        )
    drawn = next((tensor.shape[-1] for tensor in bundle.graph("mapping").inputs if tensor.name == "z"), None)
    if drawn != generation.z_channels:
        raise BundleError(
            f"the mapping of bundle {bundle.manifest.name!r} takes z of {drawn} channels, its manifest says "
            f"{generation.z_channels} channels; build the bundle again"
        )
    rows = {tensor.shape[1:2] for name, tensor in tensors.items() if name not in plain}
    if generation.architecture == "v-sam" and rows != {(generation.vertices + 2,)}:
        raise BundleError(
            f"{bundle.graph(graph).file} of bundle {bundle.manifest.name!r} takes tables of {sorted(map(str, rows))} "
            f"rows, a surface of {generation.vertices} vertices needs {generation.vertices + 2}; build the bundle again"
        )


def _embeddings(bundle: Bundle, generation: Generation, given: Floats | None) -> Floats:
    name, channels = bundle.manifest.name, generation.embedding_channels
    if given is None and "vertex_embeddings" not in bundle.manifest.arrays:
        raise BundleError(f"bundle {name!r} has no vertex_embeddings; export it again with --surface CSE_CHECKPOINT")
    found = bundle.array("vertex_embeddings") if given is None else given
    fits = found.ndim == 2 and found.dtype == np.float32 and len(found) > 0 and found.shape[1] == channels
    if not fits or generation.vertices not in (0, len(found)) or not np.isfinite(found).all():
        raise BundleError(
            f"vertex_embeddings of bundle {name!r} is {found.dtype} {found.shape}, expected finite float32 "
            f"({generation.vertices or 'K'}, {channels}); build the bundle again"
        )
    return np.asarray(found, np.float32)


def _average(bundle: Bundle) -> Floats:
    average = bundle.array("w_avg")
    channels = bundle.graph("mapping").outputs[0].shape[-1]
    if average.shape != (channels,) or average.dtype != np.float32 or not np.isfinite(average).all():
        raise BundleError(
            f"w_avg of bundle {bundle.manifest.name!r} is {average.dtype} {average.shape}, "
            f"expected finite float32 ({channels},); build the bundle again"
        )
    return np.asarray(average, np.float32)


def _centres(bundle: Bundle, channels: int) -> Floats | None:
    if "w_centers" not in bundle.manifest.arrays:
        return None
    centres = bundle.array("w_centers")
    fits = centres.ndim == 2 and centres.shape[1] == channels and len(centres) > 0 and centres.dtype == np.float32
    if not fits or not np.isfinite(centres).all():
        raise BundleError(
            f"w_centers of bundle {bundle.manifest.name!r} is {centres.dtype} {centres.shape}, "
            f"expected finite float32 (M, {channels}); build the bundle again"
        )
    return np.asarray(centres, np.float32)
