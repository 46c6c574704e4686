"""What things done for a GPU gain: the benchmark with a fake TensorRT, and on the processor."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from benchmarks import gpu_gains
from engines.cuda import Cuda
from engines.runtime_tensorrt import TensorrtRuntime
from tests.engines.tensorrt_machines import tiny_machine
from tests.fake_cuda import FakeGpu, fake_cudart
from tests.fake_tensorrt import FakeTensorrt


def test_a_plan_is_timed_as_recorded_and_as_not(tmp_path: Path) -> None:
    machine = tiny_machine(tmp_path)
    opened: list[TensorrtRuntime] = []

    def open_plan(record: bool) -> TensorrtRuntime:
        opened.append(machine.runtime(recorded=record))
        return opened[-1]

    row = gpu_gains.recorded("tiny", {"N": 2, "w": 3}, 3, open_plan)
    assert row["recorded_ms"] > 0
    assert row["enqueued_ms"] > 0
    assert row["gain"] == round(row["enqueued_ms"] / row["recorded_ms"], 3)
    assert len(opened) == 2
    # The first run of a shape is waited for and then recorded; all others but that one are launched.
    assert machine.gpu.launches == gpu_gains.WARM_UP + 3 - 1


def test_plans_of_the_starter_set_are_built_and_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(gpu_gains, "WARM_UP", 2)
    gpu = FakeGpu(memory=2**33)
    tensorrt, cuda = FakeTensorrt(gpu), Cuda(fake_cudart(gpu))
    for module in ("plan_build", "runtime_tensorrt"):
        monkeypatch.setattr(f"engines.{module}.import_tensorrt", lambda: tensorrt.module)
        monkeypatch.setattr(f"engines.{module}.Cuda", lambda: cuda)
    rows = list(gpu_gains.plans(tmp_path / "plans", 1))
    assert [row["graph"] for row in rows] == ["starter-detector detector", "starter-generator generator"]
    assert tensorrt.builds == 2
    assert gpu.launches == 2 * (3 - 1)


def test_ways_are_called_in_turns() -> None:
    called: list[str] = []
    found = gpu_gains.in_turns({name: partial(called.append, name) for name in ("one", "other")}, 2)
    assert called == ["one", "other"] * (gpu_gains.WARM_UP + 2)
    assert set(found) == {"one", "other"}


def test_encoders_are_compared_by_what_a_run_would_take() -> None:
    row = gpu_gains.encoders("cpu", 3, (64, 96))
    assert row["gpu_encoder"] == row["cpu_encoder"] == "libx264"
    assert row["gpu_fps"] > 0
    assert row["cpu_fps"] > 0


def test_without_a_gpu_what_needs_none_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_gains, "CLIENTS", 2)
    said: list[str] = []
    stages, shared = gpu_gains.measure("cpu", 4, say=said.append)
    assert stages["frames"] >= 20
    assert stages["gain"] == stages["sum_over_wall"] > 0.5
    assert shared["clients"] == 2
    assert 1 <= shared["rows_per_run"] <= 2
    assert said == ["the GPU's encoder is not measured: there is none here"]


def test_without_tensorrt_its_part_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_gains, "side_by_side", lambda *given: {"what": "stages"})
    monkeypatch.setattr(gpu_gains, "sharing", lambda *given: {"what": "sharing"})
    monkeypatch.setattr(gpu_gains, "encoders", lambda *given: {"gpu_encoder": "h264_nvenc", "cpu_encoder": "libx264"})
    said: list[str] = []
    rows = gpu_gains.measure("tensorrt", 1, say=said.append)
    assert [row.get("what", "encoder") for row in rows] == ["encoder", "stages", "sharing"]
    assert len(said) == 1
    assert said[0].startswith("CUDA graphs are not measured: ")
