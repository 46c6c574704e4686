"""Workers as Ray actors, on this machine or on a cluster. Only names and results travel; frames stay in a worker."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from engines.errors import RuntimeUnavailableError, StandinError, UsageError
from stream.batch.crew import Done, Event, Lost, Ready
from stream.batch.jobs import Job, Order, Progress
from stream.batch.worker import Worker

#: Bytes for what travels between workers; Ray takes no less.
_OBJECT_STORE: Final = 80 * 2**20
_SECONDS_TO_CONNECT: Final = 5.0
#: Of HTTP/2: the type of the frame that comes first, the length of a frame's head, and what a client begins with.
_SETTINGS: Final = 4
_FRAME_HEAD: Final = 9
_HELLO: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0])


@dataclass(frozen=True, slots=True)
class Share:
    """What a worker needs of a machine.

    Attributes:
        cpus: cores.
        gpus: GPUs, which may be a part of one.
    """

    cpus: float
    gpus: float = 0.0


@contextlib.contextmanager
def local(cores: int, folder: Path) -> Iterator[ModuleType]:
    """Ray on this machine alone, which nothing outside of it can reach.

    Args:
        cores: that it may use.
        folder: for Ray's sockets and logs, of a short name.

    Raises:
        RuntimeUnavailableError: Ray is not installed or cannot start.
    """
    # Read when Ray is imported. Without it, Ray would listen on all of this machine's addresses.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    # Other users of this machine cannot give it work; without one of ours, Ray would write one into the home folder.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray = _imported()
    try:
        with _started(ray):
            ray.init(
                # Whatever RAY_ADDRESS says.
                address="local",
                num_cpus=cores,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE,
                _temp_dir=str(folder),
                _node_ip_address="127.0.0.1",
                log_to_driver=False,
                logging_level=logging.CRITICAL,
            )
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def joined(address: str) -> Iterator[ModuleType]:
    """A cluster that is there already.

    Args:
        address: `HOST:PORT` of its head, or `auto` on one of its machines.

    Raises:
        UsageError: it is no such address.
        RuntimeUnavailableError: Ray is not installed, or the cluster cannot be reached.
    """
    if address != "auto":
        _check_reachable(address)
    ray = _imported()
    try:
        what = (
            f"the Ray cluster at {address} cannot be joined (have both sides the same release of Ray, and its token?)"
        )
        with _started(ray, what):
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        yield ray
    finally:
        ray.shutdown()


class RayCrew:
    """A crew of Ray actors.

    Args:
        ray: the module, connected.
        order: what all jobs have in common.
        share: what each worker needs.
    """

    def __init__(self, ray: ModuleType, order: Order, share: Share) -> None:
        self._ray = ray
        # Where it begins is where its package is, so that no code travels.
        kind = ray.remote(Worker)
        self._kind = kind.options(
            num_cpus=share.cpus,
            num_gpus=share.gpus,
            # Its own thread for `progress`.
            max_concurrency=2,
            # Who is lost is replaced by the dispatcher, which then knows.
            max_restarts=0,
            scheduling_strategy="SPREAD",
        )
        self._order = order
        self._actors: dict[int, Any] = {}
        self._opening: dict[Any, int] = {}
        self._working: dict[Any, int] = {}
        self._asking: dict[Any, int] = {}
        self._progress: dict[int, Progress] = {}
        self._count = 0

    def hire(self) -> int:
        """Begin another worker."""
        self._count += 1
        actor = self._actors[self._count] = self._kind.remote(self._order)
        self._opening[actor.open.remote()] = self._count
        return self._count

    def give(self, worker: int, job: Job) -> None:
        """Give a ready worker a job."""
        self._working[self._actors[worker].work.remote(job)] = worker

    def wait(self, seconds: float) -> list[Event]:
        """What has happened, at the latest after so many seconds."""
        self._ask()
        # Not for answers about progress: somebody always has one.
        waited = [*self._opening, *self._working]
        if waited:
            self._ray.wait(waited, num_returns=1, timeout=seconds)
        else:
            time.sleep(seconds)
        references = [*waited, *self._asking]
        done, _ = self._ray.wait(references, num_returns=len(references), timeout=0) if references else ([], [])
        # A worker that is lost is told about once, by the first of its answers that does not come.
        return [event for reference in done if (event := self._event(reference)) is not None]

    def progress(self, worker: int) -> Progress | None:
        """How far a worker last was."""
        return self._progress.get(worker)

    def dismiss(self, worker: int) -> None:
        """End a worker, whatever it does."""
        actor = self._actors.pop(worker, None)
        for references in (self._opening, self._working, self._asking):
            for reference in [key for key, owner in references.items() if owner == worker]:
                del references[reference]
        self._progress.pop(worker, None)
        if actor is not None:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor)

    def _ask(self) -> None:
        asked = set(self._asking.values())
        for worker in self._working.values():
            if worker not in asked:
                self._asking[self._actors[worker].progress.remote()] = worker

    def _event(self, reference: Any) -> Event | None:
        kinds = (self._opening, self._working, self._asking)
        found = next((kind for kind in kinds if reference in kind), None)
        if found is None:
            return None
        worker = found.pop(reference)
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self.dismiss(worker)
            return Lost(worker, _reason(error))
        if found is self._opening:
            return Ready(worker, answer)
        if found is self._working:
            return Done(worker, answer)
        self._progress[worker] = answer
        return None


def _imported() -> ModuleType:
    # Nothing about anybody's batches goes to Ray's authors.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Whole pages of Ray's own state, printed wherever a machine goes away. We say it in a line.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    # A worker without a share of a GPU does not see any: said so that Ray does not warn that it will be.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise RuntimeUnavailableError("a batch needs Ray: pip install 'standin[batch]'") from error
    return ray


@contextlib.contextmanager
def _started(ray: ModuleType, what: str = "Ray cannot start here") -> Iterator[None]:
    """Whatever Ray raises at its start, as one of our errors."""
    if ray.is_initialized():
        raise StandinError("Ray runs in this process already")
    try:
        yield
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise RuntimeUnavailableError(f"{what}: {first.strip()}") from error


def _check_reachable(address: str) -> None:
    """Ray itself waits long and may end the process where nobody answers."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16 or "/" in address or "@" in address:
        raise UsageError("--address is HOST:PORT of a Ray cluster's head (the port of `ray start --head`), or auto")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_CONNECT) as connection:
            if not os.environ.get("RAY_USE_TLS") and not _speaks_grpc(connection):
                raise RuntimeUnavailableError(
                    f"what answers at --address {address} is no Ray cluster's head; give the port of `ray start --head`"
                )
    except OSError as error:
        raise RuntimeUnavailableError(
            f"nobody answers at --address {address}: {error.strerror or error}; is the cluster's head running?"
        ) from error


def _speaks_grpc(connection: socket.socket) -> bool:
    """Whether a server greets as HTTP/2 has it (RFC 9113, 3.4): its first frame says its settings."""
    connection.sendall(_HELLO)
    head = b""
    with contextlib.suppress(OSError):
        while len(head) < _FRAME_HEAD and (more := connection.recv(_FRAME_HEAD - len(head))):
            head += more
    return len(head) == _FRAME_HEAD and head[3] == _SETTINGS


def _reason(error: Exception) -> str:
    """Why a worker is gone, from Ray's pages of text."""
    kind = type(error).__name__
    known = {
        "OutOfMemoryError": "its machine had no memory left",
        "NodeDiedError": "its machine went away",
        "ActorDiedError": "its process ended",
        "ActorUnavailableError": "its machine does not answer",
    }
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = known.get(kind, f"{kind}: {lines[0] if lines else ''}")
    detail = next((line for line in lines if "exit detail" in line or "Error:" in line), "")
    return f"{text} ({detail[:200]})" if detail and kind in known else text[:300]
