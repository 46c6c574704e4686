"""The element when things fail: flat pictures in time or the end of the flow, and nothing raw whatever raises."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.stream.gst_pipelines import COUNT, FACE, SOURCE, Pipelines, open_pipelines

#: Each breaks something that GStreamer calls, or that is called for a stream and not for one picture; by how many
#: calls go well.
ENDING = {
    "StandinElement._set_property": 0,
    "StandinElement._open": 0,
    "StandinElement._change_state": 0,
    "StandinElement._chain": 8,
    "StandinElement._push": 8,
    "StandinElement._content": 6,
    # Before each of the three events that a stream begins with, and then at its end.
    "StandinElement._drain": 3,
    "StandinElement._sink_event": 0,
    "StandinElement._sink_query": 0,
    "StandinElement._source_event": 0,
    "StandinElement._source_query": 0,
    "StandinElement._answer_caps": 0,
    "StandinElement._negotiate": 0,
    "StandinElement._report": 0,
}
#: Each breaks something that is done for one picture.
WITHHOLDING = [
    "StandinElement._frame",
    "StandinElement._is_late",
    "Anonymizer.look",
    "Anonymizer.follow",
    "Anonymizer.finish",
    "Anonymizer.cover",
    "Anonymizer._detect",
    "Anonymizer._stitch",
    "Pixels.read",
    "Pixels.write",
]
STAMPS = re.compile(r"pts: ([\d:.]+), duration: ([\d:.]+)")


@pytest.fixture
def pipelines(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipelines:
    return open_pipelines(tmp_path, tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """The pictures of `SOURCE`."""
    return open_pipelines(tmp_path_factory.mktemp("raw"), tmp_path_factory.getbasetemp()).pictures(SOURCE)[0]


def sabotage(pipelines: Pipelines, target: str, *, after: int) -> None:
    """From its so many-th call on, a method raises."""
    owner, method = target.split(".")
    plugins = pipelines.folder / "plugins" / "python"
    plugins.mkdir(parents=True, exist_ok=True)
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


def assert_nothing_raw(made: list[np.ndarray], raw: list[np.ndarray]) -> None:
    seen = {picture.tobytes() for picture in raw}
    assert len(seen) > COUNT // 2
    assert not any(picture.tobytes() in seen for picture in made)
    x0, y0, x1, y1 = FACE
    for picture in made:
        assert (picture == 128).all() or not picture[y0:y1, x0:x1].any()


@pytest.mark.parametrize("target", ENDING)
def test_nothing_raw_leaves_whatever_raises(target: str, raw: list[np.ndarray], pipelines: Pipelines) -> None:
    sabotage(pipelines, target, after=ENDING[target])
    made, done = pipelines.pictures(f"{SOURCE} ! {pipelines.element()}", ends=bool(ENDING[target]))
    assert done.returncode != 0
    assert "sabotage" in done.stdout + done.stderr
    # What comes from below may come when all is over.
    assert len(made) < COUNT or "_source" in target
    assert made or not ENDING[target]
    assert_nothing_raw(made, raw)


def test_a_property_that_cannot_be_read_is_an_error_and_empty(pipelines: Pipelines) -> None:
    """Nothing asks for one while pictures go through."""
    sabotage(pipelines, "StandinElement._get_property", after=0)
    asking = """
import sys
import gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
pipeline = Gst.parse_launch(f"{sys.argv[1]} name=s ! fakesink")
print([pipeline.get_by_name("s").get_property("face")])
message = pipeline.get_bus().pop_filtered(Gst.MessageType.ERROR)
print(message and message.parse_error()[0].message)
"""
    assert pipelines.script(asking, pipelines.element()).splitlines() == ["['']", "RuntimeError: sabotage"]


@pytest.mark.parametrize("target", WITHHOLDING)
def test_pictures_that_fail_are_flat_and_in_time(target: str, raw: list[np.ndarray], pipelines: Pipelines) -> None:
    at_end = target.endswith("finish")
    sabotage(pipelines, target, after=0 if at_end else 6)
    made, done = pipelines.pictures(f"{SOURCE} ! {pipelines.element()}")
    assert done.returncode == 0, done.stderr
    assert_nothing_raw(made, raw)
    flat = [bool((picture == 128).all()) for picture in made]
    # Those that wait for later ones go with the one that fails; the flat picture itself is written first.
    assert sum(flat) in ((3,) if at_end else range(COUNT - 6, COUNT - 2))
    assert flat == sorted(flat)
    assert len(made) == COUNT
    assert f"frames=(int){COUNT}, withheld=(int){sum(flat)}" in done.stdout


def test_flat_pictures_keep_their_times(pipelines: Pipelines) -> None:
    tail = "fakesink silent=false -v"
    usual = STAMPS.findall(pipelines.run(f"{SOURCE} ! {pipelines.element()} ! {tail}").stdout)
    assert len(set(usual)) == COUNT
    for target in ("Anonymizer.follow", "Anonymizer.cover"):
        sabotage(pipelines, target, after=6)
        done = pipelines.run(f"{SOURCE} ! {pipelines.element()} ! {tail}")
        assert "withheld=(int)0" not in done.stdout
        assert STAMPS.findall(done.stdout) == usual


#: Sends pictures whose level is the number of their time stamp, prints both of what arrives, and heeds no error.
LEVELS = """
import sys
import gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
pipeline = Gst.parse_launch(f"{sys.argv[1]} name=s ! fakesink name=f")

def arrived(pad, info):
    buffer = info.get_buffer()
    print("seen", buffer.pts // Gst.MSECOND, buffer.extract_dup(0, 1)[0])
    return Gst.PadProbeReturn.OK

pipeline.get_by_name("f").get_static_pad("sink").add_probe(Gst.PadProbeType.BUFFER, arrived)
pipeline.set_state(Gst.State.PLAYING)
pad = Gst.Pad.new("src", Gst.PadDirection.SRC)
pad.set_active(True)
assert pad.link_full(pipeline.get_by_name("s").get_static_pad("sink"), Gst.PadLinkCheck.NOTHING) == Gst.PadLinkReturn.OK
segment = Gst.Segment()
segment.init(Gst.Format.TIME)
caps = Gst.Caps.from_string("video/x-raw,format=RGB,width=64,height=48,framerate=10/1")
for event in (Gst.Event.new_stream_start("s"), Gst.Event.new_caps(caps), Gst.Event.new_segment(segment)):
    assert pad.push_event(event)
for number in range(12):
    buffer = Gst.Buffer.new_wrapped(bytes([number]) * (64 * 48 * 3))
    buffer.pts, buffer.duration = number * Gst.MSECOND, Gst.MSECOND
    pad.push(buffer)
pad.push_event(Gst.Event.new_eos())
pipeline.set_state(Gst.State.NULL)
"""


@pytest.mark.parametrize("target", ["Anonymizer.look", "Anonymizer.follow", "Anonymizer.cover"])
def test_what_comes_after_an_error_keeps_its_own_times(target: str, pipelines: Pipelines) -> None:
    sabotage(pipelines, target, after=5)
    plugin = pipelines.folder / "plugins" / "python" / "broken.py"
    plugin.write_text(plugin.read_text().replace("len(calls) > 5", "len(calls) == 6"))
    printed = pipelines.script(LEVELS, pipelines.element("on-failure=stop"))
    seen = [tuple(map(int, line.split()[1:])) for line in printed.splitlines() if line.startswith("seen")]
    assert COUNT // 2 <= len(seen) < COUNT
    assert all(stamp == level for stamp, level in seen)
    assert seen[-1] == (COUNT - 1, COUNT - 1)


@pytest.mark.parametrize("target", ["StandinElement._frame", "Anonymizer.follow", "Anonymizer.cover", "Pixels.write"])
def test_pictures_that_fail_end_the_flow_if_asked_for(target: str, pipelines: Pipelines) -> None:
    # By then more has left than the file's buffer holds, which an error may end the pipeline with still in it.
    sabotage(pipelines, target, after=30)
    source = SOURCE.replace(f"num-buffers={COUNT}", "num-buffers=60")
    made, done = pipelines.pictures(f"{source} ! {pipelines.element('on-failure=stop')}")
    assert done.returncode != 0
    assert "sabotage" in done.stdout + done.stderr
    assert 0 < len(made) <= 30
