"""Two graphs as one: what the first makes goes to the second where both run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pytest

from engines.errors import OutOfMemoryError, RuntimeFailedError
from engines.manifest import Graph, Tensor
from engines.resident import HostArray
from engines.runtime import Runtime
from engines.runtime_chained import ChainedRuntime
from engines.runtime_joined import JoinedRuntime

FIRST = Graph(
    file="first.onnx",
    inputs=(Tensor(name="raw", dtype="uint8", shape=("N", 4), meaning=""),),
    outputs=(Tensor(name="x", dtype="float32", shape=("N", 4), meaning=""),),
)
SECOND = Graph(
    file="second.onnx",
    inputs=(
        Tensor(name="x", dtype="float32", shape=("N", 4), meaning=""),
        Tensor(name="n", dtype="int64", shape=("N",), meaning=""),
        Tensor(name="table", dtype="float32", shape=("S", 4), meaning=""),
    ),
    outputs=(Tensor(name="y", dtype="float32", shape=("N", 4), meaning=""),),
)
TABLE = np.arange(8, dtype=np.float32).reshape(2, 4)


def feeds(rows: int) -> dict[str, Any]:
    raw = np.arange(4 * rows, dtype=np.uint8).reshape(rows, 4)
    return {"raw": raw, "n": np.arange(rows, dtype=np.int64) % 2, "table": TABLE}


def expected(rows: int) -> Any:
    given = feeds(rows)
    return given["raw"] / np.float32(2) + TABLE[given["n"]]


class There(HostArray):
    """An array in memory that is not the host's."""

    def numpy(self) -> Any:
        raise AssertionError("it travels to the host")


class Halver(Runtime):
    """x = raw / 2."""

    def __init__(self) -> None:
        super().__init__(FIRST, "cuda")
        self.rows: list[int] = []
        self.closed = 0

    provider = "CUDAExecutionProvider"
    has_memory = True

    def _run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        raise AssertionError("it has memory")

    def _run_there(self, feeds: Mapping[str, Any], keep: Collection[str]) -> dict[str, Any]:
        self.rows.append(len(feeds["raw"]))
        x = feeds["raw"] / np.float32(2)
        return {"x": There(x) if keep else x}

    def close(self) -> None:
        self.closed += 1


class Adder(Runtime):
    """y = x + table[n]; there is memory for so many rows."""

    def __init__(self, most: int | None = None, too_many: int = 99) -> None:
        super().__init__(SECOND, "cuda")
        self._most, self.too_many = most, too_many
        self.rows: list[int] = []
        self.closed = 0

    provider = "CUDAExecutionProvider"
    has_memory = True
    largest: Mapping[str, int] = {"table": 5}

    @property
    def most_rows(self) -> int | None:
        return self._most

    def hold(self, array: Any) -> There:
        return There(array)

    def adopt(self, array: Any) -> There:
        return There(array)

    def _run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        raise AssertionError("it has memory")

    def _run_there(self, feeds: Mapping[str, Any], keep: Collection[str]) -> dict[str, Any]:
        x, table = feeds["x"], feeds["table"]
        assert isinstance(x, There)
        self.rows.append(x.shape[0])
        if x.shape[0] >= self.too_many:
            raise OutOfMemoryError("no memory")
        y = x.values + (table.values if isinstance(table, There) else table)[feeds["n"]]
        return {"y": There(y) if keep else y}

    def close(self) -> None:
        self.closed += 1


def test_what_the_first_makes_stays_where_it_is() -> None:
    first, second = Halver(), Adder()
    with ChainedRuntime(first, second) as both:
        assert [tensor.name for tensor in both.inputs] == ["raw", "n", "table"]
        assert both.outputs == SECOND.outputs
        assert (both.provider, both.device, both.has_memory) == (second.provider, "cuda", True)
        assert both.largest == {"table": 5}
        assert np.array_equal(both.run(feeds(3))["y"], expected(3))
        kept = both.run(feeds(3) | {"table": both.hold(TABLE)}, keep=["y"])["y"]
        assert isinstance(kept, There)
        assert np.array_equal(kept.values, expected(3))
        assert isinstance(both.adopt(TABLE), There)
    assert (first.closed, second.closed) == (1, 1)


def test_where_memory_lacks_both_run_on_fewer_rows() -> None:
    first, second = Halver(), Adder(too_many=3)
    both = ChainedRuntime(first, second)
    assert np.array_equal(both.run(feeds(7))["y"], expected(7))
    # 7, then 3, then by single rows.
    assert first.rows == second.rows == [7, 3, *[1] * 7]
    assert np.array_equal(both.run(feeds(2))["y"], expected(2))
    with pytest.raises(OutOfMemoryError, match="smaller batch"):
        ChainedRuntime(Halver(), Adder(too_many=1)).run(feeds(2))


def test_no_more_rows_run_at_once_than_the_second_takes() -> None:
    first, second = Halver(), Adder(most=4)
    both = ChainedRuntime(first, second)
    assert both.most_rows == 4
    assert np.array_equal(both.run(feeds(9))["y"], expected(9))
    assert first.rows == second.rows == [4, 4, 1]


def test_threads_share_its_runs() -> None:
    runtime = JoinedRuntime(ChainedRuntime(Halver(), Adder()), 8)
    held = runtime.hold(TABLE)
    for rows in (2, 3):
        assert np.array_equal(runtime.run(feeds(rows) | {"table": held})["y"], expected(rows))
    runtime.close()


def test_graphs_that_do_not_follow_on_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"second\.onnx takes no y"):
        ChainedRuntime(Adder(), Adder())
    twice = SECOND.model_copy(update={"inputs": (*SECOND.inputs, FIRST.inputs[0])})

    class Both(Adder):
        def __init__(self) -> None:
            super().__init__()
            self._graph = twice

    with pytest.raises(ValueError, match="both take raw"):
        ChainedRuntime(Halver(), Both())


def test_what_fails_is_said_by_the_graph_that_failed() -> None:
    class Failing(Halver):
        def _run_there(self, feeds: Mapping[str, Any], keep: Collection[str]) -> dict[str, Any]:
            raise RuntimeFailedError("first.onnx failed")

    with pytest.raises(RuntimeFailedError, match="first"):
        ChainedRuntime(Failing(), Adder()).run(feeds(1))
