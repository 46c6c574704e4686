"""ONNX Runtime with its CPU, CUDA and TensorRT execution providers.

ONNX Runtime falls back to other providers in two places without raising: when a provider's library does
not load, and when a run fails. Both are switched off or checked here: what was asked for runs, or nothing.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.errors import BundleError, RuntimeFailedError, RuntimeUnavailableError
from engines.runtime import Runtime, require_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from engines.manifest import Graph
    from engines.runtime import Array, Device

log = logging.getLogger(__name__)

_CPU, _CUDA, _TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
#: The first is the one that was asked for; the others take the operators that it does not have.
PROVIDERS: dict[Device, tuple[str, ...]] = {
    "cpu": (_CPU,),
    "cuda": (_CUDA, _CPU),
    "tensorrt": (_TENSORRT, _CUDA, _CPU),
}
_INSTALL: dict[Device, str] = {
    "cpu": 'pip install "standin[cpu]"',
    "cuda": 'uninstall onnxruntime and pip install "standin[gpu]"',
    "tensorrt": 'uninstall onnxruntime and pip install "standin[tensorrt]"',
}


def import_onnxruntime() -> Any:
    """Imports ONNX Runtime, which is an optional dependency.

    Raises:
        RuntimeUnavailableError: It is not installed, or cannot be loaded.
    """
    # It reads this when it is loaded, and would keep a device id in the user's home: nobody asked for that.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        ort = import_module("onnxruntime")
    except ImportError as error:
        raise RuntimeUnavailableError(
            f'ONNX Runtime cannot be imported ({error}); pip install "standin[cpu]", '
            'or "standin[gpu]" on a machine with an NVIDIA GPU'
        ) from None
    # An installation whose files were removed half-way leaves an empty folder that imports without error.
    if not hasattr(ort, "InferenceSession"):
        raise RuntimeUnavailableError(
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
        RuntimeUnavailableError: One is missing; the message lists what there is and what to install.
    """
    wanted = PROVIDERS[device]
    missing = [name for name in wanted if name not in available]
    if missing:
        raise RuntimeUnavailableError(
            f"device {device!r} needs {', '.join(missing)}, "
            f"this ONNX Runtime has {', '.join(available) or 'none'}; {_INSTALL[device]}"
        )
    return wanted


def require_active(device: Device, active: Sequence[str]) -> str:
    """Returns the provider in use, after a session was created.

    Args:
        device: What was asked for.
        active: The session's providers, in its order.

    Raises:
        RuntimeUnavailableError: The first is not the one that was asked for.
    """
    wanted = PROVIDERS[device][0]
    if not active or active[0] != wanted:
        raise RuntimeUnavailableError(
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
    return options


class OnnxRuntime(Runtime):
    """A graph in ONNX Runtime; opened by `engines.runtime.open_runtime`.

    Args:
        path: The ONNX file.
        graph: Its declaration.
        device: What to run on.
        threads: Threads for one operator on the CPU; all cores if None.
        spinning: Whether idle threads of ONNX Runtime wait busily. Off by default, since decoder, encoder and
            tracker share the cores with it: CenterFace at 640x480 on two cores takes 18 ms either way when
            alone, but beside one busy thread 25 ms without spinning and 50 ms with it.

    Raises:
        BundleError: The file is no usable model, or its inputs and outputs are not those of the declaration.
        RuntimeUnavailableError: ONNX Runtime or the provider is not usable here.
    """

    def __init__(
        self, path: Path, graph: Graph, *, device: Device, threads: int | None = None, spinning: bool = False
    ) -> None:
        super().__init__(graph, device)
        ort = import_onnxruntime()
        if hasattr(ort, "disable_telemetry_events"):
            ort.disable_telemetry_events()
        providers = require_providers(device, ort.get_available_providers())
        _load_libraries(ort, device)
        options = _session_options(ort, threads, spinning)
        try:
            session = ort.InferenceSession(str(path), options, providers=list(providers), enable_fallback=0)
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            text = " ".join(str(error).split())
            if device == "cpu":
                raise BundleError(
                    f"{path} cannot be loaded by ONNX Runtime ({text}); build the bundle again"
                ) from error
            raise RuntimeUnavailableError(
                f"device {device!r} cannot run {path} ({text}); check the driver and libraries, see: standin doctor"
            ) from error
        self._provider = require_active(device, session.get_providers())
        require_names(path, "inputs", [t.name for t in graph.inputs], [t.name for t in session.get_inputs()])
        require_names(path, "outputs", [t.name for t in graph.outputs], [t.name for t in session.get_outputs()])
        self._session: Any = session
        self._names = [tensor.name for tensor in graph.outputs]
        log.info("%s runs on %s", path.name, self._provider)

    @property
    def provider(self) -> str:
        """ONNX Runtime's name of the execution provider, such as `CPUExecutionProvider`."""
        return self._provider

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        session = self._session
        if session is None:
            raise self._closed()
        try:
            values = session.run(self._names, dict(feeds))
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            text = " ".join(str(error).split())
            shapes = ", ".join(f"{name} {feeds[name].shape}" for name in sorted(feeds))
            raise RuntimeFailedError(f"{self._graph.file} failed on {self._provider} with {shapes}: {text}") from error
        return {name: np.asarray(value) for name, value in zip(self._names, values, strict=True)}

    def close(self) -> None:
        """Frees the session; may be called again."""
        self._session = None
