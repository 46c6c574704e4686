"""From a detectron2 checkpoint to a detection bundle: load, fold, export, verify, and only then write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from engines.bundle import Bundle, open_bundle, sha256_file, write_bundle
from engines.errors import UsageError
from engines.manifest import Detection, Graph, ManifestDraft, Normalisation, Parity, Provenance
from engines.runtime_onnx import import_onnxruntime
from export import detector_graphs
from export.arrays import SURFACE_MEANING, array_files, declared_arrays
from export.bundle_folder import new_bundle_folder
from export.detector_checkpoint import load_detector
from export.detector_graphs import MULTIPLE
from export.detectron2_configs import DetectorConfig, choose_detector_config
from export.models.cse import DenseHeads
from export.models.resnet import NormedConv, fold_norms
from export.to_onnx import DEFAULT_OPSET, OPSETS
from export.vertex_embeddings import read_surface
from export.written import write_and_compare_pair

if TYPE_CHECKING:
    from export.arrays import Arrays as SmallArrays
    from export.detector_checkpoint import Networks
    from export.detectron2_configs import Verb
    from export.graphs import Arrays, GraphPlan

Progress = Callable[[str], None]
#: Height and width that are traced where they stay free: different, so that none is taken for the other.
_TRACED: Final = (224, 288)


def export_detector(
    name: Verb,
    checkpoint: Path,
    output: Path,
    *,
    config: str | DetectorConfig | None = None,
    input_size: tuple[int, int] | None = None,
    classes: Mapping[int, str] | None = None,
    opset: int = DEFAULT_OPSET,
    progress: Progress | None = None,
) -> Bundle:
    """Makes a bundle of Mask R-CNN or DensePose CSE, published or trained with detectron2.

    Args:
        name: `maskrcnn` or `cse`; also the bundle's name.
        checkpoint: .pkl of the model zoo, or .pth of a trainer.
        output: folder for the bundle; must not exist, or be empty.
        config: a declared name or the path of a YAML file of detectron2; or a config of one's own.
        input_size: height and width of the padded pictures, which runtimes such as TensorRT like to know; free if not
            given.
        classes: the network's class -> kind of region; others are left out. Only persons (0) if not given.
        opset: of the ONNX operators.
        progress: is told what is being done.

    Raises:
        UsageError: the options do not fit each other or the file.
        CheckpointError: the checkpoint cannot be used, or is not the config's.
        RuntimeUnavailableError: ONNX Runtime is not there to verify with.
        ExportError: a graph differs from the published network, or the folder cannot be written.
    """
    say = progress or (lambda _: None)
    # Needed for the verification only, which comes after minutes of work.
    import_onnxruntime()
    chosen = config if isinstance(config, DetectorConfig) else choose_detector_config(name, config)
    if classes is not None:
        chosen = replace(chosen, kinds=tuple(sorted(classes.items())))
    _check_options(name, chosen, input_size, opset)
    with new_bundle_folder(output) as work:
        say(f"reading {checkpoint}")
        networks = load_detector(checkpoint, chosen)
        surface = None
        if chosen.dense is not None:
            surface = read_surface(checkpoint, chosen.dense.embedding_channels)
        with torch.no_grad():
            built = _build(networks, chosen, input_size, work, opset, say)
        del networks
        say("writing the bundle")
        arrays = {} if surface is None else {"vertex_embeddings": (surface, SURFACE_MEANING)}
        files: dict[str, bytes | Path] = {plan.file: work / plan.file for plan in built.plans}
        write_bundle(work / "bundle", _draft(name, chosen, checkpoint, built, arrays), files | array_files(arrays))
    return open_bundle(output)


def _check_options(name: str, config: DetectorConfig, input_size: tuple[int, int] | None, opset: int) -> None:
    if config.export != name:
        raise UsageError(f"the config {config.name!r} is for {config.export!r}, not for {name!r}; give one that fits")
    if opset not in OPSETS:
        raise UsageError(f"opset {opset} cannot be exported; expected {OPSETS.start} to {OPSETS.stop - 1}")
    if input_size is not None and (min(input_size) < MULTIPLE or any(side % MULTIPLE for side in input_size)):
        larger = "x".join(str(max(1, -(-side // MULTIPLE)) * MULTIPLE) for side in input_size)
        raise UsageError(
            f"input size {input_size[0]}x{input_size[1]} is not made of multiples of {MULTIPLE}; give {larger}"
        )
    if not config.kinds or any(not 0 <= index < config.box.classes for index, _ in config.kinds):
        raise UsageError(
            f"classes {[index for index, _ in config.kinds]} are not all there: {config.name} has {config.box.classes}"
        )


@dataclass(frozen=True)
class _Built:
    plans: tuple[GraphPlan, ...]
    parity: tuple[Parity, ...]


def _rgb(config: DetectorConfig, values: tuple[float, float, float]) -> tuple[float, float, float]:
    return values if config.input_format == "RGB" else (values[2], values[1], values[0])


def _build(
    networks: Networks,
    config: DetectorConfig,
    input_size: tuple[int, int] | None,
    work: Path,
    opset: int,
    say: Progress,
) -> _Built:
    detector, heads = networks
    channels, size = config.backbone.channels, input_size or _TRACED
    sides: tuple[int | str, int | str] = input_size or ("h", "w")
    pictures = detector_graphs.example_pictures(size, _rgb(config, config.pixel_mean), _rgb(config, config.pixel_std))
    plan = detector_graphs.detector_plan(detector, channels, sides, pictures)
    say("computing the published way")
    image, image_size = (torch.from_numpy(pictures[name]) for name in ("image", "image_size"))
    published = detector(image.flip(1) if config.input_format == "BGR" else image, image_size)
    expected = {tensor.name: made.numpy() for tensor, made in zip(plan.outputs, published, strict=True)}
    heads_example: Arrays = detector_graphs.example_boxes(size)
    heads_example |= {name: values for name, values in expected.items() if name in ("p2", "p3", "p4", "p5")}
    heads_plan = detector_graphs.heads_plan(heads, channels, sides, heads_example)
    given = heads(*(torch.from_numpy(heads_plan.example[tensor.name]) for tensor in heads_plan.inputs))
    per_box = given if isinstance(given, tuple) else (given,)
    wanted = {tensor.name: made.numpy() for tensor, made in zip(heads_plan.outputs, per_box, strict=True)}
    _fold(networks, config)
    parity = write_and_compare_pair((plan, expected), (heads_plan, wanted), work, opset, say)
    return _Built((plan, heads_plan), parity)


def _fold(networks: Networks, config: DetectorConfig) -> None:
    """Bundles take RGB, so the first layer's channels are turned round; then statistics go into convolutions."""
    detector, heads = networks
    first = detector.backbone.bottom_up.stem.conv1
    assert isinstance(first, NormedConv)  # noqa: S101  it is, before folding
    if config.input_format == "BGR":
        first.weight.copy_(first.weight.flip(1))
    fold_norms(detector)
    if isinstance(heads, DenseHeads):
        # Vertices are an array of the bundle.
        heads.roi_heads.embedder = torch.nn.Module()


def _draft(name: str, config: DetectorConfig, checkpoint: Path, built: _Built, arrays: SmallArrays) -> ManifestDraft:
    # The published files' hashes are not known: whether this is one of them cannot be said.
    licence = f"not known for this file; of the published one: {config.licence}" if config.source else config.licence
    return ManifestDraft(
        name=name,
        task="detection",
        family="mask-rcnn" if config.mask is not None else "cse",
        kinds=tuple(kind for _, kind in config.kinds),
        graphs={p.key: Graph(file=p.file, inputs=p.inputs, outputs=p.outputs) for p in built.plans},
        normalisation=Normalisation(
            colour="rgb",
            mean=_rgb(config, config.pixel_mean),
            std=_rgb(config, config.pixel_std),
            multiple=MULTIPLE,
        ),
        licence=licence,
        provenance=Provenance(
            artefact=checkpoint.name, source="a local file", sha256=sha256_file(checkpoint), homepage=config.homepage
        ),
        exporter=f"standin {metadata.version('standin')}, torch {torch.__version__}",
        parity=built.parity,
        arrays=declared_arrays(arrays),
        detection=Detection(
            architecture="mask-rcnn" if config.mask is not None else "cse",
            config=config.name,
            min_size=config.min_size,
            max_size=config.max_size,
            threshold=config.threshold,
            most=config.most,
            embedding_channels=config.dense.embedding_channels if config.dense is not None else 0,
        ),
    )
