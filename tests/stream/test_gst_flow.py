"""What a pipeline does to the element while it runs: pictures come late, are flushed, change, or must not be taken.

Each test is a program that pushes into the element by itself (`PUSHING`), and says what must have arrived.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stream.gst_pipelines import PUSHING, Pipelines, open_pipelines

CAPS = "format=RGB,width=64,height=48,framerate=10/1"
#: Pictures of nothing, in whatever memory is said.
NOTHING = "fakesrc num-buffers=3 sizetype=fixed sizemax=9216"


@pytest.fixture
def pipelines(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipelines:
    return open_pipelines(tmp_path, tmp_path_factory.getbasetemp())


LATE = """
from stream import gst_element
whole, looked = gst_element.Anonymizer.look, []
def look(anonymizer, frame):
    looked.append(frame.pts // Gst.MSECOND)
    return whole(anonymizer, frame)
gst_element.Anonymizer.look = look

def late_until(number):
    # Twice the lateness after the time stamp.
    qos = Gst.Event.new_qos(Gst.QOSType.UNDERFLOW, 0.5, Gst.MSECOND, (number - 2) * Gst.MSECOND)
    assert end.push_event(qos)

assert all(begin())
push(*range(6))
late_until(12)
push(*range(6, 14))
"""


def test_late_pictures_are_dropped_before_they_are_looked_at(pipelines: Pipelines) -> None:
    program = """
pad.push_event(Gst.Event.new_eos())
wanted = [0, 1, 2, 3, 4, 5, 12, 13]
assert looked == wanted, looked
assert pictures() == [(number, number) for number in wanted], seen
assert (found := counts()) == {"frames": 8, "withheld": 0, "dropped": 6}, found
"""
    pipelines.script(PUSHING + LATE + program, pipelines.element())


def test_a_flush_forgets_how_late_it_was(pipelines: Pipelines) -> None:
    program = """
flush()
seen.clear()
push(2, 3, 4)
pad.push_event(Gst.Event.new_eos())
assert pictures() == [(2, 2), (3, 3), (4, 4)], seen
"""
    pipelines.script(PUSHING + LATE + program, pipelines.element())


def test_a_flush_forgets_what_waits(pipelines: Pipelines) -> None:
    program = """
assert all(begin())
push(0, 1, 2, 3)
assert pictures() == [(0, 0)], seen
flush()
push(*range(20, 26))
pad.push_event(Gst.Event.new_eos())
assert pictures() == [(0, 0), *((number, number) for number in range(20, 26))], seen
assert (found := counts()) == {"frames": 7, "withheld": 0, "dropped": 3}, found
"""
    pipelines.script(PUSHING + program, pipelines.element())


def test_a_stop_forgets_what_waits(pipelines: Pipelines) -> None:
    program = """
assert all(begin())
push(0, 1, 2, 3)
pipeline.set_state(Gst.State.NULL)
pipeline.set_state(Gst.State.PLAYING)
pad.set_active(False)
pad.set_active(True)
assert all(begin())
push(20, 21, 22)
pad.push_event(Gst.Event.new_eos())
assert pictures() == [(0, 0), (20, 20), (21, 21), (22, 22)], seen
assert counts()["withheld"] == 0
"""
    pipelines.script(PUSHING + program, pipelines.element())


@pytest.mark.parametrize("next_one", ["pad.push_event(segment())", "begin('t')"])
def test_what_waits_belongs_to_what_was_before(next_one: str, pipelines: Pipelines) -> None:
    program = f"""
assert all(begin())
seen.clear()
push(0, 1, 2, 3)
{next_one}
assert [entry[0] for entry in seen[:4]] == [0, 1, 2, 3], seen
assert isinstance(seen[4], str), seen
"""
    pipelines.script(PUSHING + program, pipelines.element())


def test_a_changed_size_is_followed(pipelines: Pipelines) -> None:
    program = """
assert all(begin())
seen.clear()
push(0, 1, 2, 3)
assert pad.push_event(caps(32, 24))
push(4, 5, 6, width=32, height=24)
pad.push(picture(7, 8, 8))
pad.push_event(Gst.Event.new_eos())
large, small = 64 * 48 * 3, 32 * 24 * 3
before = [(number, number, large) for number in range(4)]
# The last one is too short, and is flat in the new size.
after = [(4, 4, small), (5, 5, small), (6, 6, small), (7, 128, small)]
assert seen == [*before, "caps", *after], seen
assert counts()["withheld"] == 1
"""
    pipelines.script(PUSHING + program, pipelines.element())


def test_pictures_that_are_not_what_was_said_are_flat(pipelines: Pipelines) -> None:
    program = """
assert all(begin())
broken = picture(1)
broken.set_flags(Gst.BufferFlags.CORRUPTED)
other = picture(2)
GstVideo.buffer_add_video_meta(other, GstVideo.VideoFrameFlags.NONE, GstVideo.VideoFormat.BGR, 64, 48)
same = picture(3)
GstVideo.buffer_add_video_meta(same, GstVideo.VideoFrameFlags.NONE, GstVideo.VideoFormat.RGB, 64, 48)
for buffer in (picture(0), broken, other, same, picture(4, 8, 8), picture(5)):
    assert pad.push(buffer) == Gst.FlowReturn.OK
assert pictures() == [(0, 0), (1, 128), (2, 128), (3, 3), (4, 128), (5, 5)], seen
"""
    pipelines.script(PUSHING + program, pipelines.element().replace("lookahead=2", "lookahead=0"))


def test_lists_of_pictures_and_pictures_without_times_are_looked_at(pipelines: Pipelines) -> None:
    """Level 7 is covered where the face is, and not around it."""
    program = """
covered = []
def all_of_it(pad, info):
    content = info.get_buffer().extract_dup(0, 64 * 48 * 3)
    covered.append((content[0], content[(24 * 64 + 32) * 3], info.get_buffer().pts))
    return Gst.PadProbeReturn.OK
end.add_probe(Gst.PadProbeType.BUFFER, all_of_it)
assert all(begin())
made = Gst.BufferList.new()
for number in (5, 6):
    made.insert(-1, picture(number))
assert pad.push_list(made) == Gst.FlowReturn.OK
untimed = picture(7)
untimed.pts = Gst.CLOCK_TIME_NONE
assert pad.push(untimed) == Gst.FlowReturn.OK
pad.push_event(Gst.Event.new_eos())
stamps = (5 * Gst.MSECOND, 6 * Gst.MSECOND, Gst.CLOCK_TIME_NONE)
assert covered == [(level, 0, stamp) for level, stamp in zip((5, 6, 7), stamps)], covered
"""
    pipelines.script(PUSHING + program, pipelines.element())


def test_after_an_engine_that_hangs_nothing_comes(pipelines: Pipelines) -> None:
    program = """
from stream import gst_element
from stream.deadline import HungError
def hang(*_):
    raise HungError("it does not answer any more")
assert all(begin())
push(0, 1)
gst_element.Anonymizer.cover = hang
assert set(push(2, 3)) == {Gst.FlowReturn.ERROR}
assert pictures() == [(0, 0), (1, 1)], seen
assert errors()[0] == "it does not answer any more"
"""
    pipelines.script(PUSHING + program, pipelines.element().replace("lookahead=2", "lookahead=0"))


@pytest.mark.parametrize("tail", ["", "! vp8enc", "! capsfilter caps=video/x-raw,format=NV12"])
@pytest.mark.parametrize("memory", ["NVMM", "DMABuf"])
def test_other_memory_is_refused_with_the_name_of_a_converter(memory: str, tail: str, pipelines: Pipelines) -> None:
    pipelines.require("fakesrc", "capsfilter", *tail.split()[1:2])
    source = f"{NOTHING} ! video/x-raw(memory:{memory}),{CAPS}"
    done = pipelines.run(f"{source} ! {pipelines.element()} {tail} ! fakesink", ends=False)
    assert done.returncode != 0
    refused = f"memory:{memory} is not system memory; put a converter before standin (nvvideoconvert"
    assert refused in done.stdout + done.stderr


def test_other_formats_are_taken_behind_a_converter_alone(pipelines: Pipelines) -> None:
    pipelines.require("videotestsrc", "capsfilter", "videoconvert")
    source = f"videotestsrc num-buffers=3 ! video/x-raw,{CAPS.replace('RGB', 'Y444_10LE')}"
    assert pipelines.run(f"{source} ! {pipelines.element()} ! fakesink", ends=False).returncode != 0
    done = pipelines.run(f"{source} ! videoconvert ! {pipelines.element()} ! fakesink")
    assert done.returncode == 0, done.stderr
    assert "frames=(int)3" in done.stdout


def test_system_memory_is_taken_where_there_is_a_choice(pipelines: Pipelines) -> None:
    pipelines.require("fakesrc")
    source = f"{NOTHING} ! video/x-raw(memory:NVMM),{CAPS};video/x-raw,{CAPS}"
    done = pipelines.run(f"{source} ! {pipelines.element()} ! fakesink")
    assert done.returncode == 0, done.stderr
    assert "frames=(int)3" in done.stdout


def test_nothing_comes_after_a_change_to_other_memory(pipelines: Pipelines) -> None:
    program = """
assert all(begin())
push(0, 1, 2, 3)
pad.push_event(caps(memory="NVMM"))
assert set(push(4, 5, 6, 7, 8)) == {Gst.FlowReturn.NOT_NEGOTIATED}
assert pictures() == [(0, 0), (1, 1), (2, 2), (3, 3)], seen
assert "nvvideoconvert" in errors()[0]
"""
    pipelines.script(PUSHING + program, pipelines.element())


LIVE = """
import sys, time
import gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
from stream import gst_element
whole = gst_element.Anonymizer.look
def look(anonymizer, frame):
    time.sleep(0.1)
    return whole(anonymizer, frame)
gst_element.Anonymizer.look = look
pipeline = Gst.parse_launch(sys.argv[1])
passed = {"sink": 0, "src": 0}
for name in passed:
    def count(pad, info, name=name):
        passed[name] += 1
        return Gst.PadProbeReturn.OK
    pipeline.get_by_name("s").get_static_pad(name).add_probe(Gst.PadProbeType.BUFFER, count)
pipeline.set_state(Gst.State.PLAYING)
bus, said = pipeline.get_bus(), None
kinds = Gst.MessageType.EOS | Gst.MessageType.ERROR | Gst.MessageType.ELEMENT
while (message := bus.timed_pop_filtered(40 * Gst.SECOND, kinds)).type == Gst.MessageType.ELEMENT:
    said = message.get_structure()
assert message.type == Gst.MessageType.EOS, message.parse_error()
pipeline.set_state(Gst.State.NULL)
frames, dropped = (said.get_int(name)[1] for name in ("frames", "dropped"))
assert passed["sink"] == 60, passed
assert frames == passed["src"], (frames, passed)
assert frames + dropped == passed["sink"], (frames, dropped, passed)
assert frames and dropped, (frames, dropped)
"""


@pytest.mark.parametrize("lookahead", [0, 2])
def test_live_pictures_come_out_or_are_counted_as_dropped(lookahead: int, pipelines: Pipelines) -> None:
    """The source makes thirty a second, and ten are looked at."""
    element = pipelines.element("name=s").replace("lookahead=2", f"lookahead={lookahead}")
    source = "videotestsrc is-live=true num-buffers=60 ! video/x-raw,format=RGB,width=64,height=48,framerate=30/1"
    pipelines.script(LIVE, f"{source} ! {element} ! fakesink sync=true qos=true")
