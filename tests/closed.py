"""The checks of the tests in which things fail: what may have left, and what must not have."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from stream.anonymizer import Anonymizer
from stream.config import RunSettings
from stream.frame import WITHHELD_LEVEL, Frame, Image
from stream.regions import Kind, Regions
from stream.run import RunResult, run
from tests.fakes import (
    Box,
    covered_share,
    faces,
    finishes_within,
    number,
    whole,
)

FACE: Box = (20, 10, 40, 34)


COUNT = 24


#: Frames in which things go wrong.
BAD = range(8, 13)


def go(clip: Path, output: Path, anonymizer: Anonymizer, seconds: float = 20, **settings: object) -> RunResult:
    chosen = RunSettings.model_validate({"codec": "ffv1", **settings})
    return finishes_within(seconds, lambda: run(clip, output, chosen, anonymizer=anonymizer))


def is_withheld(image: Image) -> bool:
    return bool((image == WITHHELD_LEVEL).all())


def shows_raw_face(image: Image, raw: Image) -> bool:
    return bool((whole(image, FACE) == whole(raw, FACE)).all(axis=2).any())


def check_closed(out: Sequence[Image], raw: Sequence[Image], withheld: set[int]) -> None:
    """Withheld frames are flat, in all others exactly the face is covered and the rest is untouched."""
    assert withheld == {i for i, image in enumerate(out) if is_withheld(image)}
    for index, image in enumerate(out):
        assert not shows_raw_face(image, raw[index])
        if index not in withheld:
            assert covered_share(image, FACE) == 1
            expected = raw[index].copy()
            whole(expected, FACE)[:] = 0
            assert np.array_equal(image, expected)


def check_control(out: Sequence[Image], raw: Sequence[Image], numbers: set[int]) -> None:
    """A run without its guard: these frames show raw pixels of the face, and `check_closed` notices."""
    assert len(out) == len(raw)
    assert {i for i, image in enumerate(out) if shows_raw_face(image, raw[i])} == numbers
    for withheld in (numbers, set[int]()):
        with pytest.raises(AssertionError):
            check_closed(out, raw, withheld)


def raising(frame: Frame) -> Regions:
    raise RuntimeError("the network is broken")


def unchecked(boxes: object, scores: object) -> Regions:
    """Regions as a detector could build them that gets round the checks of the class."""
    regions = object.__new__(Regions)
    values = {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "scores": np.array(scores, np.float32),
        "kinds": np.full(1, Kind.FACE, np.uint8),
        "track_ids": np.full(1, -1, np.int64),
        "origins": np.zeros(1, np.uint8),
    }
    for name, value in values.items():
        object.__setattr__(regions, name, value)
    return regions


def hang(frame: Frame, numbers: set[int], seconds: float) -> Regions:
    if number(frame) in numbers:
        time.sleep(seconds)
    return faces(FACE)


class BadFill:
    """Works until its n-th call, then does something wrong for five calls."""

    def __init__(self, wrong: Callable[[Image], Image]) -> None:
        self._wrong = wrong
        self._calls = 0

    def __call__(self, region: Image) -> Image:
        self._calls += 1
        return self._wrong(region) if self._calls - 1 in BAD else np.zeros_like(region)


def broken(region: Image) -> Image:
    raise RuntimeError("the generator is broken")


@contextlib.contextmanager
def check_hangs() -> Iterator[threading.Event]:
    """The run within does not end in time while it waits for this event; set in the end, so that nothing stays."""
    event = threading.Event()
    threads = threading.active_count()
    try:
        with pytest.raises(AssertionError, match="still running"):
            yield event
    finally:
        event.set()
    limit = time.monotonic() + 20
    while threading.active_count() > threads:
        assert time.monotonic() < limit
        time.sleep(0.01)
