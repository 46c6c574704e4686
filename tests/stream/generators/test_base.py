from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from engines.errors import GenerationError
from engines.runtime import Runtime
from stream.generators.base import Crops, Generated, check_crops, close_pool, open_pool, run_chosen
from tests.generator_bundles import HEIGHT, VERTICES, WIDTH, crops


@pytest.mark.parametrize(
    "change",
    [
        {"images": np.zeros((2, HEIGHT, WIDTH, 3), np.float32)},
        {"images": np.zeros((2, HEIGHT, WIDTH, 4), np.uint8)},
        {"images": np.zeros((2, HEIGHT, WIDTH), np.uint8)},
        {"images": np.zeros((2, 0, WIDTH, 3), np.uint8)},
        {"images": None},
        {"known": np.zeros((2, HEIGHT, WIDTH), np.uint8)},
        {"known": np.zeros((1, HEIGHT, WIDTH), np.bool_)},
        {"known": np.zeros((2, WIDTH, HEIGHT), np.bool_)},
        {"track_ids": np.zeros(2, np.int32)},
        {"track_ids": np.zeros(3, np.int64)},
        {"track_ids": np.zeros((2, 1), np.int64)},
        {"body": None},
        {"vertices": None},
        {"body": np.zeros((2, 1, HEIGHT, WIDTH), np.bool_)},
        {"vertices": np.zeros((2, HEIGHT, WIDTH), np.int32)},
        {"vertices": np.zeros((2, HEIGHT, WIDTH + 1), np.int64)},
    ],
    ids=str,
)
def test_crops_that_do_not_agree_are_refused(change: dict[str, Any]) -> None:
    good = crops(1, 2)
    with pytest.raises(ValueError, match=r"Crops\."):
        replace(good, **change)


def test_crops_may_come_without_a_surface() -> None:
    assert crops(1).body is not None
    assert crops(1, surface=False).body is None


@pytest.mark.parametrize("surface", [True, False])
def test_crops_are_chosen_by_index_mask_or_slice(surface: bool) -> None:
    all_of_them = crops(5, 6, 7, surface=surface)
    for index in ([2, 0], np.array([True, False, True]), slice(1, None)):
        part = all_of_them[index]
        chosen = np.arange(3)[index]
        assert len(part) == len(chosen)
        assert part.track_ids.tolist() == (chosen + 5).tolist()
        assert np.array_equal(part.images, all_of_them.images[chosen])
        assert (part.vertices is None) != surface
    assert len(all_of_them[np.array([], np.int64)]) == 0


def test_there_may_be_no_crop() -> None:
    assert len(crops()) == 0
    assert crops().size == (HEIGHT, WIDTH)


def test_crops_of_another_size_or_without_a_surface_are_refused() -> None:
    check_crops(crops(1), (HEIGHT, WIDTH), VERTICES)
    check_crops(crops(1, surface=False), (HEIGHT, WIDTH), None)
    with pytest.raises(GenerationError, match=f"{HEIGHT}x{WIDTH}"):
        check_crops(crops(1), (WIDTH, HEIGHT), VERTICES)
    with pytest.raises(GenerationError, match="surface"):
        check_crops(crops(1, surface=False), (HEIGHT, WIDTH), VERTICES)
    with pytest.raises(GenerationError, match="vertices from"):
        check_crops(crops(1), (HEIGHT, WIDTH), VERTICES - 1)


@pytest.mark.parametrize(
    ("output", "done"),
    [
        (np.zeros((2, 3, 4, 4)), np.ones(2, np.bool_)),
        (np.zeros((2, 4, 4, 3), np.float32), np.ones(2, np.bool_)),
        (np.zeros((2, 3, 4, 4), np.float32), np.ones(3, np.bool_)),
        (np.zeros((2, 3, 4, 4), np.float32), np.ones(2, np.int64)),
    ],
)
def test_results_that_do_not_agree_are_refused(output: Any, done: Any) -> None:
    with pytest.raises(ValueError, match=r"Generated\."):
        Generated(output, done)


def test_pixels_are_clipped_and_rounded() -> None:
    levels = np.array([-3, -1, 0, 0.5, 1, 3], np.float32)
    output = np.broadcast_to(levels, (1, 3, 1, 6)).copy()
    images = Generated(output, np.ones(1, np.bool_)).images
    assert images.shape == (1, 1, 6, 3)
    assert images[0, 0, :, 0].tolist() == [0, 0, 128, 191, 255, 255]


def test_crops_hold_fields_in_the_order_of_their_slots() -> None:
    # `__getitem__` relies on it.
    names = ("images", "known", "track_ids", "body", "vertices")
    assert Crops.__slots__ == names


class Numbered:
    """Stands in for a graph: each crop's output is its own number; it notes how many runs were under way together."""

    device = "cpu"

    def __init__(self, broken: int = -1) -> None:
        self._lock, self._broken = threading.Lock(), broken
        self._together = threading.Barrier(2, timeout=5)
        self.most = self._running = 0

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
        number = int(feeds["number"][0])
        if number < 2:
            self._together.wait()
        with self._lock:
            self._running -= 1
        value = np.nan if number == self._broken else number
        return {"output": np.full((1, 3, HEIGHT, WIDTH), value, np.float32)}


def chosen_run(graph: Numbered, at_once: int) -> Generated:
    given = crops(0, 1, 2, 3)
    chosen = np.array([True, True, False, True])
    pool = open_pool(at_once)
    try:
        return run_chosen(cast("Runtime", graph), given, chosen, lambda places, _: {"number": places}, 1, pool)
    finally:
        close_pool(pool)


def test_crops_are_generated_side_by_side_and_come_back_in_their_places() -> None:
    graph = Numbered()
    made = chosen_run(graph, 2)
    assert graph.most == 2
    assert made.output[:, 0, 0, 0].tolist() == [0, 1, 0, 3]
    assert made.done.tolist() == [True, True, False, True]


def test_what_one_of_them_raises_is_raised() -> None:
    with pytest.raises(GenerationError, match="not finite"):
        chosen_run(Numbered(broken=3), 2)


class Recorded:
    """Says which threads ran it; the first crop's run fails while the others take their time."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.threads: set[int] = set()
        self.ended = 0

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        self.threads.add(threading.get_ident())
        if self.fails and int(feeds["number"][0]) == 0:
            raise GenerationError("the first")
        time.sleep(0.05)
        self.ended += 1
        return {"output": np.zeros((1, 3, HEIGHT, WIDTH), np.float32)}


def run_all(graph: Recorded, pool: ThreadPoolExecutor | None) -> None:
    given = crops(0, 1, 2, 3)
    runtime = cast("Runtime", graph)
    run_chosen(runtime, given, np.ones(4, np.bool_), lambda places, _: {"number": places}, 1, pool)


def test_an_error_is_raised_when_the_runs_beside_it_have_ended() -> None:
    graph, pool = Recorded(fails=True), open_pool(2)
    with pytest.raises(GenerationError, match="the first"):
        run_all(graph, pool)
    assert graph.ended == 3
    close_pool(pool)


def test_threads_are_kept_from_frame_to_frame() -> None:
    graph, pool = Recorded(), open_pool(2)
    for _ in range(4):
        run_all(graph, pool)
    assert len(graph.threads) == 2
    close_pool(pool)
    alone = Recorded()
    run_all(alone, open_pool(1))
    assert alone.threads == {threading.get_ident()}
