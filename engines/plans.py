"""TensorRT plans on disk: what each was built for, which one fits a machine, and which are of no use any more.

A plan is a file `NAME.plan` with a record `NAME.json` beside it. TensorRT itself notices only some of the machines
that a plan was not built for, so that the record decides: a plan without one, or whose record does not fit, is never
loaded.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.built_in import FOLDER as BUILT_IN
from engines.bundle import sha256_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engines.bundle import Bundle

log = logging.getLogger(__name__)

#: Float32, float32 with products rounded to TF32, float16.
Precision = Literal["fp32", "tf32", "fp16"]
#: On which GPUs a plan may run: the model that it was built on, all of that compute capability, Ampere and all later.
Hardware = Literal["model", "capability", "ampere+"]

PLAN_SUFFIX: Final = ".plan"
RECORD_SUFFIX: Final = ".json"
#: Of the files that are being written, see `engines.plan_build`.
PART_SUFFIX: Final = ".part"
#: In a folder of the user's: where the bundles lie that plans there were built from.
BUNDLES_NAME: Final = "bundles.json"
_AMPERE: Final = (8, 0)
_VERSION = re.compile(r"\d+(\.\d+)+")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Sides = tuple[Annotated[int, Field(ge=0)], ...]


class InputShapes(_Part):
    """What shapes of an input a plan takes: least, usual (what it is fastest for) and most, for each dimension."""

    name: str
    least: Sides
    usual: Sides
    most: Sides


class Target(_Part):
    """The machine that a plan is for.

    Attributes:
        platform: operating system and processor, such as `linux-x86_64`.
        tensorrt: the full version, such as `10.16.1.11`.
        capability: compute capability of the GPU, major and minor.
        gpu: the GPU's name.
    """

    platform: str
    tensorrt: Annotated[str, Field(pattern=r"^\d+(\.\d+)+$")]
    capability: tuple[int, int]
    gpu: str


class PlanKey(_Part):
    """What tells plans apart.

    Attributes:
        graph: name in the bundle's manifest.
        onnx: sha256 of the ONNX file that it was built from.
        target: the machine that it was built on.
        precision: what it computes in.
        inputs: the shapes that it takes.
        hardware: GPUs that it may run on.
        version_compatible: whether later versions of TensorRT (of the same major one) may load it.
    """

    graph: str
    onnx: str
    target: Target
    precision: Precision
    inputs: tuple[InputShapes, ...]
    hardware: Hardware = "model"
    version_compatible: bool = False

    @property
    def stem(self) -> str:
        """File name without its suffix: what can be read, and a digest over everything."""
        digest = hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]
        major, minor = self.target.capability
        gpu = f"sm{major}{minor}" if self.hardware != "ampere+" else "ampere"
        return f"{self.graph}-{self.precision}-{gpu}-trt{self.target.tensorrt}-{digest}"


class PlanRecord(_Part):
    """What is written beside a plan.

    Attributes:
        schema_version: of this record.
        key: what the plan is for.
        sha256: of the plan's content.
        capturable: whether its work can be recorded as a CUDA graph: no shape in it depends on data.
        seconds: that building took.
        workspace: bytes that its layers may use at most, None for what the GPU has.
        level: how much was tried, None for TensorRT's own choice.
    """

    schema_version: Literal[1] = 1
    key: PlanKey
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    capturable: bool
    seconds: float = Field(ge=0)
    workspace: int | None = Field(default=None, ge=1)
    level: int | None = Field(default=None, ge=0, le=5)


@dataclass(frozen=True)
class Plan:
    """A plan with its record.

    Attributes:
        path: the file.
        record: what it is for.
    """

    path: Path
    record: PlanRecord


@dataclass(frozen=True)
class Rejected:
    """A plan that is there and cannot be used.

    Attributes:
        path: the file.
        reason: why not.
    """

    path: Path
    reason: str


def host_platform() -> str:
    """This operating system and processor, as in `Target`."""
    return f"{platform.system().lower()}-{platform.machine().lower()}"


def plans_folder(bundle: Bundle, home: Path) -> Path:
    """Where plans for a bundle are built: in the bundle, or in the user's folder if the bundle is not ours to write to.

    Args:
        bundle: that comes with the project, is installed, or lies elsewhere.
        home: the user's folder (`engines.store.home`).
    """
    if bundle.path.parent != BUILT_IN and os.access(bundle.path, os.W_OK | os.X_OK):
        return bundle.path / "plans"
    return home / "plans" / f"{bundle.manifest.name}-{bundle.digest[:12]}"


def plan_folders(bundle: Bundle, home: Path) -> tuple[Path, ...]:
    """Where plans of a bundle are looked for.

    Args:
        bundle: that the plans are of.
        home: the user's folder.
    """
    return tuple(dict.fromkeys((plans_folder(bundle, home), bundle.path / "plans")))


def note_bundle(folder: Path, bundle: Bundle) -> None:
    """Writes down where a bundle lies whose plans are built outside of it: nothing else would lead back to it.

    Args:
        folder: that plans are built in, locked by the caller.
        bundle: that they are of.

    Raises:
        OSError: It cannot be written.
    """
    known = noted_bundles(folder)
    place = bundle.path.absolute()
    if folder.absolute() != place / "plans" and place not in known:
        text = json.dumps([str(path) for path in (*known, place)], indent=1)
        (folder / BUNDLES_NAME).write_text(text + "\n", encoding="utf-8")


def noted_bundles(folder: Path) -> tuple[Path, ...]:
    """Where the bundles lay that plans in a folder of the user's were built from, as far as it was written down.

    Args:
        folder: that plans were built in.
    """
    try:
        said = json.loads((folder / BUNDLES_NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return ()
    return tuple(Path(text) for text in said if isinstance(text, str)) if isinstance(said, list) else ()


def misfit(key: PlanKey, target: Target) -> str | None:
    """Why a plan cannot run on a machine, None if it can.

    Args:
        key: of the plan.
        target: the machine.
    """
    built = key.target
    if built.platform != target.platform:
        return f"it was built on {built.platform}, this is {target.platform}"
    if built.tensorrt != target.tensorrt:
        if not key.version_compatible:
            return f"it was built with TensorRT {built.tensorrt}, this is {target.tensorrt}"
        was, now = _numbers(built.tensorrt), _numbers(target.tensorrt)
        if was[0] != now[0] or now < was:
            return f"it is for TensorRT {built.tensorrt} and later ones of {was[0]}, this is {target.tensorrt}"
    if key.hardware == "ampere+":
        if target.capability < _AMPERE:
            return f"it is for compute capability 8.0 and later, this GPU has {_dotted(target.capability)}"
    elif built.capability != target.capability:
        return f"it is for compute capability {_dotted(built.capability)}, this GPU has {_dotted(target.capability)}"
    elif key.hardware == "model" and built.gpu != target.gpu:
        return f"it was built on {built.gpu}, this is {target.gpu}"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")) if _VERSION.fullmatch(version) else (0,)


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def read_plan(path: Path) -> Plan | Rejected:
    """Reads a plan's record, and compares the plan with it.

    Args:
        path: the plan's file.
    """
    beside = path.with_suffix(RECORD_SUFFIX)
    try:
        record = PlanRecord.model_validate_json(beside.read_bytes())
    except OSError as error:
        return Rejected(path, f"its record {beside.name} cannot be read ({error.strerror or error})")
    except ValidationError as error:
        return Rejected(path, f"its record {beside.name} is not valid ({error.error_count()} problems)")
    try:
        found = sha256_file(path)
    except OSError as error:
        return Rejected(path, f"it cannot be read ({error.strerror or error})")
    if found != record.sha256:
        return Rejected(path, "its content is not what was built (its sha256 differs)")
    return Plan(path, record)


def find_plan(
    folders: Sequence[Path],
    *,
    graph: str,
    onnx: str,
    precision: Precision,
    target: Target,
    host_code: bool = False,
) -> tuple[Plan | None, tuple[Rejected, ...]]:
    """Looks for a plan of a graph that fits a machine: of several the one that was built or asked for last.

    Args:
        folders: to look in; the first that has one wins.
        graph: name in the manifest.
        onnx: sha256 of its ONNX file.
        precision: that it must compute in.
        target: the machine.
        host_code: whether plans that bring code of their own may be loaded.

    Returns:
        The plan, None where there is none, and those of this graph that do not do, with reasons.
    """
    rejected: list[Rejected] = []
    for folder in folders:
        for path in _newest_first(folder):
            plan = _of_graph(path, graph)
            if plan is None:
                continue
            if isinstance(plan, Rejected):
                reason: str | None = plan.reason
            else:
                reason = _unsuited(plan.record.key, onnx, precision, target, host_code=host_code)
            if reason is None and isinstance(plan, Plan):
                return plan, tuple(rejected)
            rejected.append(Rejected(path, reason or "it cannot be used"))
    return None, tuple(rejected)


def _of_graph(path: Path, graph: str) -> Plan | Rejected | None:
    """None where the record says at once that it is another graph's: large files are not hashed for nothing."""
    try:
        said = json.loads(path.with_suffix(RECORD_SUFFIX).read_bytes())["key"]["graph"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        # Its name is all that is left to go by.
        return read_plan(path) if path.name.startswith(f"{graph}-") else None
    return read_plan(path) if said == graph else None


def _unsuited(key: PlanKey, onnx: str, precision: Precision, target: Target, *, host_code: bool) -> str | None:
    if key.onnx != onnx:
        return "it was built from another ONNX file than the bundle's"
    if key.precision != precision:
        return f"it computes in {key.precision}, asked for is {precision}"
    if (reason := misfit(key, target)) is not None:
        return reason
    if key.version_compatible and not host_code:
        return (
            "it is version-compatible, so it brings code that runs in this process; if you built it or trust who did, "
            "set STANDIN_TENSORRT=host-code"
        )
    return None


def _newest_first(folder: Path) -> list[Path]:
    found: list[tuple[int, Path]] = []
    for path in folder.glob(f"*{PLAN_SUFFIX}") if folder.is_dir() else ():
        try:
            found.append((path.stat().st_mtime_ns, path))
        except OSError as error:
            log.debug("%s is gone: %s", path, error)
    return [path for _, path in sorted(found, reverse=True)]


def all_plans(folders: Sequence[Path]) -> list[Plan | Rejected]:
    """Every plan in some folders, those that cannot be read included.

    Args:
        folders: to look in.
    """
    return [read_plan(path) for folder in folders for path in sorted(_newest_first(folder))]


def useless(bundle: Bundle, folders: Sequence[Path], target: Target | None) -> list[Rejected]:
    """Plans that no run of this bundle on this machine would load.

    Args:
        bundle: that they are of.
        folders: to look in.
        target: the machine; None where nobody knows, and then only plans that fit nowhere are listed.
    """
    hashes = {name: bundle.manifest.files[graph.file] for name, graph in bundle.manifest.graphs.items()}
    found: list[Rejected] = []
    for plan in all_plans(folders):
        if isinstance(plan, Rejected):
            found.append(plan)
            continue
        key = plan.record.key
        if key.graph not in hashes:
            found.append(Rejected(plan.path, f"the bundle has no graph {key.graph!r}"))
        elif key.onnx != hashes[key.graph]:
            found.append(Rejected(plan.path, "it was built from another ONNX file than the bundle's"))
        elif target is not None and (reason := misfit(key, target)):
            found.append(Rejected(plan.path, reason))
    return found


def remove_plan(path: Path) -> int:
    """Removes a plan, and first its record, so that nobody takes what is left for a plan.

    Args:
        path: the plan's file.

    Returns:
        Bytes that are free now.

    Raises:
        OSError: It cannot be removed.
    """
    size = path.stat().st_size if path.exists() else 0
    path.with_suffix(RECORD_SUFFIX).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    return size
