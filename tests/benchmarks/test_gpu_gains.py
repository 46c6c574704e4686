"""What things done for a GPU gain: the benchmark with a fake TensorRT, and on the processor."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_gains
from engines.cuda import Cuda
from engines.errors import DeviceMissingError
from engines.runtime_tensorrt import TensorrtRuntime
from stream.bench.engines import example_feeds
from tests.engines.onnx_fakes import FakeOnnxRuntime
from tests.engines.tensorrt_machines import FakeMachine, tiny_machine
from tests.fake_cuda import FakeGpu, fake_cudart
from tests.fake_tensorrt import FakeTensorrt
from tests.media import busy_pictures, write_clip


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A few frames of nobody, a few rounds, and a home of its own."""
    write_clip(tmp_path / "walkers.mp4", busy_pictures(6, 128, 72))
    monkeypatch.setattr(gpu_gains, "WALKERS", tmp_path / "walkers.mp4")
    monkeypatch.setattr(gpu_gains, "WARM_UP", 2)
    monkeypatch.setattr(gpu_gains, "TURNS", 1)
    monkeypatch.setattr(gpu_gains, "CLIENTS", 2)
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path / "home"))


def measured(machine: FakeMachine, opened: list[TensorrtRuntime]) -> dict[str, Any]:
    def open_plan(record: bool) -> TensorrtRuntime:
        opened.append(machine.runtime(recorded=record))
        return opened[-1]

    return gpu_gains.recorded("tiny", example_feeds(machine.graph, {"N": 2, "w": 3}), 3, open_plan)


def test_a_plan_is_timed_as_recorded_and_as_not(tmp_path: Path) -> None:
    machine = tiny_machine(tmp_path / "tiny")
    opened: list[TensorrtRuntime] = []
    row = measured(machine, opened)
    assert row["recorded"]
    assert row["recorded_ms"] > 0
    assert row["enqueued_ms"] > 0
    assert row["gain"] == round(row["enqueued_ms"] / row["recorded_ms"], 3)
    assert len(opened) == 2
    # What comes the second time is recorded, and launched from then on; the other runtime launches nothing.
    assert machine.gpu.launches == 2 + 3 - 2


def test_where_nothing_can_be_recorded_no_gain_is_claimed(tmp_path: Path) -> None:
    machine = tiny_machine(tmp_path / "tiny", refuses_capture=True)
    row = measured(machine, [])
    assert (row["recorded"], row["gain"]) == (False, None)
    assert machine.gpu.launches == 0


def test_ways_are_called_in_turns() -> None:
    called: list[str] = []
    found = gpu_gains.in_turns({name: partial(called.append, name) for name in ("one", "other")}, 2)
    assert called == ["one", "other"] * 4
    assert set(found) == {"one", "other"}


def test_encoders_are_compared_by_what_a_run_would_take() -> None:
    row = gpu_gains.encoders("cpu", 3, (64, 96))
    assert row["gpu_encoder"] == row["cpu_encoder"] == "libx264"
    assert row["gpu_fps"] > 0
    assert row["cpu_fps"] > 0


def test_decoders_are_compared_on_one_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    # The processor in the place of both.
    asked: list[str] = []
    monkeypatch.setattr(gpu_gains, "check_decoder", asked.append)
    monkeypatch.setattr("stream.sources.video.accelerated", asked.append)
    monkeypatch.setattr("stream.sources.video.check_accelerated", lambda *given: None)
    row = gpu_gains.decoders(4, (64, 96))
    # Of the walkers' clip the shape alone is asked; a source opens its file twice.
    assert asked == ["cuda", *["cpu"] * 2, *["cuda"] * 2, *["cpu"] * 2]
    assert (row["what"], row["size"], row["frames"]) == ("decoder", "96x64", 4)
    assert row["gain"] == pytest.approx(row["gpu_fps"] / row["cpu_fps"], abs=0.01)


def test_without_a_gpu_what_needs_none_is_measured() -> None:
    said: list[str] = []
    stages, frames, shared = gpu_gains.measure("cpu", 4, say=said.append)
    assert (frames["frames"], frames["persons"]) == (4, 2)
    assert 2 <= frames["rows_per_run"] <= 8
    others = max(frames["single_per_second"], frames["at_once_per_second"])
    assert frames["gain"] == pytest.approx(frames["joint_per_second"] / others, abs=0.02)
    assert stages["frames"] == 6
    assert stages["gain"] == round(stages["run_fps"] / stages["in_turn_fps"], 3)
    assert shared["clients"] == 2
    assert 1 <= shared["rows_per_run"] <= 2
    assert shared["gain"] > 0
    assert [text.split(":")[0] for text in said] == ["CUDA graphs"]


def test_with_plans_all_is_measured_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(memory=2**33)
    tensorrt, cuda, onnxruntime = FakeTensorrt(gpu), Cuda(fake_cudart(gpu)), FakeOnnxRuntime()
    for module in ("plan_build", "runtime_tensorrt", "plan_open"):
        monkeypatch.setattr(f"engines.{module}.import_tensorrt", lambda: tensorrt.module)
        monkeypatch.setattr(f"engines.{module}.Cuda", lambda: cuda)
    monkeypatch.setattr("engines.tensorrt_policy.installed_version", lambda: tensorrt.version)
    monkeypatch.setattr("engines.runtime_onnx.import_module", lambda name: onnxruntime.module)
    # Another process, where there is no fake, and a decoder and an encoder that are not there.
    monkeypatch.setattr(gpu_gains, "sharing", lambda *given: {"what": "joint runs"})
    monkeypatch.setattr(gpu_gains, "decoders", lambda *given: {"what": "decoder"})
    said: list[str] = []
    rows = gpu_gains.measure("tensorrt", 2, say=said.append)
    assert said == ["the GPU's encoder: not measured, runs here encode with libx264 whatever the device"]
    assert [row.get("graph", row["what"]) for row in rows] == [
        "starter-detector detector",
        "starter-generator generator",
        "decoder",
        "stages side by side",
        "frames in one run",
        "joint runs",
    ]
    assert all(row["recorded"] for row in rows[:2])
    assert rows[3]["frames"] == 6
    # Of each graph once; runs further down found them.
    assert tensorrt.builds == 4


def test_a_part_that_cannot_be_measured_does_not_cost_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*given: object) -> None:
        raise DeviceMissingError("no GPU")

    monkeypatch.setattr(gpu_gains, "side_by_side", missing)
    monkeypatch.setattr(gpu_gains, "frames_in_one_run", missing)
    monkeypatch.setattr(gpu_gains, "decoders", missing)
    monkeypatch.setattr(gpu_gains, "encoders", lambda *given: {"gpu_encoder": "h264_nvenc", "cpu_encoder": "libx264"})
    monkeypatch.setattr(gpu_gains, "sharing", lambda *given: {"what": "joint runs"})
    said: list[str] = []
    rows = gpu_gains.measure("tensorrt", 1, say=said.append)
    assert [row.get("what", "encoder") for row in rows] == ["encoder", "joint runs"]
    assert said[0].startswith("CUDA graphs: not measured, TensorRT cannot be imported")
    assert said[1:] == [
        "the GPU's decoder: not measured, no GPU",
        "stages side by side: not measured, no GPU",
        "frames in one run: not measured, no GPU",
    ]
