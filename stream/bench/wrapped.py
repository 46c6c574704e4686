"""A graph in a benchmark's hands: what stands between the graph and whoever asks it."""

from __future__ import annotations

from engines.bundle import Bundle
from engines.placement import Placement
from engines.runtime import Runtime
from engines.runtime_delegating import DelegatingRuntime
from engines.runtime_onnx import OnnxRuntime


class WrappedRuntime(DelegatingRuntime):
    """Says what the graph says, and is closed with it.

    Args:
        bundle: whose graph it is.
        name: of the graph.
        inner: runs it.
    """

    def __init__(self, bundle: Bundle, name: str, inner: Runtime) -> None:
        super().__init__(inner, bundle.graph(name))
        self.bundle = bundle.manifest.name
        self.name = name

    @property
    def placement(self) -> Placement | None:
        """Where the graph's nodes are, None where that cannot be told, or there is no other place than the CPU."""
        inner = self._inner
        if isinstance(inner, WrappedRuntime | OnnxRuntime) and inner.device not in ("cpu", "openvino"):
            return inner.placement
        return None
