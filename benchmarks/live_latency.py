"""Delay of live runs: what Standin itself adds to a frame, and from a packet's arrival to the encoded frame.

    python -m benchmarks.live_latency --seconds 60 --save
    python -m benchmarks.live_latency --preset faces --clip CLIP

`overhead` is a frame's way through the pipeline at 1280x720, one frame at a time, with a detector that answers at once,
without decoding, colour conversion, encoding and generation: queues, tracking, covering two boxes flat, counting.
`end_to_end` is a whole run between an RTSP camera (10 frames per second, 640x360) and a server over UDP.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from benchmarks.common import save
from benchmarks.live_faults import Peer, free_port
from benchmarks.live_peers import write_packets
from benchmarks.live_scene import RATE
from stream.address import input_address, output_address
from stream.anonymizer import Anonymized, Anonymizer
from stream.config import RunSettings
from stream.frame import Frame, Image
from stream.generators.classical import mask_out
from stream.gst_path import variables
from stream.metrics import Meter, percentiles
from stream.pipeline import Pipeline
from stream.pulse import Pulse
from stream.regions import Kind, Regions
from stream.run import run
from stream.sources.base import StreamInfo
from stream.sources.video import VideoSource
from stream.watch import Watch

_CLIP = Path(__file__).resolve().parents[1] / "stream" / "media" / "walkers.mp4"
_SIZE = (640, 360)
#: Of the overhead.
_HD = (720, 1280, 3)
#: Frames that warm up caches before any counts.
_WARM_UP = 30


class _Ready:
    """A source whose next frame comes when the one before has left, and a sink that notes when that was."""

    def __init__(self, count: int) -> None:
        self.info = StreamInfo("ready", _HD[1], _HD[0], time_base=Fraction(1, RATE), rate=Fraction(RATE))
        self.seconds: list[float] = []
        self._count = count
        self._left = threading.Event()
        self._began = 0.0

    def __iter__(self) -> Iterator[Frame]:
        image = np.random.default_rng(0).integers(0, 256, _HD, np.uint8)
        for pts in range(self._count):
            frame = Frame(image.copy(), pts=pts, time_base=Fraction(1, RATE), arrived=time.monotonic())
            self._left.clear()
            self._began = time.perf_counter()
            yield frame
            self._left.wait()

    def write(self, item: Anonymized) -> None:
        if item.withheld is not None:
            raise RuntimeError(item.withheld)
        self.seconds.append(time.perf_counter() - self._began)
        self._left.set()

    def problems(self) -> tuple[str, ...]:
        return ()

    def side_exits(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        pass

    abort = close


class _Instant:
    """A detector that finds two persons at once, who move."""

    def __init__(self) -> None:
        self._looked = 0

    def detect(self, frame: Frame) -> Regions:
        del frame  # whatever it shows
        self._looked += 1
        shift = self._looked % 200
        boxes = np.array([[100 + shift, 100, 220 + shift, 500], [800 - shift, 150, 950 - shift, 600]], np.float32)
        return Regions.of(boxes, Kind.PERSON, scores=[0.9, 0.8])

    def reset(self) -> None:
        pass

    def prepare(self, width: int, height: int, parallel: int) -> None:
        pass

    def close(self) -> None:
        pass


def overhead(frames: int) -> dict[str, Any]:
    """What Standin itself needs for a frame, in milliseconds."""
    ready = _Ready(frames + _WARM_UP)
    settings = RunSettings(preset="faces", person="mask", face="mask", lookahead=0)
    fills = dict.fromkeys(Kind, mask_out((0, 0, 0)))
    covering = Anonymizer([_Instant()], fills, settings)
    Pipeline(ready, covering, ready, observers=[Meter()], waiting=1, pulse=Pulse(Fraction(RATE))).run()
    return _milliseconds(ready.seconds[_WARM_UP:])


def end_to_end(clip: Path, preset: str, seconds: float) -> dict[str, Any]:
    """From the arrival of a packet until the frame was encoded and handed on, in milliseconds."""
    pictures = [frame.image for frame in islice(VideoSource(clip), 0, 20 * RATE)]
    watched: list[Watch] = []
    with tempfile.TemporaryDirectory() as name:
        packets = Path(name) / "packets.bin"
        write_packets(packets, _encode(pictures))
        ports = free_port(), free_port()
        program = [sys.executable, "-m", "benchmarks.live_peers", "camera", "--port", str(ports[0])]
        camera = Peer([*program, "--pictures", str(packets)], os.environ | variables())
        camera.start()
        latencies: list[float] = []

        def begin(_: StreamInfo, pipeline: Pipeline) -> None:
            threading.Timer(seconds, pipeline.stop).start()

        def note(item: Anonymized) -> None:
            if item.frame.arrived is not None:
                latencies.append(time.monotonic() - item.frame.arrived)

        try:
            result = run(
                input_address(f"rtsp://127.0.0.1:{ports[0]}/camera"),
                output_address(f"udp://127.0.0.1:{ports[1]}"),
                RunSettings(preset=preset, lookahead=0),
                on_start=begin,
                on_frame=note,
                on_watch=watched.append,
            )
        finally:
            camera.kill()
    frames = result.summary.frames
    return {
        "clip": clip.name,
        "preset": preset,
        "frames": frames,
        "withheld": result.summary.withheld,
        "notes": list(result.notes),
        "latency_ms": _milliseconds(latencies[_WARM_UP:]),
        "stage_ms": {stage: round(1000 * busy / frames, 2) for stage, busy in result.summary.busy.items()},
        "encoder": "libx264 veryfast zerolatency",
    }


def _encode(pictures: Sequence[Image]) -> list[Packet[av.VideoStream]]:
    context = av.CodecContext.create("libx264", "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height = _SIZE
    context.pix_fmt = "yuv420p"
    context.time_base, context.framerate, context.gop_size = Fraction(1, RATE), Fraction(RATE), RATE
    context.options = {"preset": "veryfast", "tune": "zerolatency", "crf": "20"}
    packets: list[Packet[av.VideoStream]] = []
    for number, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(*_SIZE, format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, RATE)
        packets += context.encode(frame)
    return packets + context.encode(None)


def _milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    found = percentiles(seconds, (50, 95, 99))
    if found is None:
        raise RuntimeError("not a single frame came through")
    median, most, nearly_all = (round(1000 * value, 2) for value in found)
    return {"median": median, "p95": most, "p99": nearly_all, "mean": round(1000 * statistics.mean(seconds), 2)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; with `--save` write `results/live-latency.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--frames", type=int, default=500, help="for the overhead")
    parser.add_argument("--preset", default="faces")
    parser.add_argument("--clip", type=Path, default=_CLIP)
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args(arguments)
    result = {
        "overhead_ms": overhead(given.frames),
        "end_to_end": end_to_end(given.clip, given.preset, given.seconds),
    }
    print(json.dumps(result, indent=1))
    if given.save:
        print(save("live-latency", result))


if __name__ == "__main__":
    main()
