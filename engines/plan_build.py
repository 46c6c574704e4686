"""Building TensorRT plans from a bundle's ONNX files, where they are not there yet.

A build runs in a thread of its own; Ctrl-C asks it to stop at its next step.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import filelock

from engines.cuda import Cuda
from engines.errors import BundleError, StandinError
from engines.plan_serialize import MEBIBYTE, BuildOptions, serialize
from engines.plans import PART_SUFFIX, PLAN_SUFFIX, RECORD_SUFFIX, Plan, PlanKey, PlanRecord, note_bundle, read_plan
from engines.tensorrt_library import import_tensorrt, this_machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engines.bundle import Bundle
    from engines.plan_serialize import Progress
    from engines.plans import InputShapes, Target

log = logging.getLogger(__name__)

#: How many rows they give depends on data, so that what comes after them cannot be recorded as a CUDA graph.
DATA_DEPENDENT: Final = frozenset({"NonMaxSuppression", "NonZero", "Unique", "Compress", "If", "Loop", "Scan"})
LOCK_NAME: Final = ".build.lock"
#: Seconds between looks whether a build was interrupted.
_LOOK_AFTER: Final = 0.1


@dataclass(frozen=True)
class Built:
    """A plan, and whether it was there already."""

    plan: Plan
    was_there: bool


class PlanBuilder:
    """Builds plans on this machine.

    Args:
        tensorrt: the module `tensorrt`; imported if not given.
        cuda: the GPU; the first one if not given.

    Raises:
        RuntimeUnavailableError: TensorRT or a GPU is not there.
    """

    def __init__(self, tensorrt: Any = None, cuda: Cuda | None = None) -> None:
        self._trt = import_tensorrt() if tensorrt is None else tensorrt
        self.target: Target = this_machine(self._trt, (cuda or Cuda()).gpu())

    def key(self, bundle: Bundle, graph: str, shapes: tuple[InputShapes, ...], options: BuildOptions) -> PlanKey:
        """What a plan would be known by.

        Args:
            bundle: a verified bundle.
            graph: name in its manifest.
            shapes: that it is to take.
            options: how it is to be built.

        Raises:
            BundleError: There is no such graph.
        """
        return PlanKey(
            graph=graph,
            onnx=bundle.manifest.files[bundle.graph(graph).file],
            target=self.target,
            precision=options.precision,
            inputs=shapes,
            hardware=options.hardware,
            version_compatible=options.version_compatible,
        )

    def build(
        self,
        bundle: Bundle,
        graph: str,
        shapes: tuple[InputShapes, ...],
        options: BuildOptions,
        folder: Path,
        *,
        force: bool = False,
        progress: Progress | None = None,
    ) -> Built:
        """Builds a plan, or finds that it was built; either way it is the newest now, which runs take.

        Processes that build in one folder wait for each other, and only the first of those that build the same builds.

        Args:
            bundle: a verified bundle.
            graph: name in its manifest.
            shapes: that it is to take.
            options: how it is to be built.
            folder: where it is put; made if missing.
            force: build it even if it is there.
            progress: is told how far the builder is; called from other threads.

        Raises:
            BundleError: There is no such graph, TensorRT cannot take it, or the folder cannot be written.
            RuntimeFailedError: TensorRT did not build it.
            KeyboardInterrupt: The build was interrupted; nothing of it is left.
        """
        key = self.key(bundle, graph, shapes, options)
        path = folder / f"{key.stem}{PLAN_SUFFIX}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # One build at a time: others would disturb what it measures, and the timing cache is shared.
            with filelock.FileLock(folder / LOCK_NAME):
                note_bundle(folder, bundle)
                there = None if force or not path.exists() else read_plan(path)
                if isinstance(there, Plan) and _built_so(there.record, key, options):
                    # Of several that fit the newest runs, and this is the one that is asked for now.
                    os.utime(path)
                    return Built(there, was_there=True)
                return Built(self._build(bundle, key, options, path, progress), was_there=False)
        except StandinError:
            raise
        except OSError as error:
            raise BundleError(
                f"plans cannot be written to {folder} ({error.strerror or error}); check its permissions and space"
            ) from error

    def _build(
        self, bundle: Bundle, key: PlanKey, options: BuildOptions, path: Path, progress: Progress | None
    ) -> Plan:
        started = time.monotonic()
        source = bundle.file(bundle.graph(key.graph).file)
        capturable = not data_dependent(source)
        major, minor = key.target.capability
        cache = path.parent / f"timing-sm{major}{minor}-trt{key.target.tensorrt}.cache"
        timings = cache.read_bytes() if cache.exists() else b""
        content, timings = _interruptible(
            lambda stopped: serialize(self._trt, source, key, options, timings, stopped, progress)
        )
        seconds = time.monotonic() - started
        record = PlanRecord(
            key=key,
            sha256=hashlib.sha256(content).hexdigest(),
            capturable=capturable,
            seconds=round(seconds, 3),
            workspace=_bytes(options.workspace),
            level=options.level,
        )
        plan = write_plan(path, content, record)
        if timings:
            _write(cache, timings)
        log.info("built %s in %.0f s", path.name, seconds)
        return plan


def _bytes(mebibytes: int | None) -> int | None:
    return None if mebibytes is None else mebibytes * MEBIBYTE


def _built_so(record: PlanRecord, key: PlanKey, options: BuildOptions) -> bool:
    """Whether a plan is the one that would be built; how much was tried is no part of its name."""
    return (record.key, record.workspace, record.level) == (key, _bytes(options.workspace), options.level)


def data_dependent(source: Path) -> tuple[str, ...]:
    """Names of nodes in an ONNX file whose outputs' shapes depend on data, or that choose what runs.

    Args:
        source: the file.
    """
    # Imported here: loading a plan that is there needs no onnx.
    import onnx

    graph = onnx.load(source, load_external_data=False).graph
    return tuple(node.name or node.op_type for node in graph.node if node.op_type in DATA_DEPENDENT)


def write_plan(path: Path, content: bytes, record: PlanRecord) -> Plan:
    """Writes a plan and its record, each whole or not at all.

    Args:
        path: of the plan.
        content: of the plan.
        record: of the plan.

    Raises:
        OSError: They cannot be written.
    """
    # The record last: a plan without one is never loaded.
    path.with_suffix(RECORD_SUFFIX).unlink(missing_ok=True)
    _write(path, content)
    _write(path.with_suffix(RECORD_SUFFIX), (record.model_dump_json(indent=2) + "\n").encode())
    return Plan(path, record)


def _write(path: Path, content: bytes) -> None:
    """Writes beside the place and moves there; what a killed process left is removed."""
    for stale in path.parent.glob(f".{path.name}.*{PART_SUFFIX}"):
        stale.unlink(missing_ok=True)
    work = path.with_name(f".{path.name}.{os.getpid()}{PART_SUFFIX}")
    try:
        with work.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        work.replace(path)
    finally:
        work.unlink(missing_ok=True)


def _wait_for(event: threading.Event) -> None:
    """Waits in short steps: a signal may reach another thread, and its handler runs here once this one wakes up."""
    while not event.wait(_LOOK_AFTER):
        continue


def _interruptible(work: Callable[[threading.Event], tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """Runs a build in a thread of its own, which is asked to stop when this one is interrupted."""
    stopped, ended = threading.Event(), threading.Event()
    done: list[tuple[bytes, bytes]] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work(stopped))
        except BaseException as error:  # noqa: BLE001  (it is raised again in the caller's thread)
            failed.append(error)
        finally:
            ended.set()

    # A second Ctrl-C does not wait for a builder that is not listening.
    thread = threading.Thread(target=run, name="standin-build", daemon=True)
    # An event, not the thread's own end: before Python 3.13 a thread whose `join` was interrupted counts as ended.
    try:
        thread.start()
        _wait_for(ended)
    except KeyboardInterrupt:
        stopped.set()
        if thread.ident is not None:
            log.warning("stopping the build; press Ctrl-C again to end at once")
            _wait_for(ended)
        raise
    if failed:
        try:
            raise failed[0]
        finally:
            failed.clear()
    return done[0]
