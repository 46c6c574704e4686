"""Threads that ask one graph at once share its runs."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.errors import OutOfMemoryError, RuntimeFailedError, TensorError
from engines.resident import HostArray
from engines.runtime import Runtime
from engines.runtime_joined import JoinedRuntime
from tests.engines.helpers import tiny_draft
from tests.engines.tensorrt_machines import tiny_machine

TINY = tiny_draft().graphs["detector"]


def feeds(value: float, rows: int = 1) -> dict[str, Any]:
    return {"x": np.full((rows, 2, 3), value, np.float32), "n": np.full(rows, 7, np.int64)}


class Gated(Runtime):
    """y = 2 x + n; a run whose first value is negative waits until it is let go."""

    def __init__(self, provider: str = "CUDAExecutionProvider", most: int | None = None) -> None:
        super().__init__(TINY, "cuda")
        self._provider, self._most = provider, most
        self.entered, self.let_go = threading.Event(), threading.Event()
        self.rows: list[int] = []
        self.closed = False
        self.too_many = 99

    @property
    def provider(self) -> str:
        return self._provider

    @property
    def most_rows(self) -> int | None:
        return self._most

    def _run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        x = feeds["x"]
        if x.flat[0] < 0:
            self.entered.set()
            assert self.let_go.wait(10)
        if len(x) >= self.too_many:
            raise OutOfMemoryError("no memory")
        self.rows.append(len(x))
        return {"y": 2 * x + feeds["n"][:, None, None]}

    def close(self) -> None:
        self.closed = True


def asked_at_once(runtime: JoinedRuntime, inner: Gated, given: list[dict[str, Any]]) -> list[Any]:
    """Answers to those who ask while a run is under way."""
    with ThreadPoolExecutor(len(given) + 1) as pool:
        held_up = pool.submit(runtime.run, feeds(-1, 2))
        assert inner.entered.wait(10)
        asked = []
        for one in given:
            before = runtime.counts.requests
            asked.append(pool.submit(runtime.run, one))
            while runtime.counts.requests == before:
                threading.Event().wait(0.001)
        inner.let_go.set()
        held_up.result()
        return [one.result()["y"] for one in asked]


def test_those_who_ask_while_a_run_is_under_way_share_the_next_one() -> None:
    inner = Gated()
    runtime = JoinedRuntime(inner, 8)
    runtime.run(feeds(0))
    given = [feeds(1), feeds(2, 3), feeds(3, 2)]
    for one, answer in zip(given, asked_at_once(runtime, inner, given), strict=True):
        np.testing.assert_array_equal(answer, 2 * one["x"] + 7)
    assert inner.rows == [1, 2, 6]


@pytest.mark.parametrize(
    ("inner", "rows"),
    [
        (Gated(), [1, 2, 2, 2]),
        # A plan takes what it was built for, and ONNX Runtime's TensorRT provider plans for each number of rows.
        (Gated("TensorRT 10.16.1.11", 3), [1, 2, 3, 1]),
        (Gated("TensorrtExecutionProvider"), [1, 2, 1, 1, 1, 1]),
    ],
)
def test_a_shared_run_has_no_more_rows_than_the_engine_takes(inner: Gated, rows: list[int]) -> None:
    runtime = JoinedRuntime(inner, 2 if inner.most_rows is None else 8)
    runtime.run(feeds(0))
    asked_at_once(runtime, inner, [feeds(value) for value in (1, 2, 3, 4)])
    assert inner.rows == rows


def test_where_memory_lacks_for_a_shared_run_each_gets_one_of_its_own() -> None:
    inner = Gated()
    inner.too_many = 3
    runtime = JoinedRuntime(inner, 8)
    runtime.run(feeds(0))
    given = [feeds(1), feeds(2), feeds(3)]
    for one, answer in zip(given, asked_at_once(runtime, inner, given), strict=True):
        np.testing.assert_array_equal(answer, 2 * one["x"] + 7)
    assert inner.rows == [1, 2, 1, 1, 1]


def test_what_does_not_fit_and_what_fails_is_said_to_whoever_asked() -> None:
    inner = Gated()
    inner.too_many = 1
    runtime = JoinedRuntime(inner, 8)
    with pytest.raises(OutOfMemoryError):
        runtime.run(feeds(1))
    with pytest.raises(TensorError):
        runtime.run({"x": feeds(1)["x"]})


def test_it_says_of_itself_what_the_graph_says() -> None:
    inner = Gated("TensorRT 10.16.1.11", 3)
    runtime = JoinedRuntime(inner, 8)
    assert (runtime.device, runtime.provider, runtime.most_rows) == ("cuda", "TensorRT 10.16.1.11", 3)
    assert (runtime.inputs, runtime.outputs, runtime.largest) == (inner.inputs, inner.outputs, {})
    assert not runtime.has_memory
    assert not runtime.plans_for_shapes
    array = np.zeros(3, np.float32)
    assert runtime.hold(array).numpy() is array
    np.testing.assert_array_equal(runtime.adopt(array).numpy(), array)
    runtime.close()
    assert inner.closed


def test_arrays_that_lie_elsewhere_and_outputs_that_stay_there_are_not_joined() -> None:
    inner = Gated()
    runtime = JoinedRuntime(inner, 8)
    given = {name: HostArray(array) for name, array in feeds(1).items()}
    np.testing.assert_array_equal(runtime.run(given)["y"], 2 * feeds(1)["x"] + 7)
    kept = runtime.run(feeds(1), keep=["y"])["y"]
    np.testing.assert_array_equal(kept.numpy(), 2 * feeds(1)["x"] + 7)


def test_a_plan_keeps_its_memory_behind_it(tmp_path: Path) -> None:
    machine = tiny_machine(tmp_path / "tiny")
    with machine.runtime() as inner:
        runtime = JoinedRuntime(inner, 8)
        assert runtime.has_memory
        shape = {"N": 1, "w": 3}
        given = {
            tensor.name: np.ones([shape.get(side, side) for side in tensor.shape], tensor.dtype)  # type: ignore[arg-type]
            for tensor in inner.inputs
        }
        expected = inner.run(given)
        held = {name: runtime.hold(array) for name, array in given.items()}
        kept = runtime.run(held, keep=[tensor.name for tensor in inner.outputs])
        for name, array in expected.items():
            np.testing.assert_array_equal(runtime.run(held)[name], array)
            np.testing.assert_array_equal(kept[name].numpy(), array)
    with pytest.raises(RuntimeFailedError, match="closed"):
        runtime.run(given)
