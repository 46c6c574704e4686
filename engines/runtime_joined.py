"""A graph that several threads ask at once, in runs that they share: persons of several frames are one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engines.batching import Batcher, Limits, limits_for
from engines.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from engines.batching import Counts
    from engines.dlpack import SupportsDlpack
    from engines.resident import Feeds, Resident
    from engines.runtime import Array


class JoinedRuntime(Runtime):
    """Runs the graph once at a time, each time for as many as have asked meanwhile and fit together.

    Nobody waits for others to ask: who comes while a run is under way shares the next one. A run that hangs holds up
    all that follow, as a GPU that hangs does; their frames are withheld. What has no rows, such as tables that are held
    where the graph runs, must be the very same array; see `engines.batching`. Runs that keep outputs are not shared.

    Args:
        inner: Runs it; closed together with this one.
        most_rows: Of a shared run. An engine that takes fewer, or plans for each number of rows, gets no more.
    """

    def __init__(self, inner: Runtime, most_rows: int) -> None:
        super().__init__(inner.graph, inner.device)
        self._inner = inner
        self._batcher = Batcher(inner, limits_for(inner, Limits(most_rows, wait=0.0)))

    @property
    def provider(self) -> str:
        """Of the graph."""
        return self._inner.provider

    @property
    def counts(self) -> Counts:
        """What was asked for, and what it took."""
        return self._batcher.counts

    @property
    def most_rows(self) -> int | None:
        """As the graph."""
        return self._inner.most_rows

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

    def adopt(self, array: SupportsDlpack) -> Resident:
        """Where the graph runs."""
        return self._inner.adopt(array)

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return self._batcher.run(feeds)

    def _run_there(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        return self._inner.run(feeds, keep) if keep else self._batcher.run(feeds)

    def close(self) -> None:
        """Frees the graph."""
        self._inner.close()
