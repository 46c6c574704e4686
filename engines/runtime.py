"""Runtime: named arrays in, named arrays out, whatever executes the graph."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, Literal, Self, get_args, overload

import numpy as np

from engines.errors import BundleError, RuntimeFailedError, TensorError, UsageError
from engines.resident import HostArray, on_host, outline

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from engines.bundle import Bundle
    from engines.dlpack import SupportsDlpack
    from engines.manifest import Graph, Tensor
    from engines.resident import Feeds, Resident
    from engines.tensorrt_policy import Policy

    Array = NDArray[Any]

Device = Literal["cpu", "openvino", "cuda", "tensorrt"]
DEVICES: tuple[Device, ...] = get_args(Device)
#: ONNX Runtime's TensorRT provider.
_PLANS_FOR_SHAPES: Final = "TensorrtExecutionProvider"


def _check_shape(tensor: Tensor, shape: tuple[int, ...], sizes: dict[str, tuple[int, str]]) -> None:
    declared = f"{tensor.dtype} {_shape_text(tensor.shape)}"
    if len(shape) != len(tensor.shape):
        raise TensorError(
            f"input {tensor.name!r} has the shape {_shape_text(shape)}, expected {declared}; "
            f"give an array with {len(tensor.shape)} dimensions"
        )
    for axis, (found, expected) in enumerate(zip(shape, tensor.shape, strict=True)):
        if found < 1:
            raise TensorError(
                f"input {tensor.name!r} has the shape {_shape_text(shape)} with nothing in dimension {axis}, "
                f"expected {declared}; do not run on empty arrays"
            )
        if isinstance(expected, int):
            if found != expected:
                raise TensorError(
                    f"input {tensor.name!r} has {found} in dimension {axis} of {_shape_text(shape)}, "
                    f"expected {declared}; give {expected} there"
                )
            continue
        known, where = sizes.setdefault(expected, (found, tensor.name))
        if known != found:
            raise TensorError(
                f"input {tensor.name!r} has {expected} = {found} in {_shape_text(shape)}, "
                f"but input {where!r} has {expected} = {known}; give arrays that agree in {expected}"
            )


def _shape_text(shape: Sequence[int | str]) -> str:
    return f"({', '.join(str(side) for side in shape)})"


def check_feeds(tensors: Sequence[Tensor], feeds: Mapping[str, Array]) -> None:
    """Compares arrays with what a graph declares.

    Args:
        tensors: The declared inputs.
        feeds: Name -> array.

    Raises:
        TensorError: A name is missing or unknown, or a dtype, rank, fixed or shared dimension is wrong.
    """
    declared = [tensor.name for tensor in tensors]
    missing, extra = sorted(set(declared) - set(feeds)), sorted(set(feeds) - set(declared))
    if missing or extra:
        raise TensorError(
            f"inputs given: {', '.join(sorted(feeds)) or 'none'}; expected: {', '.join(sorted(declared))}; "
            f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(extra) or 'none'}"
        )
    sizes: dict[str, tuple[int, str]] = {}
    for tensor in tensors:
        array = feeds[tensor.name]
        if not isinstance(array, np.ndarray):
            raise TensorError(
                f"input {tensor.name!r} is a {type(array).__name__}, "
                f"expected a numpy array of {tensor.dtype}; convert it"
            )
        if array.dtype != np.dtype(tensor.dtype):
            raise TensorError(
                f"input {tensor.name!r} is {array.dtype}, "
                f"expected {tensor.dtype} {_shape_text(tensor.shape)}; convert it"
            )
        _check_shape(tensor, array.shape, sizes)


def require_names(path: Path, what: str, declared: Sequence[str], found: Sequence[str]) -> None:
    """Compares the names in a file with those in its manifest.

    Args:
        path: The ONNX file.
        what: `inputs` or `outputs`.
        declared: By the manifest.
        found: In the file.

    Raises:
        BundleError: They differ.
    """
    if sorted(declared) != sorted(found):
        raise BundleError(
            f"{path} has the {what} {', '.join(found)}, its manifest declares {', '.join(declared)}; "
            "build the bundle again"
        )


class Runtime(ABC):
    """One graph of a bundle, ready to run on one device.

    `run` may be called from several threads at once. A runtime is a context manager that closes itself.
    """

    def __init__(self, graph: Graph, device: Device) -> None:
        self._graph = graph
        self._device = device

    @property
    def device(self) -> Device:
        """What was asked for."""
        return self._device

    @property
    @abstractmethod
    def provider(self) -> str:
        """Name of what really executes the graph."""

    @property
    def plans_for_shapes(self) -> bool:
        """Whether arrays of new shapes cost minutes: ONNX Runtime's TensorRT provider then builds an engine for them.

        A plan takes all shapes that it was built for. It goes by the provider's name, which an engine process tells.
        """
        return self.provider == _PLANS_FOR_SHAPES

    @property
    def most_rows(self) -> int | None:
        """Rows that one run of the engine takes, None for as many as there is memory for."""
        return None

    @property
    def largest(self) -> Mapping[str, int]:
        """The largest first dimension of inputs that have one beside rows, such as the slots of tables."""
        return {}

    @property
    def graph(self) -> Graph:
        """What is declared."""
        return self._graph

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The declared inputs."""
        return self._graph.inputs

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The declared outputs."""
        return self._graph.outputs

    @property
    def tf32(self) -> bool | None:
        """Whether float32 products are computed in TF32; None where that cannot be told, or there is no such thing."""
        return None

    @property
    def has_memory(self) -> bool:
        """Whether the graph runs in memory of its own, so that arrays that stay there save a way."""
        return False

    def hold(self, array: Array) -> Resident:
        """Puts an input where the graph runs, for many runs.

        Args:
            array: Not to be written to as long as it is held.

        Raises:
            OutOfMemoryError: There is no memory for it.
            RuntimeFailedError: The runtime is closed.
        """
        return HostArray(array)

    def adopt(self, array: SupportsDlpack) -> Resident:
        """Takes an array of another library where it lies, without a copy.

        Args:
            array: On the runtime's device, or on the host where that is none; not to be written to meanwhile.

        Raises:
            TensorError: It lies elsewhere, or is of no type that numpy knows.
            RuntimeFailedError: The runtime is closed, or does not take such an array.
        """
        try:
            return HostArray(np.from_dlpack(array))
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise TensorError(f"an array of another library cannot be taken: {' '.join(str(error).split())}") from error

    @overload
    def run(self, feeds: Feeds) -> dict[str, Array]: ...

    @overload
    def run(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]: ...

    def run(self, feeds: Feeds, keep: Collection[str] = ()) -> dict[str, Any]:
        """Runs the graph once.

        Args:
            feeds: One array for each declared input: numpy's, or one that a runtime of this device holds or kept.
            keep: Names of outputs that stay where the graph runs, as inputs of others. Such a run is never split
                where memory lacks.

        Returns:
            A numpy array for each declared output, and a `Resident` for those that are kept.

        Raises:
            TensorError: The arrays are not what the manifest declares.
            RuntimeFailedError: The runtime raised, or is closed.
        """
        check_feeds(self.inputs, {name: outline(array) for name, array in feeds.items()})
        if strange := set(keep) - {tensor.name for tensor in self.outputs}:
            raise TensorError(f"{self._graph.file} has no output {', '.join(sorted(strange))} to keep")
        if self.has_memory:
            return self._run_there(feeds, keep)
        found = self._run(on_host(feeds))
        return {name: HostArray(values) if name in keep else values for name, values in found.items()}

    @abstractmethod
    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs on checked arrays of the host."""

    def _run_there(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        """Runs on checked arrays, wherever they lie. Of runtimes that have memory of their own."""
        raise NotImplementedError

    @abstractmethod
    def close(self) -> None:
        """Frees what the runtime holds; may be called again."""

    def _closed(self) -> RuntimeFailedError:
        return RuntimeFailedError(f"the runtime for {self._graph.file} is closed; open a new one")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def tensorrt_policy() -> Policy | None:
    """What may be done where a TensorRT plan is needed; None where ONNX Runtime's provider runs what TensorRT runs.

    Raises:
        UsageError: The variable STANDIN_TENSORRT has words that are not known.
        RuntimeUnavailableError: It asks for ONNX Runtime's provider, and the TensorRT that is there is not for it.
    """
    from engines.tensorrt_policy import VARIABLE, goes_by_plans, installed_version, parse_policy

    policy = parse_policy(os.environ.get(VARIABLE))
    return policy if goes_by_plans(policy, installed_version()) else None


def open_runtime(
    bundle: Bundle,
    graph: str = "detector",
    *,
    device: Device = "cpu",
    threads: int | None = None,
    spinning: bool = False,
    bfloat16: bool = False,
    server: Path | None = None,
    timeout: float = 10.0,
    may_build: bool = True,
) -> Runtime:
    """Opens a graph of a bundle on a device, in this process or in an engine process.

    Args:
        bundle: A verified bundle.
        graph: Name of the graph in its manifest.
        device: `cpu` or `cuda` in ONNX Runtime, `openvino`, or `tensorrt`: a plan where TensorRT's Python package is
            there, else ONNX Runtime's provider (`engines.tensorrt_policy`); never another one than asked for.
        threads: Threads for one operator on the CPU; all cores if not given.
        spinning: Whether idle threads of ONNX Runtime wait busily, see `engines.runtime_onnx`.
        bfloat16: Whether OpenVINO computes in bfloat16 what is float32 in the graph; no other device does.
        server: Path of the socket of an engine process (`engines.engine_process`) that is to run it; here if None.
        timeout: Seconds that a run over there may take, see `engines.runtime_remote`.
        may_build: Whether a TensorRT plan that is missing may be built now, where `STANDIN_TENSORRT` says so.

    Raises:
        UsageError: There is no such device, it does not compute in bfloat16, `threads` is below 1, or the engine
            process is for another device.
        BundleError: There is no such graph, or its file does not fit the manifest.
        RuntimeUnavailableError: The device, its provider or its runtime is not usable, there is no plan that fits this
            machine, or no engine process answers.
    """
    if device not in DEVICES:
        raise UsageError(f"device {device!r} is not known; expected one of {', '.join(DEVICES)}")
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}; expected at least 1, or nothing for all cores")
    if bfloat16 and device != "openvino":
        raise UsageError(f"bfloat16 is computed by OpenVINO alone, not on {device}; give --device openvino")
    declared = bundle.graph(graph)
    path = bundle.file(declared.file)
    # Imported here: the modules import this one for its base class.
    if server is not None:
        from engines.runtime_remote import RemoteRuntime

        return RemoteRuntime(
            bundle,
            graph,
            server=server,
            device=device,
            threads=threads,
            spinning=spinning,
            bfloat16=bfloat16,
            timeout=timeout,
        )
    if device == "tensorrt" and (policy := tensorrt_policy()) is not None:
        from engines.plan_open import open_plan

        return open_plan(bundle, graph, policy, may_build=may_build)
    if device == "openvino":
        from engines.runtime_openvino import OpenvinoRuntime

        return OpenvinoRuntime(path, declared, device=device, threads=threads, bfloat16=bfloat16)
    from engines.runtime_onnx import OnnxRuntime

    return OnnxRuntime(path, declared, device=device, threads=threads, spinning=spinning)
