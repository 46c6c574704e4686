from __future__ import annotations

import threading
from pathlib import Path

import pytest

from engines.errors import BundleError
from engines.plan_serialize import BuildOptions, make_monitor, serialize
from tests.engines.tensorrt_machines import FakeMachine, tiny_machine
from tests.fake_cuda import FakeGpu
from tests.fake_tensorrt import FakeTensorrt


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return tiny_machine(tmp_path)


def serialized(machine: FakeMachine, stopped: threading.Event, precision: str = "fp32") -> tuple[bytes, bytes]:
    options = BuildOptions("fp16" if precision == "fp16" else "fp32")
    key = machine.builder().key(machine.bundle, "detector", machine.shapes(), options)
    source = machine.bundle.file("detector.onnx")
    return serialize(machine.tensorrt.module, source, key, options, b"", stopped, None)


def test_a_build_gives_the_plan_and_what_it_learnt(machine: FakeMachine) -> None:
    plan, timings = serialized(machine, threading.Event())
    assert plan.startswith(b"plan made by a fake")
    assert timings == b"timings NVIDIA H200 one"


def test_half_precision_is_never_a_flag(machine: FakeMachine) -> None:
    serialized(machine, threading.Event(), "fp16")
    assert machine.tensorrt.configs[0].flags == set()


def test_a_build_that_was_stopped_ends_at_its_next_step(machine: FakeMachine) -> None:
    stopped = threading.Event()
    machine.tensorrt.on_step = stopped.set
    with pytest.raises(KeyboardInterrupt):
        serialized(machine, stopped)


def test_other_inputs_than_the_manifest_declares_are_refused(machine: FakeMachine) -> None:
    options = BuildOptions("fp32")
    key = machine.builder().key(machine.bundle, "detector", machine.shapes()[:1], options)
    source = machine.bundle.file("detector.onnx")
    with pytest.raises(BundleError, match="has the inputs x, n, its manifest declares x"):
        serialize(machine.tensorrt.module, source, key, options, b"", threading.Event(), None)


def test_phases_are_told_with_their_steps_until_they_end() -> None:
    told: list[tuple[str, int, int]] = []
    monitor = make_monitor(FakeTensorrt(FakeGpu()).module, threading.Event(), lambda *step: told.append(step))
    monitor.phase_start("Outer", "", 2)
    monitor.phase_start("Inner", "Outer", 3)
    assert monitor.step_complete("Inner", 0)
    monitor.phase_finish("Inner")
    # One that was never begun, as when a build is cut short.
    monitor.phase_finish("Other")
    assert told == [("Outer", 0, 2), ("Inner", 0, 3), ("Inner", 1, 3), ("Inner", 3, 3), ("Other", 0, 0)]
