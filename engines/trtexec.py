"""The command of TensorRT's own tool that builds the same plan, for those who build on another machine."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from engines.manifest import Graph
    from engines.plan_serialize import BuildOptions
    from engines.plans import InputShapes

_HARDWARE: Final = {"ampere+": "ampere+", "capability": "sameComputeCapability"}


def trtexec_command(
    onnx: Path,
    plan: Path,
    graph: Graph,
    shapes: Sequence[InputShapes],
    options: BuildOptions,
    *,
    timing_cache: Path | None = None,
) -> list[str]:
    """The arguments of `trtexec`.

    Args:
        onnx: the file to build from.
        plan: where the plan is written.
        graph: the file's declaration.
        shapes: that it is to take.
        options: how it is to be built.
        timing_cache: of measurements that are used again; none if not given.
    """
    # Those that may vary in the file, even where only one shape is wanted: trtexec takes 1 for what it is not told.
    names = {tensor.name for tensor in graph.inputs if any(isinstance(side, str) for side in tensor.shape)}
    varying = [shape for shape in shapes if shape.name in names]
    command = ["trtexec", f"--onnx={onnx}", f"--saveEngine={plan}", "--skipInference", "--stronglyTyped"]
    if varying:
        command += [
            f"--minShapes={_shapes((shape.name, shape.least) for shape in varying)}",
            f"--optShapes={_shapes((shape.name, shape.usual) for shape in varying)}",
            f"--maxShapes={_shapes((shape.name, shape.most) for shape in varying)}",
        ]
    if options.precision != "tf32":
        command.append("--noTF32")
    if options.workspace is not None:
        command.append(f"--memPoolSize=workspace:{options.workspace}M")
    if options.version_compatible:
        command.append("--versionCompatible")
    if options.hardware != "model":
        command.append(f"--hardwareCompatibilityLevel={_HARDWARE[options.hardware]}")
    if options.level is not None:
        command.append(f"--builderOptimizationLevel={options.level}")
    if timing_cache is not None:
        command.append(f"--timingCacheFile={timing_cache}")
    return command


def _shapes(shapes: Iterable[tuple[str, Sequence[int]]]) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, sides))}" for name, sides in shapes)


def shell_text(command: Sequence[str]) -> str:
    """A command as a shell takes it, one argument a line.

    Args:
        command: with its arguments.
    """
    return " \\\n  ".join(shlex.quote(part) for part in command)
