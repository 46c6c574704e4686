"""From a trained checkpoint to the detector's bundle: fold, export, verify, and only then write."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import torch

from engines.bundle import Bundle, open_bundle, sha256_file, write_bundle
from engines.errors import UsageError
from engines.manifest import Detection, Graph, ManifestDraft, Normalisation, Parity, Provenance, SecondLook
from engines.runtime_onnx import import_onnxruntime
from export.arrays import SURFACE_MEANING, array_files, declared_arrays
from export.arrays import Arrays as SmallArrays
from export.bundle_folder import new_bundle_folder
from export.graphs import Arrays, GraphPlan
from export.starter.coarse_surface import ARRAY, MEANING, VERTICES, spread_vertices
from export.starter.detector import KINDS, MULTIPLE, fold
from export.starter.detector_data import MEAN, STD
from export.starter.detector_graphs import StarterDetector, StarterHeads, detector_plan, examples, heads_plan
from export.starter.detector_training import TrainedDetector, load_detector
from export.starter.training import Progress
from export.to_onnx import DEFAULT_OPSET
from export.written import write_and_compare_pair

#: Height and width that are traced where they stay free: different, so that none is taken for the other.
_TRACED: Final = (192, 288)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleOptions:
    """What is decided when a bundle is made.

    Attributes:
        name: Of the bundle.
        threshold: A box with a score at or below it is never given; a run may ask for more, not for less.
        most: M, boxes a frame.
        body_probability: From here on a place of a box counts as body; below a half more is covered.
        view: The shorter and the longer side of the pictures that it looks at in pixels.
        near: From this longer side of a box on, in pixels of the view, somebody counts as near (`SecondLook`); 0 for no
            second look.
        near_scale: Of the second picture against the view.
        input_size: Height and width of the only pictures that it takes; free if not given.
        licence: Of the weights.
        vertices: Of its surface.
    """

    name: str = "starter-detector"
    threshold: float = 0.1
    most: int = 200
    body_probability: float = 0.35
    view: tuple[int, int] = (360, 640)
    near: int = 240
    near_scale: float = 0.6
    input_size: tuple[int, int] | None = None
    licence: str = "Apache-2.0"
    vertices: int = VERTICES


def export_starter_detector(
    checkpoint: Path,
    output: Path,
    options: BundleOptions | None = None,
    *,
    pictures: Arrays | None = None,
    opset: int = DEFAULT_OPSET,
    progress: Progress | None = None,
) -> Bundle:
    """Makes the bundle of a trained detector, which runs where one of DensePose CSE does.

    Args:
        checkpoint: of `train_detector`.
        output: folder for the bundle; must not exist, or be empty.
        options: see there.
        pictures: `image` (N,3,h,w), normalised, and `image_size` (N,2), two at least, that the exported graphs are
            compared on; made up if not given, and a trained detector finds nobody in those.
        opset: of the ONNX operators.
        progress: is told what is being done.

    Raises:
        UsageError: an option cannot be.
        CheckpointError: the checkpoint is not a detector's.
        RuntimeUnavailableError: ONNX Runtime is not there to verify with.
        ExportError: a graph differs from the network, or the folder cannot be written.
    """
    say = progress or (lambda _: None)
    import_onnxruntime()
    options = options or BundleOptions()
    _check(options)
    with new_bundle_folder(output) as work:
        say(f"reading {checkpoint}")
        trained = load_detector(checkpoint)
        with torch.no_grad():
            plans, parity = _build(trained, options, pictures, work, opset, say)
        say("writing the bundle")
        chosen = spread_vertices(trained.embeddings, options.vertices)
        arrays: SmallArrays = {
            "vertex_embeddings": (trained.embeddings[chosen], SURFACE_MEANING),
            ARRAY: (chosen, MEANING),
        }
        files: dict[str, bytes | Path] = {plan.file: work / plan.file for plan in plans}
        draft = _draft(trained, options, checkpoint, plans, parity, arrays)
        write_bundle(work / "bundle", draft, files | array_files(arrays))
    return open_bundle(output)


def _check(options: BundleOptions) -> None:
    if not 0 < options.body_probability < 1:
        raise UsageError(f"body probability {options.body_probability} is not between 0 and 1")
    if options.near < 0:
        raise UsageError(f"near is {options.near}; expected a number of pixels, or 0 for no second look")
    if not 0.1 <= options.near_scale <= 0.9:
        raise UsageError(f"near scale {options.near_scale} is not from 0.1 to 0.9")
    if options.input_size is not None and any(side < MULTIPLE or side % MULTIPLE for side in options.input_size):
        raise UsageError(f"input size {options.input_size} is not made of multiples of {MULTIPLE}")


def _build(
    trained: TrainedDetector,
    options: BundleOptions,
    pictures: Arrays | None,
    work: Path,
    opset: int,
    say: Progress,
) -> tuple[tuple[GraphPlan, GraphPlan], tuple[Parity, ...]]:
    sides: tuple[int | str, int | str] = options.input_size or ("h", "w")
    detector = StarterDetector(trained.network, threshold=options.threshold, most=options.most)
    heads = StarterHeads(body_probability=options.body_probability)
    example, boxes = examples(options.input_size or _TRACED, pictures)
    plan = detector_plan(detector.eval(), sides, example)
    say("computing as trained")
    given = detector(torch.from_numpy(example["image"]), torch.from_numpy(example["image_size"]))
    expected = {tensor.name: made.numpy() for tensor, made in zip(plan.outputs, given, strict=True)}
    closer = heads_plan(heads.eval(), trained.network.spec.embedding, sides, boxes | {"pixels": expected["pixels"]})
    per_box = heads(*(torch.from_numpy(closer.example[tensor.name]) for tensor in closer.inputs))
    wanted = {tensor.name: made.numpy() for tensor, made in zip(closer.outputs, per_box, strict=True)}
    fold(trained.network)
    parity = write_and_compare_pair((plan, expected), (closer, wanted), work, opset, say)
    return (plan, closer), parity


def _draft(
    trained: TrainedDetector,
    options: BundleOptions,
    checkpoint: Path,
    plans: tuple[GraphPlan, GraphPlan],
    parity: tuple[Parity, ...],
    arrays: SmallArrays,
) -> ManifestDraft:
    shorter, longer = options.view
    return ManifestDraft(
        name=options.name,
        task="detection",
        family="starter",
        kinds=KINDS,
        graphs={plan.key: Graph(file=plan.file, inputs=plan.inputs, outputs=plan.outputs) for plan in plans},
        normalisation=Normalisation(colour="rgb", mean=(MEAN,) * 3, std=(STD,) * 3, multiple=MULTIPLE),
        licence=options.licence,
        provenance=Provenance(
            artefact=checkpoint.name,
            source=f"trained on synthetic people only, {trained.steps} steps, seed {trained.seed}",
            sha256=sha256_file(checkpoint),
            homepage="export/starter of this project",
        ),
        exporter=f"standin {metadata.version('standin')}, torch {torch.__version__}",
        parity=parity,
        arrays=declared_arrays(arrays),
        detection=Detection(
            architecture="cse",
            config="starter",
            min_size=shorter,
            max_size=longer,
            threshold=options.threshold,
            most=options.most,
            embedding_channels=trained.network.spec.embedding,
            second_look=SecondLook(from_size=options.near, scale=options.near_scale) if options.near else None,
        ),
    )
