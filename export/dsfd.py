"""From DSFD's published checkpoint to the bundle `dsfd`: load, export, attach what every detector ends in, verify."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from engines.bundle import Bundle, open_bundle, sha256_file, write_bundle
from engines.checkpoints import checkpoints
from engines.errors import CheckpointError, UsageError
from engines.importers.classes import Classes
from engines.importers.forms import Priors
from engines.importers.graph import build_detector, input_tensors, limits_of, output_tensors
from engines.importers.network import read_network
from engines.importers.recognise import Recipe
from engines.importers.reference import drawn_picture
from engines.importers.reference import measure_parity as measure_detector
from engines.manifest import Graph, ManifestDraft, Normalisation, Parity, Provenance
from engines.manifest import Tensor as Declared
from engines.runtime_onnx import import_onnxruntime
from export.architecture import check_shapes
from export.bundle_folder import new_bundle_folder
from export.checkpoint import read_checkpoint, shown
from export.graphs import GraphPlan
from export.models.dsfd import MEAN, Dsfd, DsfdSpec
from export.parity import measure_parity
from export.to_onnx import DEFAULT_OPSET, OPSETS, write_onnx

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[str], None]

NAME: Final = "dsfd"
HOMEPAGE: Final = "https://github.com/hukkelas/DSFD-Pytorch-Inference"
#: As the published code's default has it.
_IOU: Final = 0.3
_MULTIPLE: Final = 32
#: Height and width of the pictures that it is traced with where the size stays open; not square, no power of two.
_TRACED: Final = (160, 224)
_WRAPPERS: Final = ("state_dict", "model")


def export_dsfd(
    checkpoint: Path,
    output: Path,
    *,
    input_size: tuple[int, int] | None = None,
    opset: int = DEFAULT_OPSET,
    progress: Progress | None = None,
) -> Bundle:
    """Makes the bundle of the face detector DSFD.

    Args:
        checkpoint: the authors' file, or one with the same content; the depth of its ResNet is read from the tensors.
        output: folder for the bundle; must not exist, or be empty.
        input_size: height and width of the only pictures that it will take, as TensorRT likes it; open if not given.
        opset: of the ONNX operators.
        progress: is told what is being done.

    Raises:
        UsageError: the options cannot be meant.
        CheckpointError: the checkpoint cannot be used.
        RuntimeUnavailableError: ONNX Runtime is not there to verify with.
        ExportError: the graph differs from the network, or the folder cannot be written.
    """
    say = progress or (lambda _: None)
    import_onnxruntime()
    if opset not in OPSETS:
        raise UsageError(f"opset {opset} cannot be exported; expected {OPSETS.start} to {OPSETS.stop - 1}")
    if input_size is not None and min(input_size) < _MULTIPLE:
        raise UsageError(f"input size {input_size[0]}x{input_size[1]} is too small; give at least {_MULTIPLE}")
    with new_bundle_folder(output) as work:
        say(f"reading {checkpoint}")
        network = load_dsfd(checkpoint)
        draft, detector = _build(network, checkpoint, input_size, opset, work, say)
        del network
        say("writing the bundle")
        write_bundle(work / "bundle", draft, {"detector.onnx": detector})
    return open_bundle(output)


def load_dsfd(path: Path) -> Dsfd:
    """Reads a checkpoint into the network, in evaluation mode.

    Raises:
        CheckpointError: It cannot be read, is of another network, incomplete, of wrong shapes, or not finite.
    """
    found = _state(read_checkpoint(path))
    try:
        spec = DsfdSpec.of(found)
        with torch.device("meta"):
            network = Dsfd(spec)
        state = _complete(found, network.state_dict())
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def _state(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    found = {name: value for name, value in inner.items() if isinstance(name, str) and isinstance(value, torch.Tensor)}
    prefixed = found and all(name.startswith("module.") for name in found)
    return {name.removeprefix("module."): value for name, value in found.items()} if prefixed else found


def _complete(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that the network has, as it has them. Counters of training steps, which nothing reads, may lack."""
    counters = {name: tensor for name, tensor in expected.items() if name.endswith(".num_batches_tracked")}
    weights = {name: tuple(tensor.shape) for name, tensor in expected.items() if name not in counters}
    check_shapes({name: tuple(tensor.shape) for name, tensor in found.items()}, weights)
    state = {name: torch.zeros((), dtype=tensor.dtype) for name, tensor in counters.items()}
    for name in weights:
        if not found[name].is_floating_point() or not found[name].isfinite().all():
            raise CheckpointError(f"{shown(name)} is not made of finite real numbers; download it again")
        state[name] = found[name].to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    return state


def _plan(network: Dsfd, input_size: tuple[int, int] | None) -> GraphPlan:
    height, width = input_size or _TRACED
    sides: tuple[int | str, int | str] = input_size or ("h", "w")
    pictures = np.concatenate([drawn_picture(height, width, seed) for seed in (1, 2)])
    example = (pictures - np.array(MEAN, np.float32).reshape(1, 3, 1, 1)).astype(np.float32)
    return GraphPlan(
        key="detector",
        file="network.onnx",
        module=network,
        inputs=(Declared(name="image", dtype="float32", shape=("N", 3, *sides), meaning="RGB, normalised"),),
        outputs=(
            Declared(name="scores", dtype="float32", shape=("N", "P", 2), meaning="background and face"),
            Declared(name="boxes", dtype="float32", shape=("N", "P", 4), meaning="shares of the picture"),
        ),
        example={"image": example},
    )


def _build(
    network: Dsfd, checkpoint: Path, input_size: tuple[int, int] | None, opset: int, work: Path, say: Progress
) -> tuple[ManifestDraft, bytes]:
    plan = _plan(network, input_size)
    say("computing the published way")
    with torch.no_grad():
        scores, boxes = network(torch.from_numpy(plan.example["image"]))
    say("exporting the network")
    write_onnx(plan, work / plan.file, opset)
    say("verifying the network")
    parity = measure_parity(plan, work / plan.file, {"scores": scores.numpy(), "boxes": boxes.numpy()})
    exported = read_network(work / plan.file)
    # The size may be open; then it has to be one whose half, quarter and so on are whole.
    recipe = Recipe(Priors("scores", "boxes", 1), 1, ("face",), std=1.0, iou=_IOU, multiple=_MULTIPLE)
    classes, limits = Classes(("face",), ((0,),)), limits_of(recipe)
    say("verifying the detector")
    parity = tuple(_renamed(result) for result in parity) + measure_detector(exported, recipe, classes)
    detector = build_detector(exported, recipe, classes, limits)
    draft = ManifestDraft(
        name=NAME,
        task="detection",
        family="dsfd",
        kinds=classes.kinds,
        graphs={
            "detector": Graph(
                file="detector.onnx", inputs=input_tensors(exported, recipe), outputs=output_tensors(recipe, limits)
            )
        },
        normalisation=Normalisation(colour="rgb", mean=MEAN, std=(1.0, 1.0, 1.0), multiple=_MULTIPLE),
        licence=checkpoints()[NAME].licence,
        provenance=Provenance(
            artefact=checkpoint.name, source="a local file", sha256=sha256_file(checkpoint), homepage=HOMEPAGE
        ),
        exporter=f"standin {metadata.version('standin')}",
        parity=parity,
    )
    return draft, detector.SerializeToString(deterministic=True)


def _renamed(result: Parity) -> Parity:
    """The network's own outputs are called as the detector's are, but hold all priors."""
    return result.model_copy(update={"output": f"{result.output} of all priors"})
