"""OpenVINO on the CPU: the same ONNX files, with oneDNN's convolutions.

Asked for as the device `openvino`; nothing falls back to it or from it.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.errors import BundleError, DeviceMissingError, RuntimeFailedError, RuntimeUnavailableError
from engines.runtime import Runtime, require_names

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from engines.manifest import Graph
    from engines.runtime import Array, Device

log = logging.getLogger(__name__)

_TELEMETRY = "openvino_telemetry"


def import_openvino() -> Any:
    """Imports OpenVINO, which is an optional dependency, without its telemetry.

    Raises:
        DeviceMissingError: It is not installed, or cannot be loaded.
    """
    # Its import alone writes an id into the user's home and reports to a web service, unless the user opted out.
    # Nothing leaves a machine that anonymizes: with None here Python says that there is no such package, and
    # OpenVINO does without.
    sys.modules.setdefault(_TELEMETRY, None)  # type: ignore[arg-type]
    try:
        openvino = import_module("openvino")
    except ImportError as error:
        raise DeviceMissingError(f'OpenVINO cannot be imported ({error}); pip install "standin[openvino]"') from None
    if not hasattr(openvino, "Core"):
        raise DeviceMissingError(
            'the package openvino is there but empty; uninstall it, then pip install "standin[openvino]"'
        )
    return openvino


@functools.cache
def openvino_core() -> Any:
    """The one `openvino.Core` of this process, made at the first call and never let go.

    Making a core gives the calling thread another stack for signal handlers, and dropping it takes that away. With
    several cores that are not dropped in reverse order (an exception's traceback is enough to keep one), the thread
    is left with a stack that is freed already: the next Ctrl-C kills the process. Seen with OpenVINO 2026.4.

    Raises:
        DeviceMissingError: OpenVINO is not installed, or cannot be loaded.
    """
    return import_openvino().Core()


def _compile_options(threads: int | None, *, bfloat16: bool) -> dict[str, Any]:
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        # Left to itself it computes in bfloat16 where the processor can: not what was compared at export.
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        # Decoder, encoder and tracker share the cores with it.
        "ENABLE_CPU_PINNING": False,
    }
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    return options


class OpenvinoRuntime(Runtime):
    """A graph in OpenVINO; opened by `engines.runtime.open_runtime`.

    Args:
        path: The ONNX file.
        graph: Its declaration.
        device: `openvino`.
        threads: Threads for one operator; all cores if None.
        bfloat16: Whether it computes in bfloat16: two digits, and up to twice as fast where the processor has it.

    Raises:
        BundleError: The file is no usable model, or its inputs and outputs are not those of the declaration.
        DeviceMissingError: OpenVINO is not usable here.
        RuntimeUnavailableError: The processor has no bfloat16.
    """

    def __init__(
        self,
        path: Path,
        graph: Graph,
        *,
        device: Device = "openvino",
        threads: int | None = None,
        bfloat16: bool = False,
    ) -> None:
        super().__init__(graph, device)
        core = openvino_core()
        try:
            processor = str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip()
            has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        except RuntimeError as error:
            raise DeviceMissingError(
                f"OpenVINO cannot use this CPU ({_one_line(error)}); see: standin doctor"
            ) from error
        if bfloat16 and not has_bfloat16:
            # It would take float32 without a word.
            raise RuntimeUnavailableError(
                f"{processor} does not compute in bfloat16 (no AVX-512 BF16 or AMX); use --precision fp32"
            )
        try:
            model = core.read_model(path)
            require_names(path, "inputs", [t.name for t in graph.inputs], [t.any_name for t in model.inputs])
            require_names(path, "outputs", [t.name for t in graph.outputs], [t.any_name for t in model.outputs])
            compiled = core.compile_model(model, "CPU", _compile_options(threads, bfloat16=bfloat16))
        except RuntimeError as error:
            raise BundleError(
                f"{path} cannot be loaded by OpenVINO ({_one_line(error)}); build the bundle again"
            ) from error
        self._compiled: Any = compiled
        self._provider = "OpenVINO CPU, bfloat16" if bfloat16 else "OpenVINO CPU"
        self._names = [tensor.name for tensor in graph.outputs]
        self._idle: list[Any] = []
        self._lock = threading.Lock()
        log.info("%s runs on %s, %s", path.name, self.provider, processor)

    @property
    def provider(self) -> str:
        """`OpenVINO CPU`, and `bfloat16` where it was asked for."""
        return self._provider

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        request = self._borrow()
        # Inputs are read where they lie, tables of many megabytes among them; outputs are copies.
        arrays = {name: np.ascontiguousarray(values) for name, values in feeds.items()}
        try:
            results = request.infer(arrays, share_inputs=True, share_outputs=False)
            values = {name: np.asarray(results[name]) for name in self._names}
        except Exception as error:  # what it raises for what it was given has no common base class
            shapes = ", ".join(f"{name} {feeds[name].shape}" for name in sorted(feeds))
            raise RuntimeFailedError(
                f"{self._graph.file} failed on {self.provider} with {shapes}: {_one_line(error)}"
            ) from error
        # Not after a failure: its state is not known.
        with self._lock:
            self._idle.append(request)
        return values

    def _borrow(self) -> Any:
        """A request of its own for every thread that runs at the same time."""
        with self._lock:
            if self._compiled is None:
                raise self._closed()
            return self._idle.pop() if self._idle else self._compiled.create_infer_request()

    def close(self) -> None:
        """Frees the model; may be called again."""
        with self._lock:
            self._compiled = None
            self._idle.clear()


def _one_line(error: Exception) -> str:
    """What it says last is the cause; before it come the places in OpenVINO's own source."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith("Exception from src/")]
    return " ".join(" ".join(said).split()) or type(error).__name__
