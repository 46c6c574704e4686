from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from engines.errors import OutOfMemoryError, RuntimeFailedError, TensorError
from engines.manifest import Tensor
from engines.splitting import Splitter, is_out_of_memory, row_inputs

Arrays = Mapping[str, Any]


def tensor(name: str, *shape: int | str) -> Tensor:
    return Tensor(name=name, dtype="float32", shape=shape, meaning="anything")


INPUTS, OUTPUTS = (tensor("x", "N", 2), tensor("table", "S", 2)), (tensor("y", "N", 2),)


class Gpu:
    """A graph y = x + table[0] on a device that has memory for so many rows."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.rows: list[int] = []

    def __call__(self, feeds: Arrays) -> dict[str, Any]:
        self.rows.append(len(feeds["x"]))
        if len(feeds["x"]) > self.most:
            raise RuntimeFailedError("generator.onnx failed: CUDA failure 2: out of memory")
        return {"y": feeds["x"] + feeds["table"][0]}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def feeds(rows: int) -> dict[str, Any]:
    draw = np.random.default_rng(rows)
    return {"x": draw.normal(size=(rows, 2)), "table": draw.normal(size=(3, 2))}


@pytest.mark.parametrize(
    ("rows", "memory", "least", "most", "runs"),
    [
        (8, 8, 1, 3, [3, 3, 2]),
        (8, 8, 1, 16, [8]),
        (7, 8, 2, 3, [3, 3, 2]),
        (9, 3, 2, 4, [4, 2, 2, 2, 2, 2]),
    ],
)
def test_a_run_has_no_more_and_no_fewer_rows_than_it_takes(
    rows: int, memory: int, least: int, most: int, runs: list[int]
) -> None:
    gpu, given, clock = Gpu(memory), feeds(rows), Clock()
    splitter = Splitter(INPUTS, OUTPUTS, clock, least=least, most=most)
    assert splitter.most_rows == most
    np.testing.assert_array_equal(splitter.run(gpu, given)["y"], given["x"] + given["table"][0])
    assert gpu.rows == runs
    clock.now += 3600
    assert splitter.most_rows == most
    gpu.most = 0
    with pytest.raises(OutOfMemoryError):
        splitter.run(gpu, feeds(rows))
    assert min(gpu.rows) >= least


@pytest.mark.parametrize(
    ("rows", "most", "runs"),
    [(1, 1, [1]), (4, 8, [4]), (8, 4, [8, 4, 4]), (8, 3, [8, 4, 2, 2, 2, 2]), (5, 1, [5, 2, 1, 1, 1, 1, 1])],
)
def test_a_batch_is_halved_until_there_is_memory(rows: int, most: int, runs: list[int]) -> None:
    gpu, given = Gpu(most), feeds(rows)
    found = Splitter(INPUTS, OUTPUTS).run(gpu, given)["y"]
    np.testing.assert_array_equal(found, given["x"] + given["table"][0])
    assert gpu.rows == runs


def test_what_was_too_much_is_remembered_for_a_while() -> None:
    clock, gpu = Clock(), Gpu(2)
    splitter = Splitter(INPUTS, OUTPUTS, clock)
    assert splitter.most_rows is None
    splitter.run(gpu, feeds(4))
    assert splitter.most_rows == 2
    gpu.rows.clear()
    splitter.run(gpu, feeds(4))
    assert gpu.rows == [2, 2]
    gpu.most, gpu.rows = 4, []
    clock.now += 61
    splitter.run(gpu, feeds(4))
    assert gpu.rows == [4]


def test_no_memory_for_one_row_is_an_error_that_says_what_to_do() -> None:
    gpu = Gpu(0)
    with pytest.raises(OutOfMemoryError, match=r"out of memory.*use a smaller batch"):
        Splitter(INPUTS, OUTPUTS).run(gpu, feeds(4))
    assert gpu.rows == [4, 2, 1]


def test_memory_that_the_host_does_not_find_counts_too() -> None:
    def run(given: Arrays) -> dict[str, Any]:
        if len(given["x"]) > 1:
            raise MemoryError
        return {"y": given["x"]}

    given = feeds(2)
    np.testing.assert_array_equal(Splitter(INPUTS, OUTPUTS).run(run, given)["y"], given["x"])


def test_what_is_no_lack_of_memory_is_raised_at_once() -> None:
    calls = []

    def run(_: Arrays) -> dict[str, Any]:
        calls.append(1)
        raise TensorError("input 'x' is wrong")

    with pytest.raises(TensorError):
        Splitter(INPUTS, OUTPUTS).run(run, feeds(4))
    assert len(calls) == 1


def test_answers_whose_shape_depends_on_the_rows_are_never_put_together() -> None:
    def run(given: Arrays) -> dict[str, Any]:
        if len(given["x"]) > 2:
            raise RuntimeFailedError("std::bad_alloc")
        # As many boxes as the first row says.
        return {"y": np.zeros((len(given["x"]), int(given["x"][0, 0]), 4))}

    given = {"x": np.array([[1.0, 0], [1, 0], [2, 0], [2, 0]]), "table": np.zeros((1, 2))}
    with pytest.raises(OutOfMemoryError, match="do not fit together"):
        Splitter(INPUTS, OUTPUTS).run(run, given)


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        (INPUTS, OUTPUTS, ("x",)),
        ((tensor("z", 1, 4),), (tensor("w", 1, 4),), ()),
        ((tensor("x", "N", 2),), (tensor("y", "N", 2), tensor("count", "M")), ()),
        ((tensor("x", "N", 2),), (tensor("y", "N", "N"),), ()),
        ((tensor("x", "N", 2), tensor("pairs", "M", "N")), (tensor("y", "N", 2),), ()),
        ((tensor("features", 1, 8), tensor("boxes", "R", 4)), (tensor("masks", "R", 28, 28),), ("boxes",)),
        ((tensor("x", "N"),), (), ()),
    ],
)
def test_rows_are_told_apart_by_declarations(inputs: Any, outputs: Any, expected: tuple[str, ...]) -> None:
    assert row_inputs(inputs, outputs) == expected


def test_a_graph_without_rows_is_run_once_and_then_fails() -> None:
    calls = []

    def run(_: Arrays) -> dict[str, Any]:
        calls.append(1)
        raise RuntimeFailedError("CUBLAS_STATUS_ALLOC_FAILED")

    with pytest.raises(OutOfMemoryError):
        Splitter((tensor("z", 1, 4),), (tensor("w", 1, 4),)).run(run, {"z": np.zeros((1, 4))})
    assert len(calls) == 1


def test_threads_that_run_out_of_memory_together_do_not_reduce_twice_for_one_batch() -> None:
    gpu, splitter = Gpu(4), Splitter(INPUTS, OUTPUTS)
    together = threading.Barrier(4, timeout=10)

    def run(given: Arrays) -> dict[str, Any]:
        if len(given["x"]) == 8:
            together.wait()
        return gpu(given)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: splitter.run(run, feeds(8)), range(4)))
    assert all(len(one["y"]) == 8 for one in found)
    assert splitter.most_rows == 4


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("Cuda Runtime (out of memory)"), True),
        (MemoryError(), True),
        (OutOfMemoryError("none"), True),
        (RuntimeError("an illegal memory access was encountered"), False),
        (RuntimeError(""), False),
    ],
)
def test_lack_of_memory_is_known_by_what_runtimes_say(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
