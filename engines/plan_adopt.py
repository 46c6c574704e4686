"""Plans that were built elsewhere, with TensorRT's own tool: looked at on this machine, and given a record."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any

import filelock

from engines.cuda import Cuda
from engines.errors import BundleError, RuntimeUnavailableError, StandinError
from engines.plan_build import LOCK_NAME, data_dependent, write_plan
from engines.plans import PLAN_SUFFIX, InputShapes, Plan, PlanKey, PlanRecord, note_bundle
from engines.runtime_tensorrt import TensorrtRuntime
from engines.tensorrt_library import Sayings, import_tensorrt, make_logger, start, this_machine

if TYPE_CHECKING:
    from pathlib import Path

    from engines.bundle import Bundle
    from engines.manifest import Graph
    from engines.plan_serialize import BuildOptions

log = logging.getLogger(__name__)


def adopt_plan(
    bundle: Bundle,
    graph: str,
    file: Path,
    options: BuildOptions,
    folder: Path,
    *,
    tensorrt: Any = None,
    cuda: Cuda | None = None,
) -> Plan:
    """Takes a plan that was built for this machine from a graph of a bundle.

    That it was built from this very graph, and with these options, is what its user says: a plan does not tell. That
    TensorRT loads it here, and that its inputs and outputs are those of the graph, is looked at.

    Args:
        bundle: a verified bundle.
        graph: name in its manifest.
        file: the plan.
        options: that it was built with.
        folder: where it is put; made if missing.
        tensorrt: the module `tensorrt`; imported if not given.
        cuda: the GPU; the first one if not given.

    Raises:
        BundleError: There is no such graph, the plan is not of it, or files cannot be read or written.
        RuntimeUnavailableError: TensorRT or a GPU is not there, or TensorRT does not load the plan here.
    """
    declared = bundle.graph(graph)
    trt = import_tensorrt() if tensorrt is None else tensorrt
    gpu = cuda or Cuda()
    try:
        content = file.read_bytes()
        key = PlanKey(
            graph=graph,
            onnx=bundle.manifest.files[declared.file],
            target=this_machine(trt, gpu.gpu()),
            precision=options.precision,
            inputs=_shapes(trt, content, declared, file, host_code=options.version_compatible),
            hardware=options.hardware,
            version_compatible=options.version_compatible,
        )
        record = PlanRecord(
            key=key,
            sha256=hashlib.sha256(content).hexdigest(),
            capturable=not data_dependent(bundle.file(declared.file)),
            seconds=0,
        )
        # Tried where it lies: what is there already under that name may be a good one, and stays if this one is none.
        tried = Plan(file, record)
        TensorrtRuntime(tried, declared, host_code=options.version_compatible, tensorrt=trt, cuda=gpu).close()
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / LOCK_NAME):
            note_bundle(folder, bundle)
            plan = write_plan(folder / f"{key.stem}{PLAN_SUFFIX}", content, record)
    except StandinError:
        raise
    except OSError as error:
        raise BundleError(f"{file} cannot be put into {folder} ({error.strerror or error})") from error
    log.info("took %s as %s", file, plan.path.name)
    return plan


def _shapes(trt: Any, content: bytes, declared: Graph, file: Path, *, host_code: bool) -> tuple[InputShapes, ...]:
    sayings = Sayings()
    logger = make_logger(trt, sayings)
    runtime = start(trt.Runtime, logger, sayings)
    if host_code:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise RuntimeUnavailableError(f"TensorRT cannot load {file} here: {sayings.text}; build it for this machine")
    there = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
    shapes = []
    for tensor in declared.inputs:
        if tensor.name not in there:
            raise BundleError(f"{file} has no input {tensor.name!r}, so it is not of {declared.file}")
        whole = tuple(int(side) for side in engine.get_tensor_shape(tensor.name))
        varies = any(side < 0 for side in whole)
        ways = engine.get_tensor_profile_shape(tensor.name, 0) if varies else (whole, whole, whole)
        least, usual, most = (tuple(int(side) for side in way) for way in ways)
        shapes.append(InputShapes(name=tensor.name, least=least, usual=usual, most=most))
    return tuple(shapes)
