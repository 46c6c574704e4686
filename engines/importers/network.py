"""A user's ONNX file, read as the untrusted input that it is, with one picture as input."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import onnx
from onnx import compose, inliner, shape_inference, version_converter

from engines.errors import BundleError, UsageError
from engines.importers.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

#: Files below the first are converted to it; above the second, nobody knows yet what the operators will mean.
OPSET, NEWEST_OPSET = 17, 23
_OLDEST_OPSET = 7
#: protobuf's own limit, and a detector that nears it would not run beside a video.
_MOST_BYTES = 2**31 - 1
#: In front of every name of the network, which may have tensors that are called as ours are.
PREFIX = "net."

#: Element types of pictures and of what networks give out; the bundle itself speaks float32.
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)

Side = int | str


@dataclass(frozen=True)
class Port:
    """An input or output of the network.

    Attributes:
        name: In the published file, without `PREFIX`.
        code: ONNX element type.
        shape: A number is a fixed side, a word one that varies; None where not even the rank is known.
    """

    name: str
    code: int
    shape: tuple[Side, ...] | None


@dataclass(frozen=True)
class Network:
    """A checked network.

    Attributes:
        model: At an opset from `OPSET` on, its names prefixed, its metadata removed.
        original: As the file has it, with its weights inside.
        picture: The input that takes the picture.
        others: Further inputs.
        outputs: In the file's order.
        metadata: What the exporter wrote into the file; texts, not to be trusted.
    """

    model: onnx.ModelProto
    original: onnx.ModelProto
    picture: Port
    others: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: dict[str, str]

    @property
    def size(self) -> tuple[Side, Side]:
        """Height and width of the picture."""
        shape = self.picture.shape or ()
        return shape[-2], shape[-1]


def read_network(path: Path) -> Network:
    """Reads and checks an ONNX file from anywhere.

    Weights in further files are taken only from regular files right beside it; operators only from ONNX's own set.

    Args:
        path: The file.

    Raises:
        UsageError: There is no such file.
        BundleError: It is no valid ONNX file, or not one of a network with one picture as its input.
    """
    model = _checked(_with_weights(_parsed(path), path), path)
    opset = _opset(model, path)
    picture, others = _inputs(model, path)
    worked_out = _inferred(model).graph.output
    outputs = tuple(_told(_port(one), _port(other)) for one, other in zip(model.graph.output, worked_out, strict=True))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    original = onnx.ModelProto.FromString(model.SerializeToString())
    return Network(_brought_up(model, opset, path), original, picture, others, outputs, metadata)


def _parsed(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise UsageError(f"no such file: {path}")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BundleError(f"{path} has over 2 GB; no ONNX file has")
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror or error}); check its permissions") from None
    except BundleError:
        raise
    except Exception:  # noqa: BLE001  protobuf's decode errors have no public base class
        raise BundleError(f"{path} is not an ONNX file; export the detector to ONNX first") from None
    if not model.graph.node:
        raise BundleError(f"{path} is not an ONNX file, or one without nodes; export the detector to ONNX first")
    return model


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    def of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            yield from of_node(node)

    def of_node(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for graph in (attribute.g, *attribute.graphs):
                yield from of_graph(graph)

    yield from of_graph(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from of_node(node)


def _with_weights(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    places = set()
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            places.add(next((entry.value for entry in tensor.external_data if entry.key == "location"), ""))
    total = path.stat().st_size
    for place in sorted(places):
        if not place or place in (".", "..") or any(sign in place for sign in "/\\\0:"):
            raise BundleError(f"{path} wants weights from {place!r}; they may only lie in a file right beside it")
        beside = path.parent / place
        # lstat: a link could lead anywhere.
        if not beside.exists() or not stat.S_ISREG(beside.lstat().st_mode):
            raise BundleError(f"{path} wants weights from {place!r}, which is no regular file beside it; put it there")
        total += beside.stat().st_size
    if total > _MOST_BYTES:
        raise BundleError(f"{path} has over 2 GB with its weights, which is more than one ONNX file may have")
    if places:
        try:
            onnx.load_external_data_for_model(model, str(path.parent))
        except Exception as error:  # noqa: BLE001  the errors of onnx have no common base class
            raise BundleError(f"{path} has weights that cannot be read ({_line(error)}); export it again") from None
    return model


def _checked(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    try:
        if model.functions:
            model = inliner.inline_local_functions(model)
        foreign = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
        if foreign:
            raise BundleError(
                f"{path} uses operators of {shown(', '.join(sorted(foreign)))}, expected ONNX's own only; "
                "export it without custom operators"
            )
        onnx.checker.check_model(model)
    except BundleError:
        raise
    except Exception as error:  # noqa: BLE001  the errors of onnx have no common base class
        raise BundleError(f"{path} is not a valid ONNX file ({_line(error)}); export it again") from None
    return model


def _opset(model: onnx.ModelProto, path: Path) -> int:
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    newest = min(NEWEST_OPSET, onnx.defs.onnx_opset_version())
    if not _OLDEST_OPSET <= opset <= newest:
        raise BundleError(
            f"{path} has opset {opset}, expected {_OLDEST_OPSET} to {newest}; export it with an opset in between"
        )
    return opset


def _port(value: onnx.ValueInfoProto) -> Port:
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return Port(value.name, kind.elem_type, None)
    sides: list[Side] = []
    for axis, dim in enumerate(kind.shape.dim):
        fixed = dim.HasField("dim_value") and dim.dim_value > 0
        sides.append(dim.dim_value if fixed else dim.dim_param or f"any_{axis}")
    return Port(value.name, kind.elem_type, tuple(sides))


def _inputs(model: onnx.ModelProto, path: Path) -> tuple[Port, tuple[Port, ...]]:
    weights = {tensor.name for tensor in model.graph.initializer}
    ports = [_port(value) for value in model.graph.input if value.name not in weights]
    pictures = [port for port in ports if _is_picture(port)]
    if len(pictures) != 1:
        listed = listed_ports(ports)
        raise BundleError(
            f"{path} has the inputs {listed}; expected one picture, float32 or float16, (N,3,h,w) or (3,h,w); "
            "export the detector with a picture as its input"
        )
    shape = pictures[0].shape or ()
    if len(shape) == 4 and isinstance(shape[0], int) and shape[0] != 1:
        raise BundleError(f"{path} takes {shape[0]} pictures at once and no other number; export it for one, or any")
    if isinstance(shape[-2], int) != isinstance(shape[-1], int):
        raise BundleError(f"{path} fixes one side of the picture only, {listed_ports(pictures)}; fix both or none")
    return pictures[0], tuple(port for port in ports if port is not pictures[0])


def _is_picture(port: Port) -> bool:
    shape = port.shape or ()
    return port.code in FLOATS and len(shape) in (3, 4) and shape[-3] in (3, f"any_{len(shape) - 3}")


def listed_ports(ports: Iterable[Port]) -> str:
    """Names and shapes, for messages."""
    texts = [f"{shown(p.name)} ({'?' if p.shape is None else shown(', '.join(map(str, p.shape)))})" for p in ports]
    return ", ".join(texts[:8]) + (f" and {len(texts) - 8} more" if len(texts) > 8 else "") or "none"


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with shapes worked out as far as possible, which some exporters leave out at the outputs."""
    try:
        return shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # noqa: BLE001  then the declared shapes have to do
        return model


def _told(declared: Port, worked_out: Port) -> Port:
    """What the file declares, and what was worked out for the sides that it leaves without even a name."""
    if declared.shape is None:
        return worked_out
    if worked_out.shape is None or len(worked_out.shape) != len(declared.shape):
        return declared
    pairs = zip(declared.shape, worked_out.shape, strict=True)
    shape = tuple(other if str(side).startswith("any_") else side for side, other in pairs)
    return replace(declared, shape=shape)


def _brought_up(model: onnx.ModelProto, opset: int, path: Path) -> onnx.ModelProto:
    try:
        if opset < OPSET:
            model = version_converter.convert_version(model, OPSET)
        model = compose.add_prefix(model, PREFIX)
    except Exception as error:  # noqa: BLE001  the errors of onnx have no common base class
        raise BundleError(
            f"{path} has opset {opset} and cannot be brought to {OPSET} ({_line(error)}); "
            f"export it with opset {OPSET} or later"
        ) from None
    return model


def _line(error: Exception) -> str:
    return shown(" ".join(str(error).split()), 200)


def metadata_names(metadata: dict[str, str]) -> tuple[str, ...] | None:
    """Class names as Ultralytics writes them (`{0: 'person', 1: 'face'}`) or as a JSON list, None where there are none.

    Raises:
        BundleError: There are names, but not of the classes 0, 1, ... in order.
    """
    text = metadata.get("names")
    if not text:
        return None
    try:
        value = _literal(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise BundleError(
            f"the file's class names cannot be read: {text[:80]!r}; give --classes INDEX=KIND,..."
        ) from None
    if isinstance(value, dict) and sorted(map(str, value)) == sorted(str(index) for index in range(len(value))):
        ordered = {int(key): name for key, name in value.items()}
        value = [ordered[index] for index in range(len(ordered))]
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise BundleError(f"the file's class names are no list: {text[:80]!r}; give --classes INDEX=KIND,...")
    return tuple(value)


def _literal(text: str) -> object:
    # Imported here: nothing else reads Python's way of writing a dict.
    from ast import literal_eval

    try:
        return json.loads(text)
    except ValueError:
        return literal_eval(text)
