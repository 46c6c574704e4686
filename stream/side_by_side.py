"""Frames looked at side by side, and given on in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from stream.frame import Frame

T = TypeVar("T")


def side_by_side(function: Callable[[Frame], T], frames: Iterable[Frame], workers: int) -> Iterator[T]:
    """`map`, in order, with so many calls under way at a time; no frame is held longer than its call.

    Args:
        function: of one frame; what it raises comes when its turn is.
        frames: taken one by one as calls end.
        workers: one at least; with one, calls are made by the caller.
    """
    if workers == 1:
        yield from map(function, frames)
        return
    under_way: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="standin-look") as pool:
        for frame in frames:
            under_way.append(pool.submit(function, frame))
            del frame
            while len(under_way) >= workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
