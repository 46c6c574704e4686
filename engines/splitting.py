"""Splitting: a run that finds no memory is tried again with fewer rows at a time, where rows do not know each other."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engines.errors import OutOfMemoryError, RuntimeFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from engines.manifest import Tensor
    from engines.runtime import Array

    Arrays = Mapping[str, Any]
    Run = Callable[[Arrays], dict[str, Array]]

log = logging.getLogger(__name__)

#: Seconds for which a smaller batch is kept: whoever took the memory may have given it back by then.
_KEPT: Final = 60.0
#: What ONNX Runtime, CUDA's libraries, TensorRT and C++ say where there is no memory (in lower case).
_SIGNS: Final = (
    "out of memory",
    "failed to allocate memory",
    "is smaller than requested bytes",
    "memory allocation failed",
    "alloc_failed",
    "bad allocation",
    "bad_alloc",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of a runtime says that there was no memory; runtimes have no class for it."""
    text = str(error).lower()
    return isinstance(error, MemoryError | OutOfMemoryError) or any(sign in text for sign in _SIGNS)


def row_inputs(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> tuple[str, ...]:
    """The inputs that have one row for each row of every output; the others are the same for all rows.

    Args:
        inputs: Of a graph.
        outputs: Of the graph.

    Returns:
        Their names; none if the graph's rows cannot be told apart by its declarations.
    """
    firsts = {tensor.shape[0] if tensor.shape else None for tensor in outputs}
    word = next(iter(firsts), None)
    tensors = (*inputs, *outputs)
    if len(firsts) != 1 or not isinstance(word, str) or any(word in tensor.shape[1:] for tensor in tensors):
        return ()
    return tuple(tensor.name for tensor in inputs if tensor.shape[:1] == (word,))


class Splitter:
    """Runs a graph in as many parts as the memory asks for, and remembers for a while how many rows were too many.

    May be used by several threads at once.

    Args:
        inputs: Of the graph.
        outputs: Of the graph.
        clock: Seconds that only grow.
        least: Rows that one run takes at least.
        most: Rows that one run takes at most, whatever the memory; None for all that come.
    """

    def __init__(
        self,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        clock: Callable[[], float] = time.monotonic,
        *,
        least: int = 1,
        most: int | None = None,
    ) -> None:
        self._names = row_inputs(inputs, outputs)
        self._clock = clock
        self._least = least
        self._limit = most
        self._lock = threading.Lock()
        self._most = most
        self._until = 0.0

    @property
    def most_rows(self) -> int | None:
        """Rows in one run at the moment, None for all that come."""
        with self._lock:
            if self._clock() >= self._until:
                self._most = self._limit
            return self._most

    def run(self, run: Run, feeds: Arrays) -> dict[str, Array]:
        """Runs once if there is memory for it, else in parts.

        Args:
            run: Runs the graph on some rows.
            feeds: All inputs; those with rows on the host, or it is one run.

        Returns:
            The outputs for all rows.

        Raises:
            OutOfMemoryError: There is no memory for a single row, or rows cannot be told apart.
            StandinError: Whatever else `run` raises.
        """
        try:
            return self._run(run, feeds)
        except OutOfMemoryError as error:
            raise OutOfMemoryError(f"{error}; use a smaller batch, smaller pictures or fewer streams") from error

    def _run(self, run: Run, feeds: Arrays) -> dict[str, Array]:
        rows = {len(feeds[name]) for name in self._names if isinstance(feeds[name], np.ndarray)}
        # Rows that lie elsewhere are not taken apart.
        if len(rows) != 1 or not all(isinstance(feeds[name], np.ndarray) for name in self._names):
            return _attempt(run, feeds)
        count = rows.pop()
        most = min(self.most_rows or count, count)
        while True:
            try:
                return _joined(
                    [_without(_attempt(run, part), twice) for twice, part in self._parts(feeds, count, most)]
                )
            except OutOfMemoryError as error:
                if most // 2 < self._least:
                    raise
                refused = str(error)
            # Outside of the handler, whose error keeps arrays alive.
            most = self._reduce(most, refused)

    def _reduce(self, most: int, refused: str) -> int:
        fewer = most // 2
        with self._lock:
            # Another thread may have come further down meanwhile.
            self._most, self._until = min(self._most or fewer, fewer), self._clock() + _KEPT
        log.warning("no memory for %d rows in one run, going on with %d: %s", most, fewer, refused)
        return fewer

    def _parts(self, feeds: Arrays, count: int, most: int) -> Iterator[tuple[int, Arrays]]:
        """The parts, each with how many of its first rows were in the part before it."""
        if most >= count:
            yield 0, feeds
            return
        for first in range(0, count, most):
            end = min(count, first + most)
            # The last part reaches back where a run takes no fewer rows.
            begin = min(first, end - self._least)
            yield first - begin, {name: a[begin:end] if name in self._names else a for name, a in feeds.items()}


def _attempt(run: Run, feeds: Arrays) -> dict[str, Array]:
    try:
        return run(feeds)
    except OutOfMemoryError:
        raise
    except (RuntimeFailedError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(" ".join(str(error).split()) or "no memory") from error


def _without(outputs: dict[str, Array], rows: int) -> dict[str, Array]:
    return {name: array[rows:] for name, array in outputs.items()} if rows else outputs


def _joined(parts: Sequence[dict[str, Array]]) -> dict[str, Array]:
    if len(parts) == 1:
        return parts[0]
    for name in parts[0]:
        if len({part[name].shape[1:] for part in parts}) > 1:
            # As many boxes as there are: each part has its own number.
            raise OutOfMemoryError(f"no memory for all rows in one run, and {name} of single rows do not fit together")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
