"""What of TensorRT's and CUDA's Python packages is used, and how to read it from the packages themselves.

`tests/data/tensorrt_api.json` holds what was read from the packages of several versions; the fakes of
`tests/fake_tensorrt.py` are made from it, so that they know nothing that NVIDIA's packages do not. To read it again, on
a machine with TensorRT's libraries: `python -m tests.tensorrt_table`.
"""

from __future__ import annotations

import json
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent / "data" / "tensorrt_api.json"

#: Class -> methods and properties.
CLASSES: dict[str, tuple[str, ...]] = {
    "ILogger": ("__init__", "log"),
    "IProgressMonitor": ("__init__", "phase_start", "step_complete", "phase_finish"),
    "Builder": (
        "__init__", "create_network", "create_builder_config", "create_optimization_profile",
        "build_serialized_network",
    ),
    "INetworkDefinition": ("num_inputs", "get_input"),
    "ITensor": ("name", "shape", "is_shape_tensor"),
    "OnnxParser": ("__init__", "parse_from_file", "num_errors", "get_error"),
    "ParserError": ("desc", "node_name", "node_operator"),
    "IBuilderConfig": (
        "set_memory_pool_limit", "set_preview_feature", "add_optimization_profile", "set_flag", "clear_flag",
        "create_timing_cache", "set_timing_cache", "get_timing_cache", "hardware_compatibility_level",
        "progress_monitor", "builder_optimization_level",
    ),
    "IOptimizationProfile": ("set_shape",),
    "ITimingCache": ("serialize",),
    "Runtime": ("__init__", "deserialize_cuda_engine", "engine_host_code_allowed"),
    "ICudaEngine": (
        "num_io_tensors", "get_tensor_name", "get_tensor_mode", "get_tensor_dtype", "get_tensor_shape",
        "get_tensor_profile_shape", "create_execution_context", "is_shape_inference_io",
    ),
    "IExecutionContext": (
        "set_input_shape", "set_tensor_address", "get_tensor_shape", "infer_shapes", "execute_async_v3",
        "set_device_memory", "update_device_memory_size_for_shapes",
    ),
}  # fmt: skip
#: Enumeration -> members; a member that only later versions have is left out of the tables of earlier ones.
ENUMS: dict[str, tuple[str, ...]] = {
    "ILogger.Severity": ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"),
    "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED",),
    "BuilderFlag": ("TF32", "VERSION_COMPATIBLE"),
    "MemoryPoolType": ("WORKSPACE",),
    "PreviewFeature": ("RUNTIME_ACTIVATION_RESIZE_10_10",),
    "HardwareCompatibilityLevel": ("NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"),
    "TensorIOMode": ("INPUT", "OUTPUT"),
    "DataType": ("FLOAT", "HALF", "INT32", "INT64", "UINT8", "BOOL"),
    "ExecutionContextAllocationStrategy": ("USER_MANAGED",),
}
FUNCTIONS: tuple[str, ...] = ("init_libnvinfer_plugins",)
#: Of `cuda.bindings.runtime`.
CUDA_FUNCTIONS: tuple[str, ...] = (
    "cudaGetDeviceCount", "cudaDeviceGetAttribute", "cudaGetDeviceProperties", "cudaMemGetInfo", "cudaMalloc",
    "cudaFree", "cudaMallocHost", "cudaFreeHost", "cudaMemcpyAsync", "cudaStreamCreateWithFlags",
    "cudaStreamSynchronize", "cudaStreamDestroy", "cudaStreamBeginCapture", "cudaStreamEndCapture",
    "cudaGraphInstantiate", "cudaGraphLaunch", "cudaGraphDestroy", "cudaGraphExecDestroy", "cudaGetLastError",
)  # fmt: skip
CUDA_ENUMS: dict[str, tuple[str, ...]] = {
    "cudaError_t": (
        "cudaSuccess", "cudaErrorInvalidValue", "cudaErrorMemoryAllocation", "cudaErrorInitializationError",
        "cudaErrorInsufficientDriver", "cudaErrorNoDevice", "cudaErrorStreamCaptureUnsupported",
        "cudaErrorStreamCaptureInvalidated",
    ),
    "cudaMemcpyKind": ("cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost", "cudaMemcpyDeviceToDevice"),
    "cudaDeviceAttr": ("cudaDevAttrComputeCapabilityMajor", "cudaDevAttrComputeCapabilityMinor"),
    "cudaStreamCaptureMode": ("cudaStreamCaptureModeThreadLocal",),
}  # fmt: skip
CUDA_CONSTANTS: tuple[str, ...] = ("cudaStreamNonBlocking",)

#: One way to call a function: its arguments, and whether each may be left out.
Overload = list[tuple[str, bool]]


def _split(arguments: str) -> list[str]:
    """At commas that are in no bracket."""
    parts, depth = [""], 0
    for letter in arguments:
        depth += (letter in "[(<") - (letter in "])>")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def overloads(name: str, doc: str) -> list[Overload]:
    """The ways to call a function, from the first lines of what pybind11 writes about it."""
    found = []
    for line in doc.splitlines():
        match = re.fullmatch(rf"(?:\d+\. )?{re.escape(name)}\((.*)\) -> .*", line.strip())
        if match and "*args" not in match[1]:
            arguments = [part for part in _split(match[1]) if not part.startswith("self:")]
            found.append([(part.partition(":")[0].strip(), "=" in part) for part in arguments])
    return found


def collect(trt: Any) -> dict[str, Any]:
    """What is used of a module `tensorrt`, as the module has it; what it lacks is not in there."""
    classes: dict[str, Any] = {}
    for name, members in CLASSES.items():
        owner = getattr(trt, name, None)
        methods: dict[str, Any] = {}
        properties: dict[str, bool] = {}
        for member in members:
            found = getattr(owner, member, None)
            if isinstance(found, property):
                properties[member] = found.fset is not None
            elif found is not None:
                methods[member] = [[list(pair) for pair in way] for way in overloads(member, found.__doc__ or "")]
        classes[name] = {"methods": methods, "properties": properties}
    enums = {}
    for name, members in ENUMS.items():
        owner = trt
        for part in name.split("."):
            owner = getattr(owner, part)
        enums[name] = {member: int(getattr(owner, member)) for member in members if hasattr(owner, member)}
    functions = {
        name: [[list(pair) for pair in way] for way in overloads(name, getattr(trt, name).__doc__ or "")]
        for name in FUNCTIONS
    }
    return {"classes": classes, "enums": enums, "functions": functions}


def collect_cuda(runtime: Any) -> dict[str, Any]:
    """What is used of a module `cuda.bindings.runtime`, as the module has it."""
    functions = {}
    for name in CUDA_FUNCTIONS:
        line = (getattr(runtime, name).__doc__ or "").splitlines()[0]
        arguments = line.removeprefix(f"{name}(").partition(")")[0]
        functions[name] = [part.partition(":")[0].split()[-1] for part in _split(arguments)]
    enums = {
        name: {member: int(getattr(getattr(runtime, name), member)) for member in members}
        for name, members in CUDA_ENUMS.items()
    }
    return {
        "functions": functions,
        "enums": enums,
        "constants": {name: int(getattr(runtime, name)) for name in CUDA_CONSTANTS},
    }


def table() -> dict[str, Any]:
    """The table as it is kept."""
    found: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return found


def closest(versions: dict[str, Any], version: str) -> Any:
    """What was read from the same version, or else from the last one of the same major version."""
    major = version.partition(".")[0]
    same = {known: found for known, found in versions.items() if known.partition(".")[0] == major}
    if version in same:
        return same[version]
    return same[max(same, key=lambda known: tuple(map(int, known.split("."))))]


if __name__ == "__main__":
    modules = {"tensorrt": collect, "cuda.bindings.runtime": collect_cuda}
    wanted = sys.argv[1:] or list(modules)
    json.dump({name: modules[name](import_module(name)) for name in wanted}, sys.stdout, indent=1)
