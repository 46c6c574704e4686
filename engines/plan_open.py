"""The plan that a graph runs as on this machine: the one that fits, built now where that is allowed, or an error."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from engines.cuda import Cuda
from engines.errors import RuntimeUnavailableError
from engines.plan_build import PlanBuilder
from engines.plan_serialize import BuildOptions
from engines.plan_shapes import dimension_ranges, input_shapes
from engines.plans import find_plan, plan_folders, plans_folder
from engines.runtime_tensorrt import TensorrtRuntime
from engines.store import home
from engines.tensorrt_library import import_tensorrt, this_machine
from engines.tensorrt_policy import VARIABLE, precision_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engines.bundle import Bundle
    from engines.plans import Plan, Rejected, Target
    from engines.tensorrt_policy import Policy

log = logging.getLogger(__name__)

#: Plans whose reasons an error lists.
_MOST_LISTED: Final = 3


def open_plan(
    bundle: Bundle,
    graph: str,
    policy: Policy,
    *,
    may_build: bool = True,
    tensorrt: Any = None,
    cuda: Cuda | None = None,
) -> TensorrtRuntime:
    """Opens a graph as a TensorRT plan. One that does not fit this machine is never loaded.

    Args:
        bundle: a verified bundle.
        graph: name in its manifest.
        policy: what may be done.
        may_build: whether this process may take the minutes that building takes, where the policy allows it.
        tensorrt: the module `tensorrt`; imported if not given.
        cuda: the GPU; the first one if not given.

    Raises:
        BundleError: There is no such graph, or the plan is not of it.
        RuntimeUnavailableError: TensorRT, a GPU or a plan that fits is not there.
        RuntimeFailedError: A plan was to be built, and was not.
    """
    declared = bundle.graph(graph)
    trt = import_tensorrt() if tensorrt is None else tensorrt
    gpu = cuda or Cuda()
    target = this_machine(trt, gpu.gpu())
    precision = precision_of(graph, policy)
    plan, rejected = find_plan(
        plan_folders(bundle, home()),
        graph=graph,
        onnx=bundle.manifest.files[declared.file],
        precision=precision,
        target=target,
        host_code=policy.host_code,
    )
    if plan is None:
        if not (policy.build and may_build):
            raise RuntimeUnavailableError(_missing(bundle, graph, target, rejected, policy, may_build=may_build))
        for other in rejected:
            log.info("%s does not do: %s", other.path.name, other.reason)
        log.warning("%s of %s has no plan for this machine; building one takes minutes", graph, bundle.manifest.name)
        plan = _build(bundle, graph, BuildOptions(precision), PlanBuilder(trt, gpu))
    return TensorrtRuntime(plan, declared, host_code=policy.host_code, tensorrt=trt, cuda=gpu)


def _build(bundle: Bundle, graph: str, options: BuildOptions, builder: PlanBuilder) -> Plan:
    declared = bundle.graph(graph)
    shapes = input_shapes(declared, dimension_ranges(bundle.manifest, declared))
    return builder.build(bundle, graph, shapes, options, plans_folder(bundle, home())).plan


def _missing(
    bundle: Bundle, graph: str, target: Target, rejected: Sequence[Rejected], policy: Policy, *, may_build: bool
) -> str:
    major, minor = target.capability
    reasons = "".join(f"; {other.path.name}: {other.reason}" for other in rejected[:_MOST_LISTED])
    more = f"; and {len(rejected) - _MOST_LISTED} more" if len(rejected) > _MOST_LISTED else ""
    if may_build:
        otherwise = f", or set {VARIABLE}=build to build when it is opened"
    else:
        otherwise = f" first; an engine process builds none{f', whatever {VARIABLE} says' if policy.build else ''}"
    return (
        f"graph {graph!r} of bundle {bundle.manifest.name!r} has no plan for TensorRT {target.tensorrt} on "
        f"{target.gpu} (compute capability {major}.{minor}){reasons}{more}; "
        f"run: standin engines build {bundle.path}{' --tf32' if policy.tf32 else ''}{otherwise}"
    )
