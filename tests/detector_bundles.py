"""Tiny detectors made in code, with the tensor names of real ones: the same persons in every picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engines.bundle import Bundle, open_bundle, write_bundle
from engines.manifest import (
    ArrayFile,
    Detection,
    Graph,
    ManifestDraft,
    Normalisation,
    Provenance,
    Quantized,
    SecondLook,
    Tensor,
)
from tests.generator_bundles import Build, tensor, vertex_embeddings, write_surface, write_unet

#: Boxes as shares of the picture's width and height, x0, y0, x1, y1.
Place = tuple[float, float, float, float]

MOST = 4
#: In every picture of the bundles that `install_presets` writes.
PERSONS: tuple[Place, ...] = ((0.1, 0.1, 0.4, 0.9), (0.6, 0.2, 0.9, 0.95))
#: The first person, a little to the side, and one whom only CSE sees.
POSES: tuple[Place, ...] = ((0.11, 0.1, 0.41, 0.9), (0.42, 0.3, 0.58, 0.9))
FACES: tuple[Place, ...] = ((0.2, 0.14, 0.28, 0.24), (0.92, 0.05, 0.99, 0.15))


def ellipse(side: int) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """A body: most of its box, but not the corners."""
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / side - 0.5
    return np.asarray(x**2 + y**2 < 0.24)


def embedding_map() -> np.ndarray[tuple[int, int, int], np.dtype[np.float32]]:
    """(16, 112, 112): the vertices in stripes, regressed with some error and of any length."""
    vertices = vertex_embeddings()
    stripes = np.arange(112) * len(vertices) // 112
    noise = np.random.default_rng(0).normal(0, 0.01, (112, 112, vertices.shape[1]))
    raw = 3 * vertices[stripes][:, None] + noise
    return np.ascontiguousarray(raw.transpose(2, 0, 1), np.float32)


def write_two_stage(
    folder: Path,
    architecture: str,
    places: Sequence[Place],
    scores: Sequence[float] | None = None,
    *,
    name: str = "tiny",
    kinds: tuple[str, ...] = ("person",),
    classes: Sequence[int] | None = None,
    floor: float = 0.0,
    size: tuple[int, int] | None = None,
    longest: int = 128,
    empty_masks: bool = False,
    broken_heads: bool = False,
    second_look: SecondLook | None = None,
) -> Bundle:
    """Mask R-CNN (`mask-rcnn`) or CSE (`cse`) that finds the same in every picture.

    Args:
        folder: where.
        architecture: as in the manifest.
        places: boxes.
        scores: of them; 0.9 where not given.
        name: of the bundle.
        kinds: of its classes.
        classes: of the boxes.
        floor: what it says about boxes that it had to leave out.
        size: height and width of the only pictures that it takes.
        longest: side of the pictures that it wants.
        empty_masks: whether heads find no pixel of anybody.
        broken_heads: whether what heads say is not finite.
        second_look: as in the manifest.
    """
    sides: tuple[int | str, int | str] = size or ("h", "w")
    detector, detector_graph = _detector(places, scores, classes, floor, sides)
    features = [t for t in detector_graph.outputs if t.name.startswith("p")]
    posed = architecture == "cse"
    heads, heads_graph = _heads(features, posed=posed, empty=empty_masks, broken=broken_heads)
    stored = io.BytesIO()
    np.save(stored, vertex_embeddings())
    files: dict[str, bytes | Path] = {"detector.onnx": detector, "heads.onnx": heads}
    arrays = {}
    if posed:
        files["vertex_embeddings.npy"] = stored.getvalue()
        arrays["vertex_embeddings"] = ArrayFile(
            file="vertex_embeddings.npy", dtype="float32", shape=vertex_embeddings().shape, meaning="a test"
        )
    draft = _draft(name, kinds, {"detector": detector_graph, "heads": heads_graph}).model_copy(
        update={
            "arrays": arrays,
            "detection": Detection(
                architecture="cse" if posed else "mask-rcnn",
                config="tiny",
                min_size=64,
                max_size=longest,
                threshold=0.05,
                most=MOST,
                embedding_channels=16 if posed else 0,
                second_look=second_look,
            ),
        }
    )
    return write_bundle(folder, draft, files)


def write_one_stage(folder: Path, places: Sequence[Place], *, name: str = "tiny", kind: str = "face") -> Bundle:
    """A detector in one graph that finds the same in every picture."""
    detector, graph = _detector(places, None, None, 0.0, ("h", "w"))
    return write_bundle(folder, _draft(name, (kind,), {"detector": graph}), {"detector.onnx": detector})


def with_integers(bundle: Bundle, folder: Path) -> Bundle:
    """The same bundle, whose detector comes a second time under the name of one in integers."""
    manifest = bundle.manifest
    again = bundle.graph("detector").model_copy(update={"file": "detector_int8.onnx"})
    fields = manifest.model_dump(exclude={"files"}) | {
        "graphs": manifest.graphs | {"detector_int8": again},
        "quantized": {
            "detector_int8": Quantized(source="detector", pictures=9, sure=0.5, threshold=0.3, regions=70, found=1.0)
        },
    }
    files: dict[str, bytes | Path] = {name: bundle.file(name) for name in manifest.files}
    files["detector_int8.onnx"] = bundle.file("detector.onnx")
    return write_bundle(folder, ManifestDraft.model_validate(fields), files)


def without_integers(folder: Path) -> Bundle:
    """The starter set's detector in floating point alone."""
    starter = open_bundle(Path(__file__).parent.parent / "engines" / "starter" / "starter-detector")
    manifest = starter.manifest
    graphs = {name: graph for name, graph in manifest.graphs.items() if name not in manifest.quantized}
    left_out = {manifest.graphs[name].file for name in manifest.quantized}
    fields = manifest.model_dump(exclude={"files"}) | {"graphs": graphs, "quantized": {}}
    files: dict[str, bytes | Path] = {name: starter.file(name) for name in manifest.files if name not in left_out}
    return write_bundle(folder, ManifestDraft.model_validate(fields), files)


def install_presets(home: Path) -> None:
    """Everything that the presets with generators need, in a store."""
    bundles = home / "bundles"
    write_two_stage(bundles / "maskrcnn", "mask-rcnn", PERSONS, name="maskrcnn")
    write_two_stage(bundles / "cse", "cse", POSES, name="cse")
    for name in ("dsfd", "centerface"):
        write_one_stage(bundles / name, FACES, name=name)
    write_unet(bundles / "dp2-face", kind="face")
    write_unet(bundles / "dp2-person")
    write_unet(bundles / "dp2-person-cse", surface=True, centres=True)
    write_surface(bundles / "sg-gan")


def write_starter(folder: Path) -> None:
    """What comes with the project: a detector of persons with a pose and of faces, and a generator."""
    write_two_stage(
        folder / "starter-detector",
        "cse",
        (*PERSONS, *FACES),
        name="starter-detector",
        kinds=("person", "face"),
        classes=[0] * len(PERSONS) + [1] * len(FACES),
    )
    write_surface(folder / "starter-generator")


def _draft(name: str, kinds: tuple[str, ...], graphs: dict[str, Graph]) -> ManifestDraft:
    return ManifestDraft(
        name=name,
        task="detection",
        family="test",
        kinds=kinds,
        graphs=graphs,
        normalisation=Normalisation(colour="rgb", mean=(120, 110, 100), std=(60, 50, 55), multiple=32),
        licence="MIT",
        provenance=Provenance(artefact="tiny", source="code", sha256="0" * 64, homepage="https://example.org"),
        exporter="test",
    )


def _detector(
    places: Sequence[Place],
    scores: Sequence[float] | None,
    classes: Sequence[int] | None,
    floor: float,
    sides: tuple[int | str, int | str],
) -> tuple[bytes, Graph]:
    count = len(places)
    inputs = (tensor("image", "N", 3, *sides), tensor("image_size", "N", 2, dtype="int64"))
    outputs = [
        tensor("boxes", "N", MOST, 4),
        tensor("scores", "N", MOST),
        tensor("classes", "N", MOST, dtype="int64"),
        tensor("count", "N", dtype="int64"),
        tensor("floor", "N"),
    ]
    build = Build()
    shares = np.zeros((1, MOST, 4), np.float32)
    shares[0, :count] = np.array(places, np.float32).reshape(-1, 4)
    numbers = np.zeros((1, MOST), np.float32)
    numbers[0, :count] = [0.9] * count if scores is None else scores
    labels = np.zeros((1, MOST), np.int64)
    labels[0, :count] = 0 if classes is None else classes
    # From (height, width) to (width, height, width, height).
    turned = build.add("Gather", "image_size", build.constant("turn", [1, 0, 1, 0], np.int64), axis=1)
    wide = build.add("Unsqueeze", build.add("Cast", turned, to=1), build.constant("axis", [1], np.int64))
    build.add("Mul", build.constant("shares", shares), wide, name="boxes")
    build.add("Identity", build.constant("numbers", numbers), name="scores")
    build.add("Identity", build.constant("labels", labels, np.int64), name="classes")
    build.add("Identity", build.constant("found", [count], np.int64), name="count")
    build.add("Identity", build.constant("lowest", [floor]), name="floor")
    for level in range(2, 6):
        step = 2**level
        build.add("AveragePool", "image", name=f"p{level}", kernel_shape=[step, step], strides=[step, step])
        shape = [side // step if isinstance(side, int) else f"{side}{level}" for side in sides]
        outputs.append(tensor(f"p{level}", "N", 3, *shape))
    return build.save(inputs, outputs), Graph(file="detector.onnx", inputs=inputs, outputs=tuple(outputs))


def _heads(features: Sequence[Tensor], *, posed: bool, empty: bool, broken: bool) -> tuple[bytes, Graph]:
    inputs = [*features, tensor("boxes", "R", 4), tensor("index", "R", dtype="int64")]
    build = Build()
    number = build.add("Gather", build.add("Shape", "boxes"), build.constant("first", [0], np.int64))
    scale = build.constant("scale", np.nan if broken else 1)

    def repeat(name: str, values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Tensor:
        kept = build.add("Mul", build.constant(f"{name}.value", values[None]), scale)
        sides = build.constant(f"{name}.sides", list(values.shape), np.int64)
        build.add("Expand", kept, build.add("Concat", number, sides, axis=0), name=name)
        return tensor(name, "R", *values.shape)

    if posed:
        body = ellipse(112) & (not empty)
        outputs = [
            repeat("coarse_segm", np.stack([~body, body]).astype(np.float32)),
            repeat("embedding", embedding_map()),
        ]
    else:
        inputs.append(tensor("classes", "R", dtype="int64"))
        outputs = [repeat("masks", (ellipse(28) & (not empty)).astype(np.float32))]
    return build.save(inputs, outputs), Graph(file="heads.onnx", inputs=tuple(inputs), outputs=tuple(outputs))
