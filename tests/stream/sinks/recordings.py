"""Frames that carry their number in the picture, and what a player finds in a file of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from stream.anonymizer import Anonymized
from stream.frame import Frame, Image
from stream.regions import Regions
from stream.sinks.base import Sink
from stream.sources.base import StreamInfo
from stream.timeline import TIME_BASE

RATE = 20
BITS = 12
#: Ticks of the live timeline between two frames.
STEP = TIME_BASE.denominator // RATE
INFO = StreamInfo("camera", 96, 48, time_base=TIME_BASE, rate=Fraction(RATE), pix_fmt="yuv420p")


def numbered(number: int, *, width: int = 96, height: int = 48, pts: int | None = None, **changes: Any) -> Anonymized:
    """A frame that shows its number in black and white columns; by default it lies in its place on the timeline."""
    columns = [230 if number >> bit & 1 else 20 for bit in range(BITS)]
    row = np.repeat(np.array(columns, np.uint8), width // BITS)
    image = np.full((height, width, 3), 128, np.uint8)
    image[:, : len(row)] = row[None, :, None]
    place = number * STEP if pts is None else pts
    return Anonymized(Frame(image, pts=place, time_base=TIME_BASE, **changes), Regions.empty())


def number_in(image: Image) -> int:
    """The number that a picture shows."""
    width = image.shape[1] // BITS
    middle = image[image.shape[0] // 2, :, 0]
    return sum(int(middle[bit * width + width // 2] > 128) << bit for bit in range(BITS))


class Paced:
    """Frames at their own pace.

    Attributes:
        number: of the next frame.
        slowest: seconds that the sink held up a frame at most.
    """

    def __init__(self, sink: Sink, make: Callable[[int], Anonymized] = numbered) -> None:
        self.sink = sink
        self.make = make
        self.number = 0
        self.slowest = 0.0

    def run(self, count: int) -> None:
        """So many frames more."""
        for _ in range(count):
            began = time.monotonic()
            self.sink.write(self.make(self.number))
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.number += 1
            time.sleep(1 / RATE)


@dataclass
class Played:
    """What a player finds.

    Attributes:
        numbers: that the pictures show, in order.
        times: of the pictures, in seconds.
        size: width and height of the last one.
        begins_with_key: whether the first packet is a key frame.
    """

    numbers: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)
    begins_with_key: bool = False


def play(path: Path | str | BinaryIO, **options: Any) -> Played:
    """Decode all of it; damage is an error."""
    played = Played()
    with av.open(str(path) if isinstance(path, Path) else path, **options) as container:
        for packet in container.demux(video=0):
            if not played.numbers and packet.size:
                played.begins_with_key = played.begins_with_key or packet.is_keyframe
            for frame in packet.decode():
                assert isinstance(frame, av.VideoFrame)
                played.numbers.append(number_in(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)))
                played.times.append(float(frame.time or 0))
                played.size = (frame.width, frame.height)
    return played


def segments(folder: Path) -> list[Path]:
    """All files of a folder that are not hidden, by name."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def partials(folder: Path) -> list[Path]:
    """All hidden files of a folder."""
    return sorted(path for path in folder.iterdir() if path.name.startswith("."))
