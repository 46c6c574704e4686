from __future__ import annotations

import signal
from pathlib import Path

import filelock
import onnx
import pytest
from typer.testing import CliRunner

from engines.bundle import open_bundle, write_bundle
from engines.errors import BundleError, RuntimeUnavailableError, UsageError
from engines.manifest import ManifestDraft
from engines.plan_build import LOCK_NAME, PlanBuilder
from engines.store import Store
from stream.cli_engines import app
from stream.cli_export import export_command
from stream.cli_plans import Wish, build_plans, terminable
from tests.detector_bundles import FACES, with_integers, write_one_stage
from tests.engines.tensorrt_machines import FakeMachine, tiny_machine
from tests.generator_bundles import write_unet

SHAPES = ("--shape", "w=1,4,9", "--batch", "1,4,8")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "[red]store[/]"
    monkeypatch.setenv("STANDIN_HOME", str(root))
    monkeypatch.setenv("COLUMNS", "200")
    return root


@pytest.fixture
def machine(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """A machine with TensorRT whose store has the tiny bundle."""
    made = tiny_machine(tmp_path / "made")
    folder = store / "bundles" / "tiny"
    folder.parent.mkdir(parents=True)
    made.bundle.path.rename(folder)
    made.bundle = Store(store).open("tiny")
    made.folder = folder / "plans"
    monkeypatch.setattr("stream.cli_plans.require_tensorrt", made.builder)
    return made


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_build_makes_the_plans_of_a_bundle_and_says_where(machine: FakeMachine) -> None:
    text = call("build", "tiny", *SHAPES)
    (plan,) = machine.folder.glob("*.plan")
    assert "detector: building, which may take minutes" in text
    assert f"detector: built in 0 s, {plan} (" in text
    assert "detector: is there" in call("build", "tiny", *SHAPES)
    assert machine.tensorrt.builds == 1
    assert "built in" in call("build", "tiny", *SHAPES, "--force")


def test_options_reach_the_builder(machine: FakeMachine) -> None:
    call(
        "build", "tiny", *SHAPES, "--tf32", "--workspace", "64", "--hardware", "ampere+", "--version-compatible",
        "--level", "2",
    )  # fmt: skip
    (config,) = machine.tensorrt.configs
    assert config.flags == {"TF32", "VERSION_COMPATIBLE"}
    assert config.pools == {"WORKSPACE": 64 * 2**20}
    assert config.builder_optimization_level == 2
    assert config.shapes["x"] == ((1, 2, 1), (4, 2, 4), (8, 2, 9))


def test_a_single_number_is_the_most(machine: FakeMachine) -> None:
    call("build", "tiny", "--shape", "w=4", "--batch", "8")
    assert machine.tensorrt.configs[-1].shapes["x"] == ((1, 2, 1), (8, 2, 4), (8, 2, 4))
    call("build", "tiny", "--shape", "w=4,4", "--batch", "8")
    assert machine.tensorrt.configs[-1].shapes["x"] == ((1, 2, 4), (8, 2, 4), (8, 2, 4))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--batch", "x"), "--batch is 'x'"),
        (("--size", "8"), "--size is '8'"),
        (
            ("--shape", "w=4", "--batch", "2,4"),
            "2 rows are the least for detector; runs have any number of rows, so give 1",
        ),
        (("--shape", "w=4", "--shape", "N=3,4"), "3 rows are the least for detector"),
        (("--shape", "w"), "--shape is 'w'; expected NAME=NUMBERS"),
        (("--shape", "w=0"), "--shape w is '0'"),
        (("--shape", "q=3"), "--shape q: no graph that is built has such a dimension; there are: N, w"),
        (("--plan", "a.plan"), "give one --graph"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(machine: FakeMachine, arguments: tuple[str, ...], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        call("build", "tiny", *arguments)
    assert machine.tensorrt.builds == 0


def test_a_graph_that_is_not_there_is_named(machine: FakeMachine) -> None:
    with pytest.raises(BundleError, match="no graph 'heads'"):
        call("build", "tiny", "--graph", "heads")


def test_without_tensorrt_the_error_says_what_to_install(store: Path) -> None:
    if _has_tensorrt():
        pytest.skip("TensorRT is installed")
    with pytest.raises(RuntimeUnavailableError, match=r'pip install "standin\[tensorrt\]"'):
        call("build", "starter-generator")


def _has_tensorrt() -> bool:
    try:
        PlanBuilder()
    except RuntimeUnavailableError:
        return False
    return True


def test_a_graph_that_tensorrt_does_not_take_is_refused_with_the_nodes_name(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(machine.bundle.file("detector.onnx"))
    model.graph.node[0].op_type = "BitShift"
    model.graph.node[0].name = "/shift"
    content = model.SerializeToString()
    draft = ManifestDraft(**machine.bundle.manifest.model_dump(exclude={"files"}))
    other = write_bundle(machine.bundle.path.parent / "odd", draft, {"detector.onnx": content})
    with pytest.raises(BundleError, match="error: BitShift /shift: TensorRT does not know it; --regardless tries it"):
        call("build", "odd", *SHAPES)
    assert machine.tensorrt.builds == 0
    # As a control: nothing else keeps it from being built.
    assert "error: BitShift /shift" in call("build", str(other.path), *SHAPES, "--regardless")
    assert machine.tensorrt.builds == 1


def test_the_command_for_elsewhere_needs_neither_tensorrt_nor_a_gpu(store: Path) -> None:
    text = call("build", "starter-generator", "--graph", "generator", "--print-trtexec")
    assert text.startswith("trtexec \\\n")
    assert "--minShapes=image:1x3x144x80" in text
    assert "standin engines build starter-generator --graph generator --plan starter-generator-generator-fp32" in text


def test_a_plan_from_elsewhere_is_taken(machine: FakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = machine.build().plan
    file = tmp_path / "elsewhere.plan"
    built.path.rename(file)
    monkeypatch.setattr("engines.plan_adopt.import_tensorrt", lambda: machine.tensorrt.module)
    monkeypatch.setattr("engines.plan_adopt.Cuda", lambda: machine.cuda)
    text = call("build", "tiny", "--graph", "detector", "--plan", str(file))
    (plan,) = machine.folder.glob("*.plan")
    assert text == f"detector: {plan}\n"


def test_prune_removes_what_no_run_here_would_load(machine: FakeMachine) -> None:
    call("build", "tiny", *SHAPES)
    (kept,) = machine.folder.glob("*.plan")
    assert "0 plans, 0 bytes removed" in call("prune")
    (machine.folder / "other.plan").write_bytes(b"x" * 1000)
    text = call("prune", "tiny", "--dry-run")
    assert "other.plan: its record other.json cannot be read" in text
    assert "1 plans, 1.0 kB would be removed" in text
    assert "1 plans, 1.0 kB removed" in call("prune")
    assert list(machine.folder.glob("*.plan")) == [kept]
    machine.gpu.capability = (8, 9)
    assert "compute capability 9.0, this GPU has 8.9" in call("prune")
    assert list(machine.folder.glob("*.plan")) == []


def test_prune_without_tensorrt_leaves_what_may_fit_another_machine(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("build", "tiny", *SHAPES)

    def missing() -> PlanBuilder:
        raise RuntimeUnavailableError("no TensorRT")

    monkeypatch.setattr("stream.cli_plans.require_tensorrt", missing)
    machine.gpu.capability = (8, 9)
    text = call("prune")
    assert "only plans that fit nowhere" in text
    assert "0 plans" in text


def test_prune_removes_plans_of_bundles_that_are_not_there_any_more(machine: FakeMachine, store: Path) -> None:
    orphan = store / "plans" / "gone-123456789abc" / "a.plan"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"x")
    assert "the bundle that it was built from is not there" in call("prune")
    assert not orphan.exists()


@pytest.fixture
def elsewhere(machine: FakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """The tiny bundle in no store, and not ours to write to, with a plan in the user's folder."""
    place = tmp_path / "elsewhere" / "tiny"
    place.parent.mkdir()
    machine.bundle.path.rename(place)
    machine.bundle = open_bundle(place)
    monkeypatch.setattr("engines.plans.BUILT_IN", place.parent)
    call("build", str(place), *SHAPES)
    return machine


def plans_in(store: Path) -> list[Path]:
    return list((store / "plans").glob("tiny-*/*.plan"))


def test_prune_finds_bundles_that_lie_elsewhere(elsewhere: FakeMachine, store: Path) -> None:
    assert len(plans_in(store)) == 1
    assert "0 plans" in call("prune")
    assert len(plans_in(store)) == 1
    elsewhere.gpu.capability = (8, 9)
    assert "this GPU has 8.9" in call("prune", "--dry-run")
    elsewhere.gpu.capability = (9, 0)
    elsewhere.bundle.file("detector.onnx").write_bytes(b"damaged")
    assert "0 plans" in call("prune"), "it may be made whole again"
    elsewhere.bundle.path.rename(store / "away")
    assert "the bundle that it was built from is not there" in call("prune")
    assert plans_in(store) == []


def test_prune_removes_plans_of_a_bundle_elsewhere_that_is_another_now(elsewhere: FakeMachine, store: Path) -> None:
    manifest = elsewhere.bundle.path / "bundle.json"
    manifest.write_text(manifest.read_text() + "\n")
    assert "the bundle that it was built from is not there" in call("prune")
    assert plans_in(store) == []


def test_prune_does_not_touch_what_is_being_built(machine: FakeMachine) -> None:
    machine.folder.mkdir()
    # As a build leaves it for a moment: the record comes last.
    plan = machine.folder / "detector-fp32.plan"
    plan.write_bytes(b"x")
    with filelock.FileLock(machine.folder / LOCK_NAME):
        text = call("prune")
    assert f"{machine.folder} is left out: a build is under way there" in text
    assert "0 plans" in text
    assert plan.exists()
    assert "1 plans" in call("prune")


def test_prune_leaves_a_damaged_bundles_plans_alone(machine: FakeMachine, store: Path) -> None:
    call("build", "tiny", *SHAPES)
    machine.bundle.file("detector.onnx").write_bytes(b"damaged")
    ours = store / "plans" / "tiny-123456789abc" / "a.plan"
    ours.parent.mkdir(parents=True)
    ours.write_bytes(b"x")
    assert "0 plans" in call("prune")
    assert ours.exists()
    with pytest.raises(BundleError, match="was changed"):
        call("prune", "tiny")


def test_every_graph_of_a_generator_is_built_in_its_precision(machine: FakeMachine, tmp_path: Path) -> None:
    bundle = write_unet(tmp_path / "unet")
    build_plans(bundle, Wish(), machine.builder())
    names = sorted(path.name.split("-sm90")[0] for path in (bundle.path / "plans").glob("*.plan"))
    precisions = {"generator": "fp32", "generator_fp16": "fp16", "mapping": "fp32"}
    assert names == sorted(f"{graph}-{precisions[graph]}" for graph in bundle.manifest.graphs)


def test_an_export_says_at_once_that_there_is_no_tensorrt(store: Path, tmp_path: Path) -> None:
    if _has_tensorrt():
        pytest.skip("TensorRT is installed")
    with pytest.raises(RuntimeUnavailableError, match="TensorRT cannot be imported"):
        export_command("dp2-face", tmp_path / "nothing.ckpt", tensorrt=True)


def test_an_export_builds_plans_of_what_it_made(
    machine: FakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("stream.cli_export.require_tensorrt", machine.builder)
    monkeypatch.setattr("stream.cli_export._choose", lambda *_: lambda folder, say: write_unet(folder))
    export_command("dp2-person-cse", tmp_path / "a.ckpt", output=tmp_path / "out", tensorrt=True)
    assert len(list((tmp_path / "out" / "plans").glob("*.plan"))) == machine.tensorrt.builds > 1
    assert "generator: built in 0 s" in capsys.readouterr().out
    builds = machine.tensorrt.builds
    export_command("dp2-person-cse", tmp_path / "a.ckpt", output=tmp_path / "other")
    assert machine.tensorrt.builds == builds


def test_being_told_to_end_is_like_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminable():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_integers_are_for_processors_and_get_no_plan(tmp_path: Path) -> None:
    both = with_integers(write_one_stage(tmp_path / "plain", FACES), tmp_path / "both")
    assert Wish().chosen(both) == ("detector",)
    with pytest.raises(UsageError, match="--graph detector_int8: integers are for processors"):
        Wish(("detector_int8",)).chosen(both)
