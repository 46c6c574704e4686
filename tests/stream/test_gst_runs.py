"""From a pipeline of GStreamer's to another one: every frame, and nothing raw of a face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engines.errors import SinkError
from stream.anonymizer import Anonymizer
from stream.pipeline import Pipeline, Summary
from stream.sinks.gst import GstSink
from stream.sinks.network import SinkOptions
from stream.sources.connection import Peer
from stream.sources.live import LiveOptions, LiveSource
from tests.fakes import FILLS, Box, FixedDetector, FunctionDetector, faces, finishes_within, flat_settings
from tests.gstreamer import address, need, threads, wait_until

FACE: Box = (20, 10, 44, 34)
COUNT = 20
#: No two pictures are alike.
SOURCE = f"videotestsrc pattern=snow num-buffers={COUNT}"
CAPS = "video/x-raw,format=RGB,width=64,height=48,framerate=25/1"


@pytest.fixture(autouse=True)
def gstreamer() -> None:
    need("videotestsrc", "videoconvert", "appsink", "appsrc", "tee", "queue", "filesink", "identity")


def go(detector: FunctionDetector, folder: Path) -> tuple[Summary, np.ndarray, np.ndarray]:
    """Runs once; what went in and what came out."""
    raw, out = folder / "raw", folder / "out"
    text = f"{SOURCE} ! {CAPS} ! tee name=t t. ! queue ! filesink location={raw} t. ! queue"
    source = LiveSource(address(f"gst:{text}"), LiveOptions(peer=Peer(), attempts=0))
    sink = GstSink(
        address(f"gst:{CAPS.replace(',framerate=25/1', '')} ! filesink location={out}"), source.info, patient=True
    )
    pipeline = Pipeline(source, Anonymizer([detector], FILLS, flat_settings()), sink)
    summary = finishes_within(30, pipeline.run)
    source.close()
    wait_until(lambda: not threads())
    before, after = (np.fromfile(path, np.uint8).reshape(-1, 48, 64, 3) for path in (raw, out))
    return summary, before, after


def test_every_face_is_covered_and_the_rest_is_as_it_was(tmp_path: Path) -> None:
    summary, raw, out = go(FixedDetector(FACE), tmp_path)
    assert (summary.frames, summary.withheld, len(raw), len(out)) == (COUNT, 0, COUNT, COUNT)
    expected = raw.copy()
    expected[:, 10:34, 20:44] = 0
    assert np.array_equal(out, expected)


def test_the_control_shows_them(tmp_path: Path) -> None:
    """Without a detection, what comes out is what went in: the check above is about covering."""
    _, raw, out = go(FunctionDetector(lambda _: faces()), tmp_path)
    assert np.array_equal(out, raw)
    assert len({picture.tobytes() for picture in raw}) == COUNT


def test_frames_that_could_not_be_looked_at_are_flat(tmp_path: Path) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("the network is broken")

    summary, _, out = go(FunctionDetector(fails), tmp_path)  # type: ignore[arg-type]
    assert summary.withheld == COUNT
    assert (out == 128).all()


def test_a_sink_that_is_given_up_ends_the_run(tmp_path: Path) -> None:
    source = LiveSource(address(f"gst:{SOURCE} is-live=true ! {CAPS}".replace(f"num-buffers={COUNT}", "")))
    options = SinkOptions(attempts=0, longest_wait=0.1)
    sink = GstSink(address("gst:identity error-after=3 ! fakesink"), source.info, options)
    pipeline = Pipeline(source, Anonymizer([FixedDetector(FACE)], FILLS, flat_settings()), sink)
    with pytest.raises(SinkError, match="given up: failed once"):
        finishes_within(30, pipeline.run)
    source.close()
    wait_until(lambda: not threads())
