"""The element in real pipelines: what goes in comes out anonymized, and nothing raw comes out of any fault.

Every test runs `gst-launch-1.0` with a registry of its own. They are skipped where GStreamer, its Python bindings or
the plugin loader are not installed.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engines.errors import RuntimeUnavailableError
from stream.gst_path import check_tools, variables
from tests.detector_bundles import write_one_stage

WIDTH, HEIGHT, COUNT = 64, 48, 12
FACE = (16, 12, 48, 36)
PLACE = (0.25, 0.25, 0.75, 0.75)
CAPS = f"video/x-raw,format=RGB,width={WIDTH},height={HEIGHT},framerate=10/1"
SOURCE = f"videotestsrc pattern=ball num-buffers={COUNT} ! {CAPS}"


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

    def run(self, pipeline: str, *, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """`gst-launch-1.0 -m PIPELINE`."""
        return subprocess.run(
            ["gst-launch-1.0", "-m", *pipeline.split()],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def element(self, more: str = "") -> str:
        """The element as most tests use it."""
        return f"standin detector={self.detector} face=mask margin=0 lookahead=2 {more}".strip()

    def pictures(self, pipeline: str) -> tuple[list[np.ndarray], subprocess.CompletedProcess[str]]:
        """What a pipeline writes."""
        output = self.folder / "out.rgb"
        output.unlink(missing_ok=True)
        done = self.run(f"{pipeline} ! filesink location={output}")
        content = np.fromfile(output, np.uint8) if output.exists() else np.zeros(0, np.uint8)
        return list(
            content[: len(content) // (WIDTH * HEIGHT * 3) * WIDTH * HEIGHT * 3].reshape(-1, HEIGHT, WIDTH, 3)
        ), done


@pytest.fixture
def pipelines(tmp_path: Path) -> Pipelines:
    if environment() is None:
        pytest.skip("GStreamer, its Python bindings or its tools are not installed")
    made = Pipelines(tmp_path)
    probe = subprocess.run(
        ["gst-inspect-1.0", "python"], env=made.environment, capture_output=True, timeout=60, check=False
    )
    if probe.returncode:
        pytest.skip("GStreamer's loader of Python plugins is not installed")
    return made


def test_the_element_is_found_with_a_property_for_every_setting(pipelines: Pipelines) -> None:
    done = subprocess.run(
        ["gst-inspect-1.0", "standin"],
        env=pipelines.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "Replaces the people in video" in done.stdout
    for name in ("preset", "mask-margin", "on-failure", "lookahead"):
        assert re.search(rf"^  {name} +:", done.stdout, re.MULTILINE)


def test_faces_are_covered_and_the_rest_is_as_it_was(pipelines: Pipelines) -> None:
    raw, _ = pipelines.pictures(SOURCE)
    made, done = pipelines.pictures(f"{SOURCE} ! {pipelines.element()}")
    assert done.returncode == 0, done.stderr
    assert len(raw) == len(made) == COUNT
    x0, y0, x1, y1 = FACE
    for before, after in zip(raw, made, strict=True):
        assert not after[y0:y1, x0:x1].any()
        outside = np.ones((HEIGHT, WIDTH), bool)
        outside[y0:y1, x0:x1] = False
        assert np.array_equal(before[outside], after[outside])
    assert f"frames=(int){COUNT}, withheld=(int)0, dropped=(int)0" in done.stdout


def test_time_stamps_and_their_order_stay(pipelines: Pipelines) -> None:
    stamps = [
        re.findall(r"pts: ([\d:.]+), duration: ([\d:.]+)", pipelines.run(f"{line} ! fakesink silent=false -v").stdout)
        for line in (SOURCE, f"{SOURCE} ! {pipelines.element()}")
    ]
    assert len(stamps[0]) == COUNT
    assert stamps[0] == stamps[1]


def test_lookahead_is_answered_as_latency(pipelines: Pipelines) -> None:
    script = """
import sys
import gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
pipeline = Gst.parse_launch(sys.argv[1])
pipeline.set_state(Gst.State.PAUSED)
pipeline.get_state(20 * Gst.SECOND)
query = Gst.Query.new_latency()
assert pipeline.get_by_name("s").get_static_pad("src").query(query)
print(query.parse_latency()[1])
pipeline.set_state(Gst.State.NULL)
"""
    found = []
    for lookahead in (0, 4):
        line = f"{SOURCE} ! standin name=s detector={pipelines.detector} lookahead={lookahead} ! fakesink"
        done = subprocess.run(
            [shutil.which("python3", path="/usr/bin") or sys.executable, "-c", script, line],
            env=pipelines.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found.append(int(done.stdout.split()[-1]))
    assert found[1] - found[0] == 5 * 10**8


#: Each breaks one method of the element, or something that it calls.
SABOTAGE = [
    "StandinElement._chain",
    "StandinElement._frame",
    "StandinElement._push",
    "StandinElement._is_late",
    "StandinElement._take_event",
    "StandinElement._negotiate",
    "StandinElement._report",
    "Anonymizer.look",
    "Anonymizer.follow",
    "Anonymizer.cover",
    "Pixels.write",
]


def sabotage(pipelines: Pipelines, target: str, *, after: int) -> None:
    """From its so many-th call on, a method raises."""
    owner, method = target.split(".")
    plugins = pipelines.folder / "plugins" / "python"
    plugins.mkdir(parents=True)
    (plugins / "broken.py").write_text(
        "from stream import gst_element\n"
        f"owner, whole = gst_element.{owner}, gst_element.{target}\n"
        "calls = []\n"
        "def broken(*arguments, **named):\n"
        "    calls.append(1)\n"
        f"    if len(calls) > {after}:\n"
        "        raise RuntimeError('sabotage')\n"
        "    return whole(*arguments, **named)\n"
        f"owner.{method} = broken\n"
        "__gstelementfactory__ = gst_element.__gstelementfactory__\n"
    )
    pipelines.environment["GST_PLUGIN_PATH"] = str(plugins.parent)


@pytest.mark.parametrize("target", SABOTAGE)
def test_nothing_raw_leaves_whatever_raises(target: str, pipelines: Pipelines) -> None:
    raw, _ = pipelines.pictures(SOURCE)
    # Negotiation and events break at once, the others when the flow is under way.
    at_once = target.endswith(("_negotiate", "_take_event", "_report"))
    sabotage(pipelines, target, after=0 if at_once else 8)
    made, done = pipelines.pictures(f"{SOURCE} ! {pipelines.element()}")
    assert done.returncode != 0
    assert "sabotage" in done.stdout + done.stderr
    assert len(made) < COUNT
    assert at_once or made
    seen = {picture.tobytes() for picture in raw}
    assert len(seen) > COUNT // 2
    assert not any(picture.tobytes() in seen for picture in made)
    x0, y0, x1, y1 = FACE
    assert not any(picture[y0:y1, x0:x1].any() for picture in made)


@pytest.mark.parametrize("target", ["Anonymizer._detect", "Anonymizer._stitch", "Pixels.read"])
def test_frames_that_fail_are_flat_or_end_the_flow(target: str, pipelines: Pipelines) -> None:
    sabotage(pipelines, target, after=3)
    line = f"{SOURCE} ! {pipelines.element()}"
    error = "ValueError" if target == "Pixels.read" else "RuntimeError"
    plugin = pipelines.folder / "plugins" / "python" / "broken.py"
    plugin.write_text(plugin.read_text().replace("RuntimeError", error))
    made, done = pipelines.pictures(line)
    assert done.returncode == 0, done.stderr
    assert [bool((picture == 128).all()) for picture in made] == [False] * 3 + [True] * (COUNT - 3)
    assert f"withheld=(int){COUNT - 3}" in done.stdout
    made, done = pipelines.pictures(f"{line} on-failure=stop")
    assert done.returncode != 0
    assert len(made) <= 3


@pytest.mark.parametrize(
    ("more", "message"),
    [("preset=nonsense", "unknown preset"), ("hold=-1", "hold"), ("detector=/nowhere", "nowhere")],
)
def test_what_cannot_be_is_an_error_on_the_bus(more: str, message: str, pipelines: Pipelines) -> None:
    done = pipelines.run(f"{SOURCE} ! standin {more} ! fakesink")
    assert done.returncode != 0
    assert message in done.stdout + done.stderr


def test_the_next_element_s_format_is_asked_for(pipelines: Pipelines) -> None:
    source = SOURCE.replace("format=RGB,", "")
    done = pipelines.run(f"{source} ! {pipelines.element()} ! video/x-raw,format=NV12 ! fakesink -v")
    assert done.returncode == 0, done.stderr
    assert "NV12" in done.stdout


@pytest.mark.parametrize("name", ["I420", "NV12", "YUY2", "BGRx", "GRAY8"])
def test_usual_formats_are_taken(name: str, pipelines: Pipelines) -> None:
    source = SOURCE.replace("format=RGB", f"format={name}")
    convert = f"videoconvert ! video/x-raw,format=RGB,width={WIDTH},height={HEIGHT}"
    made, done = pipelines.pictures(f"{source} ! {pipelines.element()} ! {convert}")
    assert done.returncode == 0, done.stderr
    assert len(made) == COUNT
    x0, y0, x1, y1 = FACE
    assert all(picture[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].max() <= 3 for picture in made)
