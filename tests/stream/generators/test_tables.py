from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.bundle import Bundle
from engines.errors import BundleError, OutOfMemoryError, RuntimeFailedError
from engines.manifest import Tensor
from engines.resident import HostArray
from stream.generators.base import Array, Ints
from stream.generators.tables import TableCache
from stream.latents import Latents
from tests.generator_bundles import TABLES, VERTICES, Fault, Gate, Watched, tensor, write_surface

#: Bytes of one track's tables in single precision.
BYTES = 4 * (VERTICES + 2) * sum(TABLES)
SOON = 20.0


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_surface(tmp_path / "b")


@contextmanager
def cache_of(
    bundle: Bundle,
    *,
    slots: int = 4,
    half: bool = False,
    before: Callable[[int], object] = lambda _: None,
    latents: Latents | None = None,
    mapping: Watched | None = None,
    kind: type[TableCache] = TableCache,
    **options: Any,
) -> Iterator[tuple[TableCache, Watched]]:
    watched = mapping or Watched(bundle, "mapping", before)
    graph = bundle.graph("generator_fp16" if half else "generator")
    tables = [one for one in graph.inputs if one.name.startswith("table_")]
    latents = Latents(0) if latents is None else latents
    options = {"truncation": 0.7, "budget": slots * BYTES // (2 if half else 1)} | options
    cache = kind(watched, tables, latents, **options)
    try:
        yield cache, watched
    finally:
        cache.close()


def build(cache: TableCache, *track_ids: int) -> list[bool]:
    cache.request(track_ids)
    ready: list[bool] = cache.wait(track_ids, SOON).tolist()
    return ready


def views(cache: TableCache) -> dict[str, Array]:
    """All tables, where they lie."""
    first, tables = cache.arrays(np.zeros(1, np.int64), whole=True)
    assert first == 0
    return {name: table for name, table in tables.items() if isinstance(table, np.ndarray)}


def expected(mapping: Watched, latents: Latents, track_id: int, truncation: float = 0.7) -> dict[str, Array]:
    return mapping.run({"z": latents.of(track_id).z[None], "truncation": np.array([truncation], np.float32)})


def rows_of(cache: TableCache, track_id: int) -> list[Array]:
    with cache.lend([track_id]) as slots:
        assert slots[0] >= 0
        return [array[slots[0]].copy() for array in views(cache).values()]


def test_tables_are_what_the_mapping_makes_of_the_tracks_latent(bundle: Bundle) -> None:
    latents = Latents()
    with cache_of(bundle, latents=latents, truncation=0.3) as (cache, mapping):
        assert build(cache, 5, 7) == [True, True]
        for track in (5, 7):
            wanted = expected(mapping, latents, track, 0.3)
            for name, found in zip(views(cache), rows_of(cache, track), strict=True):
                assert np.array_equal(found, wanted[name])


def test_tables_are_kept_in_the_precision_of_the_generator(bundle: Bundle) -> None:
    with cache_of(bundle, half=True) as (half, _), cache_of(bundle) as (single, _):
        assert half.capacity == single.capacity
        build(half, 1)
        build(single, 1)
        for few, many in zip(rows_of(half, 1), rows_of(single, 1), strict=True):
            assert few.dtype == np.float16
            assert many.dtype == np.float32
            assert np.array_equal(few, many.astype(np.float16))


@pytest.mark.parametrize(
    ("budget", "capacity"), [(0, 1), (BYTES, 1), (2 * BYTES - 1, 1), (2 * BYTES, 2), (7 * BYTES, 7), (2**30, 256)]
)
def test_the_budget_says_how_many_tracks_there_is_room_for(bundle: Bundle, budget: int, capacity: int) -> None:
    with cache_of(bundle, budget=budget) as (cache, _):
        assert cache.capacity == capacity
        assert all(len(rows) == capacity for rows in views(cache).values())


def test_the_arrays_are_views_of_the_slots_that_are_needed(bundle: Bundle) -> None:
    with cache_of(bundle) as (cache, _):
        first, some = cache.arrays(np.array([3, 2], np.int64))
        assert first == 2
        for few, all_of_them in zip(some.values(), views(cache).values(), strict=True):
            assert isinstance(few, np.ndarray)
            assert len(few) == 2
            assert np.shares_memory(few, all_of_them)
            assert few.flags.c_contiguous


class Holder:
    """Somebody else's memory, which may be full."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.held: list[Array] = []

    def __call__(self, array: Array) -> HostArray:
        if len(self.held) >= self.most:
            raise OutOfMemoryError("no memory for it")
        self.held.append(array.copy())
        return HostArray(self.held[-1])


def test_tables_go_where_the_generator_runs_only_when_they_changed(bundle: Bundle) -> None:
    holder, latents = Holder(), Latents()
    with cache_of(bundle, hold=holder, latents=latents) as (cache, mapping):

        def check(slots: Ints, tracks: Sequence[int], times: int) -> object:
            first, tables = cache.arrays(slots)
            assert first == 0
            assert len(holder.held) == times * len(TABLES)
            for name, table in tables.items():
                assert isinstance(table, HostArray)
                wanted = [expected(mapping, latents, track)[name] for track in tracks]
                assert np.array_equal(table.values, wanted)
            return tables

        build(cache, 1)
        with cache.lend([1]) as slots:
            tables = check(slots, [1], 1)
            # However often.
            assert check(slots, [1], 1) is tables
        build(cache, 1, 2, 3)
        with cache.lend([3]) as slots:
            tables = check(slots, [1, 2, 3], 2)
        # Whoever is in the frame.
        with cache.lend([1, 2]) as slots:
            assert check(slots, [1, 2, 3], 2) is tables
        # A slot that goes to somebody else is another one.
        cache.forget(2)
        build(cache, 4)
        with cache.lend([4]) as slots:
            assert slots.tolist() == [1]
            check(slots, [1, 4, 3], 3)


def test_where_there_is_no_memory_for_tables_they_travel_as_before(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    with cache_of(bundle, hold=Holder(most=1)) as (cache, _):
        build(cache, 1, 2)
        with cache.lend([2]) as slots:
            for _ in range(2):
                first, tables = cache.arrays(slots)
                assert first == 1
                assert all(isinstance(table, np.ndarray) and len(table) == 1 for table in tables.values())
    assert caplog.text.count("travel with every run") == 1


def test_request_returns_while_tables_are_being_built(bundle: Bundle) -> None:
    gate = Gate()
    with cache_of(bundle, before=gate) as (cache, mapping):
        cache.request([1, 2])
        assert gate.reached.wait(SOON)
        assert cache.ready([1, 2]).tolist() == [False, False]
        with cache.lend([1, 2]) as slots:
            assert slots.tolist() == [-1, -1]
        cache.request([1, 2])
        gate.open()
        assert cache.wait([1, 2], SOON).all()
        assert mapping.runs == 2


def test_waiting_ends_when_time_is_up(bundle: Bundle) -> None:
    gate = Gate()
    with cache_of(bundle, before=gate) as (cache, _):
        cache.request([1])
        began = time.monotonic()
        assert cache.wait([1], 0.1).tolist() == [False]
        assert time.monotonic() - began < 5
        gate.open()
        assert cache.wait([1], SOON).all()


def test_nobody_waits_for_what_will_not_come(bundle: Bundle) -> None:
    with cache_of(bundle, slots=1) as (cache, _):
        assert build(cache, 1, 2) == [True, False]
        # Not requested, no track, no room: without a time limit these would hang.
        assert cache.wait([3, -1, 2]).tolist() == [False, False, False]


def test_ids_below_zero_are_no_tracks(bundle: Bundle) -> None:
    latents = Latents()
    with cache_of(bundle, latents=latents) as (cache, mapping):
        assert build(cache, -1, 2, -1) == [False, True, False]
        assert (mapping.runs, latents.tracks) == (1, 1)


def test_live_tracks_beyond_the_capacity_stay_out_instead_of_taking_turns(bundle: Bundle) -> None:
    with cache_of(bundle, slots=1, linger=1) as (cache, mapping):
        for frame in range(100):
            # In either order.
            build(cache, *((1, 2) if frame % 2 == 0 else (2, 1)))
            assert cache.ready([1, 2]).tolist() == [True, False]
        assert mapping.runs == 1
        # Control: once the first has gone, the second gets its place.
        assert build(cache, 2) == [True]
        assert mapping.runs == 2


def test_a_track_that_is_missed_for_a_few_frames_keeps_its_tables(bundle: Bundle) -> None:
    with cache_of(bundle, slots=1, linger=5) as (cache, mapping):
        build(cache, 1)
        for _ in range(4):
            assert build(cache, 2) == [False]
        build(cache, 1)
        for _ in range(4):
            assert build(cache, 2) == [False]
        assert mapping.runs == 1
        assert build(cache, 2) == [True]
        assert cache.ready([1]).tolist() == [False]


def test_the_track_that_was_missed_longest_makes_room(bundle: Bundle) -> None:
    with cache_of(bundle, slots=3, linger=1) as (cache, _):
        build(cache, 1, 2, 3)
        build(cache, 1)
        build(cache, 3)
        assert build(cache, 4) == [True]
        assert cache.ready([1, 2, 3, 4]).tolist() == [True, False, True, True]
        build(cache, 5)
        assert cache.ready([1, 2, 3, 4, 5]).tolist() == [False, False, True, True, True]


def test_tables_of_tracks_that_are_not_seen_stay_as_long_as_there_is_room(bundle: Bundle) -> None:
    with cache_of(bundle, slots=3, linger=1) as (cache, mapping):
        for track in (1, 2, 3, 1, 2, 3):
            assert build(cache, track) == [True]
        assert mapping.runs == 3


def test_a_track_that_comes_back_gets_the_same_tables_again(bundle: Bundle) -> None:
    with cache_of(bundle, slots=1, linger=1, latents=Latents()) as (cache, mapping):
        build(cache, 1)
        first = rows_of(cache, 1)
        build(cache, 2)
        assert not any(np.array_equal(a, b) for a, b in zip(rows_of(cache, 2), first, strict=True))
        build(cache, 1)
        assert all(np.array_equal(a, b) for a, b in zip(rows_of(cache, 1), first, strict=True))
        assert mapping.runs == 3


class Careless(TableCache):
    """Lends rows without remembering who has them."""

    @contextmanager
    def lend(self, track_ids: Sequence[int] | Ints) -> Iterator[Ints]:
        with super().lend(track_ids) as slots:
            pass
        yield slots


@pytest.mark.parametrize(("kind", "guarded"), [(TableCache, True), (Careless, False)])
@pytest.mark.parametrize("how", ["evicted", "forgotten", "restarted"])
def test_rows_that_a_run_reads_are_not_written(bundle: Bundle, kind: type[TableCache], guarded: bool, how: str) -> None:
    with cache_of(bundle, slots=1, linger=1, kind=kind) as (cache, mapping):
        build(cache, 1)
        before = rows_of(cache, 1)
        with cache.lend([1]) as slots:
            if how == "forgotten":
                cache.forget(1)
            elif how == "restarted":
                cache.restart()
            assert build(cache, 2) == [not guarded]
            now = [array[slots[0]] for array in views(cache).values()]
            assert all(np.array_equal(a, b) == guarded for a, b in zip(now, before, strict=True))
        # Given back, they go to who waits for them.
        assert build(cache, 2) == [True]
        assert mapping.runs == 2
        assert not np.array_equal(rows_of(cache, 2)[0], before[0])


def test_rows_are_given_back_by_runs_that_fail(bundle: Bundle) -> None:
    with cache_of(bundle, slots=1, linger=1) as (cache, _):
        build(cache, 1)
        with pytest.raises(KeyError), cache.lend([1, 1]):
            raise KeyError
        assert build(cache, 2) == [True]


def test_a_forgotten_track_makes_room_at_once(bundle: Bundle) -> None:
    with cache_of(bundle, slots=1) as (cache, _):
        build(cache, 1)
        assert build(cache, 1, 2) == [True, False]
        cache.forget(1)
        cache.forget(1)
        assert build(cache, 2) == [True]


def test_a_track_that_is_forgotten_while_it_is_built_is_not_there_afterwards(bundle: Bundle) -> None:
    gate = Gate()
    with cache_of(bundle, slots=1, before=gate) as (cache, mapping):
        cache.request([1])
        assert gate.reached.wait(SOON)
        cache.forget(1)
        assert cache.wait([1]).tolist() == [False]
        # Its slot is still being written.
        cache.request([2])
        assert cache.wait([2]).tolist() == [False]
        gate.open()
        deadline = time.monotonic() + SOON
        while not build(cache, 2)[0]:
            assert time.monotonic() < deadline
        assert cache.ready([1, 2]).tolist() == [False, True]
        assert mapping.runs == 2


def test_tracks_that_have_gone_before_their_turn_are_not_built(bundle: Bundle) -> None:
    gate = Gate()
    with cache_of(bundle, before=gate, linger=2) as (cache, mapping):
        cache.request([1, 2, 3])
        assert gate.reached.wait(SOON)
        cache.forget(2)
        for _ in range(2):
            cache.request([1, 4])
        gate.open()
        assert cache.wait([1, 2, 3, 4], SOON).tolist() == [True, False, False, True]
        assert mapping.runs == 2


def test_queued_tracks_that_are_not_live_make_room(bundle: Bundle) -> None:
    gate = Gate()
    with cache_of(bundle, slots=2, before=gate, linger=1) as (cache, mapping):
        cache.request([1, 2])
        assert gate.reached.wait(SOON)
        cache.request([1, 3])
        gate.open()
        assert cache.wait([1, 2, 3], SOON).tolist() == [True, False, True]
        assert mapping.runs == 2


def test_another_truncation_takes_effect_for_all(bundle: Bundle) -> None:
    gate = Gate()
    with cache_of(bundle, truncation=1) as (cache, _), cache_of(bundle, truncation=0.2, before=gate) as (other, _):
        build(cache, 1)
        # Even for what was being built at the time.
        other.request([1])
        assert gate.reached.wait(SOON)
        other.restart(1)
        gate.open()
        deadline = time.monotonic() + SOON
        while not build(other, 1)[0]:
            assert time.monotonic() < deadline
        assert all(np.array_equal(a, b) for a, b in zip(rows_of(cache, 1), rows_of(other, 1), strict=True))
        cache.restart(0.2)
        assert cache.ready([1]).tolist() == [False]
        build(cache, 1)
        assert not np.array_equal(rows_of(cache, 1)[0], rows_of(other, 1)[0])


class Failing(Watched):
    """Fails for the tracks whose latent begins with one of these numbers."""

    bad: frozenset[float] = frozenset()
    how: str = "raises"

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        tables = super()._run(feeds)
        if float(feeds["z"][0, 0]) not in self.bad:
            return tables
        if self.how == "raises":
            raise RuntimeFailedError("out of memory\nin line two")
        if self.how == "too few rows":
            return {name: table[:-1] for name, table in tables.items()}
        return {name: table * np.float32(np.nan) for name, table in tables.items()}


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raises", "out of memory in line two"),
        ("too few rows", "table_0 is float32 (11, 3)"),
        ("not finite", "table_0 is not finite"),
    ],
)
def test_a_track_whose_tables_fail_stays_out_and_is_named_once(
    bundle: Bundle, caplog: pytest.LogCaptureFixture, how: str, reason: str
) -> None:
    latents = Latents(0)
    mapping = Failing(bundle, "mapping")
    mapping.how, mapping.bad = how, frozenset([float(latents.of(2).z[0])])
    with (
        caplog.at_level(logging.WARNING),
        cache_of(bundle, slots=2, mapping=mapping, latents=latents) as (cache, _),
    ):
        for _ in range(5):
            assert build(cache, 1, 2) == [True, False]
        assert mapping.runs == 2
        assert reason in (cache.failure(2) or "")
        assert cache.failure(1) is None
        # It does not take the place of another.
        assert build(cache, 1, 2, 3) == [True, False, True]
        # What is forgotten may be tried again.
        cache.forget(2)
        cache.forget(3)
        assert cache.failure(2) is None
        for _ in range(2):
            assert build(cache, 2) == [False]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    for message in messages:
        assert message.startswith("track 2 stays covered classically: its tables cannot be built: ")
        assert reason in message
        assert "\n" not in message


def test_tables_that_do_not_fit_half_precision_are_a_failure(tmp_path: Path) -> None:
    fault: Fault = "half overflows"
    bundle = write_surface(tmp_path / "b", fault=fault)
    with cache_of(bundle, half=True) as (half, _), cache_of(bundle) as (single, _):
        assert build(half, 1) == [False]
        assert "not finite in float16" in (half.failure(1) or "")
        assert build(single, 1) == [True]


def test_close_ends_the_builder_and_whoever_waits(bundle: Bundle) -> None:
    before = set(threading.enumerate())
    gate = Gate()
    with cache_of(bundle, before=gate) as (cache, mapping), ThreadPoolExecutor(2) as pool:
        cache.request([1, 2])
        assert gate.reached.wait(SOON)
        waiting = pool.submit(cache.wait, [1, 2])
        closing = pool.submit(cache.close)
        assert waiting.result(SOON).tolist() == [False, False]
        assert not closing.done()
        gate.open()
        closing.result(SOON)
        # The second was never begun.
        assert mapping.runs == 1
        with pytest.raises(RuntimeFailedError, match="closed"):
            cache.request([3])
        cache.close()
    assert set(threading.enumerate()) <= before


def test_without_a_request_there_is_no_thread(bundle: Bundle) -> None:
    before = set(threading.enumerate())
    with cache_of(bundle) as (cache, _):
        cache.request([])
        cache.request([-1])
        assert set(threading.enumerate()) <= before


def test_many_threads_never_see_rows_of_another_track(bundle: Bundle) -> None:
    latents = Latents(1)
    tracks = range(6)
    with cache_of(bundle, slots=6, latents=latents) as (cache, _):
        build(cache, *tracks)
        expected = {track: rows_of(cache, track) for track in tracks}
    seen = np.zeros(len(tracks), np.int64)

    def use(worker: int) -> None:
        rng = random.Random(worker)
        for _ in range(150):
            some = rng.sample(tracks, 3)
            cache.request(some)
            if rng.random() < 0.3:
                cache.wait(some, 0.01)
            if rng.random() < 0.1:
                cache.forget(some[0])
            with cache.lend(some) as slots:
                for track, slot in zip(some, slots, strict=True):
                    if slot >= 0:
                        seen[track] += 1
                        rows = [array[slot] for array in views(cache).values()]
                        assert all(np.array_equal(a, b) for a, b in zip(rows, expected[track], strict=True))
            time.sleep(0)

    # Fewer slots than tracks, and nobody lingers: slots change hands all the time.
    with cache_of(bundle, slots=3, linger=1, latents=latents) as (cache, mapping):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(use, range(8)))
        assert mapping.runs > 20
    assert seen.all()


@pytest.mark.parametrize(
    "tables",
    [
        [],
        [tensor("table_0", "S", VERTICES + 2, TABLES[0])],
        [tensor("table_0", "S", VERTICES + 2, TABLES[0]), tensor("table_1", "S", VERTICES + 3, TABLES[1])],
        [tensor("table_0", "S", VERTICES + 2, TABLES[0]), tensor("table_1", "S", "K", TABLES[1])],
        [tensor("table_0", "S", VERTICES + 2, TABLES[0]), tensor("table_2", "S", VERTICES + 2, TABLES[1])],
    ],
    ids=len,
)
def test_a_mapping_and_a_generator_that_disagree_are_refused(bundle: Bundle, tables: list[Tensor]) -> None:
    with pytest.raises(BundleError, match="build the bundle again"):
        TableCache(Watched(bundle, "mapping"), tables, Latents(), truncation=1)
