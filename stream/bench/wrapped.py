"""A graph in a benchmark's hands: what stands between the graph and whoever asks it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from engines.bundle import Bundle
from engines.placement import Placement
from engines.resident import Resident
from engines.runtime import Runtime
from engines.runtime_onnx import OnnxRuntime

if TYPE_CHECKING:
    from engines.resident import Feeds
    from engines.runtime import Array


class WrappedRuntime(Runtime):
    """Says what the graph says, and is closed with it.

    Args:
        bundle: whose graph it is.
        name: of the graph.
        inner: runs it.
    """

    def __init__(self, bundle: Bundle, name: str, inner: Runtime) -> None:
        super().__init__(bundle.graph(name), inner.device)
        self._inner = inner
        self.bundle = bundle.manifest.name
        self.name = name

    @property
    def provider(self) -> str:
        """Of the graph."""
        return self._inner.provider

    @property
    def placement(self) -> Placement | None:
        """Where the graph's nodes are, None where that cannot be told, or there is no other place than the CPU."""
        inner = self._inner
        if isinstance(inner, WrappedRuntime | OnnxRuntime) and inner.device not in ("cpu", "openvino"):
            return inner.placement
        return None

    @property
    def tf32(self) -> bool | None:
        """Whether float32 products are computed in TF32, None where that cannot be told, or there is no such thing."""
        inner = self._inner
        return inner.tf32 if isinstance(inner, WrappedRuntime | OnnxRuntime) else None

    @property
    def largest(self) -> Mapping[str, int]:
        """As the graph."""
        return self._inner.largest

    @property
    def has_memory(self) -> bool:
        """As the graph."""
        return self._inner.has_memory

    def hold(self, array: Array) -> Resident:
        """Where the graph runs."""
        return self._inner.hold(array)

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return self._run_there(feeds, ())

    def _run_there(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        return self._inner.run(feeds, keep)

    def close(self) -> None:
        """Free the graph."""
        self._inner.close()
