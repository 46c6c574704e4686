from __future__ import annotations

from pathlib import Path

import pytest

from engines.errors import BundleError, RuntimeFailedError, RuntimeUnavailableError
from engines.plan_adopt import adopt_plan
from engines.plan_serialize import BuildOptions
from engines.plans import Plan, find_plan, read_plan
from tests.engines.tensorrt_machines import FakeMachine, tiny_machine


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return tiny_machine(tmp_path)


def brought(machine: FakeMachine, folder: Path, options: BuildOptions | None = None) -> Path:
    """A plan without a record, as trtexec writes it."""
    folder.mkdir()
    file = folder / "elsewhere.plan"
    built = machine.build(options).plan
    file.write_bytes(built.path.read_bytes())
    built.path.unlink()
    return file


def adopt(machine: FakeMachine, file: Path, options: BuildOptions | None = None) -> Plan:
    return adopt_plan(
        machine.bundle,
        "detector",
        file,
        options or BuildOptions("fp32"),
        machine.folder,
        tensorrt=machine.tensorrt.module,
        cuda=machine.cuda,
    )


def test_a_plan_from_elsewhere_gets_a_record_and_is_found(machine: FakeMachine, tmp_path: Path) -> None:
    plan = adopt(machine, brought(machine, tmp_path / "usb"))
    assert [(shape.name, shape.usual) for shape in plan.record.key.inputs] == [("x", (4, 2, 4)), ("n", (4,))]
    found, _ = find_plan(
        [machine.folder],
        graph="detector",
        onnx=machine.bundle.manifest.files["detector.onnx"],
        precision="fp32",
        target=machine.builder().target,
    )
    assert found == plan
    assert machine.gpu.used == 0


def test_a_plan_that_tensorrt_does_not_load_here_is_refused(machine: FakeMachine, tmp_path: Path) -> None:
    file = brought(machine, tmp_path / "usb")
    other = tiny_machine(tmp_path / "other", "11.4.0.106")
    with pytest.raises(RuntimeUnavailableError, match=r"cannot load .*elsewhere.plan here: .*another version"):
        adopt(other, file)
    assert not other.folder.exists()
    file.write_bytes(b"no plan")
    with pytest.raises(RuntimeUnavailableError, match="magic tag"):
        adopt(machine, file)


def test_a_plan_of_another_graph_is_refused_and_leaves_nothing(machine: FakeMachine, tmp_path: Path) -> None:
    file = brought(machine, tmp_path / "usb")
    graph = machine.graph
    for part, text in (("inputs", "no input 'z'"), ("outputs", "outputs y, its manifest declares z")):
        tensors = getattr(graph, part)
        renamed = (tensors[0].model_copy(update={"name": "z"}), *tensors[1:])
        graphs = {"detector": graph.model_copy(update={part: renamed})}
        manifest = machine.bundle.manifest.model_copy(update={"graphs": graphs})
        other = type(machine.bundle)(machine.bundle.path, manifest, machine.bundle.digest)
        with pytest.raises(BundleError, match=text):
            adopt_plan(
                other, "detector", file, BuildOptions("fp32"), machine.folder,
                tensorrt=machine.tensorrt.module, cuda=machine.cuda,
            )  # fmt: skip
        assert list(machine.folder.glob("*.plan")) == []


def test_a_plan_that_does_not_run_leaves_the_one_that_is_there(machine: FakeMachine, tmp_path: Path) -> None:
    good = adopt(machine, brought(machine, tmp_path / "usb"))
    before = good.path.read_bytes(), good.path.with_suffix(".json").read_bytes()
    bad = tmp_path / "usb" / "bad.plan"
    bad.write_bytes(before[0])
    machine.tensorrt.data_dependent = ("y",)
    with pytest.raises(RuntimeFailedError, match="depend on data"):
        adopt(machine, bad)
    assert (good.path.read_bytes(), good.path.with_suffix(".json").read_bytes()) == before
    assert read_plan(good.path) == good


def test_a_plan_that_brings_code_is_taken_only_as_one(machine: FakeMachine, tmp_path: Path) -> None:
    options = BuildOptions("fp32", version_compatible=True)
    file = brought(machine, tmp_path / "usb", options)
    with pytest.raises(RuntimeUnavailableError, match="host code"):
        adopt(machine, file)
    assert adopt(machine, file, options).record.key.version_compatible


def test_a_file_that_is_not_there_is_an_error(machine: FakeMachine, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="No such file"):
        adopt(machine, tmp_path / "nothing.plan")
