"""A graph behind a smaller one that makes some of its inputs, both where they run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engines.runtime_delegating import DelegatingRuntime
from engines.splitting import Splitter

if TYPE_CHECKING:
    from collections.abc import Collection

    from engines.resident import Feeds
    from engines.runtime import Runtime


class ChainedRuntime(DelegatingRuntime):
    """Two graphs as one: what the first gives goes to the second without a way over the host.

    It takes what the first takes, and those inputs of the second that the first does not make. Where memory lacks, both
    run on fewer rows at a time, see `engines.splitting`. Whatever else it says is said of the second.

    Args:
        first: Gives nothing but inputs of the second; closed together with this one.
        second: Gives the outputs; closed together with this one.

    Raises:
        ValueError: The second does not take what the first gives, or both take an input of the same name.
    """

    def __init__(self, first: Runtime, second: Runtime) -> None:
        self._made = [tensor.name for tensor in first.outputs]
        taken = {tensor.name for tensor in second.inputs}
        if strange := set(self._made) - taken:
            raise ValueError(f"{second.graph.file} takes no {', '.join(sorted(strange))} of {first.graph.file}")
        others = tuple(tensor for tensor in second.inputs if tensor.name not in self._made)
        self._firsts = [tensor.name for tensor in first.inputs]
        self._seconds = [tensor.name for tensor in others]
        if both := set(self._firsts) & set(self._seconds):
            raise ValueError(f"{first.graph.file} and {second.graph.file} both take {', '.join(sorted(both))}")
        graph = second.graph.model_copy(update={"inputs": (*first.inputs, *others)})
        super().__init__(second, graph)
        self._first = first
        self._splitter = Splitter(graph.inputs, graph.outputs, most=second.most_rows)

    def _run_there(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        return self._both(feeds, keep) if keep else self._splitter.run(self._both, feeds)

    def _both(self, feeds: Feeds, keep: Collection[str] = ()) -> dict[str, Any]:
        made = self._first.run({name: feeds[name] for name in self._firsts}, self._made)
        return self._inner.run({**{name: feeds[name] for name in self._seconds}, **made}, keep)

    def close(self) -> None:
        """Frees both graphs; may be called again."""
        self._first.close()
        super().close()
