"""On the CPU, where ONNX Runtime binds arrays as it does elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest

from engines.onnx_binding import Binding, OrtArray
from engines.resident import outline
from tests.engines.helpers import doubler

X, N = np.arange(12, dtype=np.float32).reshape(2, 2, 3), np.array([5, 7], np.int64)
Y = 2 * X + N[:, None, None]


@pytest.fixture
def binding() -> Binding:
    session = onnxruntime.InferenceSession(doubler(), providers=["CPUExecutionProvider"])
    return Binding(onnxruntime, session, ["y"], "cpu")


def test_bound_runs_give_what_plain_ones_do(binding: Binding) -> None:
    feeds: dict[str, Any] = {"x": X, "n": N}
    np.testing.assert_array_equal(binding.run(feeds)["y"], Y)
    np.testing.assert_array_equal(binding.run_on_host(feeds)["y"], Y)


def test_outputs_that_are_kept_are_inputs_of_the_next_run(binding: Binding) -> None:
    once = binding.run({"x": X, "n": N}, keep=["y"])["y"]
    assert isinstance(once, OrtArray)
    assert (once.shape, once.dtype, once.device_name) == ((2, 2, 3), np.dtype(np.float32), "cpu")
    twice = binding.run({"x": once, "n": N})["y"]
    np.testing.assert_array_equal(twice, 2 * Y + N[:, None, None])


def test_what_is_held_does_not_follow_the_array_that_it_was_made_of(binding: Binding) -> None:
    mine = X.copy()
    held = binding.hold(mine)
    mine[:] = -1
    np.testing.assert_array_equal(held.numpy(), X)
    np.testing.assert_array_equal(binding.run({"x": held, "n": N})["y"], Y)


def test_arrays_that_do_not_lie_in_one_piece_are_taken_as_well(binding: Binding) -> None:
    turned = np.ascontiguousarray(X.transpose(0, 2, 1)).transpose(0, 2, 1)
    assert not turned.flags.c_contiguous
    np.testing.assert_array_equal(binding.run({"x": turned, "n": N})["y"], Y)
    np.testing.assert_array_equal(binding.hold(turned).numpy(), X)


def test_other_libraries_take_it_without_a_copy(binding: Binding) -> None:
    kept = binding.run({"x": X, "n": N}, keep=["y"])["y"]
    first, second = np.from_dlpack(kept), np.from_dlpack(kept)
    np.testing.assert_array_equal(first, Y)
    assert np.shares_memory(first, second)


def test_arrays_of_other_libraries_are_taken_without_a_copy(binding: Binding) -> None:
    mine = X.copy()
    adopted = binding.adopt(mine)
    assert (adopted.shape, adopted.dtype) == (X.shape, X.dtype)
    np.testing.assert_array_equal(binding.run({"x": adopted, "n": N})["y"], Y)
    mine *= 0
    np.testing.assert_array_equal(adopted.numpy(), np.zeros_like(X))


def test_what_is_held_has_an_outline(binding: Binding) -> None:
    found = outline(binding.hold(X))
    assert (found.shape, found.dtype) == (X.shape, X.dtype)
    assert found.strides == (0, 0, 0)
