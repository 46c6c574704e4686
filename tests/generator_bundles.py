"""Tiny generators made in code, with the tensor names and the promises of real ones, and some that break them.

What they generate depends on the latent, on the surface and, through its mean, on the known part of the picture.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from engines.bundle import Bundle, write_bundle
from engines.manifest import ArrayFile, Generation, Graph, ManifestDraft, Normalisation, Provenance, Tensor
from engines.resident import HostArray
from engines.runtime import Runtime, open_runtime
from stream.generators.base import Crops
from stream.generators.inputs import HostInputs, shown_by

Array = npt.NDArray[Any]
Fault = Literal["", "sees everything", "not finite", "half overflows"]

HEIGHT, WIDTH = 24, 16
VERTICES = 10
CHANNELS = 16
Z = 512
CENTRES = 3
TABLES = (3, 2)
#: What a mapping without truncation makes of z: w = 2 z + 1.
W_SCALE, W_OFFSET = np.float32(2), np.float32(1)

_FLOAT, _HALF, _INT = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64


@dataclass
class Build:
    """A graph in the making: constants by name, nodes in order."""

    constants: dict[str, Array] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def constant(self, name: str, value: npt.ArrayLike, dtype: type[np.generic] = np.float32) -> str:
        self.constants[name] = np.asarray(value, dtype)
        return name

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        out = name or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [out], **attributes))
        return out

    def save(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bytes:
        graph = helper.make_graph(
            self.nodes,
            "tiny",
            [_info(tensor) for tensor in inputs],
            [_info(tensor) for tensor in outputs],
            [onnx.numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString()
        return data


def _info(tensor: Tensor) -> onnx.ValueInfoProto:
    code = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return helper.make_tensor_value_info(tensor.name, code, list(tensor.shape))


def tensor(name: str, *shape: int | str, dtype: Any = "float32") -> Tensor:
    return Tensor(name=name, dtype=dtype, shape=shape, meaning="a test")


def some(seed: int, *shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def _paint(build: Build, colour: str, embedding: str | None, fault: Fault) -> None:
    """From a colour for each pixel, (N, 3, H, W) or what can be broadcast to it, to `output`."""
    # The one line that keeps what lies under the mask out of everything that follows.
    masked = build.add("Identity", "image") if fault == "sees everything" else build.add("Mul", "image", "mask")
    context = build.add("Mul", build.add("ReduceMean", masked, axes=[1, 2, 3]), build.constant("quarter", 0.25))
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] / max(HEIGHT, WIDTH)
    shade = build.constant("shade", np.sin(6 * rows + 3 * columns)[None, None] / 4)
    total = build.add("Add", build.add("Add", colour, context), shade)
    if embedding is not None:
        total = build.add("Add", total, build.add("ReduceMean", embedding, axes=[1]))
    painted = build.add("Tanh", total)
    if fault == "not finite":
        painted = build.add("Log", build.add("Sub", painted, build.constant("two", 2)))
    unknown = build.add("Sub", build.constant("one", 1), "mask")
    kept = build.add("Mul", "image", "mask")
    build.add("Add", kept, build.add("Mul", painted, unknown), name="output")


def _unet_mapping() -> tuple[bytes, Graph]:
    inputs, outputs = (tensor("z", "N", Z),), (tensor("w", "N", Z),)
    build = Build()
    scaled = build.add("Mul", "z", build.constant("scale", W_SCALE))
    build.add("Add", scaled, build.constant("offset", W_OFFSET), name="w")
    return build.save(inputs, outputs), Graph(file="mapping.onnx", inputs=inputs, outputs=outputs)


def _unet_generator(file: str, *, surface: bool, fault: Fault) -> tuple[bytes, Graph]:
    inputs = [tensor("image", "N", 3, HEIGHT, WIDTH), tensor("mask", "N", 1, HEIGHT, WIDTH), tensor("w", "N", Z)]
    if surface:
        inputs += [tensor("embedding", "N", CHANNELS, HEIGHT, WIDTH), tensor("embedding_mask", "N", 1, HEIGHT, WIDTH)]
    outputs = [tensor("output", "N", 3, HEIGHT, WIDTH)]
    build = Build()
    colour = build.add("MatMul", "w", build.constant("palette", some(1, Z, 3) / 30))
    wide = build.add("Reshape", colour, build.constant("wide", [-1, 3, 1, 1], np.int64))
    _paint(build, wide, build.add("Mul", "embedding", "embedding_mask") if surface else None, fault)
    return build.save(inputs, outputs), Graph(file=file, inputs=tuple(inputs), outputs=tuple(outputs))


def _surface_mapping(fault: Fault, channels: int) -> tuple[bytes, Graph]:
    inputs = (tensor("z", 1, channels), tensor("truncation", 1))
    outputs = tuple(tensor(f"table_{i}", VERTICES + 2, width) for i, width in enumerate(TABLES))
    build = Build()
    for i, width in enumerate(TABLES):
        own = build.add("MatMul", "z", build.constant(f"own_{i}", some(10 + i, channels, width) / 20))
        drawn = build.add("Mul", own, "truncation")
        base = build.constant(
            f"base_{i}", some(20 + i, VERTICES + 2, width) + (1e6 if fault == "half overflows" else 0)
        )
        build.add("Add", base, drawn, name=f"table_{i}")
    return build.save(inputs, outputs), Graph(file="mapping.onnx", inputs=inputs, outputs=outputs)


def _surface_generator(file: str, *, half: bool, fault: Fault) -> tuple[bytes, Graph]:
    kept = "float16" if half else "float32"
    inputs = [
        tensor("image", "N", 3, HEIGHT, WIDTH),
        tensor("mask", "N", 1, HEIGHT, WIDTH),
        tensor("embedding", "N", CHANNELS, HEIGHT, WIDTH),
        tensor("vertices", "N", HEIGHT, WIDTH, dtype="int64"),
        tensor("slot", "N", dtype="int64"),
        *(tensor(f"table_{i}", "S", VERTICES + 2, width, dtype=kept) for i, width in enumerate(TABLES)),
    ]
    outputs = [tensor("output", "N", 3, HEIGHT, WIDTH)]
    build = Build()
    slot = build.add("Reshape", "slot", build.constant("apart", [-1, 1, 1], np.int64))
    first = build.add("Mul", slot, build.constant("rows", VERTICES + 2, np.int64))
    row = build.add("Add", first, "vertices")
    maps = []
    for i, width in enumerate(TABLES):
        flat = build.add("Reshape", f"table_{i}", build.constant(f"flat_{i}", [-1, width], np.int64))
        picked = build.add("Cast", build.add("Gather", flat, row, axis=0), to=_FLOAT)
        maps.append(build.add("Transpose", picked, perm=[0, 3, 1, 2]))
    colour = build.add("Add", maps[0], build.add("ReduceMean", maps[1], axes=[1]))
    _paint(build, colour, "embedding", fault)
    return build.save(inputs, outputs), Graph(file=file, inputs=tuple(inputs), outputs=tuple(outputs))


def _draft(name: str, kind: str, graphs: dict[str, Graph], generation: Generation) -> ManifestDraft:
    return ManifestDraft(
        name=name,
        task="generation",
        family="test",
        kinds=(kind,),
        graphs=graphs,
        normalisation=Normalisation(colour="rgb", mean=(127.5,) * 3, std=(127.5,) * 3, multiple=1),
        licence="MIT",
        provenance=Provenance(artefact="tiny", source="code", sha256="0" * 64, homepage="https://example.org"),
        exporter="test",
        generation=generation,
    )


def vertex_embeddings() -> npt.NDArray[np.float32]:
    """(K, 16), of unit norm."""
    raw = some(30, VERTICES, CHANNELS)
    return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True), np.float32)


def _write(folder: Path, draft: ManifestDraft, files: dict[str, bytes], arrays: Mapping[str, Array]) -> Bundle:
    declared = {}
    for name, value in arrays.items():
        stored = io.BytesIO()
        np.save(stored, value)
        files[f"{name}.npy"] = stored.getvalue()
        declared[name] = ArrayFile(file=f"{name}.npy", dtype=value.dtype.name, shape=value.shape, meaning="a test")
    return write_bundle(folder, draft.model_copy(update={"arrays": declared}), files)


def write_unet(
    folder: Path,
    *,
    surface: bool = False,
    centres: bool = False,
    embeddings: bool = True,
    fault: Fault = "",
    kind: str = "person",
    halves: Sequence[bool] = (False, True),
    replaced: Mapping[str, Array] | None = None,
    **changes: Any,
) -> Bundle:
    """A U-Net, like DeepPrivacy2's.

    Args:
        folder: where.
        surface: whether it takes an embedding.
        centres: whether it has cluster centres.
        embeddings: whether it brings the vertices' embeddings, if it takes any.
        fault: what is wrong with it.
        kind: of region.
        halves: which precisions it has.
        replaced: arrays to write in the place of its own.
        **changes: to the manifest's `generation`.
    """
    mapping, mapping_graph = _unet_mapping()
    graphs, files = {"mapping": mapping_graph}, {"mapping.onnx": mapping}
    for half in halves:
        name = "generator_fp16" if half else "generator"
        files[f"{name}.onnx"], graphs[name] = _unet_generator(f"{name}.onnx", surface=surface, fault=fault)
    arrays: dict[str, Array] = {"w_avg": some(2, Z)}
    if centres:
        arrays["w_centers"] = some(3, CENTRES, Z)
    if surface and embeddings:
        arrays["vertex_embeddings"] = vertex_embeddings()
    arrays |= replaced or {}
    fields: dict[str, Any] = {
        "architecture": "style-unet",
        "image_size": (HEIGHT, WIDTH),
        "z_channels": Z,
        "embedding_channels": CHANNELS if surface else 0,
        "config": "tiny",
    }
    return _write(folder, _draft("tiny-unet", kind, graphs, Generation(**(fields | changes))), files, arrays)


def write_surface(
    folder: Path,
    *,
    embeddings: bool = True,
    fault: Fault = "",
    halves: Sequence[bool] = (False, True),
    latent: int = Z,
    **changes: Any,
) -> Bundle:
    """A V-SAM generator, like SG-GAN."""
    mapping, mapping_graph = _surface_mapping(fault, latent)
    graphs, files = {"mapping": mapping_graph}, {"mapping.onnx": mapping}
    for half in halves:
        name = "generator_fp16" if half else "generator"
        files[f"{name}.onnx"], graphs[name] = _surface_generator(f"{name}.onnx", half=half, fault=fault)
    fields: dict[str, Any] = {
        "architecture": "v-sam",
        "image_size": (HEIGHT, WIDTH),
        "z_channels": latent,
        "vertices": VERTICES,
        "embedding_channels": CHANNELS,
        "config": "tiny",
    }
    arrays: dict[str, Array] = {"vertex_embeddings": vertex_embeddings()} if embeddings else {}
    return _write(folder, _draft("tiny-surface", "person", graphs, Generation(**(fields | changes))), files, arrays)


def crops(*track_ids: int, seed: int = 0, surface: bool = True) -> Crops:
    """Noise with a hole in the middle; the hole holds a body with a border round it."""
    count = len(track_ids)
    rng = np.random.default_rng(seed)
    known = np.ones((count, HEIGHT, WIDTH), np.bool_)
    known[:, 4:-4, 3:-3] = False
    body = np.zeros_like(known)
    body[:, 6:-6, 5:-5] = True
    vertices = np.where(body, rng.integers(0, VERTICES, known.shape), -1).astype(np.int64)
    return Crops(
        images=rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8),
        known=known,
        track_ids=np.array(track_ids, np.int64),
        body=body if surface else None,
        vertices=vertices if surface else None,
    )


def inputs_of(bundle: Bundle) -> HostInputs:
    """What makes the inputs of its generator that show crops."""
    graph = next(graph for name, graph in bundle.manifest.graphs.items() if name.startswith("generator"))
    names = shown_by(graph)
    return HostInputs(names, bundle.manifest.normalisation, vertex_embeddings() if "embedding" in names else None)


class Watched(Runtime):
    """A runtime that counts its runs, keeps what it was fed, and stops or fails on order.

    Args:
        bundle: where the graph is.
        graph: its name.
        before: called before every run with its number; may wait or raise.
    """

    def __init__(self, bundle: Bundle, graph: str, before: Callable[[int], object] = lambda _: None) -> None:
        super().__init__(bundle.graph(graph), "cpu")
        self._inner = open_runtime(bundle, graph, threads=1)
        self._before = before
        self._lock = Lock()
        self.fed: list[dict[str, Array]] = []
        self.closed = False

    @property
    def provider(self) -> str:
        return self._inner.provider

    @property
    def runs(self) -> int:
        return len(self.fed)

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        with self._lock:
            number = len(self.fed)
            self.fed.append(dict(feeds))
        self._before(number)
        return self._inner.run(feeds)

    def close(self) -> None:
        self.closed = True
        self._inner.close()


class There(HostArray):
    """An array in memory that is not the host's: nobody but its runtime looks into it."""

    def numpy(self) -> Array:
        raise AssertionError("it travels to the host")


class Elsewhere(Watched):
    """A runtime with memory of its own; `fed` has what came as it came."""

    def __init__(self, bundle: Bundle, graph: str) -> None:
        super().__init__(bundle, graph)
        self.held: list[There] = []

    @property
    def has_memory(self) -> bool:
        return True

    def hold(self, array: Array) -> There:
        self.held.append(There(array.copy()))
        return self.held[-1]

    def _run_there(self, feeds: Mapping[str, Any], keep: Collection[str]) -> dict[str, Any]:
        self.fed.append(dict(feeds))
        made = self._inner.run({n: a.values if isinstance(a, There) else a for n, a in feeds.items()})
        return {name: There(array) if name in keep else array for name, array in made.items()}


class Gate:
    """Holds back whoever comes, until it is opened; gives up after a while so that no test hangs."""

    def __init__(self) -> None:
        self.reached = Event()
        self._opened = Event()

    def __call__(self, _: int) -> None:
        self.reached.set()
        assert self._opened.wait(20), "nobody has opened the gate"

    def open(self) -> None:
        self._opened.set()
