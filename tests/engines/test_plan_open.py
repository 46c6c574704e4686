from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import runtime as runtime_module
from engines.engine_messages import Open
from engines.engine_pool import open_asked
from engines.errors import DeviceMissingError, OutOfMemoryError, RuntimeUnavailableError, UsageError
from engines.plan_open import open_plan
from engines.plan_serialize import BuildOptions
from engines.plans import Plan, plans_folder, read_plan
from engines.runtime import open_runtime
from engines.runtime_tensorrt import TensorrtRuntime
from engines.store import home
from engines.tensorrt_policy import Policy
from tests.engines.tensorrt_machines import FakeMachine, tiny_machine


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path / "home"))
    return tiny_machine(tmp_path)


def opened(machine: FakeMachine, **words: bool) -> TensorrtRuntime:
    return open_plan(machine.bundle, "detector", Policy(**words), tensorrt=machine.tensorrt.module, cuda=machine.cuda)


def feeds() -> dict[str, Any]:
    return {"x": np.ones((2, 2, 3), np.float32), "n": np.array([1, 2])}


def test_the_plan_that_fits_is_loaded(machine: FakeMachine) -> None:
    machine.build()
    with opened(machine) as runtime:
        assert runtime.run(feeds())["y"][0, 0, 0] == 3
    assert machine.tensorrt.builds == 1


def test_without_a_plan_the_error_says_for_what_and_how_to_build_one(machine: FakeMachine) -> None:
    with pytest.raises(RuntimeUnavailableError) as caught:
        opened(machine)
    text = str(caught.value)
    for part in (
        "'detector'", "'tiny'", "TensorRT 10.16.1.11", "NVIDIA H200", "capability 9.0",
        f"standin engines build {machine.bundle.path}", "STANDIN_TENSORRT=build",
    ):  # fmt: skip
        assert part in text
    assert "\n" not in text
    # Another graph may have one.
    assert not isinstance(caught.value, DeviceMissingError)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"capability": (8, 9)}, "compute capability 9.0, this GPU has 8.9"),
        ({"name": "NVIDIA H100"}, "built on NVIDIA H200, this is NVIDIA H100"),
    ],
)
def test_a_plan_of_another_gpu_is_never_loaded(machine: FakeMachine, change: dict[str, Any], reason: str) -> None:
    machine.build()
    for name, value in change.items():
        setattr(machine.gpu, name, value)
    with pytest.raises(RuntimeUnavailableError, match=reason):
        opened(machine)
    assert machine.tensorrt.contexts == 0
    # As a control: TensorRT alone takes it.
    plan = read_plan(next(machine.folder.glob("*.plan")))
    assert isinstance(plan, Plan)
    TensorrtRuntime(plan, machine.graph, tensorrt=machine.tensorrt.module, cuda=machine.cuda).close()


def test_a_plan_of_another_version_is_never_loaded(machine: FakeMachine, tmp_path: Path) -> None:
    machine.build()
    other = tiny_machine(tmp_path / "other", "11.4.0.106")
    with pytest.raises(RuntimeUnavailableError, match=r"built with TensorRT 10\.16\.1\.11, this is 11\.4\.0\.106"):
        open_plan(machine.bundle, "detector", Policy(), tensorrt=other.tensorrt.module, cuda=other.cuda)


def test_a_damaged_plan_is_never_loaded(machine: FakeMachine) -> None:
    plan = machine.build().plan
    plan.path.write_bytes(b"damaged")
    with pytest.raises(RuntimeUnavailableError, match=f"{plan.path.name}: its content is not what was built"):
        opened(machine)


def test_a_plan_of_a_changed_onnx_file_is_never_loaded(machine: FakeMachine) -> None:
    machine.build()
    manifest = machine.bundle.manifest.model_copy(update={"files": {"detector.onnx": "1" * 64}})
    machine.bundle = type(machine.bundle)(machine.bundle.path, manifest, machine.bundle.digest)
    with pytest.raises(RuntimeUnavailableError, match="another ONNX file"):
        opened(machine)


@pytest.fixture
def sized(machine: FakeMachine) -> FakeMachine:
    """As the detectors are whose dimensions have names that are known."""
    manifest = machine.bundle.manifest
    graph = machine.graph
    x = graph.inputs[0].model_copy(update={"shape": ("N", 2, "w")})
    graphs = {"detector": graph.model_copy(update={"inputs": (x, graph.inputs[1])})}
    manifest = manifest.model_copy(update={"graphs": graphs})
    machine.bundle = type(machine.bundle)(machine.bundle.path, manifest, machine.bundle.digest)
    return machine


def test_a_plan_that_does_not_fit_is_built_anew_where_that_is_allowed(sized: FakeMachine) -> None:
    sized.build()
    sized.gpu.capability = (8, 9)
    with opened(sized, build=True) as runtime:
        given = {"x": np.ones((1, 2, 640), np.float32), "n": np.array([1])}
        assert runtime.run(given)["y"][0, 0, 0] == 3
    assert sized.tensorrt.builds == 2
    with opened(sized):
        assert sized.tensorrt.builds == 2


def test_tf32_is_used_only_where_it_is_asked_for(machine: FakeMachine) -> None:
    machine.build(BuildOptions("tf32"))
    with pytest.raises(RuntimeUnavailableError, match="computes in tf32, asked for is fp32"):
        opened(machine)
    opened(machine, tf32=True).close()


def test_plans_that_bring_code_need_permission(machine: FakeMachine) -> None:
    machine.build(BuildOptions("fp32", version_compatible=True))
    with pytest.raises(RuntimeUnavailableError, match="host-code"):
        opened(machine)
    opened(machine, host_code=True).close()


def test_a_plan_that_brings_code_does_not_stand_before_one_that_does_not(machine: FakeMachine) -> None:
    plain = machine.build().plan
    os.utime(plain.path, (0, 0))
    machine.build(BuildOptions("fp32", version_compatible=True))
    opened(machine).close()
    assert machine.tensorrt.builds == 2


def test_plans_of_bundles_that_are_not_ours_are_found_in_the_users_folder(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.plans.BUILT_IN", machine.bundle.path.parent)
    machine.folder = plans_folder(machine.bundle, home())
    assert home() in machine.folder.parents
    machine.build()
    opened(machine).close()


def test_no_memory_on_the_gpu_is_an_error_of_its_own(machine: FakeMachine) -> None:
    machine.build()
    machine.gpu.memory = 10
    with pytest.raises(OutOfMemoryError):
        opened(machine)


@pytest.fixture
def installed(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """What `open_runtime` finds when it looks for TensorRT by itself."""
    monkeypatch.setattr("engines.tensorrt_policy.installed_version", lambda: machine.tensorrt.version)
    monkeypatch.setattr("engines.plan_open.import_tensorrt", lambda: machine.tensorrt.module)
    monkeypatch.setattr("engines.plan_open.Cuda", lambda: machine.cuda)
    return machine


def test_an_engine_process_builds_no_plan_and_says_what_to_do_first(
    installed: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = installed.bundle
    asked = Open(
        bundle=str(bundle.path), digest=bundle.digest, graph="detector", device="tensorrt", threads=1, spinning=False
    )
    with pytest.raises(RuntimeUnavailableError, match=r"run: standin engines build /\S+ first; .* builds none$"):
        open_asked(asked)
    monkeypatch.setenv("STANDIN_TENSORRT", "build")
    with pytest.raises(RuntimeUnavailableError, match=r"builds none, whatever STANDIN_TENSORRT says$"):
        open_asked(asked)
    assert installed.tensorrt.builds == 0
    installed.build()
    open_asked(asked).close()


def test_device_tensorrt_is_a_plan_where_tensorrt_is_there(installed: FakeMachine) -> None:
    installed.build()
    with open_runtime(installed.bundle, device="tensorrt") as runtime:
        assert isinstance(runtime, TensorrtRuntime)
        assert runtime.run(feeds())["y"].shape == (2, 2, 3)


def test_device_tensorrt_is_onnx_runtimes_provider_where_only_that_is_there(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.tensorrt_policy.installed_version", lambda: None)
    with pytest.raises(RuntimeUnavailableError, match="TensorrtExecutionProvider"):
        open_runtime(machine.bundle, device="tensorrt")


def test_onnx_runtimes_provider_is_refused_with_tensorrt_11(
    installed: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_TENSORRT", "onnxruntime")
    with pytest.raises(RuntimeUnavailableError, match="TensorrtExecutionProvider"):
        open_runtime(installed.bundle, device="tensorrt")
    installed.tensorrt.version = "11.4.0.106"
    with pytest.raises(RuntimeUnavailableError, match=r"needs TensorRT 10, TensorRT 11\.4\.0\.106 is installed"):
        open_runtime(installed.bundle, device="tensorrt")


def test_a_word_that_is_not_known_is_a_usage_error(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_TENSORRT", "fast")
    with pytest.raises(UsageError, match="'fast'; expected words of: onnxruntime, build, tf32, host-code"):
        runtime_module.tensorrt_policy()
    # Other devices do not care.
    open_runtime(machine.bundle).close()
