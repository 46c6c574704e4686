from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.dlpack import CPU, CUDA, DeviceArray
from engines.errors import (
    BundleError,
    DeviceMissingError,
    OutOfMemoryError,
    RuntimeFailedError,
    RuntimeUnavailableError,
    TensorError,
)
from engines.plan_serialize import BuildOptions
from engines.plan_shapes import Range
from engines.plans import Precision
from engines.resident import HostArray
from engines.runtime_tensorrt import TensorrtRuntime
from tests.engines.tensorrt_machines import VERSIONS, FakeMachine, tiny_machine


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return tiny_machine(tmp_path)


def feeds(rows: int, width: int = 3, start: float = 0) -> dict[str, Any]:
    x = np.arange(rows * 2 * width, dtype=np.float32).reshape(rows, 2, width) + np.float32(start)
    return {"x": x, "n": np.arange(rows, dtype=np.int64) * 10}


def expected(given: dict[str, Any]) -> Any:
    return 2 * given["x"] + given["n"][:, None, None].astype(np.float32)


@pytest.mark.parametrize("version", VERSIONS)
def test_named_arrays_go_in_and_come_out(tmp_path: Path, version: str) -> None:
    machine = tiny_machine(tmp_path, version)
    with machine.runtime() as runtime:
        assert runtime.device == "tensorrt"
        assert runtime.provider == f"TensorRT {version}"
        assert [tensor.name for tensor in (*runtime.inputs, *runtime.outputs)] == ["x", "n", "y"]
        result = runtime.run(feeds(2))
    assert list(result) == ["y"]
    np.testing.assert_array_equal(result["y"], expected(feeds(2)))


def test_memory_is_taken_once_and_given_back(machine: FakeMachine) -> None:
    runtime = machine.runtime()
    used, pinned, calls = machine.gpu.used, len(machine.gpu.pinned), machine.gpu.calls.count("cudaMalloc")
    assert used > 0
    assert pinned == 3
    for rows in (1, 8, 3, 8):
        runtime.run(feeds(rows))
    assert (machine.gpu.used, machine.gpu.calls.count("cudaMalloc")) == (used, calls)
    runtime.close()
    runtime.close()
    assert (machine.gpu.used, machine.gpu.pinned, machine.gpu.streams) == (0, {}, set())
    with pytest.raises(RuntimeFailedError, match="closed"):
        runtime.run(feeds(1))


def test_no_memory_for_the_weights_is_an_error_of_its_own(machine: FakeMachine) -> None:
    machine.build()
    machine.tensorrt.load_error = "Error Code 2: OutOfMemory (requested size was 2133349)"
    with pytest.raises(OutOfMemoryError, match="no memory to load"):
        machine.runtime()
    machine.tensorrt.load_error = "Error Code 4: unsupported"
    with pytest.raises(RuntimeUnavailableError, match="engines build, with --force"):
        machine.runtime()


def test_closing_does_not_fail_where_the_gpu_is_lost(machine: FakeMachine) -> None:
    runtime = machine.runtime()
    for _ in range(2):
        runtime.run(feeds(2))
    machine.gpu.status = "cudaErrorInvalidValue"
    with pytest.raises(RuntimeFailedError, match="cudaErrorInvalidValue"):
        runtime.run(feeds(2))
    runtime.close()
    with pytest.raises(RuntimeFailedError, match="closed"):
        runtime.run(feeds(2))


def test_shapes_that_come_again_run_as_a_cuda_graph_with_the_arrays_of_that_run(machine: FakeMachine) -> None:
    with machine.runtime() as runtime:
        for start, (rows, launches) in enumerate([(2, 0), (2, 0), (3, 0), (2, 1), (3, 1), (3, 2)]):
            given = feeds(rows, start=start)
            np.testing.assert_array_equal(runtime.run(given)["y"], expected(given))
            assert machine.gpu.launches == launches


def test_more_shapes_than_are_kept_are_right_too(machine: FakeMachine) -> None:
    with machine.runtime() as runtime:
        for _ in range(3):
            for width in range(1, 10):
                given = feeds(2, width, start=width)
                np.testing.assert_array_equal(runtime.run(given)["y"], expected(given))


def test_what_cannot_be_recorded_runs_without_a_graph(machine: FakeMachine, caplog: pytest.LogCaptureFixture) -> None:
    machine.gpu.refuses_capture = True
    with machine.runtime() as runtime:
        for start in range(3):
            np.testing.assert_array_equal(runtime.run(feeds(2, start=start))["y"], expected(feeds(2, start=start)))
    assert machine.gpu.launches == 0
    assert caplog.text.count("runs without a CUDA graph") == 1


def test_a_plan_with_shapes_that_depend_on_data_is_never_recorded(machine: FakeMachine) -> None:
    plan = machine.build().plan
    unfit = type(plan)(plan.path, plan.record.model_copy(update={"capturable": False}))
    with TensorrtRuntime(unfit, machine.graph, tensorrt=machine.tensorrt.module, cuda=machine.cuda) as runtime:
        for _ in range(3):
            runtime.run(feeds(2))
    assert "cudaStreamBeginCapture" not in machine.gpu.calls


def test_a_result_stays_what_it_is_when_the_next_one_comes(machine: FakeMachine) -> None:
    with machine.runtime() as runtime:
        first = runtime.run(feeds(2))["y"]
        kept = first.copy()
        runtime.run(feeds(2, start=5))
    np.testing.assert_array_equal(first, kept)


def test_arrays_that_are_not_contiguous_are_read_right(machine: FakeMachine) -> None:
    given = feeds(2, 6)
    given["x"] = given["x"][..., ::2]
    with machine.runtime() as runtime:
        np.testing.assert_array_equal(runtime.run(given)["y"], expected(given))


def test_several_threads_get_their_own_results(machine: FakeMachine) -> None:
    def run(number: int) -> bool:
        given = feeds(1 + number % 3, start=number)
        return bool((runtime.run(given)["y"] == expected(given)).all())

    with machine.runtime() as runtime, ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(60)))


@pytest.mark.parametrize("rows", [9, 16, 20])
def test_more_rows_than_the_plan_takes_run_in_parts(machine: FakeMachine, rows: int) -> None:
    with machine.runtime() as runtime:
        assert runtime.rows == 8
        np.testing.assert_array_equal(runtime.run(feeds(rows))["y"], expected(feeds(rows)))
    assert machine.tensorrt.runs == -(-rows // 8)


def test_shapes_that_the_plan_does_not_take_are_refused_before_anything_runs(machine: FakeMachine) -> None:
    with machine.runtime() as runtime:
        with pytest.raises(TensorError, match=r"'x' has the shape \(2, 2, 10\), .*\(1, 2, 1\) to \(8, 2, 9\).*--size"):
            runtime.run(feeds(2, 10))
        with pytest.raises(TensorError, match="expected float32"):
            runtime.run(feeds(2) | {"x": feeds(2)["x"].astype(np.float64)})
        np.testing.assert_array_equal(runtime.run(feeds(2))["y"], expected(feeds(2)))
    assert machine.tensorrt.runs == 1


def test_too_little_memory_for_all_rows_means_fewer_at_a_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    machine = tiny_machine(tmp_path, memory=3000)
    with machine.runtime() as runtime:
        assert runtime.rows == 2
        np.testing.assert_array_equal(runtime.run(feeds(7))["y"], expected(feeds(7)))
    assert "no memory for 8 rows at a time, trying 4" in caplog.text
    assert machine.gpu.used == 0


def test_too_little_memory_for_one_row_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    machine = tiny_machine(tmp_path, memory=900)
    with pytest.raises(OutOfMemoryError, match="out of memory"):
        machine.runtime()
    assert (machine.gpu.used, machine.gpu.pinned, machine.gpu.streams) == (0, {}, set())


def test_a_run_that_is_out_of_memory_is_tried_with_fewer_rows_then_fails(machine: FakeMachine) -> None:
    with machine.runtime() as runtime:
        machine.tensorrt.run_rows = 3
        np.testing.assert_array_equal(runtime.run(feeds(8))["y"], expected(feeds(8)))
        assert runtime.rows == 2
        machine.tensorrt.run_rows = 1
        with pytest.raises(OutOfMemoryError, match="OutOfMemory"):
            runtime.run(feeds(2, 4))
        machine.tensorrt.run_rows = 10
        np.testing.assert_array_equal(runtime.run(feeds(3))["y"], expected(feeds(3)))


def test_memory_that_lacked_for_a_while_means_fewer_rows_for_a_while(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.splitting._KEPT", 0.0)
    with machine.runtime() as runtime:
        machine.tensorrt.run_rows = 5
        np.testing.assert_array_equal(runtime.run(feeds(8))["y"], expected(feeds(8)))
        assert machine.tensorrt.runs == 2
        machine.tensorrt.run_rows = 10
        assert runtime.rows == 8
        np.testing.assert_array_equal(runtime.run(feeds(8))["y"], expected(feeds(8)))
        assert machine.tensorrt.runs == 3


def test_a_plan_that_takes_no_single_rows_runs_in_parts_that_it_takes(machine: FakeMachine) -> None:
    plan = machine.build(shapes=machine.shapes(N=Range(2, 4, 4))).plan
    with TensorrtRuntime(plan, machine.graph, tensorrt=machine.tensorrt.module, cuda=machine.cuda) as runtime:
        np.testing.assert_array_equal(runtime.run(feeds(9))["y"], expected(feeds(9)))
        assert machine.tensorrt.runs == 3
        machine.tensorrt.run_rows = 3
        np.testing.assert_array_equal(runtime.run(feeds(5, 4))["y"], expected(feeds(5, 4)))
        assert (runtime.rows, runtime.most_rows) == (2, 4)
        machine.tensorrt.run_rows = 2
        with pytest.raises(OutOfMemoryError):
            runtime.run(feeds(4, 5))
        assert runtime.rows == 2, "it takes no fewer"


def test_what_tensorrt_says_of_a_failure_becomes_one_line_with_the_shapes(machine: FakeMachine) -> None:
    with machine.runtime() as runtime:
        machine.tensorrt.run_error = "Error Code 1: Cask\n(no kernel)"
        with pytest.raises(
            RuntimeFailedError, match=r"detector.onnx failed on TensorRT .* x \(2, 2, 3\).*Cask"
        ) as caught:
            runtime.run(feeds(2))
        assert "\n" not in str(caught.value)
        machine.tensorrt.run_error = None
        np.testing.assert_array_equal(runtime.run(feeds(2))["y"], expected(feeds(2)))


def test_outputs_whose_shapes_depend_on_data_are_refused(machine: FakeMachine) -> None:
    machine.tensorrt.data_dependent = ("y",)
    with pytest.raises(RuntimeFailedError, match=r"shapes of y .* depend on data.*--device cuda"):
        machine.runtime()
    assert machine.gpu.used == 0


def test_a_plan_that_was_changed_after_it_was_found_is_not_loaded(machine: FakeMachine) -> None:
    plan = machine.build().plan
    plan.path.write_bytes(plan.path.read_bytes() + b"more")
    with pytest.raises(RuntimeUnavailableError, match=r"is not what was built.*--force"):
        TensorrtRuntime(plan, machine.graph, tensorrt=machine.tensorrt.module, cuda=machine.cuda)


def test_a_plan_that_tensorrt_does_not_load_is_an_error_with_its_words(tmp_path: Path) -> None:
    machine, other = tiny_machine(tmp_path), tiny_machine(tmp_path / "other", "11.4.0.106")
    plan = machine.build().plan
    with pytest.raises(RuntimeUnavailableError, match=r"cannot load .*built with another version.*engines build"):
        TensorrtRuntime(plan, machine.graph, tensorrt=other.tensorrt.module, cuda=other.cuda)


def test_a_driver_that_does_not_suit_is_an_error_with_tensorrts_words(machine: FakeMachine) -> None:
    plan = machine.build().plan
    machine.tensorrt.start_error = "CUDA initialization failure with error: 35"
    with pytest.raises(DeviceMissingError, match=r"cannot start here \(CUDA initialization.*nullptr.*driver"):
        TensorrtRuntime(plan, machine.graph, tensorrt=machine.tensorrt.module, cuda=machine.cuda)
    machine.tensorrt.start_error = "Error Code 2: OutOfMemory"
    with pytest.raises(RuntimeUnavailableError, match="OutOfMemory") as caught:
        TensorrtRuntime(plan, machine.graph, tensorrt=machine.tensorrt.module, cuda=machine.cuda)
    assert not isinstance(caught.value, DeviceMissingError)


def test_a_plan_that_brings_code_is_loaded_only_if_that_is_allowed(machine: FakeMachine) -> None:
    plan = machine.build(BuildOptions("fp32", version_compatible=True)).plan
    with pytest.raises(RuntimeUnavailableError, match=r"brings code.*host-code"):
        TensorrtRuntime(plan, machine.graph, tensorrt=machine.tensorrt.module, cuda=machine.cuda)
    runtime = TensorrtRuntime(plan, machine.graph, host_code=True, tensorrt=machine.tensorrt.module, cuda=machine.cuda)
    np.testing.assert_array_equal(runtime.run(feeds(2))["y"], expected(feeds(2)))
    runtime.close()


def test_a_plan_with_other_names_or_types_than_the_manifest_is_refused(machine: FakeMachine) -> None:
    plan, (y,) = machine.build().plan, machine.graph.outputs
    for changed, error, text in (
        ({"name": "z"}, BundleError, "outputs y, its manifest declares z"),
        ({"dtype": "float16"}, RuntimeUnavailableError, "'y' as float32, its manifest declares float16"),
    ):
        graph = machine.graph.model_copy(update={"outputs": (y.model_copy(update=changed),)})
        with pytest.raises(error, match=text):
            TensorrtRuntime(plan, graph, tensorrt=machine.tensorrt.module, cuda=machine.cuda)


class OnGpu:
    """An array of another library that lies on the GPU."""

    def __init__(self, machine: FakeMachine, values: Any) -> None:
        self.memory = machine.cuda.allocate(values.nbytes)
        stream = machine.cuda.stream()
        stream.upload(self.memory.address, values.ctypes.data, values.nbytes)
        self.array = DeviceArray(self.memory.address, values.shape, values.dtype, (CUDA, 0), self)
        self.streams: list[int | None] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.device

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        self.streams.append(stream)
        return self.array.__dlpack__(stream=stream)


def values_of(array: DeviceArray) -> Any:
    """The fake GPU's memory is the host's."""
    there = DeviceArray(array.address, array.shape, array.dtype, (CPU, 0), array)
    return np.from_dlpack(there).copy()


def test_arrays_on_the_gpu_go_in_and_come_out_without_travelling(machine: FakeMachine) -> None:
    with machine.runtime() as runtime:
        for start in range(3):
            given = feeds(2, start=start)
            x, n = OnGpu(machine, given["x"]), OnGpu(machine, given["n"])
            machine.gpu.copies.clear()
            waits = machine.gpu.calls.count("cudaStreamSynchronize")
            taken = {"x": runtime.adopt(x), "n": runtime.adopt(n)}
            # Others may read them in streams of their own.
            assert machine.gpu.calls.count("cudaStreamSynchronize") == waits + 2
            found = runtime.run(taken, keep=["y"])["y"]
            # The library is told who reads, and its arrays never leave the GPU.
            assert set(x.streams) <= machine.gpu.streams
            assert machine.gpu.copies == {"cudaMemcpyDeviceToDevice": 3}
            assert found.device == (CUDA, 0)
            np.testing.assert_array_equal(values_of(found), expected(given))
            np.testing.assert_array_equal(found.numpy(), expected(given))


@pytest.mark.parametrize(("precision", "said"), [("fp32", False), ("tf32", True), ("fp16", None)])
def test_a_plan_says_whether_it_rounds_to_tf32(machine: FakeMachine, precision: Precision, said: bool | None) -> None:
    plan = machine.build(BuildOptions(precision)).plan
    with TensorrtRuntime(plan, machine.graph, tensorrt=machine.tensorrt.module, cuda=machine.cuda) as runtime:
        assert runtime.tf32 is said


class KeptElsewhere(OnGpu):
    """What another runtime kept of a run, on the GPU or not."""

    def __init__(self, machine: FakeMachine, values: Any, problem: str = "") -> None:
        super().__init__(machine, values)
        self.values, self.problem = values, problem
        self.shape, self.dtype = values.shape, values.dtype
        self.asked = 0

    def numpy(self) -> Any:
        self.asked += 1
        return self.values

    def __dlpack_device__(self) -> tuple[int, int]:
        return (CPU, 0) if self.problem == "on the host" else super().__dlpack_device__()

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        if self.problem == "not in this build":
            raise RuntimeError("DLPack is not there")
        return super().__dlpack__(stream=stream)


@pytest.mark.parametrize("problem", ["", "on the host", "not in this build"])
def test_what_another_runtime_kept_is_taken_where_it_lies_or_comes_over_the_host(
    machine: FakeMachine, problem: str
) -> None:
    with machine.runtime() as runtime:
        given = feeds(2)
        x = KeptElsewhere(machine, given["x"], problem)
        machine.gpu.copies.clear()
        np.testing.assert_array_equal(runtime.run(given | {"x": x})["y"], expected(given))
        assert machine.gpu.copies["cudaMemcpyHostToDevice"] == (2 if problem else 1)
        assert machine.gpu.copies.get("cudaMemcpyDeviceToDevice", 0) == (0 if problem else 1)
        assert x.asked == (1 if problem else 0)


def test_what_is_held_goes_to_the_gpu_once(machine: FakeMachine) -> None:
    with machine.runtime() as runtime:
        given = feeds(2)
        held = runtime.hold(given["x"])
        for _ in range(3):
            machine.gpu.copies.clear()
            np.testing.assert_array_equal(runtime.run(given | {"x": held})["y"], expected(given))
            assert machine.gpu.copies == {
                "cudaMemcpyDeviceToDevice": 1,
                "cudaMemcpyHostToDevice": 1,
                "cudaMemcpyDeviceToHost": 1,
            }
        # An answer is an input of the next run, and one of the host's is taken too.
        kept = runtime.run(given, keep=["y"])["y"]
        again = runtime.run({"x": kept, "n": HostArray(given["n"])})["y"]
        np.testing.assert_array_equal(again, expected(given | {"x": expected(given)}))
    with pytest.raises(RuntimeFailedError, match="closed"):
        runtime.hold(given["x"])


def test_what_is_held_gives_its_memory_back_whatever_sizes_come_after_it(machine: FakeMachine) -> None:
    with machine.runtime() as runtime:
        before = machine.gpu.used
        for rows in range(1, 9):
            held = runtime.hold(feeds(rows)["x"])
            gc.collect()
            assert machine.gpu.used - before == held.size
        del held
        gc.collect()
        assert machine.gpu.used == before


def test_an_answer_on_the_gpu_keeps_its_memory_until_nobody_refers_to_it(machine: FakeMachine) -> None:
    runtime = machine.runtime()
    first = runtime.run(feeds(2), keep=["y"])["y"]
    second = runtime.run(feeds(2, start=7), keep=["y"])["y"]
    assert first.address != second.address
    np.testing.assert_array_equal(values_of(first), expected(feeds(2)))
    address = first.address
    del first
    gc.collect()
    third = runtime.run(feeds(2, start=9), keep=["y"])["y"]
    assert third.address == address
    runtime.close()
    assert machine.gpu.used > 0
    del second, third
    gc.collect()
    assert machine.gpu.used == 0


def test_arrays_on_the_gpu_are_compared_with_the_manifest(machine: FakeMachine) -> None:
    with machine.runtime() as runtime:
        given = feeds(2)
        wrong = runtime.adopt(OnGpu(machine, given["n"].astype(np.int32)))
        with pytest.raises(TensorError, match="'n' is int32, expected int64"):
            runtime.run({"x": given["x"], "n": wrong}, keep=["y"])
        with pytest.raises(TensorError, match="missing: n"):
            runtime.run({"x": runtime.adopt(OnGpu(machine, given["x"]))}, keep=["y"])
        with pytest.raises(TensorError, match="9 rows, 8 are run at once"):
            runtime.run(feeds(9), keep=["y"])
    with pytest.raises(RuntimeFailedError, match="closed"):
        runtime.run(feeds(1), keep=["y"])
