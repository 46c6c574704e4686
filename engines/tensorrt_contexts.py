"""What executes a TensorRT engine: a context for every shape of inputs, recorded as a CUDA graph where possible.

A recorded graph belongs to one shape and one context, so that each shape gets its own. They run one after the other in
one stream and share the memory for intermediate results.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from engines.errors import OutOfMemoryError, RuntimeFailedError, TensorError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engines.cuda import Cuda, DeviceMemory, Graph, Stream
    from engines.tensorrt_buffers import Shape
    from engines.tensorrt_library import Sayings

log = logging.getLogger(__name__)

#: Shapes of inputs that have a context each; the one that was not used for longest makes room. Every number of boxes
#: and of crops is one.
_MOST: Final = 32
#: Runs of a shape after which it counts as one that comes again: a recording costs as much as some runs do.
_COMES_AGAIN: Final = 2
#: Further ones before it is recorded where there was no memory for it.
_LATER: Final = 100


class Prepared:
    """A context for one shape of inputs; made by `Contexts.prepare`.

    Attributes:
        outputs: shapes of the outputs by name.
    """

    def __init__(self, context: Any, outputs: dict[str, Shape]) -> None:
        self.context = context
        self.outputs = outputs
        self.graph: Graph | None = None
        self.runs = 0


class Contexts:
    """The contexts of one engine. Not for several threads at once.

    Args:
        trt: the module `tensorrt`.
        engine: what they execute.
        cuda: the GPU.
        stream: that all of them run in.
        sayings: what TensorRT complains of.
        capturable: whether runs may be recorded.
        what: how to call the engine in messages.
    """

    def __init__(
        self, trt: Any, engine: Any, cuda: Cuda, stream: Stream, sayings: Sayings, *, capturable: bool, what: str
    ) -> None:
        self._trt = trt
        self._engine = engine
        self._stream = stream
        self._sayings = sayings
        self._what = what
        self.capturable = capturable
        self._prepared: OrderedDict[tuple[tuple[str, Shape], ...], Prepared] = OrderedDict()
        self._cuda = cuda
        self._scratch: DeviceMemory | None = None
        #: Whether there was no memory for a recording before: said aloud once.
        self._lacked = False

    def reserve(self, inputs: Mapping[str, Shape], names: list[str]) -> dict[str, Shape]:
        """Makes room for intermediate results for the largest shapes, and tells the outputs' shapes for them.

        Args:
            inputs: shapes by name.
            names: of the outputs.

        Raises:
            OutOfMemoryError: There is no memory for them.
            TensorError: The engine does not take such inputs.
            RuntimeFailedError: Outputs' shapes depend on data.
        """
        self.clear()
        if self._scratch is not None:
            self._scratch.free()
            self._scratch = None
        return self._new(inputs, names)[1]

    def prepare(self, inputs: Mapping[str, Shape], names: list[str], addresses: Mapping[str, int]) -> Prepared:
        """The context for some shapes, made when they come for the first time.

        Args:
            inputs: shapes by name.
            names: of the outputs.
            addresses: of all inputs and outputs on the GPU; always the same ones.

        Raises:
            OutOfMemoryError: There is no memory for its intermediate results.
            TensorError: The engine does not take such inputs.
            RuntimeFailedError: A context cannot be made.
        """
        key = tuple(sorted(inputs.items()))
        if key in self._prepared:
            self._prepared.move_to_end(key)
            return self._prepared[key]
        context, outputs = self._new(inputs, names)
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise RuntimeFailedError(
                    f"TensorRT takes no address for {name!r} of {self._what}: {self._sayings.text}"
                )
        while len(self._prepared) >= _MOST:
            self._drop(self._prepared.popitem(last=False)[1])
        self._prepared[key] = Prepared(context, outputs)
        return self._prepared[key]

    def _new(self, inputs: Mapping[str, Shape], names: list[str]) -> tuple[Any, dict[str, Shape]]:
        """A context for some shapes, with memory, and the outputs' shapes."""
        self._sayings.clear()
        context = self._engine.create_execution_context(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise self._error(f"TensorRT makes no context for {self._what}")
        outputs = self._shapes(context, inputs, names)
        self._sayings.clear()
        needed = int(context.update_device_memory_size_for_shapes())
        if needed == 0 and self._sayings.complained:
            # 0 is also what an error looks like, and a run in no memory would end the process.
            raise self._error(f"TensorRT does not say how much memory {self._what} needs")
        needed = max(1, needed)
        if self._scratch is None or self._scratch.size < needed:
            # Contexts and graphs that were made before know the old place.
            self.clear()
            if self._scratch is not None:
                self._scratch.free()
                self._scratch = None
            self._scratch = self._cuda.allocate(needed)
        context.set_device_memory(self._scratch.address, self._scratch.size)
        return context, outputs

    def _error(self, what: str) -> RuntimeFailedError:
        kind = OutOfMemoryError if self._sayings.is_memory else RuntimeFailedError
        return kind(f"{what}: {self._sayings.text}")

    def _shapes(self, context: Any, inputs: Mapping[str, Shape], names: list[str]) -> dict[str, Shape]:
        for name, shape in inputs.items():
            if not context.set_input_shape(name, shape):
                raise TensorError(
                    f"the plan of {self._what} does not take {name} {shape} ({self._sayings.text}); "
                    "build one that does: standin engines build, with --batch, --size or --shape"
                )
        missing = list(context.infer_shapes())
        found = {name: tuple(int(side) for side in context.get_tensor_shape(name)) for name in names}
        unknown = [name for name, shape in found.items() if any(side < 0 for side in shape)]
        if missing or unknown:
            raise RuntimeFailedError(
                f"the shapes of {', '.join(missing or unknown)} of {self._what} depend on data, "
                "which plans here do not do; use --device cuda for it"
            )
        return found

    def run(self, prepared: Prepared) -> None:
        """Puts a run into the stream: the recorded graph once there is one.

        Args:
            prepared: of these contexts.

        Raises:
            RuntimeFailedError: TensorRT or the GPU refuses.
        """
        if prepared.graph is not None:
            self._stream.launch(prepared.graph)
            return
        self._enqueue(prepared)
        prepared.runs += 1

    def record(self, prepared: Prepared) -> None:
        """Records runs of a shape that came again, after one that was waited for; without it runs are only slower.

        Args:
            prepared: of these contexts.
        """
        if not self.capturable or prepared.graph is not None or prepared.runs < _COMES_AGAIN:
            return
        try:
            prepared.graph = self._stream.capture(lambda: self._enqueue(prepared))
        except OutOfMemoryError as error:
            # There may be memory again in a while.
            prepared.runs = _COMES_AGAIN - _LATER
            log.log(
                logging.INFO if self._lacked else logging.WARNING, "%s is not recorded for now: %s", self._what, error
            )
            self._lacked = True
        except RuntimeFailedError as error:
            # Never tried again: what cannot be recorded once cannot be recorded.
            self.capturable = False
            log.warning("%s runs without a CUDA graph: %s", self._what, error)

    @property
    def recorded(self) -> int:
        """Shapes whose runs are recorded."""
        return sum(prepared.graph is not None for prepared in self._prepared.values())

    def _enqueue(self, prepared: Prepared) -> None:
        self._sayings.clear()
        if not prepared.context.execute_async_v3(self._stream.handle):
            raise self._error(f"TensorRT did not run {self._what}")

    def _drop(self, prepared: Prepared) -> None:
        if prepared.graph is not None:
            prepared.graph.free()
        prepared.context = None

    def clear(self) -> None:
        """Drops all contexts, such as when addresses change."""
        for prepared in self._prepared.values():
            self._drop(prepared)
        self._prepared.clear()

    def close(self) -> None:
        """Frees everything."""
        self.clear()
        if self._scratch is not None:
            self._scratch.free()
        self._engine = None
