"""V-SAM's tables: built once per track beside the frame loop, kept in a few slots.

Everything that SG-GAN's modulation makes of z depends on the vertex only (surface-guided GANs,
https://arxiv.org/abs/2201.02193, section 3.2), so it is computed once for all vertices and looked up per pixel. That
takes seconds and tens of megabytes a track: too slow for a frame, and too large for any number of tracks.
"""

from __future__ import annotations

import heapq
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

import numpy as np

from engines.errors import BundleError, GenerationError, OutOfMemoryError, RuntimeFailedError
from engines.manifest import Tensor
from engines.resident import Resident
from engines.runtime import Runtime
from stream.generators.base import Array, Bools, Floats, Ints
from stream.latents import Latents

#: Bytes for the tables of all tracks; a track of the published model takes 39 MB in half precision.
DEFAULT_BUDGET = 2**30
#: Frames without being requested after which a track no longer counts as live: people are missed now and then.
LINGER = 25
#: However small the tables are.
_MOST_SLOTS = 256
_JOIN_SECONDS = 10.0

Hold = Callable[[Array], Resident]

_log = logging.getLogger(__name__)


class _State(Enum):
    QUEUED = "queued"
    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"


@dataclass(slots=True, eq=False)
class _Entry:
    """One track's tables.

    Attributes:
        track_id: of the track.
        slot: where the rows are or will be; given back when the entry is retired and nobody uses it.
        z: float32 (512,).
        last: number of the last request that named it.
        users: runs that read the rows now.
        retired: no longer in the cache; the slot is free as soon as users and builder are through with it.
        reason: why the tables could not be built.
        told: whether that was logged; it is when a track that failed is requested again.
    """

    track_id: int
    slot: int
    z: Floats
    last: int
    state: _State = _State.QUEUED
    users: int = 0
    retired: bool = False
    reason: str | None = None
    told: bool = False


class TableCache:
    """Builds, keeps and lends tables.

    A slot belongs to one entry. Its rows are written by the one builder thread while the entry is `BUILDING`, and read
    by runs only while it is `READY`; a slot goes to another track only when no run reads it. So rows never change
    under a run, and no run copies them.

    Only tracks that are not live make room for others: with more live tracks than slots, the later ones get none.

    Args:
        mapping: the graph from z to tables.
        tables: as the generator's graph declares them: (S, K + 2, C), float16 or float32.
        latents: of the tracks; not dropped here.
        truncation: 0 to 1, part of what is built.
        budget: bytes for all slots; there is always one.
        linger: a track counts as live if one of so many last requests named it.
        most: slots that the generator takes, None for any number.
        hold: puts an array where the generator runs; None where it reads the host's memory.

    Raises:
        BundleError: mapping and generator disagree about the tables.
    """

    def __init__(
        self,
        mapping: Runtime,
        tables: Sequence[Tensor],
        latents: Latents,
        *,
        truncation: float,
        budget: int = DEFAULT_BUDGET,
        linger: int = LINGER,
        most: int | None = None,
        hold: Hold | None = None,
    ) -> None:
        _check_tables(mapping.outputs, tables)
        shapes = {tensor.name: tuple(int(side) for side in tensor.shape[1:]) for tensor in tables}
        dtypes = {tensor.name: np.dtype(tensor.dtype) for tensor in tables}
        self.bytes_per_track = sum(int(np.prod(shapes[name])) * dtypes[name].itemsize for name in shapes)
        self.capacity = max(1, min(most or _MOST_SLOTS, _MOST_SLOTS, budget // self.bytes_per_track))
        # The system gives memory to pages when they are first written: slots that are never used cost nothing.
        self._rows = {name: np.zeros((self.capacity, *shapes[name]), dtypes[name]) for name in shapes}
        self._mapping = mapping
        self._latents = latents
        self._truncation = truncation
        self._linger = linger
        self._hold = hold
        self._holding = threading.Lock()
        self._held: tuple[Ints, dict[str, Resident]] | None = None
        #: How often each slot was written.
        self._written = np.zeros(self.capacity, np.int64)
        self._changed = threading.Condition()
        self._entries: dict[int, _Entry] = {}
        # The lowest first, so that the slots in use lie together.
        self._free = list(range(self.capacity))
        self._queue: deque[_Entry] = deque()
        self._requests = 0
        self._builder: threading.Thread | None = None
        self._closed = False

    def request(self, track_ids: Sequence[int]) -> None:
        """Say which tracks are live now, and queue what they need.

        Args:
            track_ids: in the order in which they get slots; ids below 0 are no tracks.

        Raises:
            RuntimeFailedError: the cache is closed.
        """
        wanted = [track_id for track_id in dict.fromkeys(int(i) for i in track_ids) if track_id >= 0]
        failed = []
        with self._changed:
            if self._closed:
                raise RuntimeFailedError("the generator is closed; open a new one")
            self._requests += 1
            for track_id in wanted:
                if entry := self._entries.get(track_id):
                    entry.last = self._requests
                    if entry.reason is not None and not entry.told:
                        entry.told = True
                        failed.append(entry)
            for track_id in wanted:
                if track_id not in self._entries and (slot := self._find_slot()) is not None:
                    entry = _Entry(track_id, slot, self._latents.of(track_id).z, self._requests)
                    self._entries[track_id] = entry
                    self._queue.append(entry)
                    self._start_builder()
            self._changed.notify_all()
        for entry in failed:
            _log.warning("track %d stays covered classically: %s", entry.track_id, entry.reason)

    def ready(self, track_ids: Sequence[int] | Ints) -> Bools:
        """Which tracks have their tables, (N,)."""
        with self._changed:
            return np.array([self._is_ready(int(i)) for i in track_ids], np.bool_)

    def wait(self, track_ids: Sequence[int] | Ints, timeout: float | None = None) -> Bools:
        """As `ready`, once none of these tracks is queued or being built, or time is up."""
        wanted = [int(i) for i in track_ids]

        def settled() -> bool:
            present = [self._entries[i] for i in wanted if i in self._entries]
            return self._closed or not any(e.state in (_State.QUEUED, _State.BUILDING) for e in present)

        with self._changed:
            self._changed.wait_for(settled, timeout)
            return np.array([self._is_ready(i) for i in wanted], np.bool_)

    def failure(self, track_id: int) -> str | None:
        """Why the track's tables could not be built, None if nothing is known to be wrong."""
        with self._changed:
            entry = self._entries.get(track_id)
            return entry.reason if entry else None

    @contextmanager
    def lend(self, track_ids: Sequence[int] | Ints) -> Iterator[Ints]:
        """The slots of tracks, int64 (N,), -1 where there are no tables; they stay as they are until given back."""
        with self._changed:
            used = [self._entries[int(i)] if self._is_ready(int(i)) else None for i in track_ids]
            for entry in filter(None, used):
                entry.users += 1
        try:
            yield np.array([-1 if entry is None else entry.slot for entry in used], np.int64)
        finally:
            with self._changed:
                for entry in filter(None, used):
                    entry.users -= 1
                    self._release(entry)

    def arrays(self, slots: Ints, *, whole: bool = False) -> tuple[int, Mapping[str, Array | Resident]]:
        """The tables of some slots, which have to be lent: views, never copies, or held where the generator runs.

        What is held goes there again after a track got its tables, not with every run: it is of all slots that were
        ever used, whoever is in the frame.

        Args:
            slots: (N,).
            whole: whether to give all slots, so that the shapes are always the same.

        Returns:
            The slot that the tables begin with; and by name (S, K + 2, C).
        """
        with self._holding:
            if self._hold is not None:
                try:
                    return 0, self._there(self._hold, whole=whole)
                except OutOfMemoryError as error:
                    _log.warning("tables of tracks travel with every run from now on: %s", error)
                    self._hold = self._held = None
        first, end = (0, None) if whole else (int(slots.min()), int(slots.max()) + 1)
        return first, {name: rows[first:end] for name, rows in self._rows.items()}

    def _there(self, hold: Hold, *, whole: bool) -> dict[str, Resident]:
        # Read first: what is written meanwhile belongs to a slot that nobody looks at, and makes another number.
        written = self._written.copy()
        if self._held is None or not np.array_equal(self._held[0], written):
            # Let go before there are new ones: memory for both may lack.
            self._held = None
            end = None if whole else int(np.flatnonzero(written)[-1]) + 1
            self._held = written, {name: hold(rows[:end]) for name, rows in self._rows.items()}
        return self._held[1]

    def forget(self, track_id: int) -> None:
        """Drop a track's tables."""
        with self._changed:
            self._retire(track_id)
            self._changed.notify_all()

    def restart(self, truncation: float | None = None) -> None:
        """Drop all tables, and build with another truncation from now on if one is given."""
        with self._changed:
            for track_id in list(self._entries):
                self._retire(track_id)
            if truncation is not None:
                self._truncation = truncation
            self._changed.notify_all()

    def close(self) -> None:
        """Stop building. A build that does not end soon is left behind, and what it gives is dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            builder = self._builder
        if builder is not None and builder is not threading.current_thread():
            builder.join(_JOIN_SECONDS)

    def _is_ready(self, track_id: int) -> bool:
        entry = self._entries.get(track_id)
        return entry is not None and entry.state is _State.READY

    def _is_live(self, entry: _Entry) -> bool:
        return self._requests - entry.last < self._linger

    def _find_slot(self) -> int | None:
        if not self._free:
            idle = [
                entry
                for entry in self._entries.values()
                if entry.state in (_State.QUEUED, _State.READY) and not entry.users and not self._is_live(entry)
            ]
            if not idle:
                return None
            self._retire(min(idle, key=lambda entry: entry.last).track_id)
        return heapq.heappop(self._free)

    def _retire(self, track_id: int) -> None:
        entry = self._entries.pop(track_id, None)
        if entry is not None:
            entry.retired = True
            self._release(entry)

    def _release(self, entry: _Entry) -> None:
        """Gives a slot back once nobody reads or writes its rows."""
        finished = entry.retired or entry.state is _State.FAILED
        if finished and not entry.users and entry.state is not _State.BUILDING and entry.slot >= 0:
            heapq.heappush(self._free, entry.slot)
            entry.slot = -1

    def _start_builder(self) -> None:
        if self._builder is None:
            self._builder = threading.Thread(target=self._work, name="standin-tables", daemon=True)
            self._builder.start()

    def _work(self) -> None:
        while (entry := self._next()) is not None:
            reason = self._build(entry)
            with self._changed:
                entry.reason = reason
                entry.state = _State.READY if reason is None else _State.FAILED
                self._release(entry)
                self._changed.notify_all()

    def _next(self) -> _Entry | None:
        with self._changed:
            while not self._closed:
                while self._queue:
                    entry = self._queue.popleft()
                    if entry.retired:
                        continue
                    if self._is_live(entry):
                        entry.state = _State.BUILDING
                        return entry
                    self._retire(entry.track_id)
                    self._changed.notify_all()
                self._changed.wait()
            return None

    def _build(self, entry: _Entry) -> str | None:
        """Fills an entry's rows; gives the reason why not.

        A failure concerns this track alone, and covering it classically hides it as well: the stream goes on.
        """
        feeds = {"z": entry.z[None], "truncation": np.array([self._truncation], np.float32)}
        try:
            self._write(entry.slot, self._mapping.run(feeds))
        except Exception as error:  # noqa: BLE001  whatever went wrong, the track has no tables
            return f"its tables cannot be built: {' '.join(str(error).split()) or type(error).__name__}"
        return None

    def _write(self, slot: int, tables: Mapping[str, Array]) -> None:
        for name, rows in self._rows.items():
            table = tables[name]
            if table.shape != rows.shape[1:] or table.dtype != np.float32:
                raise GenerationError(f"{name} is {table.dtype} {table.shape}, expected float32 {rows.shape[1:]}")
            with np.errstate(over="ignore"):
                rows[slot] = table
            self._written[slot] += 1
            if not np.isfinite(rows[slot]).all():
                raise GenerationError(f"{name} is not finite in {rows.dtype}")


def _check_tables(built: Sequence[Tensor], taken: Sequence[Tensor]) -> None:
    given = {tensor.name: tensor.shape for tensor in built}
    wanted = {tensor.name: tensor.shape[1:] for tensor in taken}
    whole = all(isinstance(side, int) for shape in wanted.values() for side in shape)
    if not wanted or given != wanted or not whole:
        raise BundleError(
            f"the mapping gives the tables {given}, the generator takes {wanted} in each slot; build the bundle again"
        )
