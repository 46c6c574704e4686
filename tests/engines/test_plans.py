from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from engines.plan_serialize import BuildOptions
from engines.plan_shapes import Range
from engines.plans import (
    Plan,
    PlanKey,
    Rejected,
    Target,
    all_plans,
    find_plan,
    host_platform,
    misfit,
    plan_folders,
    plans_folder,
    read_plan,
    remove_plan,
    useless,
)
from engines.store import Store
from tests.engines.tensorrt_machines import FakeMachine, tiny_machine

HERE = Target(platform="linux-x86_64", tensorrt="10.16.1.11", capability=(9, 0), gpu="H200")


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return tiny_machine(tmp_path)


def key(**changes: Any) -> PlanKey:
    target = HERE.model_copy(update={k: changes.pop(k) for k in list(changes) if k in Target.model_fields})
    fields: dict[str, Any] = {"graph": "g", "onnx": "0" * 64, "target": target, "precision": "fp32", "inputs": ()}
    return PlanKey(**(fields | changes))


@pytest.mark.parametrize(
    ("built", "reason"),
    [
        (key(), None),
        (key(platform="linux-aarch64"), "built on linux-aarch64, this is linux-x86_64"),
        (key(tensorrt="10.16.1.10"), "built with TensorRT 10.16.1.10, this is 10.16.1.11"),
        (key(tensorrt="11.4.0.106"), "built with TensorRT 11.4.0.106"),
        (key(capability=(8, 9)), "compute capability 8.9, this GPU has 9.0"),
        (key(gpu="H100"), "built on H100, this is H200"),
        (key(gpu="H100", hardware="capability"), None),
        (key(capability=(8, 9), hardware="capability"), "compute capability 8.9"),
        (key(capability=(8, 0), gpu="A100", hardware="ampere+"), None),
        (key(tensorrt="10.3.0", version_compatible=True), None),
        (key(tensorrt="10.16.2", version_compatible=True), "for TensorRT 10.16.2 and later ones of 10"),
        (key(tensorrt="9.3.0", version_compatible=True), "later ones of 9"),
        (key(tensorrt="10.3.0", version_compatible=True, capability=(8, 9)), "compute capability 8.9"),
    ],
)
def test_a_plan_fits_the_machine_that_it_was_built_for(built: PlanKey, reason: str | None) -> None:
    found = misfit(built, HERE)
    assert found is None if reason is None else reason in (found or "")


def test_a_plan_for_ampere_does_not_fit_what_came_before() -> None:
    turing = HERE.model_copy(update={"capability": (7, 5)})
    assert "8.0 and later, this GPU has 7.5" in (misfit(key(hardware="ampere+"), turing) or "")


def test_names_of_plans_tell_them_apart(machine: FakeMachine) -> None:
    one = machine.builder().key(machine.bundle, "detector", machine.shapes(), BuildOptions("fp32"))
    others = [
        machine.builder().key(machine.bundle, "detector", machine.shapes(N=Range(1, 1, 1)), BuildOptions("fp32")),
        machine.builder().key(machine.bundle, "detector", machine.shapes(), BuildOptions("tf32")),
        machine.builder().key(machine.bundle, "detector", machine.shapes(), BuildOptions("fp32", "ampere+")),
        one.model_copy(update={"onnx": "1" * 64}),
        one.model_copy(update={"target": one.target.model_copy(update={"gpu": "another"})}),
    ]
    assert len({one.stem, *(other.stem for other in others)}) == 6
    assert one.stem.startswith("detector-fp32-sm90-trt10.16.1.11-")
    assert one.stem == PlanKey.model_validate_json(one.model_dump_json()).stem


def test_the_record_says_what_a_plan_is_for(machine: FakeMachine) -> None:
    built = machine.build().plan
    again = read_plan(built.path)
    assert again == built
    record = built.record
    assert record.key.onnx == machine.bundle.manifest.files["detector.onnx"]
    assert record.key.target == Target(
        platform=host_platform(), tensorrt="10.16.1.11", capability=(9, 0), gpu="NVIDIA H200"
    )
    assert [(shape.name, shape.least, shape.most) for shape in record.key.inputs] == [
        ("x", (1, 2, 1), (8, 2, 9)),
        ("n", (1,), (8,)),
    ]


def damage_plan(plan: Plan) -> None:
    content = bytearray(plan.path.read_bytes())
    content[-1] ^= 1
    plan.path.write_bytes(content)


def cut_plan(plan: Plan) -> None:
    plan.path.write_bytes(plan.path.read_bytes()[:100])


def lose_record(plan: Plan) -> None:
    plan.path.with_suffix(".json").unlink()


def break_record(plan: Plan) -> None:
    plan.path.with_suffix(".json").write_text('{"key": {"graph": "detector"}}')


def no_json(plan: Plan) -> None:
    plan.path.with_suffix(".json").write_text("plan")


DAMAGE = [
    (damage_plan, "sha256 differs"),
    (cut_plan, "sha256 differs"),
    (lose_record, "record .* cannot be read"),
    (break_record, "record .* is not valid"),
    (no_json, "record .* is not valid"),
]


def find(machine: FakeMachine, **changes: Any) -> tuple[Plan | None, tuple[Rejected, ...]]:
    fields: dict[str, Any] = {
        "graph": "detector",
        "onnx": machine.bundle.manifest.files["detector.onnx"],
        "precision": "fp32",
        "target": machine.builder().target,
    }
    return find_plan([machine.folder], **(fields | changes))


@pytest.mark.parametrize(("damage", "reason"), DAMAGE)
def test_a_plan_that_is_not_what_was_built_is_never_found(machine: FakeMachine, damage: Any, reason: str) -> None:
    plan = machine.build().plan
    assert find(machine) == (plan, ())
    damage(plan)
    found, (rejected,) = find(machine)
    assert found is None
    assert rejected.path == plan.path
    assert re.search(reason, rejected.reason)
    assert [rejected] == useless(machine.bundle, [machine.folder], None)


def test_a_plan_of_another_file_precision_or_machine_is_not_found(machine: FakeMachine) -> None:
    machine.build()
    other = machine.builder().target.model_copy(update={"capability": (8, 9)})
    for changes, reason in (
        ({"onnx": "1" * 64}, "another ONNX file"),
        ({"precision": "tf32"}, "it computes in fp32, asked for is tf32"),
        ({"target": other}, "compute capability 9.0, this GPU has 8.9"),
    ):
        found, (rejected,) = find(machine, **changes)
        assert found is None
        assert reason in rejected.reason
    assert find(machine, graph="heads") == (None, ())


def test_of_several_plans_the_last_one_is_found(machine: FakeMachine) -> None:
    first = machine.build().plan
    second = machine.build(shapes=machine.shapes(N=Range(1, 2, 2))).plan
    os.utime(second.path, (1, 1))
    assert find(machine)[0] == first
    os.utime(first.path, (0, 0))
    assert find(machine)[0] == second
    assert {plan.path for plan in all_plans([machine.folder])} == {first.path, second.path}


def test_plans_lie_in_the_bundle_unless_it_is_not_ours_to_write_to(machine: FakeMachine, tmp_path: Path) -> None:
    assert plans_folder(machine.bundle, tmp_path) == machine.bundle.path / "plans"
    assert plan_folders(machine.bundle, tmp_path) == (machine.bundle.path / "plans",)
    brought = Store(tmp_path / "empty").open("starter-generator")
    folder = plans_folder(brought, tmp_path)
    assert folder.parent == tmp_path / "plans"
    assert folder.name.startswith("starter-generator-")
    assert plan_folders(brought, tmp_path) == (folder, brought.path / "plans")


def test_a_bundle_with_plans_is_still_intact(machine: FakeMachine) -> None:
    machine.build()
    machine.bundle.verify()


def test_useless_plans_are_those_that_no_run_here_would_load(machine: FakeMachine) -> None:
    plan = machine.build().plan
    target = machine.builder().target
    assert useless(machine.bundle, [machine.folder], target) == []
    other = target.model_copy(update={"tensorrt": "11.4.0.106"})
    (found,) = useless(machine.bundle, [machine.folder], other)
    assert "built with TensorRT 10.16.1.11" in found.reason
    assert useless(machine.bundle, [machine.folder], None) == []
    manifest = machine.bundle.manifest.model_copy(update={"files": {"detector.onnx": "1" * 64}})
    changed = type(machine.bundle)(machine.bundle.path, manifest, "x")
    (found,) = useless(changed, [machine.folder], None)
    assert "another ONNX file" in found.reason
    assert remove_plan(plan.path) > 0
    assert remove_plan(plan.path) == 0
    assert [path.name for path in machine.folder.iterdir() if not path.name.startswith((".", "timing"))] == []
