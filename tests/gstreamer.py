"""GStreamer for tests: with a registry of its own, and a skip where something is missing."""

from __future__ import annotations

import functools
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from engines.errors import RuntimeUnavailableError
from stream.address import Address, input_address, output_address
from stream.frame import Image
from stream.gst import bindings, require

_THREADS = ("standin-gst", "standin-read", "standin-send", "standin-rtsp")


@functools.cache
def _problem() -> str | None:
    """Why there is no GStreamer, None if there is."""
    before = os.environ.get("GST_REGISTRY")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GST_REGISTRY"] = str(Path(folder) / "registry.bin")
        try:
            bindings()
        except RuntimeUnavailableError as error:
            return str(error)
        finally:
            del os.environ["GST_REGISTRY"]
            if before is not None:
                os.environ["GST_REGISTRY"] = before
    return None


def need(*elements: str) -> None:
    """Skip the test unless GStreamer and these elements are here."""
    if (problem := _problem()) is not None:
        pytest.skip(problem)
    try:
        require(*elements)
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))


def address(text: str) -> Address:
    """Of a pipeline, a server of ours or a URL."""
    return output_address(text) if "-server://" in text else input_address(text)


def threads() -> int:
    """How many threads of ours read, send, serve or look after pipelines."""
    return sum(thread.name.startswith(_THREADS) for thread in threading.enumerate())


def wait_until(condition: object, seconds: float = 10.0) -> None:
    """Until a function is true."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.02)


def vp8_packets(images: Sequence[Image], *, rate: int, group: int) -> list[av.Packet[av.VideoStream]]:
    """A stream in which every picture but each first of a group depends on the one before."""
    context = av.CodecContext.create("libvpx", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.height, context.width = images[0].shape[:2]
    context.pix_fmt, context.time_base, context.framerate = "yuv420p", Fraction(1, rate), Fraction(rate)
    context.bit_rate = 4_000_000
    context.options = {
        "qmax": "12",
        "g": str(group),
        "keyint_min": str(group),
        "deadline": "realtime",
        "lag-in-frames": "0",
    }
    packets = []
    for number, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = number, context.time_base
        packets += context.encode(frame)
    packets += context.encode(None)
    return packets
