"""What the fakes of `tests.fake_tensorrt` do: a network computes what ONNX Runtime says.

A class here has the name of its model with a line before it. It has no say in what its methods and arguments are
called: the table has.
"""

from __future__ import annotations

import ctypes
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

if TYPE_CHECKING:
    from tests.fake_tensorrt import FakeTensorrt

_MAGIC = b"plan made by a fake: "
_NAMES = {"float32": "FLOAT", "float16": "HALF", "int32": "INT32", "int64": "INT64", "uint8": "UINT8", "bool": "BOOL"}


class _ILogger:
    def __init__(self, world: FakeTensorrt) -> None:
        pass

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError("a pure virtual function was called")


class _IProgressMonitor:
    def __init__(self, world: FakeTensorrt) -> None:
        pass

    def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class _Builder:
    def __init__(self, world: FakeTensorrt, logger: Any) -> None:
        self.world, self.logger = world, ready(logger)

    def create_network(self, flags: int = 0) -> Any:
        network = SimpleNamespace(model=None, flags=flags)
        return self.world.wrap("INetworkDefinition", _INetworkDefinition(self.world, network))

    def create_builder_config(self) -> Any:
        config = _IBuilderConfig(self.world)
        self.world.configs.append(config)
        return self.world.wrap("IBuilderConfig", config)

    def create_optimization_profile(self) -> Any:
        return self.world.wrap("IOptimizationProfile", _IOptimizationProfile())

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        world, config, model = self.world, config._fake, network._fake.network.model
        world.builds += 1
        strong = 1 << world.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        if world.version.startswith("10.") and not network._fake.network.flags & strong:
            return _fail(self, "this fake builds strongly typed networks only")
        dynamic = [name for name, (_, shape) in _tensors(model.graph.input).items() if -1 in shape]
        if missing := [name for name in dynamic if name not in config.shapes]:
            return _fail(self, f"Network has dynamic inputs without a profile: {missing}")
        for phase, steps in (("Building", 2), ("Tactics", 5)):
            config.monitor.phase_start(phase, "", steps)
            for step in range(steps):
                if world.on_step is not None:
                    world.on_step()
                if not config.monitor.step_complete(phase, step):
                    return _fail(self, "the build was cancelled by the progress monitor")
            config.monitor.phase_finish(phase)
        if world.build_error is not None:
            return _fail(self, world.build_error)
        config.cache.learn()
        head = {
            "version": world.version,
            "capability": world.gpu.capability,
            "compatible": "VERSION_COMPATIBLE" in config.flags,
            "shapes": config.shapes,
            "resizes": "RUNTIME_ACTIVATION_RESIZE_10_10" in config.previews,
        }
        content: bytes = model.SerializeToString()
        return _MAGIC + json.dumps(head).encode() + b"\n" + content


class _INetworkDefinition:
    def __init__(self, world: FakeTensorrt, network: Any) -> None:
        self.world, self.network = world, network

    @property
    def num_inputs(self) -> int:
        return len(self.network.model.graph.input)

    def get_input(self, index: int) -> Any:
        name, (_, shape) = list(_tensors(self.network.model.graph.input).items())[index]
        decides = name in self.world.shape_inputs
        return self.world.wrap("ITensor", SimpleNamespace(name=name, shape=shape, is_shape_tensor=decides))


class _OnnxParser:
    def __init__(self, world: FakeTensorrt, network: Any, logger: Any) -> None:
        self.world, self.network, self.logger = world, network._fake.network, ready(logger)
        self.errors: list[str] = []

    def parse_from_file(self, model: str) -> bool:
        assert isinstance(model, str)
        if self.world.parse_error is not None:
            self.errors.append(self.world.parse_error)
            return False
        self.network.model = onnx.load(model)
        return True

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int) -> Any:
        return self.world.wrap("ParserError", _ParserError(self.errors[index]))


class _ParserError:
    def __init__(self, text: str) -> None:
        self.text = text

    def desc(self) -> str:
        return self.text

    def node_name(self) -> str:
        return "/resize"

    def node_operator(self) -> str:
        return "Resize"


class _IBuilderConfig:
    def __init__(self, world: FakeTensorrt) -> None:
        self.world = world
        self.flags = {"TF32"}
        self.previews: set[str] = set()
        self.pools: dict[str, int] = {}
        self.shapes: dict[str, Any] = {}
        self.cache: Any = None
        self.monitor: Any = None
        self.hardware_compatibility_level: Any = 0
        self.builder_optimization_level = 3

    @property
    def progress_monitor(self) -> Any:
        return self.monitor

    @progress_monitor.setter
    def progress_monitor(self, monitor: Any) -> None:
        self.monitor = ready(monitor)

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag.name)

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        assert enable
        self.previews.add(feature.name)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self.pools[pool.name] = pool_size

    def add_optimization_profile(self, profile: Any) -> int:
        fake = profile._fake
        good = all(
            low <= usual <= high for shape in fake.shapes.values() for low, usual, high in zip(*shape, strict=True)
        )
        self.shapes = fake.shapes if good else {}
        return 0 if good else -1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        if serialized_timing_cache and not serialized_timing_cache.startswith(b"timings "):
            return None
        return self.world.wrap("ITimingCache", _ITimingCache(self.world, serialized_timing_cache))

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        own = b"timings " + self.world.gpu.name.encode()
        if not ignore_mismatch and cache._fake.content and not cache._fake.content.startswith(own):
            return False
        self.cache = cache._fake
        return True

    def get_timing_cache(self) -> Any:
        return self.world.wrap("ITimingCache", self.cache)


class _ITimingCache:
    def __init__(self, world: FakeTensorrt, content: bytes) -> None:
        self.world, self.content = world, content

    def learn(self) -> None:
        self.content = (self.content or b"timings " + self.world.gpu.name.encode()) + b" one"

    def serialize(self) -> bytes:
        return self.content


class _IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002
        self.shapes[input] = (tuple(min), tuple(opt), tuple(max))


class _Runtime:
    def __init__(self, world: FakeTensorrt, logger: Any) -> None:
        self.world, self.logger = world, ready(logger)
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        assert self.world.plugins, "plugins were not registered"
        if self.world.load_error is not None:
            return _fail(self, self.world.load_error)
        head, _, model = bytes(serialized_engine).removeprefix(_MAGIC).partition(b"\n")
        try:
            known = json.loads(head) if serialized_engine.startswith(_MAGIC) else None
        except ValueError:
            known = None
        if known is None:
            return _fail(self, "Error Code 1: Serialization (magic tag does not match)")
        if known["compatible"]:
            if not self.engine_host_code_allowed:
                return _fail(self, "the plan has host code, which is not allowed")
        elif known["version"] != self.world.version:
            return _fail(self, "the plan was built with another version")
        # Another GPU is not noticed: a warning at most, and then wrong or slow.
        return self.world.wrap("ICudaEngine", _ICudaEngine(self.world, self.logger, model, known))


class _ICudaEngine:
    def __init__(self, world: FakeTensorrt, logger: Any, model: bytes, known: dict[str, Any]) -> None:
        self.world, self.logger, self.shapes, self.resizes = world, logger, known["shapes"], known["resizes"]
        graph = onnx.load_from_string(model).graph
        self.inputs, self.outputs = _tensors(graph.input), _tensors(graph.output)
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.found: dict[tuple[tuple[int, ...], ...], dict[str, tuple[int, ...]]] = {}

    def shapes_for(self, given: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """The shapes of all outputs: the library infers them, here it takes a run."""
        key = tuple(given[name] for name in self.inputs)
        if key not in self.found:
            feeds = {name: np.zeros(given[name], dtype) for name, (dtype, _) in self.inputs.items()}
            made = self.session.run(list(self.outputs), feeds)
            self.found[key] = {name: tuple(array.shape) for name, array in zip(self.outputs, made, strict=True)}
        return self.found[key]

    @property
    def num_io_tensors(self) -> int:
        return len(self.inputs) + len(self.outputs)

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def get_tensor_mode(self, name: str) -> Any:
        return self.world.module.TensorIOMode["INPUT" if name in self.inputs else "OUTPUT"]

    def get_tensor_dtype(self, name: str) -> Any:
        return self.world.module.DataType[_NAMES[(self.inputs | self.outputs)[name][0].name]]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.inputs | self.outputs)[name][1]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert profile_index == 0
        return [tuple(shape) for shape in self.shapes[name]]

    def is_shape_inference_io(self, name: str) -> bool:
        return name in self.world.shape_inputs

    def create_execution_context(self, strategy: Any) -> Any:
        assert strategy.name == "USER_MANAGED"
        self.world.contexts += 1
        return self.world.wrap("IExecutionContext", _IExecutionContext(self))


class _IExecutionContext:
    def __init__(self, engine: _ICudaEngine) -> None:
        self.engine, self.world = engine, engine.world
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch = (0, 0)

    def set_input_shape(self, name: str, shape: Any) -> bool:
        least, _, most = self.engine.shapes.get(name, [self.engine.inputs[name][1]] * 3)
        if len(shape) != len(least) or not all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True)):
            say(self.world, self.engine.logger, "ERROR", f"{name}: {shape} is not in the profile")
            return False
        self.shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self.engine.inputs if name not in self.shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self.world.data_dependent:
            return (-1, *self.engine.outputs[name][1][1:])
        return self.engine.shapes_for(self.shapes)[name]

    def update_device_memory_size_for_shapes(self) -> int:
        if self.world.scratch_error is not None:
            say(self.world, self.engine.logger, "ERROR", self.world.scratch_error)
            return 0
        # Without the feature it is the most that any shape needs.
        most = (shape[2] for shape in self.engine.shapes.values()) if not self.engine.resizes else self.shapes.values()
        return self.world.context_bytes * max(shape[0] for shape in most)

    def set_device_memory(self, memory: int, size: int) -> None:
        assert self.world.gpu.has(memory, size)
        self.scratch = (memory, size)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return self.world.gpu.has(memory, 1)

    def execute_async_v3(self, stream_handle: int) -> bool:
        world, error = self.world, self.world.run_error
        assert stream_handle in world.gpu.streams
        assert self.scratch[1] >= self.update_device_memory_size_for_shapes()
        assert world.gpu.has(*self.scratch)
        if max(shape[0] for shape in self.shapes.values()) >= world.run_rows:
            error = "Error Code 2: OutOfMemory (no further information)"
        if error is not None:
            say(world, self.engine.logger, "ERROR", error)
            return False
        world.gpu.do(self._work)
        return True

    def _work(self) -> None:
        self.world.runs += 1
        feeds = {}
        for name, (dtype, _) in self.engine.inputs.items():
            feeds[name] = self._there(name, self.shapes[name], dtype).copy()
        for name, value in zip(self.engine.outputs, self.engine.session.run(None, feeds), strict=True):
            self._there(name, value.shape, value.dtype)[...] = value

    def _there(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        size = int(np.prod(shape)) * dtype.itemsize
        assert self.world.gpu.has(self.addresses[name], size), f"{name} does not fit its memory"
        block = (ctypes.c_byte * size).from_address(self.addresses[name])
        return np.ctypeslib.as_array(block).view(dtype).reshape(shape)


FAKES: dict[str, Any] = {
    kind.__name__.removeprefix("_"): kind
    for kind in (
        _ILogger, _IProgressMonitor, _Builder, _INetworkDefinition, _OnnxParser, _ParserError, _IBuilderConfig,
        _IOptimizationProfile, _ITimingCache, _Runtime, _ICudaEngine, _IExecutionContext,
    )
}  # fmt: skip


def _tensors(values: Any) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    return {
        value.name: (
            np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
            tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim),
        )
        for value in values
    }


def ready(listener: Any) -> Any:
    """A subclass whose constructor did not call its base's is refused, as pybind11 does."""
    if not hasattr(listener, "_fake"):
        raise TypeError(f"{type(listener).__name__}.__init__() must be called when overriding __init__")
    return listener


def _fail(fake: Any, text: str) -> Any:
    """What functions of theirs give back when they fail is None."""
    say(fake.world, fake.logger, "ERROR", text)
    return None


def say(world: FakeTensorrt, logger: Any, severity: str, text: str) -> None:
    logger.log(getattr(world.module.ILogger.Severity, severity), text)
