"""Many scenes by several processes: the drawing is done on the processor, one core a process."""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING

from export.starter.body import load_body
from export.starter.scenes import SceneMaker, SceneSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from export.starter.samples import Scene

#: How many scenes a process makes before it hands them over: few enough to be held, enough to pay for its start.
IN_TURN = 32
#: What would otherwise start threads of its own in every process.
_THREADS = ("LP_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def make_scenes(
    body: Path, settings: SceneSettings, seed: int, count: int, *, workers: int = 1, in_turn: int = IN_TURN
) -> Iterator[Scene]:
    """``count`` scenes of ``seed`` in order, the same for any number of ``workers``.

    Args:
        body: the body's file.
        settings: what scenes to make.
        seed: of all scenes; scene i depends on it and on i alone.
        count: how many.
        workers: processes; 1 makes the scenes in this one.
        in_turn: how many scenes a process makes at a time.

    Raises:
        SourceError: the body cannot be read.
        ExportError: there is no OpenGL here.
    """
    if workers <= 1:
        yield from SceneMaker(load_body(body), settings).scenes(seed, count)
        return
    turns = [(body, settings, seed, first, min(in_turn, count - first)) for first in range(0, count, in_turn)]
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        pool = multiprocessing.get_context("spawn").Pool(workers)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    with pool:
        for scenes in pool.imap(_make_some, turns):
            yield from scenes


def _make_some(turn: tuple[Path, SceneSettings, int, int, int]) -> list[Scene]:
    body, settings, seed, first, count = turn
    return list(SceneMaker(load_body(body), settings).scenes(seed, count, first=first))
