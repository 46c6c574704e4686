"""Whether ONNX Runtime's CUDA provider really runs the engines that come along, and what it leaves to the CPU."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Final

from engines.errors import RuntimeUnavailableError
from engines.runtime_onnx import OnnxRuntime, import_onnxruntime, require_providers
from engines.store import Store, home
from stream.check import Check, last_line, run_probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines.runtime import Device

_NAME: Final = "Engines on the GPU"
#: In a process of its own: a driver that does not go with CUDA may crash it.
_PROBE: Final = "import json; from stream.check_placement import placements; print(json.dumps(placements('cuda')))"


def check_placement(probe: Callable[[list[str]], tuple[int, str, str]] = run_probe) -> list[Check]:
    """What the CUDA provider does with the engines that come along; nothing where ONNX Runtime has no such provider.

    Args:
        probe: runs a command, and returns its status and what it wrote.
    """
    try:
        require_providers("cuda", import_onnxruntime().get_available_providers())
    except RuntimeUnavailableError:
        return []
    status, out, err = probe([sys.executable, "-c", _PROBE])
    if status != 0:
        problem = last_line(err, "opening them failed")
        return [Check(_NAME, "warn", problem, "check the driver, and CUDA's and cuDNN's versions")]
    return [Check(_NAME, "ok", f"{graph}: {placed}") for graph, placed in json.loads(last_line(out, "[]"))]


def placements(device: Device) -> list[tuple[str, str]]:
    """The graphs that come along, each with where ONNX Runtime puts its nodes on a device.

    Args:
        device: that ONNX Runtime has a provider for.

    Raises:
        StandinError: a graph cannot be opened there.
    """
    store, found = Store(home()), []
    for name in store.built_in():
        bundle = store.open(name)
        for key, graph in bundle.manifest.graphs.items():
            if key in bundle.manifest.quantized:
                # Such graphs run on processors alone.
                continue
            with OnnxRuntime(bundle.file(graph.file), graph, device=device) as runtime:
                placed = runtime.placement
            text = "this ONNX Runtime does not tell where its nodes are" if placed is None else str(placed)
            found.append((f"{name} {key}", text))
    return found
