"""A batch from beginning to end: inputs to a manifest, workers, results in their places."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Final

from engines.errors import SinkError, SourceError, StandinError, UsageError
from engines.store import Store, home
from stream.address import Address, Place
from stream.assemble import find_bundles
from stream.batch import cluster
from stream.batch.dispatch import Dispatcher, Rules
from stream.batch.folder import Extras, OutputFolder, is_full
from stream.batch.inputs import Found, Inputs, Layout
from stream.batch.jobs import Order
from stream.batch.manifest import Counts, Manifest
from stream.batch.plan import anywhere, look_at_lengths, sample_speed, settings_key
from stream.batch.remote import is_remote
from stream.batch.sidecars import Sidecars
from stream.config import RunSettings
from stream.report import versions
from stream.run_checks import check_settings

_log = logging.getLogger(__name__)

#: Of a worker where nothing is said: a run keeps two cores busy, and gains little by more.
_CORES_PER_WORKER: Final = 2
_MOST_TROUBLES: Final = 100
_MOST_GREY: Final = 5
#: Files that an estimate tries, where the first ones cannot be read.
_MOST_SAMPLES: Final = 5


@dataclass(frozen=True, slots=True)
class Where:
    """Where workers are.

    Attributes:
        address: of a Ray cluster, None for this machine.
        workers: at a time, None for as many as there is room for.
        cpus: cores that each gets; None for a fair share of this machine, or two on a cluster.
        gpus: GPUs that each gets, which may be a part of one.
        ray_folder: folder for Ray's own logs, None for one that goes with it.
    """

    address: str | None = None
    workers: int | None = None
    cpus: int | None = None
    gpus: float = 0.0
    ray_folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be done.

    Attributes:
        inputs: files, folders, patterns, lists, URLs.
        layout: how results are called, and where they go.
        settings: of every run.
        extras: what lies beside a result.
        rules: how often, how long.
        where: the workers.
    """

    inputs: Sequence[str]
    layout: Layout
    settings: RunSettings
    extras: Extras
    rules: Rules
    where: Where


@dataclass(frozen=True, slots=True)
class Ended:
    """How a batch ended.

    Attributes:
        counts: of files.
        troubles: name and error of files that failed or are incomplete; the first of them.
        grey: name and number of withheld frames of files that have some; those with the most.
        stopped: why it ended before its inputs did, None if it did not or was asked to.
        others: what was left out, as no video and no image, or hidden.
    """

    counts: Counts
    troubles: list[tuple[str, str]]
    grey: list[tuple[str, int]]
    stopped: str | None
    others: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a batch would do.

    Attributes:
        counts: of files.
        troubles: name and error of files that cannot be done.
        frames: that are to be done, as far as that is known.
        speed: frames per second of a worker, None where there is nothing to do, or nothing that can be read.
        workers: at a time.
        seconds: that it will take, about.
        others: what was left out, as no video and no image, or hidden.
    """

    counts: Counts
    troubles: list[tuple[str, str]]
    frames: float
    speed: float | None
    workers: int
    seconds: float
    others: int


def run_batch(
    batch: Batch,
    *,
    on_plan: Callable[[Counts], None] = lambda _: None,
    on_begin: Callable[[Dispatcher], None] = lambda _: None,
    on_look: Callable[[], None] = lambda: None,
    on_end: Callable[[str, str | None], None] = lambda *_: None,
) -> Ended:
    """Do what is missing or has changed.

    Args:
        batch: what is to be done.
        on_plan: called once with how things stand.
        on_begin: called once there are workers, with what can be stopped and watched.
        on_look: called several times a second.
        on_end: called with the name of each file that ended, and with its error or None.

    Raises:
        StandinError: it cannot be done; what is done already stays.
    """
    batch = replace(batch, settings=anywhere(batch.settings))
    # Before there is a folder that an input would then have in it.
    Inputs(batch.inputs, batch.layout).check()
    with OutputFolder(Path(os.path.abspath(batch.layout.output))) as folder:
        inputs, manifest = _plan(batch, folder.manifest), folder.manifest
        _complete(folder, batch.extras)
        counts, stopped = manifest.counts(), None
        on_plan(counts)
        if counts.waiting:
            # Said before anything is started.
            _local_share(batch.where, counts.waiting)
            with _ray(batch.where, folder) as ray:
                share, workers = _share(ray, batch.where, counts.waiting)
                threads, version = max(1, int(share.cpus)), versions()["standin"]
                order = Order(batch.settings, threads, batch.extras.reports, version, str(folder.path))
                dispatcher = Dispatcher(
                    cluster.RayCrew(ray, order, share),
                    folder,
                    replace(batch.rules, workers=workers),
                    batch.extras,
                    batch.settings,
                    on_end=on_end,
                )
                on_begin(dispatcher)
                dispatcher.run(on_look)
                stopped = dispatcher.stopped
        troubles, grey = manifest.troubles(_MOST_TROUBLES), manifest.withheld(_MOST_GREY)
        return Ended(manifest.counts(), troubles, grey, stopped, inputs.others)


def estimate(batch: Batch) -> Estimate:
    """What a batch would do, and how long that would take; no result is written.

    Raises:
        StandinError: it cannot be done.
    """
    batch = replace(batch, settings=anywhere(batch.settings))
    where = batch.where
    with contextlib.closing(Manifest.copy(Path(os.path.abspath(batch.layout.output)))) as manifest:
        inputs = _plan(batch, manifest)
        counts, frames, speed = manifest.counts(), manifest.left(), manifest.speed()
        cpus, workers = _local_share(where, counts.waiting)
        if where.address is not None:
            with cluster.joined(where.address) as ray:
                share, workers = _share(ray, where, counts.waiting)
                cpus = int(share.cpus)
        if speed is None:
            speed = _sampled(manifest, batch.settings.model_copy(update={"threads": cpus}))
        seconds = frames / speed / max(1, workers) if speed else 0.0
        return Estimate(counts, manifest.troubles(_MOST_TROUBLES), frames, speed, workers, seconds, inputs.others)


def _plan(batch: Batch, manifest: Manifest) -> Inputs:
    """Compare what is there with what should be."""
    settings = batch.settings
    check_settings(Address(Place.FILE, "input"), [Address(Place.FILE, "output")], settings)
    needing = {"--device": settings.device, "--decoder": settings.decoder}
    on_gpu = [f"{option} {device}" for option, device in needing.items() if device in ("cuda", "tensorrt")]
    if on_gpu and not batch.where.gpus:
        raise UsageError(
            f"{' and '.join(on_gpu)} needs --gpus-per-worker: 1, or such as 0.25 for four workers on a GPU; "
            "workers see no other GPU"
        )
    bundles = find_bundles(settings, Store(home()))
    # Of pieces, dense poses are kept as vertices, which other pixels come of.
    vertices = batch.rules.chunk is not None and bundles.surface is not None
    key = settings_key(settings, bundles.all, reports=batch.extras.reports, vertices=vertices)
    inputs = Inputs(batch.inputs, batch.layout, Sidecars(batch.extras.sidecars).goes_along)
    found = _fitting(inputs, batch.extras)
    manifest.begin(found, key, overwrite=settings.overwrite, reports=batch.extras.reports)
    look_at_lengths(manifest)
    return inputs


def _fitting(inputs: Inputs, extras: Extras) -> Iterator[Found]:
    """The inputs, of which none may ask for what there is not in its place."""
    for found in inputs:
        if (extras.sidecars or extras.times) and is_remote(found.at):
            raise UsageError(f"--sidecar and --keep-times are for files on this machine's disks, not for {found.at}")
        yield found


def _complete(folder: OutputFolder, extras: Extras) -> None:
    """Lay beside results of earlier calls what this one asks for.

    Raises:
        SinkError: there is no room left.
    """
    if not (extras.sidecars or extras.times):
        return
    for entry in folder.manifest.kept():
        try:
            trouble = folder.complete(entry, extras)
        except StandinError as error:
            if is_full(error):
                raise
            trouble = str(error)
        if trouble is not None:
            folder.manifest.lacks(entry.name, trouble)


def _sampled(manifest: Manifest, settings: RunSettings) -> float | None:
    """Frames per second, of the longest file that can be read."""
    for _ in range(_MOST_SAMPLES):
        if (entry := manifest.take()) is None:
            break
        try:
            return sample_speed(entry, settings)
        except SourceError as error:
            _log.info("%s gives no estimate: %s", entry.name, error)
    return None


def _ray(where: Where, folder: OutputFolder) -> contextlib.AbstractContextManager[ModuleType]:
    if where.address is not None:
        return cluster.joined(where.address)
    if where.ray_folder is None:
        return cluster.local(_cores(), folder.scratch())
    try:
        where.ray_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"cannot make the folder {where.ray_folder}: {error.strerror}") from error
    return cluster.local(_cores(), where.ray_folder.absolute())


def _share(ray: ModuleType, where: Where, waiting: int) -> tuple[cluster.Share, int]:
    """What each worker gets, and how many there are.

    Raises:
        UsageError: there is no room for a single one, now or, on a cluster that does not grow, ever.
    """
    if where.address is None:
        cpus, workers = _local_share(where, waiting)
        gpus = ray.cluster_resources().get("GPU", 0.0)
        if where.gpus > gpus:
            raise UsageError(f"--gpus-per-worker is {where.gpus:g}, and this machine has {gpus:g}")
        # More workers than cores take turns.
        share = cluster.Share(min(cpus, _cores() / workers), where.gpus)
        return (share if share.cpus >= 1 else cluster.Share(round(share.cpus, 4), where.gpus)), workers
    there, cpus = ray.cluster_resources(), where.cpus or _CORES_PER_WORKER
    room = there.get("CPU", 0.0) / cpus
    if where.gpus:
        room = min(room, there.get("GPU", 0.0) / where.gpus)
    if room < 1:
        _log.warning(
            "no machine of the cluster has room for a worker with %g cores and %g GPUs now; waiting for one",
            cpus,
            where.gpus,
        )
    return cluster.Share(cpus, where.gpus), where.workers or min(waiting, max(1, math.floor(room)))


def _local_share(where: Where, waiting: int) -> tuple[int, int]:
    """Cores of each worker on this machine, and how many there are."""
    cores = _cores()
    if where.address is None and where.cpus is not None and where.cpus > cores:
        raise UsageError(f"--cpus-per-worker is {where.cpus}, and this machine has {cores}")
    workers = where.workers or min(max(1, waiting), max(1, cores // (where.cpus or _CORES_PER_WORKER)))
    return where.cpus or max(1, cores // workers), workers


def _cores() -> int:
    return len(os.sched_getaffinity(0))
