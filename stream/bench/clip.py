"""The clip that a benchmark looks at where its user gives none."""

from __future__ import annotations

from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np

from stream.demo import WALKERS
from stream.sources.video import VideoSource

#: Frames of a clip that is brought to another size; it is shown again and again.
_FRAMES: Final = 50
_ABOUT: Final = "synthetic people who walk (the project's own clip)"


def made_clip(folder: Path, size: tuple[int, int] | None, walkers: Path = WALKERS) -> tuple[Path, str]:
    """The project's clip of synthetic people, and what a report says of it.

    Args:
        folder: for a copy of another size.
        size: width and height in pixels, both even; None for its own.
        walkers: the clip.

    Raises:
        SourceError: it cannot be read.
    """
    if size is None:
        return walkers, _ABOUT
    width, height = size
    path = folder / "clip.mp4"
    with closing(VideoSource(walkers)) as source, av.open(str(path), "w") as container:
        rate = source.info.rate or Fraction(25)
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number, frame in enumerate(source):
            if number >= _FRAMES:
                break
            larger = np.asarray(cv2.resize(frame.image, size, interpolation=cv2.INTER_CUBIC), np.uint8)
            picture = av.VideoFrame.from_ndarray(larger, format="rgb24")
            picture.pts, picture.time_base = number, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path, f"{_ABOUT}, brought to this size"
