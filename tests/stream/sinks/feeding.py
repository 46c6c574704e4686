"""Anonymized frames for sinks that are live, at their own pace."""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction
from typing import ClassVar

import numpy as np

from stream.anonymizer import Anonymized
from stream.frame import Frame, Image
from stream.regions import Regions
from stream.sinks.base import Sink
from stream.sources.base import StreamInfo
from stream.timeline import TIME_BASE

RATE = 20
#: Odd in bytes of a row, so that rows are padded.
WIDTH, HEIGHT = 66, 48
INFO = StreamInfo("camera", WIDTH, HEIGHT, time_base=TIME_BASE, rate=Fraction(RATE), pix_fmt="yuv420p")


def level(number: int) -> int:
    """Of the picture of this number; no two of twenty are alike."""
    return number * 10 % 200 + 20


def item(number: int, width: int = WIDTH, height: int = HEIGHT, *, grain: int = 0) -> Anonymized:
    """The frame of this number; below, so many levels of noise, which no encoder makes small."""
    image = np.full((height, width, 3), level(number), np.uint8)
    if grain:
        image[HEIGHT:] = np.random.default_rng(number).integers(0, grain, image[HEIGHT:].shape)
    return Anonymized(Frame(image, pts=number * 90_000 // RATE, time_base=TIME_BASE), Regions.empty())


class Feeding:
    """Frames for a sink.

    Args:
        sink: takes them.
    """

    #: Of the test that runs: one that fails before it ends them leaves its threads to no other.
    sinks: ClassVar[list[Sink]] = []

    def __init__(self, sink: Sink) -> None:
        self.sinks.append(sink)
        self.sink = sink
        self.number = 0
        self.slowest = 0.0
        self.size = (WIDTH, HEIGHT)
        self.grain = 0

    def run(self, count: int, *, pause: float = 1 / RATE) -> None:
        """So many frames."""
        for _ in range(count):
            frame = item(self.number, *self.size, grain=self.grain)
            began = time.monotonic()
            self.sink.write(frame)
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.number += 1
            time.sleep(pause)

    def until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        """Frames until a function is true."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not come to that in time"
            self.run(1)


def numbers(images: list[Image]) -> list[int]:
    """Of pictures that came through a lossy codec: their places in a row of twenty."""
    return [round((float(image[: HEIGHT // 2].mean()) - 20) / 10) for image in images]
