"""Batching: requests of several threads or clients for one graph become one run of it, where that changes no answer."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from engines.errors import RuntimeFailedError, StandinError
from engines.resident import as_numpy, outline
from engines.runtime import check_feeds
from engines.splitting import is_out_of_memory, row_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from engines.resident import Feeds, Resident
    from engines.runtime import Array, Runtime

#: Seconds between looks at whether the clients of waiting requests are still there.
_LOOK_AFTER: Final = 0.5
#: Shapes of inputs whose answers' shapes are remembered.
_MOST_SHAPES: Final = 64
#: Shapes of inputs that are known; further ones always count as new.
_MOST_KNOWN: Final = 4096

#: Name -> dtype and shape of one row.
_Rows = tuple[tuple[str, str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Limits:
    """How requests for a graph share its runs.

    Attributes:
        most_rows: of a run that requests share; 1 shares none. A request with more rows runs by itself.
        wait: seconds that a request waits for others while an engine is free.
        side_by_side: runs of one graph that may be under way together.
    """

    most_rows: int = 8
    wait: float = 0.002
    side_by_side: int = 1

    def __post_init__(self) -> None:
        if self.most_rows < 1 or self.side_by_side < 1 or not 0 <= self.wait <= 1:
            raise ValueError(f"expected at least 1 row, 1 run and a wait of 0 to 1 s, got {self}")


def limits_for(runtime: Runtime, limits: Limits) -> Limits:
    """How requests share the runs of an engine: never more rows than one run of it takes.

    Args:
        runtime: Of the engine.
        limits: For all engines.
    """
    # Each number of rows would cost it minutes when it comes for the first time.
    most = 1 if runtime.plans_for_shapes else runtime.most_rows
    return limits if most is None or most >= limits.most_rows else replace(limits, most_rows=most)


@dataclass(frozen=True)
class Counts:
    """What a graph was asked for, and what it took.

    Attributes:
        requests: of clients.
        runs: of the engine.
        rows: of these runs together.
    """

    requests: int = 0
    runs: int = 0
    rows: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.requests + other.requests, self.runs + other.runs, self.rows + other.rows)


@dataclass(eq=False)
class _Request:
    """One call on its way through a run."""

    feeds: Feeds
    is_wanted: Callable[[], bool]
    rows: int
    #: Requests with the same one may share a run; None for those that may not.
    key: _Rows | None
    #: What they must have in common, the very same arrays: a row that looked things up in another's table would find
    #: another's.
    common: tuple[Array | Resident, ...] = ()
    outputs: dict[str, Array] | None = None
    error: StandinError | None = None
    done: bool = False

    def joins(self, other: _Request) -> bool:
        """Whether both may be rows of one run."""
        if self.key is None or self.key != other.key:
            return False
        return all(mine is theirs for mine, theirs in zip(self.common, other.common, strict=True))

    def answer(self) -> dict[str, Array]:
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
            if self.outputs is None:
                raise RuntimeFailedError("nobody waits for this run any more")
            return self.outputs
        finally:
            # Or the error would keep its own frames alive, and with them the arrays.
            del error


class Batcher:
    """Runs one graph for many threads, several requests at a time where they fit together.

    There are no threads of its own: of those that wait for an answer, the one whose request is the oldest runs the
    engine for as many of the others as fit, whenever fewer than `side_by_side` runs are under way.

    Requests fit if their arrays differ in the first dimension alone, if what has no rows is the very same array for all
    (only threads of one process have such), and if answers to arrays of such shapes have had one and the same shape so
    far: where it depends on the values (as many boxes as there are), a joint answer would be another one.

    Args:
        runtime: Of the graph; closed by the caller.
        limits: How requests share runs.
        during: Context of every run of the engine, so that somebody notices those that hang; told whether arrays of
            such shapes come for the first time, since some engines then plan for minutes.
    """

    def __init__(
        self,
        runtime: Runtime,
        limits: Limits,
        during: Callable[[bool], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        self._runtime = runtime
        self._limits = limits
        self._during = during
        self._in_rows = frozenset(row_inputs(runtime.inputs, runtime.outputs))
        self._common = [tensor.name for tensor in runtime.inputs if tensor.name not in self._in_rows]
        #: Guards all that follows; notified when a request comes or goes, and when a run ends.
        self._changed = threading.Condition()
        #: In the order in which they came.
        self._waiting: list[_Request] = []
        self._runs = 0
        self._requests_in_runs = 0
        self._clients = 0
        self._counts = Counts()
        #: Shapes of a row's answer by shapes of its inputs, None where they turned out to vary.
        self._answers: OrderedDict[_Rows, _Rows | None] = OrderedDict()
        #: Shapes of inputs for which the engine has run.
        self._known: set[tuple[tuple[int, ...], ...]] = set()

    @property
    def provider(self) -> str:
        """Name of what executes the graph."""
        return self._runtime.provider

    @property
    def largest(self) -> Mapping[str, int]:
        """See `engines.runtime.Runtime.largest`."""
        return self._runtime.largest

    @property
    def counts(self) -> Counts:
        """So far."""
        return self._counts

    @property
    def clients(self) -> int:
        """How many may ask at the moment."""
        return self._clients

    @contextlib.contextmanager
    def client(self) -> Iterator[None]:
        """While it lasts there is one client more that may ask: waiting for others ends when all have asked."""
        with self._changed:
            self._clients += 1
        try:
            yield
        finally:
            with self._changed:
                self._clients -= 1
                self._changed.notify_all()

    def run(self, feeds: Feeds, is_wanted: Callable[[], bool] = lambda: True) -> dict[str, Array]:
        """Runs the graph, perhaps together with what others ask for; any thread may call.

        Args:
            feeds: One array for each declared input; what has rows is joined only where it is numpy's. They are read
                until this returns.
            is_wanted: Whether anybody still waits for the answer; else it is not computed.

        Returns:
            One array for each declared output.

        Raises:
            TensorError: The arrays are not what the manifest declares.
            RuntimeFailedError: The runtime raised on these arrays, or nobody waits any more.
        """
        check_feeds(self._runtime.inputs, {name: outline(array) for name, array in feeds.items()})
        request = self._request(feeds, is_wanted)
        with self._changed:
            self._counts += Counts(requests=1)
            self._waiting.append(request)
            self._changed.notify_all()
            batch = self._wait_for_turn(request)
        if batch:
            try:
                self._execute(batch)
            finally:
                self._end(batch)
        return request.answer()

    def _request(self, feeds: Feeds, is_wanted: Callable[[], bool]) -> _Request:
        in_rows = {name: array for name, array in feeds.items() if name in self._in_rows}
        rows = next(iter(in_rows.values())).shape[0] if in_rows else 1
        here = all(isinstance(array, np.ndarray) for array in in_rows.values())
        if not in_rows or not here or self._limits.most_rows == 1:
            return _Request(feeds, is_wanted, rows, None)
        return _Request(feeds, is_wanted, rows, _rows(in_rows), tuple(feeds[name] for name in self._common))

    def _wait_for_turn(self, own: _Request) -> list[_Request]:
        """What to run now, the own request first; nothing if another thread did it, or nobody wants it any more."""
        while not own.done:
            if self._waiting[:1] == [own] and self._runs < self._limits.side_by_side:
                self._let_others_come(own)
                return self._take(own)
            self._changed.wait(_LOOK_AFTER)
            if own in self._waiting and not own.is_wanted():
                self._waiting.remove(own)
                self._changed.notify_all()
                break
        return []

    def _let_others_come(self, own: _Request) -> None:
        """Waits a little, unless there are enough, or nobody is left who could ask."""
        # Whoever has the very same arrays is a thread of this process, which asks in any case.
        if self._shape_of_answer(own) is None or own.common:
            return
        until = time.monotonic() + self._limits.wait
        while (left := until - time.monotonic()) > 0:
            rows = sum(other.rows for other in self._waiting if own.joins(other))
            if rows >= self._limits.most_rows or len(self._waiting) + self._requests_in_runs >= self._clients:
                return
            self._changed.wait(left)

    def _take(self, own: _Request) -> list[_Request]:
        """The own request and those that fit, from the oldest on."""
        batch: list[_Request] = []
        gone: list[_Request] = []
        rows = 0
        joins = self._shape_of_answer(own) is not None
        for other in self._waiting:
            if other is not own and not (joins and own.joins(other) and rows + other.rows <= self._limits.most_rows):
                continue
            if other.is_wanted():
                batch.append(other)
                rows += other.rows
            else:
                gone.append(other)
        # Not before all is decided: whoever is neither waiting nor in a run would wait for ever.
        for other in (*batch, *gone):
            self._waiting.remove(other)
        for other in gone:
            other.done = True
        self._changed.notify_all()
        if batch:
            self._runs += 1
            self._requests_in_runs += len(batch)
        return batch

    def _end(self, batch: Sequence[_Request]) -> None:
        with self._changed:
            for request in batch:
                request.done = True
            self._runs -= 1
            self._requests_in_runs -= len(batch)
            self._changed.notify_all()

    def _execute(self, batch: Sequence[_Request]) -> None:
        """Together if there are several; each by itself if that does not work."""
        shared, may_fit = len(batch) > 1, False
        if shared:
            try:
                if self._execute_jointly(batch):
                    return
            except Exception as error:  # noqa: BLE001  each is tried by itself, and then says what is wrong with it
                # Memory that lacked says nothing of the graph: it may be there the next time.
                may_fit = is_out_of_memory(error)
        for request in batch:
            try:
                request.outputs = self._run_engine(request.feeds, request.rows)
            except StandinError as error:
                # As new: a trace would keep the arrays alive.
                request.error = type(error)(str(error))
            except Exception as error:  # noqa: BLE001  whatever it is belongs to this request and to no other
                request.error = RuntimeFailedError(f"{type(error).__name__}: {error}")
            else:
                self._remember(request)
        if shared and not may_fit and all(request.error is None for request in batch):
            # Nothing was wrong with any of them.
            self._never_again(batch[0])

    def _execute_jointly(self, batch: Sequence[_Request]) -> bool:
        """Whether every request has its answer now."""
        rows = sum(request.rows for request in batch)
        feeds = dict(batch[0].feeds)
        feeds |= {name: np.concatenate([as_numpy(r.feeds[name]) for r in batch]) for name in self._in_rows}
        outputs = self._run_engine(feeds, rows)
        whole = all(array.shape[:1] == (rows,) for array in outputs.values())
        if not whole or _rows(outputs) != self._shape_of_answer(batch[0]):
            return False
        first = 0
        for request in batch:
            request.outputs = {name: array[first : first + request.rows] for name, array in outputs.items()}
            first += request.rows
        return True

    def _run_engine(self, feeds: Feeds, rows: int) -> dict[str, Array]:
        shapes = tuple(feeds[tensor.name].shape for tensor in self._runtime.inputs)
        with self._changed:
            self._counts += Counts(runs=1, rows=rows)
            is_new = shapes not in self._known
        with self._during(is_new):
            outputs = self._runtime.run(feeds)
        with self._changed:
            if len(self._known) < _MOST_KNOWN:
                self._known.add(shapes)
        return outputs

    def _shape_of_answer(self, request: _Request) -> _Rows | None:
        return None if request.key is None else self._answers.get(request.key)

    def _remember(self, request: _Request) -> None:
        """What an answer looks like that was computed by itself."""
        if request.key is None or request.outputs is None:
            return
        whole = all(array.shape[:1] == (request.rows,) for array in request.outputs.values())
        found = _rows(request.outputs) if whole else None
        with self._changed:
            known = self._answers.setdefault(request.key, found)
            self._answers[request.key] = found if known == found else None
            self._answers.move_to_end(request.key)
            if len(self._answers) > _MOST_SHAPES:
                self._answers.popitem(last=False)

    def _never_again(self, request: _Request) -> None:
        with self._changed:
            if request.key is not None:
                self._answers[request.key] = None


def _rows(arrays: Feeds) -> _Rows:
    return tuple((name, array.dtype.str, array.shape[1:]) for name, array in sorted(arrays.items()))
