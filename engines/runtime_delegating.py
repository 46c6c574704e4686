"""A runtime over another one: what most of its kind say and do, left to the one below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engines.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from engines.dlpack import SupportsDlpack
    from engines.manifest import Graph
    from engines.resident import Feeds, Resident
    from engines.runtime import Array


class DelegatingRuntime(Runtime):
    """Says of itself what the one below says, and runs what that runs; those derived from it change what they are for.

    Args:
        inner: Runs the graph; closed together with this one.
        graph: What is declared, None for what the one below declares.
    """

    def __init__(self, inner: Runtime, graph: Graph | None = None) -> None:
        super().__init__(inner.graph if graph is None else graph, inner.device)
        self._inner = inner

    @property
    def provider(self) -> str:
        """Of the one below."""
        return self._inner.provider

    @property
    def most_rows(self) -> int | None:
        """Of the one below."""
        return self._inner.most_rows

    @property
    def largest(self) -> Mapping[str, int]:
        """Of the one below."""
        return self._inner.largest

    @property
    def tf32(self) -> bool | None:
        """Of the one below."""
        return self._inner.tf32

    @property
    def has_memory(self) -> bool:
        """Whether the one below has."""
        return self._inner.has_memory

    def hold(self, array: Array) -> Resident:
        """Where the one below runs."""
        return self._inner.hold(array)

    def adopt(self, array: SupportsDlpack) -> Resident:
        """Where the one below runs."""
        return self._inner.adopt(array)

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return self._run_there(feeds, ())

    def _run_there(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        return self._inner.run(feeds, keep)

    def close(self) -> None:
        """Closes the one below; may be called again."""
        self._inner.close()
