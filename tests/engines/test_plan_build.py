from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
import pytest

from engines.errors import BundleError, RuntimeFailedError, RuntimeUnavailableError
from engines.plan_build import PlanBuilder, data_dependent
from engines.plan_serialize import BuildOptions
from engines.plan_shapes import Range
from engines.plans import Plan, read_plan
from engines.store import Store
from tests.engines.tensorrt_machines import VERSIONS, FakeMachine, tiny_machine


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return tiny_machine(tmp_path)


def left(machine: FakeMachine) -> set[str]:
    """What lies in the folder beside the lock."""
    return {path.name for path in machine.folder.iterdir()} - {".build.lock"}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plan_is_built_with_every_version(tmp_path: Path, version: str) -> None:
    machine = tiny_machine(tmp_path, version)
    seen: list[tuple[str, int, int]] = []
    built = machine.build(progress=lambda *step: seen.append(step))
    assert not built.was_there
    assert built.plan.record.key.target.tensorrt == version
    (config,) = machine.tensorrt.configs
    assert config.flags == set()
    assert config.shapes["x"] == ((1, 2, 1), (4, 2, 4), (8, 2, 9))
    assert config.pools == {}
    assert seen[0] == ("Building", 0, 2)
    assert ("Tactics", 5, 5) in seen
    cache = f"timing-sm90-trt{version}.cache"
    assert left(machine) == {built.plan.path.name, built.plan.path.with_suffix(".json").name, cache}


def test_a_plan_that_is_there_is_not_built_again(machine: FakeMachine) -> None:
    first = machine.build().plan
    again = machine.build()
    assert again.was_there
    assert again.plan == first
    assert machine.tensorrt.builds == 1
    assert not machine.build(force=True).was_there
    assert not machine.build(shapes=machine.shapes(N=Range(1, 1, 1))).was_there
    assert machine.tensorrt.builds == 3
    # The same file, built with more effort.
    assert not machine.build(BuildOptions("fp32", workspace=64, level=5)).was_there
    assert machine.build(BuildOptions("fp32", workspace=64, level=5)).was_there
    assert len(list(machine.folder.glob("*.plan"))) == 2


def test_a_damaged_plan_is_built_again(machine: FakeMachine) -> None:
    plan = machine.build().plan
    plan.path.write_bytes(b"nothing")
    assert not machine.build().was_there
    assert isinstance(read_plan(plan.path), Plan)


def test_options_reach_the_builder(machine: FakeMachine) -> None:
    options = BuildOptions("tf32", "ampere+", version_compatible=True, workspace=512, level=5)
    record = machine.build(options).plan.record
    (config,) = machine.tensorrt.configs
    assert config.flags == {"TF32", "VERSION_COMPATIBLE"}
    assert config.pools == {"WORKSPACE": 512 * 2**20}
    assert config.hardware_compatibility_level.name == "AMPERE_PLUS"
    assert config.builder_optimization_level == 5
    assert (record.workspace, record.key.hardware, record.key.version_compatible) == (512 * 2**20, "ampere+", True)


def test_what_this_tensorrt_does_not_know_is_an_error(tmp_path: Path) -> None:
    machine = tiny_machine(tmp_path, "10.3.0")
    with pytest.raises(RuntimeUnavailableError, match=r"TensorRT 10\.3\.0 knows no plans for hardware 'capability'"):
        machine.build(BuildOptions("fp32", "capability"))
    machine = tiny_machine(tmp_path / "later", "11.4.0.106")
    machine.build(BuildOptions("fp32", "capability"))


def test_measurements_are_used_again(machine: FakeMachine) -> None:
    machine.build()
    machine.build(force=True)
    assert next(machine.folder.glob("timing-*")).read_bytes() == b"timings NVIDIA H200 one one"


@pytest.mark.parametrize("content", [b"rubbish", b"timings another GPU"])
def test_measurements_that_are_not_of_this_machine_are_made_anew(machine: FakeMachine, content: bytes) -> None:
    machine.folder.mkdir()
    cache = machine.folder / "timing-sm90-trt10.16.1.11.cache"
    cache.write_bytes(content)
    machine.build()
    assert cache.read_bytes() == b"timings NVIDIA H200 one"


@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        ({"parse_error": "Unsupported mode"}, BundleError, "cannot read .*/resize .Resize.: Unsupported mode"),
        ({"build_error": "Could not find any implementation"}, RuntimeFailedError, "no plan .*Could not.*--print-trt"),
        ({"build_error": "Error Code 2: OutOfMemory"}, RuntimeFailedError, "OutOfMemory; free memory.*--workspace"),
        ({"start_error": "CUDA initialization failure 35"}, RuntimeUnavailableError, "start here .CUDA init.*driver"),
        ({"shape_inputs": ("n",)}, BundleError, "values of input 'n' .* decide shapes"),
    ],
)
def test_what_tensorrt_refuses_is_an_error_with_its_words_and_leaves_nothing(
    machine: FakeMachine, fault: dict[str, object], error: type[Exception], text: str
) -> None:
    for name, value in fault.items():
        setattr(machine.tensorrt, name, value)
    with pytest.raises(error, match=text) as caught:
        machine.build()
    assert "\n" not in str(caught.value)
    assert left(machine) == set()


def test_shapes_that_do_not_rise_are_refused(machine: FakeMachine) -> None:
    with pytest.raises(RuntimeFailedError, match="refuses the shapes"):
        machine.build(shapes=machine.shapes(N=Range(8, 4, 1)))


def test_ctrl_c_stops_a_build_and_leaves_nothing(machine: FakeMachine) -> None:
    steps: list[int] = []
    ended: list[bool] = []

    def interrupt() -> None:
        steps.append(1)
        if len(steps) == 3:
            # Where Python runs signal handlers: the thread that waits for the build, not the one that builds.
            os.kill(os.getpid(), signal.SIGINT)
            assert stopped.wait(30)
            ended.append(False)
            # Whoever does not wait for this build is past it by now.
            threading.Event().wait(0.3)
            ended[0] = True

    stopped = threading.Event()

    def pressed(number: int, frame: object) -> None:
        stopped.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, pressed)
    machine.tensorrt.on_step = interrupt
    try:
        with pytest.raises(KeyboardInterrupt):
            machine.build()
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == [True]
    assert len(steps) == 3
    assert left(machine) == set()
    machine.tensorrt.on_step = None
    assert not machine.build().was_there


def test_a_progress_display_that_fails_does_not_reach_tensorrt(
    machine: FakeMachine, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(phase: str, done: int, total: int) -> None:
        raise OSError("no terminal")

    assert not machine.build(progress=broken).was_there
    assert "no terminal" in caplog.text


def test_of_those_that_build_the_same_only_the_first_builds(machine: FakeMachine) -> None:
    inside = threading.Semaphore(0)
    machine.tensorrt.on_step = inside.release
    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(lambda _: machine.build(), range(4)))
    assert machine.tensorrt.builds == 1
    assert sorted(one.was_there for one in built) == [False, True, True, True]
    assert len({one.plan.path for one in built}) == 1


def test_the_plan_that_was_asked_for_last_is_the_newest_though_it_was_there(machine: FakeMachine) -> None:
    first = machine.build().plan
    os.utime(first.path, (0, 0))
    second = machine.build(shapes=machine.shapes(N=Range(1, 2, 2))).plan
    os.utime(second.path, (1, 1))
    assert machine.build().was_there
    assert first.path.stat().st_mtime > second.path.stat().st_mtime


def test_what_a_killed_build_left_is_removed(machine: FakeMachine) -> None:
    plan = machine.build().plan
    stale = plan.path.with_name(f".{plan.path.name}.1234.part")
    stale.write_bytes(b"half")
    plan.path.unlink()
    machine.build()
    assert not stale.exists()


def test_a_folder_that_cannot_be_written_is_an_error(machine: FakeMachine) -> None:
    machine.folder.write_text("a file")
    with pytest.raises(BundleError, match="cannot be written"):
        machine.build()


def test_a_gpu_that_is_not_there_is_an_error(machine: FakeMachine) -> None:
    machine.gpu.status = "cudaErrorNoDevice"
    with pytest.raises(RuntimeUnavailableError, match="no NVIDIA GPU"):
        PlanBuilder(machine.tensorrt.module, machine.cuda)


def test_graphs_whose_shapes_depend_on_data_are_known(machine: FakeMachine, tmp_path: Path) -> None:
    assert machine.build().plan.record.capturable
    counts = onnx.helper.make_node("NonMaxSuppression", ["boxes", "scores", "most"], ["rows"], name="which")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([counts], "counts", [], [])), tmp_path / "counts.onnx")
    assert data_dependent(tmp_path / "counts.onnx") == ("which",)


@pytest.mark.parametrize("graph", ["detector", "heads"])
def test_the_detector_that_comes_along_can_be_recorded_whole(graph: str, tmp_path: Path) -> None:
    assert data_dependent(Store(tmp_path).open("starter-detector").file(f"{graph}.onnx")) == ()
