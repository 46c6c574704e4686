"""What TensorRT needs on this machine, and whether its parts go together."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from engines.tensorrt_policy import PROVIDER_MAJOR, provider_problem
from stream.check import Check, last_line, run_probe, version_of

if TYPE_CHECKING:
    from collections.abc import Callable

#: Python package -> that with its libraries; the first is what brings either of the others.
_VARIANTS: Final = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
_IMPORT: Final = "import tensorrt; print(tensorrt.__version__)"
_CUDA: Final = "from engines.cuda import Cuda; gpu = Cuda().gpu(); print(gpu.name, *gpu.capability)"
_INSTALL: Final = 'pip install "standin[tensorrt]"'
#: Oldest GPUs that TensorRT 10.16 and 11 run on.
_LEAST_CAPABILITY: Final = (7, 5)


def check_tensorrt(
    installed: Callable[[str], str | None] = version_of,
    probe: Callable[[list[str]], tuple[int, str, str]] = run_probe,
) -> list[Check]:
    """TensorRT's Python package, whether its libraries load, and whom it suits.

    Args:
        installed: returns the version of a distribution, None without it.
        probe: runs a command, and returns its status and what it wrote.
    """
    there = {name: version for name in _VARIANTS if (version := installed(name))}
    status, out, err = probe([sys.executable, "-c", _IMPORT])
    if not there and status != 0:
        todo = f"only needed for --device tensorrt: {_INSTALL}"
        return [Check("TensorRT", "missing", "no Python package", todo)]
    name, version = next(iter(there.items()), ("tensorrt", out.strip()))
    found = f"{name} {version}"
    if status != 0:
        problem = last_line(err, "importing it failed")
        return [Check("TensorRT", "warn", f"{found} does not load: {problem}", f"{_INSTALL}, and check the driver")]
    return [
        Check("TensorRT", "ok", f"{found}, for plans"),
        *_mixed(there, installed, out.strip()),
        *_provider(version, installed),
        *_cuda(installed, probe),
    ]


def _mixed(there: dict[str, str], installed: Callable[[str], str | None], loaded: str) -> list[Check]:
    """Parts of several versions, or for several versions of CUDA, lie over each other in one folder."""
    parts = dict(there)
    for variant in _VARIANTS[1:]:
        for part in ("bindings", "libs"):
            if version := installed(f"{variant}-{part}"):
                parts[f"{variant}-{part}"] = version
    versions = {version.partition(".post")[0] for version in (*parts.values(), loaded)}
    cudas = {cuda for cuda in ("cu12", "cu13") if any(cuda in name for name in parts)}
    if len(versions) < 2 and len(cudas) < 2:
        return []
    listed = ", ".join(f"{name} {version}" for name, version in sorted(parts.items()))
    todo = f"pip uninstall all of them, then {_INSTALL}"
    return [Check("TensorRT's parts", "warn", f"they do not go together: {listed}; loaded is {loaded}", todo)]


def _provider(version: str, installed: Callable[[str], str | None]) -> list[Check]:
    ort = installed("onnxruntime-gpu")
    if ort is None:
        return []
    name = "TensorRT and ONNX Runtime"
    if problem := provider_problem(version):
        found, _, todo = problem.partition("; ")
        return [Check(name, "warn", f"{found} (onnxruntime-gpu {ort})", todo)]
    return [Check(name, "ok", f"TensorRT {PROVIDER_MAJOR} serves onnxruntime-gpu {ort} too")]


def _cuda(installed: Callable[[str], str | None], probe: Callable[[list[str]], tuple[int, str, str]]) -> list[Check]:
    """Plans need CUDA from Python, and a GPU that TensorRT knows."""
    version = installed("cuda-bindings")
    if version is None:
        return [Check("CUDA from Python", "missing", "no package cuda-bindings", f"only needed for plans: {_INSTALL}")]
    status, out, err = probe([sys.executable, "-c", _CUDA])
    if status != 0:
        problem = last_line(err, "asking for the GPU failed").partition(": ")[2] or "asking for the GPU failed"
        return [Check("CUDA from Python", "warn", f"cuda-bindings {version}: {problem}", "check the driver")]
    *name, major, minor = out.split()
    capability = int(major), int(minor)
    found = f"cuda-bindings {version}, {' '.join(name)} with compute capability {major}.{minor}"
    if capability < _LEAST_CAPABILITY:
        return [Check("CUDA from Python", "warn", found, "TensorRT needs 7.5 (Turing) or later: use --device cuda")]
    return [Check("CUDA from Python", "ok", found)]
