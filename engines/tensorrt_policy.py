"""What `--device tensorrt` may do, by the variable STANDIN_TENSORRT, and which of two ways it goes.

The ways are TensorRT plans (`engines.runtime_tensorrt`) and ONNX Runtime's TensorRT provider. The variable reaches
engine processes too, so that a graph runs the same way in either.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata, util
from typing import TYPE_CHECKING, Final, get_args

from engines.errors import DeviceMissingError, UsageError
from engines.plans import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VARIABLE: Final = "STANDIN_TENSORRT"
#: What ONNX Runtime's TensorRT provider is built against.
PROVIDER_MAJOR: Final = 10
#: Distributions that bring the module `tensorrt`: the common name, and those for one version of CUDA.
DISTRIBUTIONS: Final = (
    "tensorrt",
    "tensorrt-cu13",
    "tensorrt-cu12",
    "tensorrt-cu13-bindings",
    "tensorrt-cu12-bindings",
)


@dataclass(frozen=True)
class Policy:
    """What may be done where a plan is needed.

    Attributes:
        onnxruntime: go through ONNX Runtime's TensorRT provider instead of plans.
        build: build a plan that is missing or does not fit, for minutes, when a graph is opened.
        tf32: use plans whose float32 products are rounded to TF32.
        host_code: load version-compatible plans, which bring code that runs in this process.
    """

    onnxruntime: bool = False
    build: bool = False
    tf32: bool = False
    host_code: bool = False


_WORDS: Final[Mapping[str, str]] = {
    "onnxruntime": "onnxruntime",
    "build": "build",
    "tf32": "tf32",
    "host-code": "host_code",
}


def parse_policy(text: str | None) -> Policy:
    """Reads the variable's value.

    Args:
        text: words with commas between them, None or empty for the defaults.

    Raises:
        UsageError: A word is not known, or words exclude each other.
    """
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    unknown = [word for word in words if word not in _WORDS]
    if unknown:
        raise UsageError(f"{VARIABLE} has {', '.join(map(repr, unknown))}; expected words of: {', '.join(_WORDS)}")
    if "onnxruntime" in words and len(set(words)) > 1:
        raise UsageError(f"{VARIABLE} is {text!r}; the other words are about plans, leave out onnxruntime or them")
    return Policy(**{_WORDS[word]: True for word in words})


def precision_of(graph: str, policy: Policy) -> Precision:
    """What a graph's plan must compute in: half precision is in the ONNX file, never a flag.

    Args:
        graph: its name in the manifest.
        policy: says whether TF32 may be used.
    """
    wanted = "fp16" if graph.endswith("_fp16") else "tf32" if policy.tf32 else "fp32"
    return next(precision for precision in get_args(Precision) if precision == wanted)


def installed_version(version_of: Callable[[str], str] = metadata.version) -> str | None:
    """The version of TensorRT's Python package, without importing it; None where there is none.

    Args:
        version_of: a distribution's version.
    """
    for name in DISTRIBUTIONS:
        try:
            return version_of(name)
        except metadata.PackageNotFoundError:
            continue
    # From a system's package: its version is known once it is imported.
    return "unknown" if util.find_spec("tensorrt") else None


def goes_by_plans(policy: Policy, version: str | None) -> bool:
    """Whether `--device tensorrt` runs plans; else it is ONNX Runtime's provider.

    Args:
        policy: may ask for ONNX Runtime.
        version: of TensorRT's Python package; None where there is none.

    Raises:
        DeviceMissingError: ONNX Runtime was asked for, and the TensorRT that is there is not one that it can use.
    """
    if not policy.onnxruntime:
        return version is not None
    if problem := provider_problem(version):
        raise DeviceMissingError(problem)
    return False


def provider_problem(version: str | None) -> str | None:
    """Why ONNX Runtime's provider cannot use the TensorRT that is installed, None where it can or nobody knows.

    Args:
        version: as `installed_version` gives it.
    """
    major = (version or "").partition(".")[0]
    if not major.isdecimal() or int(major) == PROVIDER_MAJOR:
        return None
    return (
        f"ONNX Runtime's TensorRT provider needs TensorRT {PROVIDER_MAJOR}, TensorRT {version} is installed; "
        f'run plans instead (leave "onnxruntime" out of {VARIABLE}), or pip install "standin[tensorrt]", '
        f"which brings {PROVIDER_MAJOR}"
    )
