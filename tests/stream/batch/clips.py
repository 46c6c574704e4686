"""Clips in which people come and go, with key frames at known places."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from stream.frame import Image
from tests.fakes import noise

RATE = 25
GROUP = 10


def blinking(count: int, width: int = 64, height: int = 48, seed: int = 0) -> list[Image]:
    """Pictures of which some are dark, so that a detector that looks at brightness sees nobody in them."""
    dark = np.random.default_rng(seed).random(count) < 0.4
    dark[:3] = True
    return [image // 8 if dim else image for image, dim in zip(noise(count, width, height, seed), dark, strict=True)]


def write_groups(path: Path, images: list[Image]) -> Path:
    """A clip with B-frames and a key frame every ten frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=RATE, options={"crf": "20", "preset": "ultrafast", "sc_threshold": "0"}
        )
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = GROUP
        stream.codec_context.max_b_frames = 2
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))
    return path
