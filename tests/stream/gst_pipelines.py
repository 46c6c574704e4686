"""Pipelines with the element `standin` in them, each run by `gst-launch-1.0` with a registry of its own."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engines.errors import RuntimeUnavailableError
from stream.gst_path import check_tools, variables
from tests.detector_bundles import write_one_stage

#: Exit code of a pipeline that did not end.
_KILLED = 124
WIDTH, HEIGHT, COUNT = 64, 48, 12
FACE = (16, 12, 48, 36)
PLACE = (0.25, 0.25, 0.75, 0.75)
CAPS = f"video/x-raw,format=RGB,width={WIDTH},height={HEIGHT},framerate=10/1"
SOURCE = f"videotestsrc pattern=ball num-buffers={COUNT} ! {CAPS}"

#: The head of programs that push into an element by themselves: pictures whose level is the number of their time stamp.
#: What arrives is in `seen` as (milliseconds, level, bytes), between the names of events; `counts` reads statistics.
PUSHING = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import GObject, Gst, GstVideo
Gst.init(None)
pipeline = Gst.parse_launch(f"{sys.argv[1]} name=s ! fakesink name=f")
element, end = pipeline.get_by_name("s"), pipeline.get_by_name("f").get_static_pad("sink")
bus, seen = pipeline.get_bus(), []

def arrived(pad, info):
    if info.type & Gst.PadProbeType.BUFFER:
        buffer = info.get_buffer()
        seen.append((buffer.pts // Gst.MSECOND, buffer.extract_dup(0, 1)[0], buffer.get_size()))
    elif info.get_event().type in (Gst.EventType.STREAM_START, Gst.EventType.CAPS, Gst.EventType.SEGMENT):
        seen.append(info.get_event().type.value_nick)
    return Gst.PadProbeReturn.OK

end.add_probe(Gst.PadProbeType.BUFFER | Gst.PadProbeType.EVENT_DOWNSTREAM, arrived)
pad = Gst.Pad.new("src", Gst.PadDirection.SRC)
pad.set_active(True)
assert pad.link_full(element.get_static_pad("sink"), Gst.PadLinkCheck.NOTHING) == Gst.PadLinkReturn.OK

def caps(width=64, height=48, memory="SystemMemory"):
    text = f"video/x-raw(memory:{memory}),format=RGB,width={width},height={height},framerate=10/1"
    return Gst.Event.new_caps(Gst.Caps.from_string(text))

def segment():
    made = Gst.Segment()
    made.init(Gst.Format.TIME)
    return Gst.Event.new_segment(made)

def begin(name="s"):
    return [pad.push_event(event) for event in (Gst.Event.new_stream_start(name), caps(), segment())]

def picture(number, width=64, height=48):
    buffer = Gst.Buffer.new_wrapped(bytes([number]) * (width * height * 3))
    buffer.pts, buffer.duration = number * Gst.MSECOND, Gst.MSECOND
    return buffer

def push(*numbers, **size):
    return [pad.push(picture(number, **size)) for number in numbers]

def pictures():
    return [entry[:2] for entry in seen if isinstance(entry, tuple)]

def flush():
    assert pad.push_event(Gst.Event.new_flush_start()) and pad.push_event(Gst.Event.new_flush_stop(True))
    assert pad.push_event(segment())

def errors():
    found = []
    while (message := bus.pop_filtered(Gst.MessageType.ERROR)) is not None:
        found.append(message.parse_error()[0].message)
    return found

def counts():
    last = None
    while (message := bus.pop_filtered(Gst.MessageType.ELEMENT | Gst.MessageType.EOS)) is not None:
        about = message.get_structure()
        last = about if about is not None and about.get_name() == "standin-statistics" else last
    return {name: last.get_int(name)[1] for name in ("frames", "withheld", "dropped")}

pipeline.set_state(Gst.State.PLAYING)
"""


@functools.cache
def environment() -> dict[str, str] | None:
    """What pipelines run in; None where they cannot."""
    try:
        check_tools()
        return {**os.environ, **variables()}
    except RuntimeUnavailableError:
        return None


class Pipelines:
    """Runs pipelines with a registry of their own and a detector that always finds the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **(environment() or {}),
            "GST_REGISTRY": str(folder / "registry.bin"),
            "GST_REGISTRY_FORK": "no",
            "STANDIN_HOME": str(folder / "home"),
        }
        self.detector = write_one_stage(folder / "tiny", [PLACE]).path

    def run(self, pipeline: str, *, ends: bool = True) -> subprocess.CompletedProcess[str]:
        """`gst-launch-1.0 -m PIPELINE`.

        Args:
            pipeline: its description.
            ends: whether it has to end by itself. After an error before the first picture, `gst-launch-1.0` sometimes
                says so and stays.
        """
        try:
            return subprocess.run(
                ["gst-launch-1.0", "-m", *pipeline.split()],
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=60 if ends else 30,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            if ends:
                raise
            said = [(stream or b"").decode() for stream in (error.stdout, error.stderr)]
            return subprocess.CompletedProcess(error.cmd, _KILLED, *said)

    def element(self, more: str = "") -> str:
        """The element as most tests use it."""
        return f"standin detector={self.detector} face=mask margin=0 lookahead=2 {more}".strip()

    def pictures(
        self, pipeline: str, *, ends: bool = True
    ) -> tuple[list[np.ndarray], subprocess.CompletedProcess[str]]:
        """What a pipeline writes.

        Args:
            pipeline: that ends in raw video.
            ends: see `run`.
        """
        output = self.folder / "out.rgb"
        output.unlink(missing_ok=True)
        done = self.run(f"{pipeline} ! filesink location={output}", ends=ends)
        content = np.fromfile(output, np.uint8) if output.exists() else np.zeros(0, np.uint8)
        return list(
            content[: len(content) // (WIDTH * HEIGHT * 3) * WIDTH * HEIGHT * 3].reshape(-1, HEIGHT, WIDTH, 3)
        ), done

    def require(self, *elements: str) -> None:
        """Skip the test where GStreamer lacks one of these."""
        for name in elements:
            asked = ["gst-inspect-1.0", "--exists", name]
            if subprocess.run(asked, env=self.environment, timeout=60, check=False).returncode:
                pytest.skip(f"GStreamer's element {name} is not installed")

    def script(self, text: str, *arguments: str) -> str:
        """What a Python program prints that has GStreamer."""
        done = subprocess.run(
            [shutil.which("python3", path="/usr/bin") or sys.executable, "-c", text, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def open_pipelines(folder: Path, shared: Path) -> Pipelines:
    """Skips the test where pipelines cannot be run.

    Args:
        folder: of the test.
        shared: by all tests: GStreamer looks only once at what there is.
    """
    if environment() is None:
        pytest.skip("GStreamer, its Python bindings or its tools are not installed")
    made = Pipelines(folder)
    registry, own = shared / "gst_registry.bin", made.environment["GST_REGISTRY"]
    if registry.exists():
        shutil.copy(registry, own)
        return made
    probe = ["gst-inspect-1.0", "python"]
    if subprocess.run(probe, env=made.environment, capture_output=True, timeout=60, check=False).returncode:
        pytest.skip("GStreamer's loader of Python plugins is not installed")
    shutil.copy(own, registry)
    return made
