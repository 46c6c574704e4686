"""ONNX Runtime with its CPU, CUDA and TensorRT execution providers.

ONNX Runtime falls back to other providers in two places without raising: when a provider's library does
not load, and when a run fails. Both are switched off or checked here: what was asked for runs, or nothing. Single
nodes that a provider does not have run on the CPU all the same; they are counted (`OnnxRuntime.placement`).

TF32 keeps 10 bits of a float32's 23 in the products of an NVIDIA GPU's tensor cores. It is off unless it is asked for,
so that a graph gives on a GPU what it gives on the CPU. TensorRT's provider has no switch for it and always uses it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from engines.errors import (
    BundleError,
    DeviceMissingError,
    OutOfMemoryError,
    RuntimeFailedError,
    RuntimeUnavailableError,
)
from engines.onnx_binding import Binding
from engines.placement import CPU_PROVIDER, Placement, ask_for_placement, placement_of
from engines.runtime import Runtime, require_names
from engines.splitting import Splitter, is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from engines.dlpack import SupportsDlpack
    from engines.manifest import Graph
    from engines.resident import Feeds, Resident
    from engines.runtime import Array, Device

T = TypeVar("T")

log = logging.getLogger(__name__)

_CPU, _CUDA, _TENSORRT = CPU_PROVIDER, "CUDAExecutionProvider", "TensorrtExecutionProvider"
#: The first is the one that was asked for; the others take the operators that it does not have.
PROVIDERS: dict[Device, tuple[str, ...]] = {
    "cpu": (_CPU,),
    "cuda": (_CUDA, _CPU),
    "tensorrt": (_TENSORRT, _CUDA, _CPU),
}
#: What ONNX Runtime calls the place of arrays.
_PLACES: dict[Device, str] = {"cpu": "cpu", "cuda": "cuda", "tensorrt": "cuda"}
_INSTALL: dict[Device, str] = {
    "cpu": 'pip install "standin[cpu]"',
    "cuda": 'uninstall onnxruntime and pip install "standin[gpu]"',
    "tensorrt": 'uninstall onnxruntime and pip install "standin[tensorrt]"',
}


def import_onnxruntime() -> Any:
    """Imports ONNX Runtime, which is an optional dependency.

    Raises:
        DeviceMissingError: It is not installed, or cannot be loaded.
    """
    # It reads this when it is loaded, and would keep a device id in the user's home: nobody asked for that.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        ort = import_module("onnxruntime")
    except ImportError as error:
        raise DeviceMissingError(
            f'ONNX Runtime cannot be imported ({error}); pip install "standin[cpu]", '
            'or "standin[gpu]" on a machine with an NVIDIA GPU'
        ) from None
    # An installation whose files were removed half-way leaves an empty folder that imports without error.
    if not hasattr(ort, "InferenceSession"):
        raise DeviceMissingError(
            "the package onnxruntime is there but empty; uninstall onnxruntime and onnxruntime-gpu, "
            'then pip install "standin[cpu]" or "standin[gpu]"'
        )
    return ort


def require_providers(device: Device, available: Sequence[str]) -> tuple[str, ...]:
    """Returns the providers for a device.

    Args:
        device: What was asked for.
        available: What this build of ONNX Runtime has.

    Raises:
        DeviceMissingError: One is missing; the message lists what there is and what to install.
    """
    wanted = PROVIDERS[device]
    missing = [name for name in wanted if name not in available]
    if missing:
        raise DeviceMissingError(
            f"device {device!r} needs {', '.join(missing)}, "
            f"this ONNX Runtime has {', '.join(available) or 'none'}; {_INSTALL[device]}"
        )
    return wanted


def provider_options(providers: Sequence[str], *, tf32: bool) -> list[str | tuple[str, dict[str, str]]]:
    """Returns providers as a session takes them, with what they are told.

    Args:
        providers: Their names, the first one first.
        tf32: Whether float32 products may be computed in TF32.
    """
    # By default every way to convolve is timed when a shape comes for the first time, and a stream stands still for
    # it: numbers of boxes and of crops come at any time.
    told = {"use_tf32": "1" if tf32 else "0", "cudnn_conv_algo_search": "HEURISTIC"}
    return [(name, dict(told)) if name == _CUDA else name for name in providers]


def require_active(device: Device, active: Sequence[str]) -> str:
    """Returns the provider in use, after a session was created.

    Args:
        device: What was asked for.
        active: The session's providers, in its order.

    Raises:
        DeviceMissingError: The first is not the one that was asked for.
    """
    wanted = PROVIDERS[device][0]
    if not active or active[0] != wanted:
        raise DeviceMissingError(
            f"device {device!r} needs {wanted}, "
            f"but ONNX Runtime fell back to {', '.join(active) or 'nothing'}; check the driver, "
            "and that CUDA, cuDNN and TensorRT have the versions that this ONNX Runtime wants; "
            "see: standin doctor"
        )
    return wanted


def _load_libraries(ort: Any, device: Device) -> None:
    """Makes the libraries from NVIDIA's wheels known: they do not lie on the loader's path."""
    if device == "cpu":
        return
    if hasattr(ort, "preload_dlls"):
        # It prints what it does not find, and standard output may be a stream of frames.
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            ort.preload_dlls()
        if text := " ".join(printed.getvalue().split()):
            log.warning("ONNX Runtime: %s", text)
    if device == "tensorrt":
        # Where it is not installed as a wheel the system's libraries may do; creation tells.
        with contextlib.suppress(ImportError):
            import_module("tensorrt")


def _session_options(ort: Any, threads: int | None, spinning: bool) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    ask_for_placement(options)
    return options


class OnnxRuntime(Runtime):
    """A graph in ONNX Runtime; opened by `engines.runtime.open_runtime`.

    A run that finds no memory is tried again with fewer rows at a time, see `engines.splitting`.

    Args:
        path: The ONNX file.
        graph: Its declaration.
        device: What to run on.
        threads: Threads for one operator on the CPU; all cores if None.
        spinning: Whether idle threads of ONNX Runtime wait busily. Off by default, since decoder, encoder and
            tracker share the cores with it: CenterFace at 640x480 on two cores takes 18 ms either way when
            alone, but beside one busy thread 25 ms without spinning and 50 ms with it.
        tf32: Whether a GPU may compute float32 products in TF32.
        model: The model, serialised, where it is in no file; the path is only its name then.

    Raises:
        BundleError: The file is no usable model, or its inputs and outputs are not those of the declaration.
        RuntimeUnavailableError: ONNX Runtime or the provider is not usable here.
    """

    def __init__(
        self,
        path: Path,
        graph: Graph,
        *,
        device: Device,
        threads: int | None = None,
        spinning: bool = False,
        tf32: bool = False,
        model: bytes | None = None,
    ) -> None:
        super().__init__(graph, device)
        ort = import_onnxruntime()
        if hasattr(ort, "disable_telemetry_events"):
            ort.disable_telemetry_events()
        session = _open_session(ort, path, model, device, _session_options(ort, threads, spinning), tf32)
        self._provider = require_active(device, session.get_providers())
        require_names(path, "inputs", [t.name for t in graph.inputs], [t.name for t in session.get_inputs()])
        require_names(path, "outputs", [t.name for t in graph.outputs], [t.name for t in session.get_outputs()])
        self._binding: Binding | None = Binding(ort, session, [t.name for t in graph.outputs], _PLACES[device])
        self._splitter = Splitter(graph.inputs, graph.outputs)
        self._placement = placement_of(session, str(ort.__version__))
        self._tf32 = {"cpu": None, "cuda": tf32, "tensorrt": True}[device]
        log.info("%s runs on %s%s", path.name, self._provider, _strays(device, self._placement))

    @property
    def provider(self) -> str:
        """ONNX Runtime's name of the execution provider, such as `CPUExecutionProvider`."""
        return self._provider

    @property
    def placement(self) -> Placement | None:
        """Which provider got which nodes, None if this ONNX Runtime does not tell."""
        return self._placement

    @property
    def tf32(self) -> bool | None:
        """Whether float32 products are computed in TF32, None where there is no such thing."""
        return self._tf32

    @property
    def has_memory(self) -> bool:
        """Of a GPU, yes."""
        return self._device != "cpu"

    def hold(self, array: Array) -> Resident:
        """Copies an input to the device, for many runs.

        Raises:
            OutOfMemoryError: There is no memory for it.
            RuntimeFailedError: The runtime is closed.
        """
        if self._binding is not None and not self.has_memory:
            return super().hold(array)
        return self._guarded(lambda binding: binding.hold(array), {})

    def adopt(self, array: SupportsDlpack) -> Resident:
        """Takes an array of another library as an input where it lies, without a copy, by DLPack.

        It has to lie on the runtime's device and be complete (no kernel still writes it), and on a GPU not be of truth
        values.

        Raises:
            TensorError: It lies elsewhere than on the host, where that is the device.
            RuntimeFailedError: The runtime is closed, or does not take such an array.
        """
        if self._binding is not None and not self.has_memory:
            return super().adopt(array)
        return self._guarded(lambda binding: binding.adopt(array), {})

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return self._splitter.run(lambda part: self._guarded(lambda b: b.run_on_host(part), part), feeds)

    def _run_there(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        if keep:
            return self._guarded(lambda binding: binding.run(feeds, keep), feeds)
        return self._splitter.run(lambda part: self._guarded(lambda b: b.run(part), part), feeds)

    def _guarded(self, run: Callable[[Binding], T], feeds: Feeds) -> T:
        binding = self._binding
        if binding is None:
            raise self._closed()
        try:
            return run(binding)
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            text = " ".join(str(error).split()) or type(error).__name__
            shapes = ", ".join(f"{name} {feeds[name].shape}" for name in sorted(feeds)) or "an array to be held there"
            kind = OutOfMemoryError if is_out_of_memory(error) else RuntimeFailedError
            raise kind(f"{self._graph.file} failed on {self._provider} with {shapes}: {text}") from error

    def close(self) -> None:
        """Frees the session; may be called again."""
        self._binding = None


def _open_session(ort: Any, path: Path, model: bytes | None, device: Device, options: Any, tf32: bool) -> Any:
    providers = require_providers(device, ort.get_available_providers())
    _load_libraries(ort, device)
    try:
        return ort.InferenceSession(
            str(path) if model is None else model,
            options,
            providers=provider_options(providers, tf32=tf32),
            enable_fallback=0,
        )
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        text = " ".join(str(error).split())
        if device == "cpu":
            raise BundleError(f"{path} cannot be loaded by ONNX Runtime ({text}); build the bundle again") from error
        raise RuntimeUnavailableError(
            f"device {device!r} cannot run {path} ({text}); check the driver and libraries, see: standin doctor"
        ) from error


def _strays(device: Device, placement: Placement | None) -> str:
    """What a log says of nodes that are not where they were asked to be."""
    if device == "cpu":
        return ""
    return f", {placement}" if placement is not None else "; this ONNX Runtime does not tell where its nodes are"
