"""Pictures out of GStreamer's pipelines: the right ones, in time, and never a wrong one that GStreamer tells of."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from engines.errors import RuntimeUnavailableError, SourceError, UsageError
from stream.frame import Frame
from stream.gst import NANOSECONDS, bindings
from stream.sources.connection import Peer
from stream.sources.decoder import CONCEALED, Lost, Picture
from stream.sources.gst import GstConnection
from stream.sources.live import AWAY, LiveOptions, LiveSource
from stream.sources.video import VideoSource
from stream.timeline import TIME_BASE
from tests.gstreamer import address, need, threads, wait_until
from tests.media import display_matrix, mean_error, picture, pictures, stored_picture, write_clip
from tests.stream.sources.camera import Camera, packets
from tests.stream.sources.web import Web

PEER = Peer(connect_timeout=5, read_timeout=1)
OPTIONS = LiveOptions(peer=PEER, attempts=0, longest_wait=0.2)
RATE = 10
SOLID = "videotestsrc pattern=solid-color foreground-color=0xffc82850"
COLOUR = (200, 40, 80)


@pytest.fixture(autouse=True)
def gstreamer() -> None:
    need("videotestsrc", "videoconvert", "appsink", "appsrc", "uridecodebin")


def read(text: str, options: LiveOptions = OPTIONS) -> tuple[LiveSource, list[Frame]]:
    """All that a pipeline gives."""
    source = LiveSource(address(f"gst:{text}"), options)
    frames = list(source)
    source.close()
    wait_until(lambda: not threads())
    return source, frames


@pytest.mark.parametrize(
    "caps",
    [
        "format=RGB",
        "format=BGRx",
        "format=I420,colorimetry=bt601",
        "format=I420,colorimetry=bt709",
        "format=NV12,colorimetry=bt709",
        "format=I420,colorimetry=1:4:0:0",
        "format=YUY2,colorimetry=bt2020",
        "format=I420_10LE,colorimetry=bt709",
    ],
)
def test_colours_are_as_they_are_meant(caps: str) -> None:
    _, frames = read(
        f"{SOLID} num-buffers=2 ! video/x-raw,format=RGB,width=66,height=50 ! videoconvert ! video/x-raw,{caps}"
    )
    assert len(frames) == 2
    for frame in frames:
        assert frame.image.shape == (50, 66, 3)
        assert np.abs(frame.image.astype(int) - COLOUR).max() <= 4


def test_a_pipeline_says_what_its_pictures_are() -> None:
    source, frames = read(
        f"{SOLID} num-buffers=12 ! video/x-raw,width=64,height=48,framerate={RATE}/1,pixel-aspect-ratio=4/3"
    )
    info = source.info
    assert (info.width, info.height, info.rate, info.pixel_aspect) == (64, 48, Fraction(RATE), Fraction(4, 3))
    assert [frame.pts for frame in frames] == [number * 90_000 // RATE for number in range(12)]
    assert all(frame.pixel_aspect == Fraction(4, 3) and frame.time_base == TIME_BASE for frame in frames)
    assert not any(frame.damaged for frame in frames)
    assert source.dropped == 0


@pytest.mark.parametrize(("codec", "ending"), [("libvpx", ".webm"), ("mjpeg", ".mkv"), ("libx264", ".mp4")])
def test_a_file_gives_every_picture_at_its_time(codec: str, ending: str, tmp_path: Path) -> None:
    need("decodebin", "vp8dec", "jpegdec", "openh264dec", "matroskademux", "qtdemux")
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_clip(tmp_path / f"in{ending}", pictures(30), codec=codec, pix_fmt=pix_fmt, gop=10)
    wanted = list(VideoSource(path))
    source, frames = read(f'filesrc location="{path}" ! decodebin')
    assert len(frames) == len(wanted) == 30
    for ours, theirs in zip(frames, wanted, strict=True):
        assert ours.time == pytest.approx(theirs.elapsed, abs=0.0015)
        assert mean_error(ours.image, theirs.image) < 1.5
    assert source.dropped == 0


def test_a_stream_that_turns_is_followed_picture_by_picture() -> None:
    need("concat", "taginject")
    half = "videotestsrc pattern=gradient num-buffers=10 ! video/x-raw,width=64,height=48 ! taginject tags={} ! all. "
    turns = ("image-orientation=rotate-0", "image-orientation=rotate-180", "image-orientation=rotate-90")
    _, frames = read("".join(map(half.format, turns)) + "concat name=all")
    top = [bool(frame.image[:8].mean() < frame.image[-8:].mean()) for frame in frames[:20]]
    assert top == [True] * 10 + [False] * 10
    assert [(frame.width, frame.height) for frame in frames] == [(64, 48)] * 20 + [(48, 64)] * 10


def test_a_rotated_file_is_upright(tmp_path: Path) -> None:
    need("decodebin", "qtdemux", "openh264dec")
    upright = picture(64, 48)
    for turned in (3, 6, 8):
        stored = stored_picture(upright, turned)
        path = write_clip(tmp_path / f"{turned}.mp4", [stored] * 3, matrix=display_matrix(turned))
        source, frames = read(f'filesrc location="{path}" ! decodebin')
        assert (source.info.width, source.info.height) == (64, 48)
        assert mean_error(frames[0].image, upright) < 4


def test_a_pipeline_that_waits_loses_nothing_to_whoever_is_slow() -> None:
    slow = LiveOptions(peer=PEER, attempts=0, budget=0.001)
    source = LiveSource(address(f"gst:{SOLID} num-buffers=12 ! video/x-raw,width=64,height=48"), slow)
    frames = []
    for frame in source:
        frames.append(frame)
        time.sleep(0.1)
    assert [frame.damaged for frame in frames] == [None] * 12
    assert source.dropped == 0


def test_one_that_does_not_wait_loses_what_is_late() -> None:
    slow = LiveOptions(peer=PEER, budget=0.001)
    source = LiveSource(address(f"gst:{SOLID} is-live=true ! video/x-raw,width=64,height=48,framerate=40/1"), slow)
    frames = iter(source)
    for _ in range(5):
        next(frames)
        time.sleep(0.1)
    source.close()
    assert source.dropped >= 5


def test_a_pipeline_that_fails_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    options = LiveOptions(peer=PEER, longest_wait=0.2)
    text = f"gst:{SOLID} is-live=true ! video/x-raw,width=64,height=48,framerate=20/1 ! identity error-after=5"
    source = LiveSource(address(text), options)
    frames = list(itertools.islice(source, 40))
    source.close()
    assert source.reconnects >= 2
    assert sum(frame.damaged is None for frame in frames) >= 10
    assert all(first.pts < second.pts for first, second in itertools.pairwise(frames))
    assert any("Failed after iterations" in record.getMessage() for record in caplog.records)
    wait_until(lambda: not threads())


def test_a_pipeline_that_stalls_counts_as_lost_and_holds_up_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its source reads from a pipe in which nothing comes any more, and does not let go of it."""
    pipe, size = tmp_path / "pipe", 64 * 48 * 3
    os.mkfifo(pipe)
    options = LiveOptions(peer=Peer(connect_timeout=5, read_timeout=0.5), longest_wait=0.2)
    text = f'filesrc location="{pipe}" blocksize={size} ! rawvideoparse width=64 height=48 format=rgb framerate=20/1'
    made: list[LiveSource] = []
    opening = threading.Thread(target=lambda: made.append(LiveSource(address(f"gst:{text}"), options)))
    opening.start()
    with pipe.open("wb") as file:
        file.write(bytes([200]) * size * 5)
        file.flush()
        opening.join(10)
        began = time.monotonic()
        seen = list(itertools.islice(made[0], 30))
        assert time.monotonic() - began < 10
    made[0].close()
    assert [frame.damaged for frame in seen] == [None] * 5 + [AWAY] * 25
    assert "nothing came in time" in caplog.text
    for _ in range(2):
        # Whoever still waits for a writer gets one, and then nothing.
        with contextlib.suppress(OSError):
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    wait_until(lambda: not threads())


def test_nothing_at_all_is_an_error_in_time() -> None:
    options = LiveOptions(peer=Peer(connect_timeout=0.5), attempts=0)
    began = time.monotonic()
    with pytest.raises(SourceError, match="nothing came in time"):
        LiveSource(address(f"gst:{SOLID} ! valve drop=true"), options)
    assert time.monotonic() - began < 4
    wait_until(lambda: not threads())


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("videotestsrc ! nonsense", RuntimeUnavailableError, "no element nonsense"),
        ("videotestsrc colour=red", UsageError, 'no property "colour"'),
        ("audiotestsrc", UsageError, "could not link"),
        ("filesrc location=/nowhere password=s3cret", UsageError, "no property"),
        ("filesrc location=/nowhere.s3cret.mkv ! decodebin", SourceError, "No such file"),
    ],
)
def test_what_cannot_be_is_said_once_and_for_all(text: str, error: type[Exception], message: str) -> None:
    began = time.monotonic()
    with pytest.raises(error, match=message) as caught:
        LiveSource(address(f"gst:{text}"), LiveOptions(peer=PEER, attempts=None if error is not SourceError else 0))
    assert "password=s3cret" not in str(caught.value)
    # What we add is nothing that the user could mend.
    assert "appsink" not in str(caught.value)
    assert time.monotonic() - began < 5


GST = LiveOptions(peer=PEER, attempts=0, longest_wait=0.2, backend="gst")


def test_a_recording_is_downloaded_whole(tmp_path: Path) -> None:
    need("souphttpsrc", "vp8dec", "matroskademux")
    write_clip(tmp_path / "in.webm", pictures(12), codec="libvpx", rate=RATE)
    with Web(tmp_path) as web:
        source = LiveSource(web.address("/in.webm"), replace(GST, budget=0.001))
        frames = []
        for frame in source:
            frames.append(frame)
            time.sleep(0.05)
        source.close()
    assert "s3cret" not in source.info.name
    assert [frame.damaged for frame in frames] == [None] * 12
    assert source.dropped == 0


def test_a_camera_that_sends_motion_jpeg_is_read_at_once(tmp_path: Path) -> None:
    need("souphttpsrc", "multipartdemux", "jpegdec")
    with Web(tmp_path) as web:
        began = time.monotonic()
        source = LiveSource(web.address("/mjpeg"), GST)
        levels = [round(float(frame.image.mean())) for frame in itertools.islice(source, 10)]
        assert time.monotonic() - began < 5
        source.close()
        wait_until(lambda: not threads())
    assert all((second - first) % 200 in (7, 8, 9) for first, second in itertools.pairwise(levels))


def test_a_missing_decoder_is_named(tmp_path: Path) -> None:
    need("souphttpsrc", "tsdemux")
    gst = bindings().gst
    if any(gst.ElementFactory.find(name) for name in ("avdec_mpeg2video", "mpeg2dec", "vampeg2dec", "nvmpeg2videodec")):
        pytest.skip("there is a decoder for MPEG-2 here")
    with (
        Camera(packets()) as camera,
        pytest.raises(RuntimeUnavailableError, match=r"MPEG-2 .*apt install gstreamer1.0-libav"),
    ):
        LiveSource(address(camera.url), replace(GST, attempts=None))


def test_a_transport_stream_over_udp_is_fetched() -> None:
    need("udpsrc")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        port = sender.getsockname()[1]
    made: list[LiveSource] = []
    opening = threading.Thread(target=lambda: made.append(LiveSource(address(f"udp://127.0.0.1:{port}"), GST)))
    opening.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for piece in itertools.cycle(packets()):
            for at in range(0, len(piece), 1316):
                sender.sendto(piece[at : at + 1316], ("127.0.0.1", port))
            time.sleep(0.02)
            if made:
                break
    opening.join(10)
    assert (made[0].info.width, made[0].info.height) == (64, 48)
    assert next(iter(made[0])).damaged is None
    made[0].close()
    wait_until(lambda: not threads())


def test_nothing_over_udp_is_an_error_in_time() -> None:
    need("udpsrc")
    options = replace(GST, peer=Peer(connect_timeout=0.5))
    with pytest.raises(SourceError, match="nothing came in time"):
        LiveSource(address("udp://127.0.0.1:1"), options)
    wait_until(lambda: not threads())


def push(connection: GstConnection, number: int, flags: str = "", *, stamped: bool = True) -> None:
    """Put a made picture into a connection's pipeline."""
    gst = bindings().gst
    buffer = gst.Buffer.new_wrapped(bytes([20 * number]) * (64 * 48 * 3))
    buffer.pts = number * NANOSECONDS // RATE if stamped else gst.CLOCK_TIME_NONE
    if flags:
        buffer.set_flags(getattr(gst.BufferFlags, flags))
    connection._outlet.pipeline.get_by_name("feed").push_buffer(buffer)


RAW = "gst:appsrc name=feed format=time caps=video/x-raw,format=RGB,width=64,height=48,framerate=10/1"


@pytest.mark.parametrize(("flags", "reason"), [("CORRUPTED", CONCEALED), ("GAP", "the picture only fills a gap")])
def test_pictures_that_gstreamer_calls_wrong_are_damaged(flags: str, reason: str) -> None:
    connection = GstConnection(address(RAW), PEER)
    assert connection._outlet._running.begun.wait(5)
    for number in range(6):
        push(connection, number, flags if number == 3 else "")
    items = list(itertools.islice(connection.pictures(strict=True), 6))
    connection.close()
    assert [item.damaged for item in items] == [None, None, None, reason, None, None]


def test_pictures_without_a_time_stamp_are_placed_by_their_arrival() -> None:
    connection = GstConnection(address(RAW), PEER)
    assert connection._outlet._running.begun.wait(5)
    push(connection, 1, stamped=False)
    (item,) = itertools.islice(connection.pictures(strict=True), 1)
    connection.close()
    assert isinstance(item, Picture)
    assert item.pts is None
    assert item.damaged is None


def test_a_buffer_that_is_too_short_is_no_picture() -> None:
    connection = GstConnection(address(RAW), PEER)
    assert connection._outlet._running.begun.wait(5)
    feed, gst = connection._outlet.pipeline.get_by_name("feed"), bindings().gst
    push(connection, 1)
    feed.push_buffer(gst.Buffer.new_wrapped(b"short"))
    feed.end_of_stream()
    items: list[Picture | Lost] = []
    with contextlib.suppress(SourceError):
        items += connection.pictures(strict=True)
    connection.close()
    assert not any(isinstance(item, Picture) and item.damaged is None for item in items[1:])


def test_many_may_ask_for_gstreamer_at_once() -> None:
    found: list[object] = []
    askers = [threading.Thread(target=lambda: found.append(bindings().gst)) for _ in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(10)
    assert len(found) == 4
