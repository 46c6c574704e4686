"""A graph that several threads ask at once, in runs that they share: persons of several frames are one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engines.batching import Batcher, Limits, limits_for
from engines.runtime_delegating import DelegatingRuntime

if TYPE_CHECKING:
    from collections.abc import Collection

    from engines.batching import Counts
    from engines.resident import Feeds
    from engines.runtime import Runtime


class JoinedRuntime(DelegatingRuntime):
    """Runs the graph once at a time, each time for as many as have asked meanwhile and fit together.

    Nobody waits for others to ask: who comes while a run is under way shares the next one. A run that hangs holds up
    all that follow, as a GPU that hangs does; their frames are withheld. What has no rows, such as tables that are held
    where the graph runs, must be the very same array; see `engines.batching`. Runs that keep outputs are not shared.

    Args:
        inner: Runs it; closed together with this one.
        most_rows: Of a shared run. An engine that takes fewer, or plans for each number of rows, gets no more.
    """

    def __init__(self, inner: Runtime, most_rows: int) -> None:
        super().__init__(inner)
        self._batcher = Batcher(inner, limits_for(inner, Limits(most_rows, wait=0.0)))

    @property
    def counts(self) -> Counts:
        """What was asked for, and what it took."""
        return self._batcher.counts

    def _run_there(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        return self._inner.run(feeds, keep) if keep else self._batcher.run(feeds)
