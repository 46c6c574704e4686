"""From a generator's checkpoint to its bundle: load, fold, export, verify, and only then write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from engines.bundle import Bundle, open_bundle, write_bundle
from engines.errors import UsageError
from engines.manifest import Generation, Graph, ManifestDraft, Normalisation, Parity, Provenance
from engines.runtime_onnx import import_onnxruntime
from export import graphs
from export.arrays import SURFACE_MEANING, array_files, declared_arrays
from export.arrays import Arrays as SmallArrays
from export.bundle_folder import new_bundle_folder
from export.configs import Choice, Config, choose_config
from export.models.folded import fold, folded_convolutions
from export.models.surface import SurfaceSpec, SurfaceUnet
from export.models.tables import TableMapping, TableModulation
from export.models.unet import StyleUnet, UnetSpec
from export.official import Official, load_official
from export.parity import ActivationRecord
from export.to_onnx import DEFAULT_OPSET, OPSETS
from export.vertex_embeddings import check_surface_agrees, read_surface, unit_surface
from export.written import write_and_compare

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from export.graphs import Arrays, GraphPlan

Precision = Literal["fp32", "fp16", "both"]
Progress = Callable[[str], None]
#: Pixels enter as (x - 127.5) / 127.5.
_MIDDLE = (127.5, 127.5, 127.5)


def export_generator(
    name: str,
    checkpoint: Path,
    output: Path,
    *,
    precision: Precision = "both",
    opset: int = DEFAULT_OPSET,
    config: str | Config | None = None,
    surface: Path | NDArray[np.float32] | None = None,
    extra: SmallArrays | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Makes a bundle of a published generator, or of one's own training of the same network.

    Args:
        name: `dp2-person-cse`, `dp2-person`, `dp2-face` or `sg-gan`, or what a config of one's own exports; also the
            bundle's name.
        checkpoint: the authors' file.
        output: folder for the bundle; must not exist, or be empty.
        precision: which generators: float32, float16 or both.
        opset: of the ONNX operators.
        config: what no tensor shows, by name; needed for files whose hash is not known. Or a config of one's own, for
            another size, whose `export` is `name`.
        surface: the CSE checkpoint whose vertex map the generator was trained with, or that map itself, (K, D).
        extra: further small arrays for the bundle, by name, with their meanings.
        progress: is told what is being done.

    Raises:
        UsageError: the options do not fit each other or the file.
        CheckpointError: a checkpoint cannot be used.
        RuntimeUnavailableError: ONNX Runtime is not there to verify with.
        ExportError: a graph differs from the published network, could overflow, or the folder cannot be written.
    """
    say = progress or (lambda _: None)
    # Needed for the verification only, which comes after minutes of work.
    import_onnxruntime()
    if precision not in ("fp32", "fp16", "both"):
        raise UsageError(f"precision {precision!r} is not known; expected fp32, fp16 or both")
    if opset not in OPSETS:
        raise UsageError(f"opset {opset} cannot be exported; expected {OPSETS.start} to {OPSETS.stop - 1}")
    if config is None or isinstance(config, str):
        chosen = choose_config(name, checkpoint, config)
    elif config.export != name:
        raise UsageError(f"the config {config.name!r} is for {config.export!r}, not for {name!r}; give one that fits")
    else:
        # Whoever gives one knows what file it is for.
        chosen = Choice(config, published=True)
    if surface is not None and not chosen.config.embedding_channels:
        raise UsageError(f"{name} knows no surface; leave out --surface")
    with new_bundle_folder(output) as work:
        say(f"reading {checkpoint}")
        official = load_official(checkpoint, chosen.config)
        for warning in official.warnings:
            say(f"warning: {warning}")
        arrays = {**_arrays(official, surface, say), **(extra or {})}
        with torch.no_grad():
            build = _build_surface if isinstance(official.spec, SurfaceSpec) else _build_unet
            built = build(official, precision, work, opset, say)
        say("writing the bundle")
        draft = _draft(official, checkpoint, built, arrays, published=chosen.published)
        files: dict[str, bytes | Path] = {plan.file: work / plan.file for plan in built.plans}
        write_bundle(work / "bundle", draft, files | array_files(arrays))
    return open_bundle(output)


@dataclass(frozen=True)
class _Built:
    plans: tuple[GraphPlan, ...]
    parity: tuple[Parity, ...]
    record: ActivationRecord


def _precisions(precision: Precision) -> list[bool]:
    """Whether half, for each generator; float32 first, since halving is done in place."""
    return {"fp32": [False], "fp16": [True], "both": [False, True]}[precision]


def _numpy(x: torch.Tensor) -> NDArray[Any]:
    return x.detach().numpy().copy()


def _build_unet(official: Official, precision: Precision, work: Path, opset: int, say: Progress) -> _Built:
    spec = official.spec
    assert isinstance(spec, UnetSpec)  # noqa: S101
    network = StyleUnet(spec).eval()
    network.load_state_dict(official.state, strict=True)
    example = graphs.random_inputs(spec.image_size, spec.z_channels, spec.embedding_channels, 0)
    say("computing the published way")
    w = network.style_net(torch.from_numpy(example["z"]))
    # Halfway to the average, as generators are used.
    example["w"] = _numpy(torch.lerp(network.style_net.w_avg, w, 0.5))
    surface = ("embedding", "embedding_mask") if spec.embedding_channels else ()
    expected = {"w": _numpy(w), "output": _numpy(network(*graphs.tensors(example, "image", "mask", "w", *surface)))}
    plans = [graphs.unet_mapping(network.style_net, example)]
    parity = [*write_and_compare(plans[0], expected, work, opset, say)]
    fold(network)
    record = ActivationRecord()
    _watch(network, record)
    network(*graphs.tensors(example, "image", "mask", "w", *surface))
    _unwatch(network)
    if precision != "fp32":
        record.require_half()
    for half in _precisions(precision):
        plans.append(graphs.unet_generator(network, example, half=half))
        parity += write_and_compare(plans[-1], expected, work, opset, say)
    return _Built(tuple(plans), tuple(parity), record)


def _build_surface(official: Official, precision: Precision, work: Path, opset: int, say: Progress) -> _Built:
    spec = official.spec
    assert isinstance(spec, SurfaceSpec)  # noqa: S101
    network = SurfaceUnet(spec).eval()
    network.load_state_dict(official.state, strict=True)
    official.state.clear()
    example = graphs.random_inputs(spec.image_size, spec.z_channels, spec.embedding_channels, spec.vertices)
    say("computing the published way")
    table_mapping = TableMapping(network)
    expected, tables = _published_surface(network, table_mapping, example)
    mapping = graphs.surface_mapping(table_mapping, spec.vertices, example)
    plans = [mapping]
    parity = [*write_and_compare(mapping, expected, work, opset, say)]
    example |= tables
    modulation = TableModulation(network)
    # f_w is in the mapping now, and large.
    del network.style_net
    fold(network)
    record = ActivationRecord()
    _watch(network, record)
    record.watch("style_net", modulation)
    names = ("vertices", "slot")
    stacked = graphs.tensors(example, *sorted(tables, key=lambda key: int(key.rpartition("_")[2])))
    gammas = modulation(*graphs.tensors(example, *names), tuple(stacked))
    network(*graphs.tensors(example, "image", "mask", "embedding"), gammas)
    _unwatch(network)
    modulation.probe = None
    if precision != "fp32":
        record.require_half()
    for half in _precisions(precision):
        plans.append(graphs.surface_generator(network, modulation, example, half=half))
        parity += write_and_compare(plans[-1], expected, work, opset, say)
    return _Built(tuple(plans), tuple(parity), record)


def _published_surface(
    network: SurfaceUnet, mapping: TableMapping, example: Arrays
) -> tuple[dict[str, NDArray[Any]], Arrays]:
    """The published image of every person, and the tables of the first; and stacked tables to gather from."""
    f_w = network.style_net.E_map
    truncation = 0.7
    z, slot = torch.from_numpy(example["z"]), example["slot"]
    tables = [mapping(z[i : i + 1], torch.tensor([truncation])) for i in range(graphs.EXAMPLES)]
    expected = {f"table_{i}": _numpy(table) for i, table in enumerate(tables[0])}
    stacked = {f"table_{i}": np.stack([_numpy(t[i]) for t in tables]) for i in range(len(tables[0]))}
    inside = np.minimum(example["vertices"], network.spec.vertices - 1)
    outputs = []
    for i in range(graphs.EXAMPLES):
        person = {name: array[i : i + 1] for name, array in example.items()} | {"inside": inside[i : i + 1]}
        w = torch.lerp(f_w.w_avg, f_w(z[slot[i] : slot[i] + 1]), truncation)[None]
        gammas = network.style_net(w, *graphs.tensors(person, "mask", "border", "inside"))
        outputs.append(_numpy(network(*graphs.tensors(person, "image", "mask", "embedding"), gammas)))
    return expected | {"output": np.concatenate(outputs)}, stacked


def _watch(network: torch.nn.Module, record: ActivationRecord) -> None:
    for name, layer in folded_convolutions(network):
        record.watch(name, layer)


def _unwatch(network: torch.nn.Module) -> None:
    for _, layer in folded_convolutions(network):
        layer.probe = None


def _arrays(
    official: Official, surface: Path | NDArray[np.float32] | None, say: Progress
) -> dict[str, tuple[NDArray[Any], str]]:
    """The bundle's small arrays with their meanings."""
    made: dict[str, tuple[NDArray[Any], str]] = {}
    if isinstance(official.spec, UnetSpec):
        made["w_avg"] = (_numpy(official.w_avg), "the average w, which truncation goes towards")
        if official.w_centers is not None:
            made["w_centers"] = (_numpy(official.w_centers), "cluster centres of w, for multi-modal truncation")
    if surface is not None:
        vertices = _vertices(surface, official.spec.embedding_channels, say)
        if isinstance(official.spec, SurfaceSpec):
            check_surface_agrees(vertices, official.state["style_net.E_map.E"].numpy())
        made["vertex_embeddings"] = (vertices, SURFACE_MEANING)
    elif official.spec.embedding_channels:
        say("warning: without --surface the bundle has no vertex map, and cannot be used on video")
    return made


def _vertices(surface: Path | NDArray[np.float32], channels: int, say: Progress) -> NDArray[np.float32]:
    if isinstance(surface, Path):
        say(f"reading {surface}")
        return read_surface(surface, channels)
    return unit_surface(surface, channels, "the surface")


def _draft(
    official: Official,
    checkpoint: Path,
    built: _Built,
    arrays: dict[str, tuple[NDArray[Any], str]],
    *,
    published: bool,
) -> ManifestDraft:
    config, spec = official.config, official.spec
    return ManifestDraft(
        name=config.export,
        task="generation",
        family=_family(config),
        kinds=config.kinds,
        graphs={p.key: Graph(file=p.file, inputs=p.inputs, outputs=p.outputs) for p in built.plans},
        normalisation=Normalisation(colour="rgb", mean=_MIDDLE, std=_MIDDLE, multiple=1),
        licence=config.licence if published else f"not known for this file; of the published one: {config.licence}",
        provenance=Provenance(
            artefact=checkpoint.name,
            source=(*config.sources, "a local file")[0] if published else "a local file",
            sha256=official.sha256,
            homepage=config.homepage,
        ),
        exporter=f"standin {metadata.version('standin')}, torch {torch.__version__}",
        parity=built.parity,
        arrays=declared_arrays(arrays),
        generation=Generation(
            architecture=config.architecture,
            image_size=spec.image_size,
            z_channels=spec.z_channels,
            vertices=spec.vertices if isinstance(spec, SurfaceSpec) else 0,
            embedding_channels=spec.embedding_channels,
            config=config.name,
            unexpected=official.unexpected,
            activations=built.record.activations(),
        ),
    )


def _family(config: Config) -> str:
    return {"style-unet": "deepprivacy2", "v-sam": "sg-gan"}[config.architecture]
