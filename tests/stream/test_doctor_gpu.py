from __future__ import annotations

import pytest

from stream.check import Check
from stream.doctor_gpu import check_tensorrt

H200 = (0, "NVIDIA H200 9 0\n", "")


def looked_at(
    installed: dict[str, str], loads: tuple[int, str, str] = (0, "10.16.1.11\n", ""), gpu: tuple[int, str, str] = H200
) -> list[Check]:
    def probe(command: list[str]) -> tuple[int, str, str]:
        return gpu if "Cuda" in command[-1] else loads

    return check_tensorrt(installed.get, probe)


TEN = {"tensorrt": "10.16.1.11", "cuda-bindings": "13.5.0", "onnxruntime-gpu": "1.31.1"}


def test_tensorrt_10_serves_plans_and_onnx_runtime() -> None:
    assert looked_at(TEN) == [
        Check("TensorRT", "ok", "tensorrt 10.16.1.11, for plans"),
        Check("TensorRT and ONNX Runtime", "ok", "TensorRT 10 serves onnxruntime-gpu 1.31.1 too"),
        Check("CUDA from Python", "ok", "cuda-bindings 13.5.0, NVIDIA H200 with compute capability 9.0"),
    ]


def test_tensorrt_11_is_reported_as_a_mismatch_with_onnx_runtime() -> None:
    first, second, _ = looked_at(TEN | {"tensorrt": "11.4.0.106"}, (0, "11.4.0.106\n", ""))
    assert (first.status, first.detail) == ("ok", "tensorrt 11.4.0.106, for plans")
    assert second.status == "warn"
    assert second.detail == (
        "ONNX Runtime's TensorRT provider needs TensorRT 10, TensorRT 11.4.0.106 is installed (onnxruntime-gpu 1.31.1)"
    )
    assert "run plans instead" in second.todo


def test_without_onnx_runtimes_gpu_build_there_is_no_mismatch() -> None:
    checks = looked_at({"tensorrt": "11.4.0.106", "cuda-bindings": "13.5.0"}, (0, "11.4.0.106\n", ""))
    assert [check.status for check in checks] == ["ok", "ok"]


def test_nothing_installed_is_missing_and_not_needed() -> None:
    (check,) = looked_at({}, (1, "", "ModuleNotFoundError: No module named 'tensorrt'"))
    assert (check.status, check.needed) == ("missing", False)
    assert 'pip install "standin[tensorrt]"' in check.todo


def test_a_package_of_the_system_is_found_too() -> None:
    assert looked_at({}, (0, "10.3.0\n", ""))[0].detail == "tensorrt 10.3.0, for plans"


def test_libraries_that_do_not_load_are_a_warning_with_the_reason() -> None:
    (check,) = looked_at(TEN, (1, "", "Traceback\nImportError: libnvinfer.so.10: cannot open shared object file"))
    assert check.status == "warn"
    assert "tensorrt 10.16.1.11 does not load: ImportError: libnvinfer.so.10" in check.detail


@pytest.mark.parametrize(
    "more",
    [
        {"tensorrt-cu13-libs": "10.16.1.11", "tensorrt-cu13-bindings": "10.13.3.9"},
        {"tensorrt-cu12": "10.16.1.11", "tensorrt-cu13-libs": "10.16.1.11"},
    ],
)
def test_parts_that_do_not_go_together_are_a_warning(more: dict[str, str]) -> None:
    (check,) = (check for check in looked_at(TEN | more) if check.name == "TensorRT's parts")
    assert check.status == "warn"
    assert all(f"{name} {version}" in check.detail for name, version in more.items())


def test_parts_of_one_version_go_together() -> None:
    parts = {f"tensorrt-cu13{part}": "10.16.1.11" for part in ("", "-libs", "-bindings")}
    assert all(check.status == "ok" for check in looked_at(TEN | parts))


def test_plans_need_cuda_from_python() -> None:
    check = looked_at({"tensorrt": "10.16.1.11"})[-1]
    assert (check.name, check.status) == ("CUDA from Python", "missing")


def test_a_driver_that_is_too_old_is_a_warning_with_the_reason() -> None:
    said = "engines.errors.RuntimeUnavailableError: no NVIDIA GPU can be used (cudaErrorInsufficientDriver)"
    check = looked_at(TEN, gpu=(1, "", f"Traceback\n{said}"))[-1]
    assert check.status == "warn"
    assert check.detail == "cuda-bindings 13.5.0: no NVIDIA GPU can be used (cudaErrorInsufficientDriver)"


def test_a_gpu_that_is_too_old_is_a_warning() -> None:
    check = looked_at(TEN, gpu=(0, "Tesla V100 7 0\n", ""))[-1]
    assert check.status == "warn"
    assert "7.5" in check.todo


def test_on_this_machine_it_says_something() -> None:
    assert check_tensorrt()[0].name == "TensorRT"
