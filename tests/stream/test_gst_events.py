"""What goes with a stream besides its pictures stays behind; how its pictures are to be seen goes to the detector."""

from __future__ import annotations

import json
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import PIL.Image as Pillow
import pytest
from av.packet import Packet
from av.stream import Disposition

from tests.detector_bundles import write_one_stage
from tests.media import noise, pictures, to_frame
from tests.stream.gst_pipelines import HEIGHT, PUSHING, SOURCE, WIDTH, Pipelines, open_pipelines

GPS = "+59.9139+010.7522/"
CONVERT = "videoconvert ! video/x-raw,format=RGB"


@pytest.fixture
def pipelines(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipelines:
    return open_pipelines(tmp_path, tmp_path_factory.getbasetemp())


def with_cover_and_place(path: Path) -> bytes:
    """Writes an MP4 of motion JPEG; gives its cover picture."""
    file = BytesIO()
    Pillow.fromarray(noise(1, 32, 32, 1)[0]).save(file, "JPEG")
    with av.open(str(path), "w") as container:
        main = container.add_stream("mjpeg", rate=25)
        main.width, main.height, main.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        cover = container.add_mux_stream("mjpeg", width=32, height=32)
        cover.disposition = Disposition.attached_pic
        container.metadata.update({"comment": GPS, "title": "At home"})
        container.start_encoding()
        packet: Packet[av.stream.Stream] = Packet(file.getvalue())
        packet.pts = packet.dts = 0
        packet.duration, packet.time_base, packet.is_keyframe, packet.stream = 0, Fraction(1, 1000), True, cover
        container.mux(packet)
        for index, image in enumerate(pictures(5, WIDTH, HEIGHT)):
            frame = to_frame(image, "yuvj420p", full=True)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(main.encode(frame))
        container.mux(main.encode(None))
    return file.getvalue()


def test_cover_pictures_and_places_stay_behind(pipelines: Pipelines, tmp_path: Path) -> None:
    pipelines.require("qtdemux", "jpegdec", "jpegenc", "qtmux")
    cover = with_cover_and_place(tmp_path / "in.mp4")
    head = f"filesrc location={tmp_path / 'in.mp4'} ! qtdemux ! jpegdec ! {CONVERT}"
    tail = f"videoconvert ! jpegenc ! qtmux ! filesink location={tmp_path / 'out.mov'}"
    found = []
    for middle in ("identity", pipelines.element()):
        done = pipelines.run(f"{head} ! {middle} ! {tail}")
        assert done.returncode == 0, done.stderr
        content = (tmp_path / "out.mov").read_bytes()
        found.append([cover in content, GPS.encode() in content, b"At home" in content])
        with av.open(str(tmp_path / "out.mov")) as made:
            assert sum(1 for _ in made.decode(made.streams.video[0])) == 5
    assert found == [[True] * 3, [False] * 3]
    assert "dropped-events=(int)0" not in done.stdout


#: Sends three pictures with metas through an element, and events of every kind before the second; prints what arrives.
SCRIPT = """
import json, sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import GObject, Gst, GstVideo
Gst.init(None)
caps = "video/x-raw,format=RGB,width=64,height=48,framerate=10/1,secret=(string)ring"
pipeline = Gst.parse_launch(f"appsrc name=a format=time ! {sys.argv[1]} ! fakesink name=f")
pipeline.get_by_name("a").set_property("caps", Gst.Caps.from_string(caps))
seen = {"events": [], "tags": [], "metas": 0, "buffers": 0, "caps": ""}
KINDS = [GstVideo.VideoRegionOfInterestMeta, GstVideo.VideoCaptionMeta, Gst.ReferenceTimestampMeta]

def arrived(pad, info):
    if info.type & Gst.PadProbeType.BUFFER:
        buffer = info.get_buffer()
        seen["buffers"] += 1
        seen["metas"] += buffer.get_n_meta(GstVideo.video_region_of_interest_meta_api_get_type())
        seen["metas"] += buffer.get_n_meta(GstVideo.video_caption_meta_api_get_type())
        seen["metas"] += buffer.get_n_meta(Gst.reference_timestamp_meta_api_get_type())
    else:
        event = info.get_event()
        seen["events"].append(event.type.value_nick)
        if event.type == Gst.EventType.CAPS:
            seen["caps"] = event.parse_caps().to_string()
        if event.type == Gst.EventType.TAG:
            seen["tags"].append(event.parse_tag().to_string())
    return Gst.PadProbeReturn.OK

def events():
    tags = Gst.TagList.new_empty()
    picture = Gst.Sample.new(Gst.Buffer.new_wrapped(b"cover"), Gst.Caps.from_string("image/jpeg"), None, None)
    tags.add_value(Gst.TagMergeMode.APPEND, "image", GObject.Value(Gst.Sample, picture))
    tags.add_value(Gst.TagMergeMode.APPEND, "geo-location-name", GObject.Value(str, "At home"))
    tags.add_value(Gst.TagMergeMode.APPEND, "image-orientation", GObject.Value(str, "rotate-180"))
    yield Gst.Event.new_tag(tags)
    yield Gst.Event.new_tag(Gst.TagList.new_from_string("taglist,title=(string)ring,image-orientation=(string)ring"))
    yield Gst.Event.new_toc(Gst.Toc.new(Gst.TocScope.GLOBAL), False)
    for kind in ("CUSTOM_DOWNSTREAM", "CUSTOM_DOWNSTREAM_OOB", "CUSTOM_DOWNSTREAM_STICKY", "CUSTOM_BOTH",
                 "CUSTOM_BOTH_OOB"):
        yield Gst.Event.new_custom(getattr(Gst.EventType, kind), Gst.Structure.new_empty("ring"))
    yield Gst.Event.new_protection("ring", Gst.Buffer.new_wrapped(b"ring"), "ring")
    collection = Gst.StreamCollection.new("ring")
    yield Gst.Event.new_stream_collection(collection)
    yield Gst.Event.new_gap(0, 1)

def leaves(pad, info):
    if seen["buffers"] or info.get_buffer().pts:
        for event in events():
            pad.push_event(event)
        return Gst.PadProbeReturn.REMOVE
    return Gst.PadProbeReturn.OK

pipeline.get_by_name("a").get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, leaves)
probed = Gst.PadProbeType.BUFFER | Gst.PadProbeType.EVENT_DOWNSTREAM
pipeline.get_by_name("f").get_static_pad("sink").add_probe(probed, arrived)
pipeline.set_state(Gst.State.PLAYING)
for number in range(3):
    buffer = Gst.Buffer.new_wrapped(bytes(64 * 48 * 3))
    buffer.pts, buffer.duration = number * Gst.SECOND // 10, Gst.SECOND // 10
    GstVideo.buffer_add_video_region_of_interest_meta(buffer, "face", 1, 1, 9, 9)
    GstVideo.buffer_add_video_caption_meta(buffer, GstVideo.VideoCaptionType.CEA608_RAW, b"hi")
    buffer.add_reference_timestamp_meta(Gst.Caps.from_string("timestamp/x-ntp"), 1, 1)
    pipeline.get_by_name("a").emit("push-buffer", buffer)
pipeline.get_by_name("a").emit("end-of-stream")
bus = pipeline.get_bus()
done = bus.timed_pop_filtered(30 * Gst.SECOND, Gst.MessageType.EOS | Gst.MessageType.ERROR)
assert done is not None and done.type == Gst.MessageType.EOS, done and done.parse_error()
pipeline.set_state(Gst.State.NULL)
print(json.dumps(seen))
"""


def test_events_and_metas_are_only_those_that_pictures_need(pipelines: Pipelines) -> None:
    usual = json.loads(pipelines.script(SCRIPT, "identity").splitlines()[-1])
    assert usual["metas"] == 9
    assert {"tag", "toc", "custom-downstream-sticky", "custom-both", "protection", "stream-collection"} <= set(
        usual["events"]
    )
    assert "secret" in usual["caps"]
    assert "image=" in usual["tags"][0]
    assert "geo-location-name" in usual["tags"][0]
    made = json.loads(pipelines.script(SCRIPT, pipelines.element()).splitlines()[-1])
    assert (made["buffers"], made["metas"]) == (3, 0)
    assert made["events"].count("tag") == 1
    assert set(made["events"]) <= {"stream-start", "caps", "segment", "tag", "gap", "eos"}
    assert made["tags"] == ["taglist, image-orientation=(string)rotate-180;"]
    assert made["caps"] == "video/x-raw, format=(string)RGB, width=(int)64, height=(int)48, framerate=(fraction)10/1"


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("rotate-0", (0, 24), (0, 16)),
        # Upright it is 48 wide and 64 high, and its top left is at the bottom left of what is stored.
        ("rotate-90", (36, 48), (0, 32)),
        ("rotate-180", (24, 48), (48, 64)),
        ("rotate-270", (0, 12), (32, 64)),
        ("flip-rotate-0", (0, 24), (48, 64)),
    ],
)
def test_turned_pictures_are_looked_at_upright_and_stored_as_they_came(
    name: str, rows: tuple[int, int], columns: tuple[int, int], pipelines: Pipelines
) -> None:
    pipelines.require("taginject")
    pipelines.detector = write_one_stage(pipelines.folder / "corner", [(0.0, 0.0, 0.25, 0.5)]).path
    source = SOURCE.replace("pattern=ball", "pattern=white")
    tagged = f"{source} ! taginject tags=title=ring,image-orientation={name}"
    made, done = pipelines.pictures(f"{tagged} ! {pipelines.element()}")
    assert done.returncode == 0, done.stderr
    covered = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    covered[rows[0] : rows[1], columns[0] : columns[1]] = 0
    assert made
    assert all(np.array_equal(picture, covered) for picture in made)


def test_a_stream_starts_upright_and_without_a_description_of_itself(pipelines: Pipelines) -> None:
    pipelines.detector = write_one_stage(pipelines.folder / "corner", [(0.0, 0.0, 0.25, 0.5)]).path
    program = """
def tag():
    return pad.push_event(Gst.Event.new_tag(Gst.TagList.new_from_string("taglist,image-orientation=rotate-180")))

def described(name):
    event = Gst.Event.new_stream_start(name)
    stream = Gst.Stream.new(name, None, Gst.StreamType.VIDEO, Gst.StreamFlags.NONE)
    stream.set_tags(Gst.TagList.new_from_string("taglist,title=ring"))
    event.set_stream(stream)
    return event

found = []
def starts(pad, info):
    if info.get_event().type == Gst.EventType.STREAM_START:
        found.append(info.get_event().parse_stream())
    return Gst.PadProbeReturn.OK

end.add_probe(Gst.PadProbeType.EVENT_DOWNSTREAM, starts)
assert all(begin())
push(11, 12)
assert tag()
push(13, 14, 15)
for event in (described("t"), caps(), segment()):
    assert pad.push_event(event)
push(16, 17)
pad.push_event(Gst.Event.new_eos())
# What is first in the buffer is covered but where the picture is upside down.
assert pictures() == [(11, 0), (12, 0), (13, 13), (14, 14), (15, 15), (16, 0), (17, 0)], seen
assert found == [None, None], found
"""
    pipelines.script(PUSHING + program, pipelines.element())


@pytest.mark.parametrize(
    ("more", "tag", "expected"),
    [
        ("", "rotate-0", "(48, 64, 3) 1 normal"),
        (",pixel-aspect-ratio=2/1,colorimetry=1:1:14:7", "rotate-0", "(48, 64, 3) 2 pq"),
        (",pixel-aspect-ratio=2/1,colorimetry=1:1:15:7", "rotate-270", "(64, 48, 3) 1/2 hlg"),
    ],
)
def test_pixels_shape_and_light_reach_the_detector(more: str, tag: str, expected: str, pipelines: Pipelines) -> None:
    pipelines.require("taginject", "capssetter")
    notes, plugins = pipelines.folder / "notes.txt", pipelines.folder / "plugins" / "python"
    plugins.mkdir(parents=True)
    (plugins / "noting.py").write_text(
        "from pathlib import Path\n"
        "from stream import gst_element\n"
        "whole = gst_element.Anonymizer.look\n"
        "def look(anonymizer, frame):\n"
        f"    with Path({str(notes)!r}).open('a') as file:\n"
        "        file.write(f'{frame.image.shape} {frame.pixel_aspect} {frame.transfer.value}\\n')\n"
        "    return whole(anonymizer, frame)\n"
        "gst_element.Anonymizer.look = look\n"
        "__gstelementfactory__ = gst_element.__gstelementfactory__\n"
    )
    pipelines.environment["GST_PLUGIN_PATH"] = str(plugins.parent)
    source = f"{SOURCE} ! capssetter caps=video/x-raw{more} ! taginject tags=image-orientation={tag}"
    done = pipelines.run(f"{source} ! {pipelines.element()} ! fakesink -v")
    assert done.returncode == 0, done.stderr
    assert set(notes.read_text().splitlines()) == {expected}
