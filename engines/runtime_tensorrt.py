"""TensorRT plans: buffers on the GPU that are made once, one stream, and CUDA graphs for shapes that come again."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engines.cuda import Cuda
from engines.dlpack import SupportsDlpack, take
from engines.errors import OutOfMemoryError, RuntimeFailedError, RuntimeUnavailableError, TensorError
from engines.resident import as_numpy
from engines.runtime import Runtime, require_names
from engines.splitting import Splitter, is_out_of_memory, row_inputs
from engines.tensorrt_buffers import Buffer, GpuArray, Lending, uploaded
from engines.tensorrt_contexts import Contexts
from engines.tensorrt_library import Sayings, import_tensorrt, make_logger, start

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from engines.manifest import Graph
    from engines.plans import Plan
    from engines.resident import Feeds, Resident
    from engines.runtime import Array
    from engines.tensorrt_buffers import Shape

log = logging.getLogger(__name__)

#: TensorRT's names of the types in a manifest.
_TYPES: Final = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}


class TensorrtRuntime(Runtime):
    """A graph as a TensorRT plan; opened by `engines.plan_open.open_plan`.

    Runs of several threads take turns: an engine has one stream. If there is no memory for as many rows as the plan
    allows when it is opened, fewer are taken at a time until it is closed; if memory lacks in a run, fewer are taken
    for a while (`engines.splitting`). A request with more is run in parts: rows do not know of each other.

    Args:
        plan: one that fits this machine.
        graph: its declaration.
        recorded: whether runs of a shape that comes again become a CUDA graph, where they can.
        host_code: whether plans that bring code of their own may be loaded.
        tensorrt: the module `tensorrt`; imported if not given.
        cuda: the GPU; the first one if not given.

    Raises:
        RuntimeUnavailableError: TensorRT or a GPU is not there, or the plan cannot be loaded.
        BundleError: The plan's inputs and outputs are not those of the declaration.
        OutOfMemoryError: There is no memory on the GPU, not even for one row.
    """

    def __init__(
        self,
        plan: Plan,
        graph: Graph,
        *,
        recorded: bool = True,
        host_code: bool = False,
        tensorrt: Any = None,
        cuda: Cuda | None = None,
    ) -> None:
        super().__init__(graph, "tensorrt")
        self._trt = import_tensorrt() if tensorrt is None else tensorrt
        self._cuda = cuda or Cuda()
        self._lock = threading.Lock()
        self._sayings = Sayings()
        self._logger = make_logger(self._trt, self._sayings)
        self._runtime = start(self._trt.Runtime, self._logger, self._sayings)
        self._engine: Any = self._load(plan, host_code)
        #: Halves are no TF32, whatever a plan of them may do.
        self._tf32 = None if plan.record.key.precision == "fp16" else plan.record.key.precision == "tf32"
        self._by_row = frozenset(row_inputs(graph.inputs, graph.outputs))
        self._buffers: dict[str, Buffer] = {}
        self._lending = Lending(self._cuda)
        self._limits = self._read_engine(plan)
        self._stream = self._cuda.stream()
        self._contexts = Contexts(
            self._trt,
            self._engine,
            self._cuda,
            self._stream,
            self._sayings,
            capturable=recorded and plan.record.capturable,
            what=graph.file,
        )
        try:
            least, most = self._range_of_rows()
            self._rows = self._allocate(most)
            self._splitter = Splitter(graph.inputs, graph.outputs, least=least, most=self._rows)
        except BaseException:
            self._free()
            raise
        log.info("%s runs on %s, %s", graph.file, self.provider, plan.path.name)

    @property
    def provider(self) -> str:
        """`TensorRT` with its version."""
        return f"TensorRT {self._trt.__version__}"

    @property
    def tf32(self) -> bool | None:
        """Whether the plan was built to round float32 products to TF32; None of one in half precision."""
        return self._tf32

    @property
    def rows(self) -> int:
        """Rows that are run at once now; requests with more are run in parts. 1 where the graph has no rows."""
        return self._splitter.most_rows or self._rows

    @property
    def most_rows(self) -> int:
        """Rows that are run at once where there is memory."""
        return self._rows

    @property
    def recorded(self) -> int:
        """Shapes of inputs whose runs are recorded as CUDA graphs."""
        with self._lock:
            return self._contexts.recorded

    @property
    def largest(self) -> dict[str, int]:
        """As the plan was built."""
        return {name: most[0] for name, (_, most) in self._limits.items() if most and name not in self._by_row}

    def _load(self, plan: Plan, host_code: bool) -> Any:
        try:
            content = plan.path.read_bytes()
        except OSError as error:
            raise RuntimeUnavailableError(f"{plan.path} cannot be read ({error.strerror or error})") from None
        if hashlib.sha256(content).hexdigest() != plan.record.sha256:
            raise RuntimeUnavailableError(
                f"{plan.path} is not what was built; run: standin engines build, with --force"
            )
        if plan.record.key.version_compatible:
            if not host_code:
                raise RuntimeUnavailableError(
                    f"{plan.path} is version-compatible: it brings code that runs in this process. If you built it or "
                    "trust who did, set STANDIN_TENSORRT=host-code, else build one without --version-compatible"
                )
            self._runtime.engine_host_code_allowed = True
        self._sayings.clear()
        engine = self._runtime.deserialize_cuda_engine(content)
        if engine is None and self._sayings.is_memory:
            raise OutOfMemoryError(f"TensorRT has no memory to load {plan.path}: {self._sayings.text}")
        if engine is None:
            raise RuntimeUnavailableError(
                f"TensorRT cannot load {plan.path}: {self._sayings.text}; run: standin engines build, with --force"
            )
        return engine

    def _read_engine(self, plan: Plan) -> dict[str, tuple[Shape, Shape]]:
        """The least and the largest shape of every input, after names and types were compared."""
        engine, mode = self._engine, self._trt.TensorIOMode.INPUT
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == mode]
        require_names(plan.path, "inputs", [tensor.name for tensor in self.inputs], inputs)
        outputs = [name for name in names if name not in inputs]
        require_names(plan.path, "outputs", [tensor.name for tensor in self.outputs], outputs)
        for tensor in (*self.inputs, *self.outputs):
            found = _TYPES.get(engine.get_tensor_dtype(tensor.name).name, "another type")
            if found != tensor.dtype:
                raise RuntimeUnavailableError(
                    f"{plan.path} has {tensor.name!r} as {found}, its manifest declares {tensor.dtype}; build it again"
                )
            if engine.is_shape_inference_io(tensor.name):
                raise RuntimeUnavailableError(
                    f"the values of {tensor.name!r} in {plan.path} decide shapes; build it again"
                )
        limits = {}
        for name in inputs:
            shape = tuple(int(side) for side in engine.get_tensor_shape(name))
            if any(side < 0 for side in shape):
                least, _, most = engine.get_tensor_profile_shape(name, 0)
                limits[name] = (tuple(map(int, least)), tuple(map(int, most)))
            else:
                limits[name] = (shape, shape)
        return limits

    def _range_of_rows(self) -> tuple[int, int]:
        found = [self._limits[name] for name in self._by_row]
        return max((least[0] for least, _ in found), default=1), min((most[0] for _, most in found), default=1)

    def _allocate(self, rows: int) -> int:
        """Buffers for so many rows, or for half of them and so on where memory lacks; returns how many."""
        names = [tensor.name for tensor in self.outputs]
        while True:
            most = {name: limits[1] for name, limits in self._limits.items()}
            shapes = most | {name: (rows, *most[name][1:]) for name in self._by_row}
            try:
                sizes = shapes | self._contexts.reserve(shapes, names)
                for tensor in (*self.inputs, *self.outputs):
                    self._buffers[tensor.name] = Buffer(self._cuda, np.dtype(tensor.dtype), sizes[tensor.name])
            except OutOfMemoryError:
                self._free_buffers()
                fewer = self._fewer(rows)
                if fewer is None:
                    raise
                rows = fewer
            else:
                return rows

    def _fewer(self, rows: int) -> int | None:
        """What to try when there was no memory for so many rows; None where there cannot be fewer."""
        if rows // 2 < self._range_of_rows()[0]:
            return None
        log.warning("%s: no memory for %d rows at a time, trying %d", self._graph.file, rows, rows // 2)
        return rows // 2

    @property
    def has_memory(self) -> bool:
        """Of the GPU."""
        return True

    def hold(self, array: Array) -> GpuArray:
        """Puts an input on the GPU, for many runs; its memory is given back once nobody refers to it.

        Raises:
            OutOfMemoryError: There is no memory for it.
            RuntimeFailedError: The runtime is closed.
        """
        with self._lock:
            if self._engine is None:
                raise self._closed()
            return uploaded(self._cuda, self._stream, array)

    def adopt(self, array: SupportsDlpack) -> GpuArray:
        """Takes an array of another library on the GPU, without a copy; its work on it is waited for.

        Raises:
            TensorError: It lies elsewhere, has gaps, or elements of a type that is not known.
            RuntimeFailedError: The runtime is closed.
        """
        with self._lock:
            if self._engine is None:
                raise self._closed()
            taken = self._taken(array)
            # Whoever reads it next may do so in another stream, which knows nothing of the one that waited.
            self._stream.wait()
            return taken

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return self._run_there(feeds, ())

    def _run_there(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        # What stays on the GPU is referred to until all work that reads it is done: after that it is used again.
        if not keep:
            return self._splitter.run(lambda part: self._run_rows(part, ()), feeds)
        if (rows := self._count(feeds)) > self._rows:
            raise TensorError(f"there are {rows} rows, {self._rows} are run at once; give fewer")
        return self._run_rows(feeds, keep)

    def _run_rows(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        with self._lock:
            if self._engine is None:
                raise self._closed()
            try:
                return self._answers(feeds, keep)
            except RuntimeFailedError as error:
                if is_out_of_memory(error):
                    # What is kept for other shapes takes memory too.
                    self._contexts.clear()
                raise

    def _count(self, feeds: Feeds) -> int:
        return max((feeds[name].shape[0] for name in self._by_row), default=1)

    def _answers(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        def receive(name: str, shape: Shape) -> Array | GpuArray:
            buffer = self._buffers[name]
            if name in keep:
                return self._lending.copy(self._stream, buffer, shape)
            return buffer.fetch(self._stream, shape)

        given = {name: self._near(array) for name, array in feeds.items()}
        found = self._once(given, receive)
        return {
            name: array if isinstance(array, GpuArray) else self._buffers[name].own(array)
            for name, array in found.items()
        }

    def _near(self, array: Array | Resident) -> Array | GpuArray:
        """An input where it is copied from: on the GPU whoever holds it, else on the host."""
        if isinstance(array, np.ndarray | GpuArray):
            return array
        if isinstance(array, SupportsDlpack):
            # Not every build of ONNX Runtime hands over what it keeps.
            with contextlib.suppress(TensorError):
                return self._taken(array)
        return as_numpy(array)

    def _taken(self, array: SupportsDlpack) -> GpuArray:
        there = take(array, stream=self._stream.handle)
        return GpuArray(there.address, there.shape, there.dtype, there.device, there.owner, self._cuda)

    def _once(
        self, feeds: Mapping[str, Array | GpuArray], receive: Callable[[str, Shape], Array | GpuArray]
    ) -> dict[str, Array | GpuArray]:
        shapes = {name: tuple(array.shape) for name, array in feeds.items()}
        self._check_limits(shapes)
        addresses = {name: buffer.address for name, buffer in self._buffers.items()}
        try:
            prepared = self._contexts.prepare(shapes, [tensor.name for tensor in self.outputs], addresses)
            kept = [self._buffers[name].send(self._stream, array) for name, array in feeds.items()]
            self._contexts.run(prepared)
            outputs = {name: receive(name, shape) for name, shape in prepared.outputs.items()}
            self._stream.wait()
        except Exception as error:  # what the bindings raise for what they were given has no common base class
            # Copies that are under way still read what the caller gave.
            with contextlib.suppress(RuntimeFailedError):
                self._stream.wait()
            if isinstance(error, TensorError | OutOfMemoryError):
                raise
            text = " ".join(str(error).split())
            given = ", ".join(f"{name} {shapes[name]}" for name in sorted(shapes))
            raise RuntimeFailedError(f"{self._graph.file} failed on {self.provider} with {given}: {text}") from error
        del kept
        self._contexts.record(prepared)
        return outputs

    def _check_limits(self, shapes: Mapping[str, Shape]) -> None:
        for name, shape in shapes.items():
            least, most = self._limits[name]
            if not all(low <= side <= high for low, side, high in zip(least, shape, most, strict=True)):
                raise TensorError(
                    f"input {name!r} has the shape {shape}, the plan of {self._graph.file} takes {least} to {most}; "
                    "build one that takes it: standin engines build, with --batch, --size or --shape"
                )

    def _free_buffers(self) -> None:
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers.clear()

    def _free(self) -> None:
        self._engine = None
        self._contexts.close()
        self._free_buffers()
        self._lending.close()
        self._stream.close()

    def close(self) -> None:
        """Frees the engine and its memory on the GPU; may be called again."""
        with self._lock:
            if self._engine is not None:
                self._free()
