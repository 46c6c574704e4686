"""The manifest of a bundle: what is in it, what its tensors mean, where it came from.

`bundle.json` is read by other releases than the one that wrote it, so the schema version is looked at
before anything else, and everything that this release does not know is an error.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from engines.errors import BundleError, BundleSchemaError

SCHEMA_VERSION = 1

#: numpy names of the element types that the runtimes accept.
DType = Literal["float16", "float32", "int32", "int64", "uint8", "bool"]

_PLAIN_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def _plain_file_name(name: str) -> str:
    """Accepts `detector.onnx` or `plans/a.plan`, and nothing that could point outside the bundle."""
    if not all(_PLAIN_PART.fullmatch(part) for part in name.split("/")):
        raise ValueError(
            f"{name!r} is not a plain relative file name inside the bundle; use letters, digits, '.', '_', '-' and '/'"
        )
    if name == "bundle.json":
        raise ValueError("'bundle.json' is the manifest itself and cannot be one of its files")
    return name


FileName = Annotated[str, AfterValidator(_plain_file_name)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Three = tuple[float, float, float]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tensor(_Part):
    """One named array of a graph.

    A number in `shape` is a fixed dimension. A word is a dimension that may vary but is the same wherever
    the word occurs among the inputs of one call.
    """

    name: str = Field(min_length=1)
    dtype: DType
    shape: tuple[int | str, ...]
    meaning: str


class Graph(_Part):
    """One ONNX file with its inputs and outputs."""

    file: FileName
    inputs: tuple[Tensor, ...] = Field(min_length=1)
    outputs: tuple[Tensor, ...] = Field(min_length=1)


class ArrayFile(_Part):
    """One small `.npy` file, such as the average latent."""

    file: FileName
    dtype: DType
    shape: tuple[int, ...]
    meaning: str


class Activation(_Part):
    """The largest absolute value that a layer gave out in the float32 run at export."""

    layer: str
    largest: float = Field(ge=0)


class Generation(_Part):
    """What a program that feeds a generator must know, beyond its tensors.

    Attributes:
        architecture: `style-unet` (DeepPrivacy2) or `v-sam` (SG-GAN).
        image_size: Height and width of a crop in pixels.
        z_channels: Length of the latent z.
        vertices: K, the vertices of the surface; 0 where the generator knows none.
        embedding_channels: Channels of the surface embedding; 0 where there is none.
        config: The declared config that gave what no tensor of the checkpoint shows.
        unexpected: Tensors of the checkpoint that the architecture has no place for.
        activations: Per layer, from the float32 run.
    """

    architecture: Literal["style-unet", "v-sam"]
    image_size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    z_channels: int = Field(ge=1)
    vertices: int = Field(default=0, ge=0)
    embedding_channels: int = Field(default=0, ge=0)
    config: str = Field(min_length=1)
    unexpected: tuple[str, ...] = ()
    activations: tuple[Activation, ...] = ()


class SecondLook(_Part):
    """At what size a detector looks again for what is too near for it: its features reach over a part of such a thing.

    Attributes:
        from_size: What it finds then counts if the box's longer side has this many pixels of the first picture. Often a
            part is found of what is near: it looks again where a box of two thirds of that was found.
        scale: Of the second picture against the first.
    """

    from_size: int = Field(ge=1)
    scale: float = Field(ge=0.1, le=0.9)


class Detection(_Part):
    """What a program that feeds a two-stage detector must know, beyond its tensors.

    Attributes:
        architecture: `mask-rcnn` (masks per box) or `cse` (coarse segmentation and surface embedding per box).
        config: The declared config, or the file, that gave what no tensor of the checkpoint shows.
        min_size: The shorter side that pictures are resized to in pixels,
        max_size: unless the longer one would be more than this.
        threshold: A box with a score at or below it is never returned.
        most: M, boxes a frame.
        embedding_channels: Channels of the surface embedding; 0 for masks.
        second_look: None where one picture is enough.
    """

    architecture: Literal["mask-rcnn", "cse"]
    config: str = Field(min_length=1)
    min_size: int = Field(ge=1)
    max_size: int = Field(ge=1)
    threshold: float = Field(ge=0, lt=1)
    most: int = Field(ge=1)
    embedding_channels: int = Field(default=0, ge=0)
    second_look: SecondLook | None = None


class Normalisation(_Part):
    """How an image becomes an input: 0..255 enters as (x - mean) / std, sides are padded to `multiple`.

    Where the graph's input fixes both sides, `fit` says how the image comes to them: `pad` keeps its aspect ratio and
    fills up, `stretch` does not.
    """

    colour: Literal["rgb"]
    mean: Three
    std: Three
    multiple: int = Field(ge=1)
    fit: Literal["pad", "stretch"] = "pad"


class Provenance(_Part):
    """Where the weights came from: the published artefact, the source it was taken from, its sha256."""

    artefact: str
    source: str
    sha256: Sha256
    homepage: str


class Parity(_Part):
    """What was measured when the bundle was built: this graph against the published network.

    `measured` is what `tolerance` bounds, by `measure`; older bundles have the largest difference only.
    """

    graph: str
    output: str
    largest_difference: float = Field(ge=0)
    measure: Literal["largest", "rms"] = "largest"
    measured: float | None = Field(default=None, ge=0)
    tolerance: float = Field(ge=0)
    cases: int = Field(ge=1)


class Quantized(_Part):
    """A graph whose convolutions are of 8-bit integers, against the one in floating point that it was made of.

    Attributes:
        source: The graph in floating point.
        pictures: On which both were compared; other ones than those that ranges were taken from.
        sure: What the source gave with this score or a higher one had to be found again,
        threshold: with this score or a higher one.
        regions: How many these were.
        found: The part of them that were: of the same class, with half in common (IoU) at least.
        masks: Of what persons among these cover, the part that is covered again in the mean; None where the graph says
            nothing of masks, or they were not compared.
    """

    source: str
    pictures: int = Field(ge=1)
    sure: float = Field(ge=0, le=1)
    threshold: float = Field(ge=0, le=1)
    regions: int = Field(ge=1)
    found: float = Field(ge=0, le=1)
    masks: float | None = Field(default=None, ge=0, le=1)


class ManifestDraft(_Part):
    """Everything in a manifest except the hashes, which `engines.bundle.write_bundle` adds."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    task: Literal["detection", "generation"]
    family: str = Field(min_length=1)
    #: Class index -> kind of region, such as ("face",); empty where there are no classes.
    kinds: tuple[str, ...] = ()
    graphs: dict[str, Graph] = Field(min_length=1)
    normalisation: Normalisation
    licence: str = Field(min_length=1)
    provenance: Provenance
    exporter: str
    parity: tuple[Parity, ...] = ()
    #: Name -> small array, such as `w_avg`.
    arrays: dict[str, ArrayFile] = {}
    generation: Generation | None = None
    #: Of detectors with heads; others need none.
    detection: Detection | None = None
    #: Graphs in 8-bit integers, by name; for processors.
    quantized: dict[str, Quantized] = {}

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> ManifestDraft:
        if self.task == "detection" and not self.kinds:
            raise ValueError("kinds is empty, but a detection bundle must say which kind each class is")
        if (self.generation is not None) != (self.task == "generation"):
            raise ValueError(f"task is {self.task!r}: generation must be given for a generation bundle, and only there")
        if self.detection is not None and self.task != "detection":
            raise ValueError(f"task is {self.task!r}: detection may be given for a detection bundle only")
        for result in self.parity:
            if result.graph not in self.graphs:
                raise ValueError(f"parity names the graph {result.graph!r}, which is not in graphs")
        for key, measured in self.quantized.items():
            if not {key, measured.source} <= self.graphs.keys():
                raise ValueError(f"quantized names {key!r} of {measured.source!r}, which are not both in graphs")
            here, source = self.graphs[key], self.graphs[measured.source]
            if (here.inputs, here.outputs) != (source.inputs, source.outputs):
                raise ValueError(f"graph {key!r} takes or gives something else than {measured.source!r}")
        for key, graph in self.graphs.items():
            for tensors in (graph.inputs, graph.outputs):
                names = [tensor.name for tensor in tensors]
                if len(set(names)) != len(names):
                    raise ValueError(f"graph {key!r} declares a tensor twice: {names}")
        return self


class Manifest(ManifestDraft):
    """A complete manifest, as in `bundle.json`."""

    #: File name inside the bundle -> sha256, for every file that belongs to it.
    files: dict[FileName, Sha256] = Field(min_length=1)

    @model_validator(mode="after")
    def _every_graph_file_is_hashed(self) -> Manifest:
        for key, graph in self.graphs.items():
            if graph.file not in self.files:
                raise ValueError(f"graph {key!r} uses {graph.file!r}, which has no hash in files")
        for key, array in self.arrays.items():
            if array.file not in self.files:
                raise ValueError(f"array {key!r} is {array.file!r}, which has no hash in files")
        return self


def _one_line(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    first = problems[0]
    # A name in the file may hold anything, line breaks included.
    field = " ".join(".".join(str(part) for part in first["loc"]).split()) or "manifest"
    text = " ".join(first["msg"].removeprefix("Value error, ").split())
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"field {field}: {text}{more}"


def parse_manifest(raw: str | bytes, *, where: str = "bundle.json") -> Manifest:
    """Reads a manifest from JSON text.

    Args:
        raw: The content of `bundle.json`.
        where: How to call it in messages, usually its path.

    Raises:
        BundleSchemaError: It was written for a schema version that this release does not read.
        BundleError: It is not JSON, or a field is missing, unknown or wrong; the message names the field.
    """
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{where} is not JSON ({error}); expected a bundle's manifest; fetch the bundle again"
        ) from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise BundleError(
            f"{where} has no whole number in field schema_version, expected {SCHEMA_VERSION}; fetch the bundle again"
        )
    if version > SCHEMA_VERSION:
        raise BundleSchemaError(
            f"{where} has schema version {version}, this release reads up to {SCHEMA_VERSION}; update standin"
        )
    if version < SCHEMA_VERSION:
        raise BundleSchemaError(
            f"{where} has schema version {version}, this release reads {SCHEMA_VERSION}; build it again"
        )
    try:
        return Manifest.model_validate_json(raw)
    except ValidationError as error:
        raise BundleError(f"{where} is not a valid manifest: {_one_line(error)}; fetch the bundle again") from None
