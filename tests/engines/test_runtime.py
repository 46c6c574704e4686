from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from engines.bundle import Bundle
from engines.errors import BundleError, RuntimeFailedError, TensorError, UsageError
from engines.manifest import Tensor
from engines.resident import HostArray
from engines.runtime import Device, check_feeds, open_runtime

X = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
N = np.array([10, 20], dtype=np.int64)


#: Runtimes that need no GPU: one interface, so one set of tests.
both = pytest.mark.parametrize(("device", "provider"), [("cpu", "CPUExecutionProvider"), ("openvino", "OpenVINO CPU")])


@both
def test_named_arrays_go_in_and_come_out(tiny: Bundle, device: Device, provider: str) -> None:
    with open_runtime(tiny, device=device) as runtime:
        assert runtime.device == device
        assert runtime.provider == provider
        assert [tensor.name for tensor in runtime.inputs] == ["x", "n"]
        assert [tensor.name for tensor in runtime.outputs] == ["y"]
        result = runtime.run({"x": X, "n": N})
    assert list(result) == ["y"]
    np.testing.assert_array_equal(result["y"], 2 * X + N[:, None, None])


@both
def test_what_is_kept_and_held_is_an_input_though_there_is_no_other_memory(
    tiny: Bundle, device: Device, provider: str
) -> None:
    with open_runtime(tiny, device=device) as runtime:
        assert not runtime.has_memory
        kept = runtime.run({"x": runtime.hold(X), "n": runtime.adopt(N)}, keep=["y"])["y"]
        assert isinstance(kept, HostArray)
        assert (kept.shape, kept.dtype) == (X.shape, X.dtype)
        again = runtime.run({"x": kept, "n": N})["y"]
        with pytest.raises(TensorError, match="5 in dimension 1"):
            runtime.run({"x": runtime.hold(np.zeros((2, 5, 3), np.float32)), "n": N})
        with pytest.raises(TensorError, match="has no output z to keep"):
            runtime.run({"x": X, "n": N}, keep=["y", "z"])
    np.testing.assert_array_equal(again, 2 * kept.numpy() + N[:, None, None])


@both
def test_arrays_that_are_not_contiguous_are_read_right(tiny: Bundle, device: Device, provider: str) -> None:
    wide = np.zeros((2, 2, 6), dtype=np.float32)
    wide[..., ::2] = X
    with open_runtime(tiny, device=device, threads=1, spinning=True) as runtime:
        result = runtime.run({"x": wide[..., ::2], "n": N})
    np.testing.assert_array_equal(result["y"], 2 * X + N[:, None, None])


@pytest.mark.parametrize(
    ("feeds", "text"),
    [
        ({"x": X}, "missing: n"),
        ({"x": X, "n": N, "z": N}, "unknown: z"),
        ({}, "inputs given: none"),
        ({"x": X.astype(np.float64), "n": N}, "'x' is float64, expected float32"),
        ({"x": X.astype(">f4"), "n": N}, "'x' is >f4, expected float32"),
        ({"x": X, "n": [1, 2]}, "'n' is a list, expected a numpy array of int64"),
        ({"x": X[0], "n": N}, "3 dimensions"),
        ({"x": X[:, :1], "n": N}, "has 1 in dimension 1"),
        ({"x": X, "n": N[:1]}, "N = 1 in .*'x' has N = 2"),
        ({"x": X[:0], "n": N[:0]}, "nothing in dimension 0"),
    ],
)
def test_arrays_that_do_not_fit_the_manifest_are_refused(tiny: Bundle, feeds: Any, text: str) -> None:
    with open_runtime(tiny) as runtime, pytest.raises(TensorError, match=text) as caught:
        runtime.run(feeds)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_one_dimension_name_twice_in_a_tensor_must_agree() -> None:
    square = (Tensor(name="a", dtype="uint8", shape=("s", "s"), meaning=""),)
    check_feeds(square, {"a": np.zeros((2, 2), np.uint8)})
    with pytest.raises(TensorError, match="s = 3"):
        check_feeds(square, {"a": np.zeros((2, 3), np.uint8)})


@both
def test_a_result_stays_what_it_is_when_the_next_one_comes(tiny: Bundle, device: Device, provider: str) -> None:
    with open_runtime(tiny, device=device) as runtime:
        first = runtime.run({"x": X, "n": N})["y"]
        kept = first.copy()
        runtime.run({"x": X + 1, "n": N})
    np.testing.assert_array_equal(first, kept)


@both
def test_several_threads_get_their_own_results(tiny: Bundle, device: Device, provider: str) -> None:
    def run(number: int) -> bool:
        x = np.full((1, 2, 5 + number % 3), number, np.float32)
        n = np.array([number], np.int64)
        return bool((runtime.run({"x": x, "n": n})["y"] == 3 * number).all())

    with open_runtime(tiny, device=device) as runtime, ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(200)))


@both
def test_a_closed_runtime_says_so_and_may_be_closed_again(tiny: Bundle, device: Device, provider: str) -> None:
    runtime = open_runtime(tiny, device=device)
    runtime.close()
    runtime.close()
    with pytest.raises(RuntimeFailedError, match="closed"):
        runtime.run({"x": X, "n": N})


def test_wrong_options_are_usage_errors(tiny: Bundle) -> None:
    with pytest.raises(UsageError, match="cpu, openvino, cuda, tensorrt"):
        open_runtime(tiny, device="gpu")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least 1"):
        open_runtime(tiny, threads=0)


def test_an_unknown_graph_is_named(tiny: Bundle) -> None:
    with pytest.raises(BundleError, match="'heads'"):
        open_runtime(tiny, "heads")
