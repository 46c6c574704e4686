"""Many scenes by several processes: the drawing is done on the processor, one core a process."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
from collections import deque
from functools import cache
from typing import TYPE_CHECKING

from export.starter.body import load_body
from export.starter.scenes import SceneMaker, SceneSettings

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from multiprocessing.pool import AsyncResult
    from pathlib import Path

    from export.starter.samples import Scene

#: How many scenes a process makes before it hands them over: few enough to be held, and to be lost when time ends.
IN_TURN = 8
#: What would otherwise start threads of its own in every process.
_THREADS = ("LP_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def make_scenes(
    body: Path,
    settings: SceneSettings,
    seed: int,
    count: int | None,
    *,
    first: int = 0,
    workers: int = 1,
    in_turn: int = IN_TURN,
) -> Generator[Scene, None, None]:
    """``count`` scenes of ``seed`` in order, the same for any number of ``workers``.

    Args:
        body: the body's file.
        settings: what scenes to make.
        seed: of all scenes; scene i depends on it and on i alone.
        count: how many; None for scenes without an end.
        first: the number of the first one.
        workers: processes; 1 makes the scenes in this one.
        in_turn: how many scenes a process makes at a time.

    Raises:
        SourceError: the body cannot be read.
        ExportError: there is no OpenGL here.
    """
    end = None if count is None else first + count
    if workers <= 1:
        maker = SceneMaker(load_body(body), settings)
        for number in itertools.count(first) if end is None else range(first, end):
            yield from maker.scenes(seed, 1, first=number)
        return
    starts = itertools.count(first, in_turn) if end is None else range(first, end, in_turn)
    with _one_thread_each():
        pool = multiprocessing.get_context("spawn").Pool(workers, _begin, (body, settings))
    with pool:
        # No more than is taken soon: where drawing is faster than writing, all of them would be held in memory.
        waiting: deque[AsyncResult[list[Scene]]] = deque()
        for start in starts:
            turn = seed, start, in_turn if end is None else min(in_turn, end - start)
            waiting.append(pool.apply_async(_make_some, (turn,)))
            if len(waiting) > 2 * workers:
                yield from waiting.popleft().get()
        while waiting:
            yield from waiting.popleft().get()


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """What is started meanwhile keeps to one thread."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


#: What a process of the pool makes scenes with. Sent once: there may be many photographs.
_given: tuple[Path, SceneSettings]


def _begin(body: Path, settings: SceneSettings) -> None:
    global _given
    _given = body, settings
    # The first process ends the others; each would tell of its own end otherwise.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@cache
def _maker() -> SceneMaker:
    """The process's own, opened once. Not in `_begin`: a pool starts processes that fail there again for ever."""
    body, settings = _given
    return SceneMaker(load_body(body), settings)


def _make_some(turn: tuple[int, int, int]) -> list[Scene]:
    seed, first, count = turn
    return list(_maker().scenes(seed, count, first=first))
