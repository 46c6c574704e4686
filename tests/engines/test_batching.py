from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from engines.batching import Batcher, Limits, limits_for
from engines.bundle import Bundle
from engines.errors import OutOfMemoryError, RuntimeFailedError, TensorError
from engines.manifest import Graph, Tensor
from engines.resident import HostArray
from engines.runtime import Runtime, open_runtime
from tests.engines.helpers import tiny_draft

TINY = tiny_draft().graphs["detector"]
Feeds = Mapping[str, Any]


def tensor(name: str, *shape: int | str) -> Tensor:
    return Tensor(name=name, dtype="float32", shape=shape, meaning="")


def feeds(value: float, rows: int = 1, width: int = 3) -> dict[str, Any]:
    return {"x": np.full((rows, 2, width), value, np.float32), "n": np.full(rows, 7, np.int64)}


class Scripted(Runtime):
    """Answers y = 2 x + n like `doubler`, as a function says, and remembers the rows of each run."""

    def __init__(self, answer: Callable[[Feeds], dict[str, Any]] | None = None, graph: Graph = TINY) -> None:
        super().__init__(graph, "cpu")
        self._answer = answer or doubled
        self.rows: list[int] = []

    @property
    def provider(self) -> str:
        return "script"

    def _run(self, feeds: Feeds) -> dict[str, Any]:
        self.rows.append(len(feeds["x"]))
        return self._answer(feeds)

    def close(self) -> None:
        pass


def doubled(feeds: Feeds) -> dict[str, Any]:
    return {"y": 2 * feeds["x"] + feeds["n"][:, None, None]}


class Gate:
    """Holds back one run until it is opened, so that requests gather behind it."""

    def __init__(self, answer: Callable[[Feeds], dict[str, Any]] = doubled) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self._answer = answer

    def __call__(self, feeds: Feeds) -> dict[str, Any]:
        if feeds["x"].flat[0] == -1:
            self.entered.set()
            assert self.opened.wait(10)
        return self._answer(feeds)


def together(batcher: Batcher, gate: Gate, given: list[dict[str, Any]]) -> list[Any]:
    """Asks for all at once, while one run holds up the engine; answers or errors in their order."""

    def ask(one: dict[str, Any]) -> Any:
        try:
            return batcher.run(one)["y"]
        except RuntimeFailedError as error:
            return error

    with ThreadPoolExecutor(len(given) + 1) as pool:
        held_up = pool.submit(batcher.run, feeds(-1, width=9))
        assert gate.entered.wait(10)
        asked = []
        for one in given:
            expected = batcher.counts.requests + 1
            asked.append(pool.submit(ask, one))
            wait_for_requests(batcher, expected)
        gate.opened.set()
        held_up.result()
        return [one.result() for one in asked]


def wait_for_requests(batcher: Batcher, count: int) -> None:
    until = time.monotonic() + 10
    while batcher.counts.requests < count:
        assert time.monotonic() < until
        time.sleep(0.001)


def test_requests_that_wait_together_share_a_run() -> None:
    gate = Gate()
    runtime = Scripted(gate)
    batcher = Batcher(runtime, Limits(most_rows=8, wait=0))
    batcher.run(feeds(0))  # says what an answer looks like
    given = [feeds(value, rows) for value, rows in ((1, 1), (2, 3), (3, 2))]
    for one, answer in zip(given, together(batcher, gate, given), strict=True):
        np.testing.assert_array_equal(answer, doubled(one)["y"])
    assert runtime.rows == [1, 1, 6]
    assert (batcher.counts.requests, batcher.counts.runs, batcher.counts.rows) == (5, 3, 8)


def test_a_shared_run_has_at_most_so_many_rows_and_only_arrays_of_one_shape() -> None:
    gate = Gate()
    runtime = Scripted(gate)
    batcher = Batcher(runtime, Limits(most_rows=4, wait=0))
    batcher.run(feeds(0))
    batcher.run(feeds(0, width=5))
    given = [feeds(1, 2), feeds(2, 1, width=5), feeds(3, 2), feeds(4, 1), feeds(5, 9), feeds(6, 1, width=5)]
    for one, answer in zip(given, together(batcher, gate, given), strict=True):
        np.testing.assert_array_equal(answer, doubled(one)["y"])
    assert sorted(runtime.rows[3:]) == [1, 2, 4, 9]


def test_one_row_at_most_shares_nothing() -> None:
    gate = Gate()
    runtime = Scripted(gate)
    batcher = Batcher(runtime, Limits(most_rows=1))
    batcher.run(feeds(0))
    together(batcher, gate, [feeds(1), feeds(2)])
    assert runtime.rows == [1, 1, 1, 1]


def test_only_the_guilty_request_of_a_shared_run_fails() -> None:
    def refuse(given: Feeds) -> dict[str, Any]:
        if (given["x"] == 13).any():
            raise RuntimeFailedError("thirteen")
        return doubled(given)

    gate = Gate(refuse)
    runtime = Scripted(gate)
    batcher = Batcher(runtime, Limits(wait=0))
    batcher.run(feeds(0))
    answers = together(batcher, gate, [feeds(1), feeds(13), feeds(2)])
    np.testing.assert_array_equal(answers[0], doubled(feeds(1))["y"])
    np.testing.assert_array_equal(answers[2], doubled(feeds(2))["y"])
    assert str(answers[1]) == "thirteen"
    assert runtime.rows == [1, 1, 3, 1, 1, 1]


def test_what_an_engine_raises_that_is_no_error_of_ours_becomes_one() -> None:
    def broken(given: Feeds) -> dict[str, Any]:
        raise MemoryError("no room")

    with pytest.raises(RuntimeFailedError, match="MemoryError: no room"):
        Batcher(Scripted(broken), Limits()).run(feeds(1))


def test_an_engine_that_cannot_do_several_rows_at_once_is_not_asked_again() -> None:
    def single(given: Feeds) -> dict[str, Any]:
        if len(given["x"]) > 1:
            raise RuntimeFailedError("one at a time")
        return doubled(given)

    gate = Gate(single)
    runtime = Scripted(gate)
    batcher = Batcher(runtime, Limits(wait=0))
    batcher.run(feeds(0))
    for _ in range(2):
        gate.entered.clear()
        gate.opened.clear()
        for one, answer in zip((1, 2), together(batcher, gate, [feeds(1), feeds(2)]), strict=True):
            np.testing.assert_array_equal(answer, doubled(feeds(one))["y"])
    assert runtime.rows.count(2) == 1


def test_memory_that_lacked_once_does_not_keep_requests_apart_for_ever() -> None:
    lacks = [OutOfMemoryError("no memory"), MemoryError(), RuntimeFailedError("CUDA failure 2: out of memory")]

    def short(given: Feeds) -> dict[str, Any]:
        if len(given["x"]) > 1 and lacks:
            raise lacks.pop()
        return doubled(given)

    gate = Gate(short)
    runtime = Scripted(gate)
    batcher = Batcher(runtime, Limits(wait=0))
    batcher.run(feeds(0))
    for _ in range(4):
        gate.entered.clear()
        gate.opened.clear()
        for one, answer in zip((1, 2), together(batcher, gate, [feeds(1), feeds(2)]), strict=True):
            np.testing.assert_array_equal(answer, doubled(feeds(one))["y"])
    assert runtime.rows.count(2) == 4


def test_answers_whose_shape_depends_on_the_values_are_computed_one_by_one() -> None:
    """As a detector's that gives as many boxes as the fullest picture of a batch has."""

    def boxes(given: Feeds) -> dict[str, Any]:
        most = int(given["x"].max())
        return {"y": np.stack([np.pad(np.ones(int(row.max())), (0, most - int(row.max()))) for row in given["x"]])}

    outputs = (Tensor(name="y", dtype="float32", shape=("N", "M"), meaning="boxes"),)
    gate = Gate(lambda given: boxes(given) if given["x"].flat[0] > 0 else doubled(given))
    runtime = Scripted(gate, TINY.model_copy(update={"outputs": outputs}))
    batcher = Batcher(runtime, Limits(wait=0))
    batcher.run(feeds(2))
    answers = together(batcher, gate, [feeds(2), feeds(5)])
    assert [answer.shape for answer in answers] == [(1, 2), (1, 5)]
    assert runtime.rows == [1, 1, 2, 1, 1]
    assert [batcher.run(feeds(value))["y"].shape for value in (2, 4)] == [(1, 2), (1, 4)]


def test_an_engine_that_gives_something_else_for_several_rows_is_asked_for_each() -> None:
    def odd(given: Feeds) -> dict[str, Any]:
        return doubled(given) if len(given["x"]) == 1 else {"y": np.float32(0)}

    gate = Gate(odd)
    runtime = Scripted(gate)
    batcher = Batcher(runtime, Limits(wait=0))
    batcher.run(feeds(0))
    for value, answer in zip((1, 2), together(batcher, gate, [feeds(1), feeds(2)]), strict=True):
        np.testing.assert_array_equal(answer, doubled(feeds(value))["y"])
    assert runtime.rows == [1, 1, 2, 1, 1]


@pytest.mark.parametrize(
    ("provider", "takes", "most"),
    [
        ("CUDAExecutionProvider", None, 8),
        # A plan takes what it was built for.
        ("TensorRT 10.16.1.11", 8, 8),
        ("TensorRT 10.16.1.11", 16, 8),
        ("TensorRT 10.16.1.11", 4, 4),
        ("TensorRT 10.16.1.11", 1, 1),
        # Each number of rows would be another plan.
        ("TensorrtExecutionProvider", None, 1),
    ],
)
def test_requests_share_as_many_rows_as_one_run_of_the_engine_takes(
    provider: str, takes: int | None, most: int
) -> None:
    class Said(Scripted):
        provider = property(lambda _: provider)
        most_rows = property(lambda _: takes)

    assert limits_for(Said(), Limits(8, 0.002, 1)) == Limits(most, 0.002, 1)
    assert limits_for(Said(), Limits(1, 0.0, 1)) == Limits(1, 0.0, 1)


def looked_up(declared: str, most_rows: int, table: np.ndarray[Any, Any] | None = None) -> tuple[Any, list[int]]:
    """What two requests get that look up the first row of a table, their own or one for both, and the runs' rows.

    They wait together.
    """
    inputs = (
        tensor("x", "N", 1),
        tensor("table", declared, 1),
        Tensor(name="n", dtype="int64", shape=("N",), meaning=""),
    )
    graph = Graph(file="detector.onnx", inputs=inputs, outputs=(tensor("y", "N", 1),))
    gate = Gate(lambda given: {"y": given["table"][given["n"]]})

    def ask(value: float) -> dict[str, Any]:
        one = np.full((1, 1), value, np.float32)
        return {"x": one, "table": 10 * one if table is None else table, "n": np.zeros(1, np.int64)}

    runtime = Scripted(gate, graph)
    batcher = Batcher(runtime, Limits(most_rows, wait=0))
    batcher.run(ask(0))
    # Another number of rows, so that what holds up the engine is not joined.
    block = {name: np.concatenate([array] * 2) for name, array in ask(-1).items()}
    with ThreadPoolExecutor(3) as pool:
        held_up = pool.submit(batcher.run, block)
        assert gate.entered.wait(10)
        asked = []
        for value in (1, 2):
            asked.append(pool.submit(batcher.run, ask(value)))
            wait_for_requests(batcher, 2 + len(asked))
        gate.opened.set()
        held_up.result()
        return [one.result()["y"].tolist() for one in asked], runtime.rows


def test_nobody_looks_things_up_in_the_table_of_another() -> None:
    right = [[[10]], [[20]]]
    assert looked_up("S", most_rows=8) == (right, [1, 2, 1, 1])
    assert looked_up("N", most_rows=1) == (right, [1, 2, 1, 1])


def test_those_who_look_things_up_in_the_very_same_table_share_a_run() -> None:
    table = np.array([[7], [8]], np.float32)
    assert looked_up("S", most_rows=8, table=table) == ([[[7]], [[7]]], [1, 2, 2])
    assert looked_up("S", most_rows=1, table=table) == ([[[7]], [[7]]], [1, 2, 1, 1])


def test_control_a_table_that_is_declared_as_rows_of_the_batch_is_mixed_up() -> None:
    assert looked_up("N", most_rows=8)[0] == [[[10]], [[10]]]


def test_who_brings_something_for_all_rows_waits_for_nobody() -> None:
    inputs = (tensor("x", "N", 1), tensor("table", "S", 1))
    graph = Graph(file="detector.onnx", inputs=inputs, outputs=(tensor("y", "N", 1),))
    batcher = Batcher(Scripted(lambda given: {"y": given["x"]}, graph), Limits(wait=1))
    one = {"x": np.zeros((1, 1), np.float32), "table": np.zeros((1, 1), np.float32)}
    batcher.run(one)
    with batcher.client(), batcher.client():
        began = time.monotonic()
        batcher.run(one)
    assert time.monotonic() - began < 0.9


def test_who_may_share_a_run_and_who_may_not_wait_side_by_side() -> None:
    inputs = (tensor("x", "N", 1), tensor("table", "S", 1))
    graph = Graph(file="detector.onnx", inputs=inputs, outputs=(tensor("y", "N", 1),))
    gate = Gate(lambda given: {"y": given["x"] + given["table"][0]})
    runtime = Scripted(gate, graph)
    batcher = Batcher(runtime, Limits(most_rows=8, wait=0))
    table = np.full((1, 1), 10, np.float32)

    def ask(value: float, rows: int = 1) -> dict[str, Any]:
        return {"x": np.full((rows, 1), value, np.float32), "table": table}

    batcher.run(ask(0))
    elsewhere: dict[str, Any] = {"x": HostArray(np.full((1, 1), 3, np.float32)), "table": table}
    with ThreadPoolExecutor(4) as pool:
        held_up = pool.submit(batcher.run, ask(-1, 2))
        assert gate.entered.wait(10)
        asked = []
        for one in (ask(1), ask(2), elsewhere):
            asked.append(pool.submit(batcher.run, one))
            wait_for_requests(batcher, 2 + len(asked))
        gate.opened.set()
        held_up.result(10)
        assert [one.result(10)["y"].tolist() for one in asked] == [[[11]], [[12]], [[13]]]
    assert runtime.rows == [1, 2, 2, 1]


def test_rows_that_lie_elsewhere_are_not_joined() -> None:
    gate = Gate()
    runtime = Scripted(gate)
    batcher = Batcher(runtime, Limits(most_rows=8, wait=0))
    batcher.run(feeds(0))
    given = [{name: HostArray(array) for name, array in feeds(value).items()} for value in (1, 2)]
    for value, answer in zip((1, 2), together(batcher, gate, given), strict=True):
        np.testing.assert_array_equal(answer, doubled(feeds(value))["y"])
    assert runtime.rows == [1, 1, 1, 1]


def test_a_request_waits_for_others_who_may_ask() -> None:
    runtime = Scripted()
    batcher = Batcher(runtime, Limits(wait=1))
    batcher.run(feeds(0))
    with batcher.client(), batcher.client(), ThreadPoolExecutor(2) as pool:
        began = time.monotonic()
        assert len(list(pool.map(batcher.run, [feeds(1), feeds(2)]))) == 2
        assert time.monotonic() - began < 0.9, "nobody else could have asked"
    assert runtime.rows == [1, 2]


def test_a_request_waits_for_nobody_when_it_is_alone() -> None:
    batcher = Batcher(Scripted(), Limits(wait=1))
    with batcher.client():
        began = time.monotonic()
        batcher.run(feeds(1))
        batcher.run(feeds(2))
    assert time.monotonic() - began < 0.9


def test_a_request_whose_client_has_gone_is_not_run() -> None:
    gate = Gate()
    runtime = Scripted(gate)
    batcher = Batcher(runtime, Limits(wait=0))
    batcher.run(feeds(0))
    gone = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        held_up = pool.submit(batcher.run, feeds(-1, width=9))
        assert gate.entered.wait(10)
        asked = pool.submit(batcher.run, feeds(1), lambda: not gone.is_set())
        gone.set()
        # It is given up although the engine hangs, and takes its thread with it.
        with pytest.raises(RuntimeFailedError, match="nobody waits"):
            asked.result(10)
        gate.opened.set()
        held_up.result()
    assert runtime.rows == [1, 1]


def test_runs_on_arrays_of_other_shapes_are_told_apart() -> None:
    told: list[bool] = []

    def during(is_new: bool) -> contextlib.AbstractContextManager[object]:
        told.append(is_new)
        return contextlib.nullcontext()

    batcher = Batcher(Scripted(), Limits(), during)
    for rows in (1, 1, 2, 1, 2):
        batcher.run(feeds(1, rows))
    assert told == [True, False, True, False, False]


def test_runs_go_side_by_side_up_to_a_limit() -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def slow(given: Feeds) -> dict[str, Any]:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.01)
        with lock:
            inside -= 1
        return doubled(given)

    batcher = Batcher(Scripted(slow), Limits(most_rows=1, wait=0, side_by_side=2))
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(batcher.run, [feeds(value) for value in range(12)]))
    assert most == 2


def test_arrays_that_do_not_fit_are_refused_before_they_meet_others() -> None:
    batcher = Batcher(Scripted(), Limits())
    with pytest.raises(TensorError, match="expected float32"):
        batcher.run({"x": np.zeros((1, 2, 3)), "n": np.zeros(1, np.int64)})
    assert batcher.counts.requests == 0


@pytest.mark.parametrize("wrong", [{"most_rows": 0}, {"wait": -1}, {"wait": 2}, {"side_by_side": 0}])
def test_limits_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected at least"):
        Limits(**wrong)


def test_many_threads_get_exactly_what_each_would_get_alone(tiny: Bundle) -> None:
    rng = np.random.default_rng(1)
    given: list[dict[str, Any]] = []
    for number in range(300):
        rows, width = 1 + number % 3, 3 + number % 2
        x = rng.standard_normal((rows, 2, width)).astype(np.float32)
        given.append({"x": x, "n": np.full(rows, number, np.int64)})
    with open_runtime(tiny, threads=1) as runtime:
        alone = [runtime.run(one)["y"] for one in given]
        # Long enough that others come in time on a machine that does much else.
        batcher = Batcher(runtime, Limits(most_rows=8, wait=0.05, side_by_side=2))
        with ThreadPoolExecutor(8) as pool:
            shared = list(pool.map(lambda one: batcher.run(one)["y"], given))
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one, other)
    assert batcher.counts.runs < batcher.counts.requests, "nothing was shared, so that nothing was tested"
