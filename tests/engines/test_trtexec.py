from __future__ import annotations

import shlex
from pathlib import Path

from engines.plan_serialize import BuildOptions
from engines.plan_shapes import Range
from engines.trtexec import shell_text, trtexec_command
from tests.engines.tensorrt_machines import tiny_machine


def test_the_command_builds_the_same(tmp_path: Path) -> None:
    machine = tiny_machine(tmp_path)
    options = BuildOptions("fp32", "ampere+", version_compatible=True, workspace=512, level=4)
    command = trtexec_command(Path("a b.onnx"), Path("a.plan"), machine.graph, machine.shapes(), options)
    assert command == [
        "trtexec", "--onnx=a b.onnx", "--saveEngine=a.plan", "--skipInference", "--stronglyTyped",
        "--minShapes=x:1x2x1,n:1", "--optShapes=x:4x2x4,n:4", "--maxShapes=x:8x2x9,n:8", "--noTF32",
        "--memPoolSize=workspace:512M", "--versionCompatible", "--hardwareCompatibilityLevel=ampere+",
        "--builderOptimizationLevel=4",
    ]  # fmt: skip
    assert shlex.split(shell_text(command).replace("\\\n", "")) == command


def test_shapes_are_given_even_where_there_is_only_one(tmp_path: Path) -> None:
    machine = tiny_machine(tmp_path)
    shapes = machine.shapes(N=Range(1, 1, 1), w=Range(4, 4, 4))
    command = trtexec_command(Path("a"), Path("b"), machine.graph, shapes, BuildOptions("tf32"))
    assert "--minShapes=x:1x2x4,n:1" in command
    assert "--noTF32" not in command


def test_a_graph_whose_shapes_are_fixed_needs_none(tmp_path: Path) -> None:
    machine = tiny_machine(tmp_path)
    graph = machine.graph
    fixed = graph.model_copy(update={"inputs": (graph.inputs[0].model_copy(update={"shape": (1, 2, 4)}),)})
    command = trtexec_command(
        Path("a"), Path("b"), fixed, machine.shapes()[:1], BuildOptions("fp16"), timing_cache=Path("c")
    )
    assert not any("Shapes" in part for part in command)
    assert command[-1] == "--timingCacheFile=c"
