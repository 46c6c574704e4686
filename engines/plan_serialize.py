"""From an ONNX file to the bytes of a TensorRT plan.

Nothing that TensorRT calls back while it builds may raise: an exception would have to pass through its own code, which
ends the process.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from engines.errors import BundleError, RuntimeFailedError, RuntimeUnavailableError
from engines.tensorrt_library import Sayings, make_logger, start

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from engines.plans import Hardware, PlanKey, Precision

    #: Told the phase that the builder is in, and how many of its steps are done, of how many.
    Progress = Callable[[str, int, int], None]

log = logging.getLogger(__name__)

MEBIBYTE: Final = 2**20
_SMALLER_CONTEXTS: Final = "RUNTIME_ACTIVATION_RESIZE_10_10"


@dataclass(frozen=True)
class BuildOptions:
    """How a plan is built.

    Attributes:
        precision: that it computes in; `fp16` says what the ONNX file holds, it changes nothing.
        hardware: GPUs that it may run on.
        version_compatible: whether later versions of TensorRT may load it. Such plans bring code of their own.
        workspace: mebibytes that its layers may use at most, None for what the GPU has.
        level: how much is tried, from 0 to 5; None for TensorRT's own choice.
    """

    precision: Precision
    hardware: Hardware = "model"
    version_compatible: bool = False
    workspace: int | None = None
    level: int | None = None


def serialize(
    trt: Any,
    source: Path,
    key: PlanKey,
    options: BuildOptions,
    timings: bytes,
    stopped: threading.Event,
    progress: Progress | None,
) -> tuple[bytes, bytes]:
    """Builds a plan, in the calling thread.

    Args:
        trt: the module `tensorrt`.
        source: the ONNX file.
        key: what the plan is for.
        options: how it is built.
        timings: the timing cache's content, empty for none.
        stopped: set when the build is not to go on.
        progress: is told how far it is.

    Returns:
        The plan's bytes, and those of the timing cache.

    Raises:
        BundleError: TensorRT cannot take the file.
        RuntimeFailedError: TensorRT did not build it.
        RuntimeUnavailableError: This TensorRT does not know what is asked for.
        KeyboardInterrupt: `stopped` was set.
    """
    sayings = Sayings(every_thread=True)
    logger = make_logger(trt, sayings)
    builder = start(trt.Builder, logger, sayings)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source)):
        raise BundleError(f"TensorRT cannot read {source}: {_problems(parser) or sayings.text}; build the bundle again")
    config = builder.create_builder_config()
    _configure(trt, config, options)
    profile = builder.create_optimization_profile()
    if _set_shapes(network, profile, key, source) and config.add_optimization_profile(profile) < 0:
        raise RuntimeFailedError(f"TensorRT refuses the shapes for {source}: {sayings.text}; give others")
    _use_timings(config, timings)
    config.progress_monitor = make_monitor(trt, stopped, progress)
    content = builder.build_serialized_network(network, config)
    if stopped.is_set():
        raise KeyboardInterrupt
    if content is None:
        if sayings.is_memory:
            todo = "free memory on the GPU, or give a smaller --batch, --size or --workspace"
        else:
            todo = "standin engines build --print-trtexec shows how to try it elsewhere"
        raise RuntimeFailedError(f"TensorRT built no plan of {source}: {sayings.text}; {todo}")
    learnt = config.get_timing_cache()
    return bytes(content), b"" if learnt is None else bytes(learnt.serialize())


def _use_timings(config: Any, timings: bytes) -> None:
    """Measurements of earlier builds; those of another driver or GPU, or what is none, are not trusted."""
    for content in (timings, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return
    log.info("TensorRT takes no timing cache, the build measures everything anew")


def _problems(parser: Any) -> str:
    texts = []
    for index in range(min(parser.num_errors, 3)):
        error = parser.get_error(index)
        texts.append(f"{error.node_name() or 'a node'} ({error.node_operator() or '?'}): {error.desc()}")
    return "; ".join(" ".join(text.split()) for text in texts)


def _configure(trt: Any, config: Any, options: BuildOptions) -> None:
    flags = trt.BuilderFlag
    # On by default, and not what was compared with the checkpoint at export.
    if options.precision == "tf32":
        config.set_flag(flags.TF32)
    else:
        config.clear_flag(flags.TF32)
    # Without it every context asks for as much memory as the largest shapes need, whatever its own are; from 10.10 on.
    if hasattr(trt.PreviewFeature, _SMALLER_CONTEXTS):
        config.set_preview_feature(getattr(trt.PreviewFeature, _SMALLER_CONTEXTS), True)
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace * MEBIBYTE)
    if options.version_compatible:
        config.set_flag(flags.VERSION_COMPATIBLE)
    if options.hardware != "model":
        level = "AMPERE_PLUS" if options.hardware == "ampere+" else "SAME_COMPUTE_CAPABILITY"
        if not hasattr(trt.HardwareCompatibilityLevel, level):
            raise RuntimeUnavailableError(
                f"TensorRT {trt.__version__} knows no plans for hardware {options.hardware!r}; leave it out"
            )
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
    if options.level is not None:
        config.builder_optimization_level = options.level


def _set_shapes(network: Any, profile: Any, key: PlanKey, source: Path) -> bool:
    """Whether there is an input whose shape may vary."""
    shapes = {shape.name: shape for shape in key.inputs}
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    names = [tensor.name for tensor in inputs]
    if sorted(names) != sorted(shapes):
        raise BundleError(
            f"{source} has the inputs {', '.join(names)}, its manifest declares {', '.join(shapes)}; "
            "build the bundle again"
        )
    varies = False
    for tensor in inputs:
        if tensor.is_shape_tensor:
            raise BundleError(
                f"the values of input {tensor.name!r} of {source} decide shapes, which plans here do not do"
            )
        if any(side < 0 for side in tensor.shape):
            shape = shapes[tensor.name]
            profile.set_shape(tensor.name, shape.least, shape.usual, shape.most)
            varies = True
    return varies


def make_monitor(trt: Any, stopped: threading.Event, progress: Progress | None) -> Any:
    """What TensorRT reports its progress to, and asks whether to go on.

    Args:
        trt: the module `tensorrt`.
        stopped: set when it is not to go on.
        progress: is told how far it is.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Its base class is known only when TensorRT is there."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:  # noqa: ARG002
            self._steps[phase_name] = num_steps
            self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1)
            return not stopped.is_set()

        def phase_finish(self, phase_name: str) -> None:
            self._tell(phase_name, self._steps.pop(phase_name, 0))

        def _tell(self, phase: str, done: int) -> None:
            with _nothing_raised():
                if progress is not None:
                    progress(phase, done, self._steps.get(phase, done))

    return Monitor()


@contextlib.contextmanager
def _nothing_raised() -> Iterator[None]:
    try:
        yield
    except Exception:
        log.exception("what shows a build's progress failed")
