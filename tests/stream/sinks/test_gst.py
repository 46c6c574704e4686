"""Anonymized frames reach pipelines and servers through GStreamer."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import threading
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from engines.errors import RuntimeUnavailableError, SinkError, UsageError
from stream.anonymizer import Anonymized
from stream.colour import ColourTags
from stream.sinks.base import Hurried
from stream.sinks.gst import EncodedPieces, GstServerSink, GstSink, raw_caps
from stream.sinks.network import SinkOptions
from stream.sources.connection import Peer
from stream.sources.live import LiveOptions, LiveSource
from tests.gstreamer import address, need, threads, wait_until
from tests.media import picture, read_clip
from tests.stream.sinks.feeding import HEIGHT, INFO, RATE, WIDTH, Feeding, item, level, numbers
from tests.stream.sinks.servers import Server, free_port

FAST = SinkOptions(timeout=3.0, longest_wait=0.3)


@pytest.fixture(autouse=True)
def gstreamer() -> None:
    need("appsrc", "videoconvert", "fakesink", "filesink", "h264parse")


def test_a_pipeline_gets_every_picture_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "out"
    sink = GstSink(address(f"gst:video/x-raw,format=RGB ! filesink location={out}"), INFO, FAST)
    images = [picture(WIDTH, HEIGHT, phase=number) for number in range(8)]
    for number, image in enumerate(images):
        sink.write(Anonymized(replace(item(number).frame, image=image), item(number).regions))
        time.sleep(0.02)
    sink.close()
    rows = np.fromfile(out, np.uint8).reshape(8, HEIGHT, -1)
    assert np.array_equal(rows[:, :, : WIDTH * 3].reshape(8, HEIGHT, WIDTH, 3), np.stack(images))
    assert (sink.dropped, sink.reconnects) == (0, 0)
    assert not threads()


def test_a_description_makes_what_it_wants_of_them(tmp_path: Path) -> None:
    need("vp8enc", "webmmux")
    out = tmp_path / "out.webm"
    sink = GstSink(address(f"gst:vp8enc deadline=1 ! webmmux ! filesink location={out}"), INFO, FAST)
    Feeding(sink).run(20)
    sink.close()
    clip = read_clip(out)
    assert numbers(clip.images) == list(range(20))
    assert np.allclose(np.diff([float(time) for time in clip.times]), 1 / RATE, atol=0.002)


def test_pictures_of_another_size_go_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    sink = GstSink(address(f"gst:video/x-raw,format=RGB ! filesink location={out}"), INFO, FAST)
    feeding = Feeding(sink)
    feeding.run(3)
    feeding.size = (96, 80)
    feeding.run(3)
    sink.close()
    content = np.fromfile(out, np.uint8)
    assert content.size == 3 * (HEIGHT * 200 + 80 * 96 * 3)
    assert (content[-80 * 96 * 3 :] == level(5)).all()


@pytest.mark.parametrize("patient", [True, False])
def test_a_slow_pipeline_gets_every_frame_of_those_who_wait_for_it(patient: bool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = f"gst:identity sleep-time=20000 ! video/x-raw,format=RGB ! filesink location={out}"
    sink = GstSink(address(text), INFO, FAST, patient=patient)
    for number in range(40):
        sink.write(item(number))
    sink.close()
    arrived = out.stat().st_size // (HEIGHT * 200)
    assert arrived + sink.dropped == 40
    assert (sink.dropped == 0) == patient


def test_whoever_waits_can_be_told_to_hurry() -> None:
    sink = GstSink(address("gst:identity sleep-time=4000000 ! fakesink"), INFO, FAST, patient=True)
    assert isinstance(sink, Hurried)
    began = time.monotonic()
    told = threading.Timer(0.3, lambda: sink.hurry(0.5))
    told.start()
    for number in range(40):
        sink.write(item(number))
    sink.close()
    assert 0.3 < time.monotonic() - began < 2.5
    assert sink.dropped >= 10
    told.join()
    wait_until(lambda: not threads())


def test_a_frame_s_buffer_says_what_it_is() -> None:
    tags = ColourTags(colour_range=1, matrix=9, primaries=9, transfer=16)
    wide = replace(item(0).frame, pixel_aspect=Fraction(4, 3))
    caps = raw_caps(Anonymized(wide, item(0).regions), replace(INFO, tags=tags, rate=Fraction(30_000, 1001)))
    assert "width=(int)66, height=(int)48, framerate=(fraction)30000/1001" in caps
    assert "pixel-aspect-ratio=(fraction)4/3, colorimetry=(string)1:1:14:7" in caps
    assert "colorimetry=(string)1:1:7:1" in raw_caps(item(0), INFO)


def test_a_pipeline_that_takes_nothing_holds_up_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    text = f"gst:filesink buffer-mode=unbuffered location={pipe}"
    sink = GstSink(address(text), INFO, SinkOptions(timeout=0.5, longest_wait=0.2))
    feeding = Feeding(sink)
    with caplog.at_level(logging.WARNING):
        feeding.run(50)
    assert feeding.slowest < 0.5
    assert sink.dropped > 5
    assert "it took nothing in time" in caplog.text
    began = time.monotonic()
    sink.abort()
    assert time.monotonic() - began < 1.5
    os.close(reader)
    wait_until(lambda: not threads())


def test_what_is_wrong_with_a_pipeline_is_said_without_its_secrets() -> None:
    text = "gst:identity error-after=1 name=s3cret-key ! fakesink name=password=s3cret"
    with pytest.raises((UsageError, SinkError, RuntimeUnavailableError)) as caught:
        Feeding(GstSink(address(text), INFO, SinkOptions(attempts=0, longest_wait=0.1))).run(200)
    assert "password=s3cret" not in str(caught.value)
    wait_until(lambda: not threads())


def read(url: str, feeding: Feeding, count: int) -> tuple[LiveSource, list[int]]:
    """So many pictures of a stream that is sent meanwhile, by number."""
    options = LiveOptions(peer=Peer(connect_timeout=10, read_timeout=1.5), longest_wait=0.2)
    made: list[LiveSource] = []
    seen: list[int] = []

    def watch() -> None:
        made.append(LiveSource(address(url), options))
        for frame in made[0]:
            assert frame.damaged is None
            seen.extend(numbers([frame.image]))
            if len(seen) >= count:
                return

    thread = threading.Thread(target=watch)
    thread.start()
    feeding.until(lambda: not thread.is_alive())
    made[0].close()
    return made[0], seen


@pytest.mark.parametrize("calls", ["source", "sink"])
def test_srt_goes_both_ways(calls: str) -> None:
    need("srtsrc", "srtsink", "mpegtsmux")
    url = f"srt://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    listens = f"{url}?mode=listener"
    sink = GstServerSink(address(url if calls == "sink" else listens), INFO, FAST)
    feeding = Feeding(sink)
    # Large ones come in several slices, which must stay together.
    feeding.size, feeding.grain = (240, 160), 100
    source, seen = read(url if calls == "source" else listens, feeding, 30)
    assert (source.info.width, source.info.height) == (240, 160)
    assert [(second - first) % 20 for first, second in itertools.pairwise(seen)] == [1] * 29
    assert feeding.slowest < 0.5
    sink.close()
    wait_until(lambda: not threads())


def test_an_srt_server_that_is_not_there_is_given_up() -> None:
    """libsrt throws on the way, which must not meet a C++ library of another make."""
    need("srtsink", "mpegtsmux")
    url = f"srt://127.0.0.1:{free_port(socket.SOCK_DGRAM)}?passphrase=s3cret-s3cret"
    sink = GstServerSink(address(url), INFO, SinkOptions(timeout=5, attempts=0, longest_wait=0.1))
    feeding = Feeding(sink)
    with pytest.raises(SinkError, match="given up: failed once") as caught:
        feeding.run(200)
    assert "s3cret" not in str(caught.value)
    assert feeding.slowest < 0.5
    wait_until(lambda: not threads())


@pytest.mark.parametrize("scheme", ["udp", "rtmp", "rtsp"])
def test_servers_get_every_picture_in_time(scheme: str) -> None:
    need("mpegtsmux", "udpsink", "flvmux", "rtmp2sink", "rtspclientsink")
    kind = socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM
    url = f"{scheme}://127.0.0.1:{free_port(kind)}{'' if scheme == 'udp' else '/live/x'}"
    server = Server(url)
    time.sleep(0.5)
    sink = GstServerSink(address(url), INFO, FAST)
    feeding = Feeding(sink)
    feeding.size, feeding.grain = (240, 160), 100
    feeding.until(lambda: len(server.pictures) >= 30)
    sink.close()
    # An RTSP receiver places the first picture before it has heard the sender's clock.
    assert np.allclose(np.diff(server.times)[scheme == "rtsp" :], 1 / RATE, atol=0.01)
    seen = numbers(server.pictures)
    assert {(second - first) % 20 for first, second in itertools.pairwise(seen)} == {1}


def test_a_server_that_comes_late_gets_the_stream_from_a_key_frame() -> None:
    need("flvmux", "rtmp2sink")
    url = f"rtmp://127.0.0.1:{free_port()}/live/x"
    sink = GstServerSink(address(url), INFO, FAST)
    feeding = Feeding(sink)
    feeding.run(20)
    server = Server(url)
    feeding.until(lambda: len(server.pictures) >= 10)
    sink.close()
    assert sink.dropped >= 1
    assert server.ended()


def test_encoded_pieces_follow_the_size_of_pictures() -> None:
    encoded = EncodedPieces(INFO)
    pieces = [piece for number in range(3) for piece in encoded.encode(item(number))]
    pieces += [piece for number in range(3, 6) for piece in encoded.encode(item(number, 96, 80))]
    pieces += encoded.flush()
    assert [piece.key for piece in pieces] == [True, False, False, True, False, False]
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    frames = [frame for piece in pieces for frame in decoder.decode(av.Packet(piece.content))] + decoder.decode(None)
    assert [(frame.width, frame.height) for frame in frames] == [(WIDTH, HEIGHT)] * 3 + [(96, 80)] * 3


def test_whoever_tunes_in_gets_the_headers() -> None:
    """FFV1 is nothing that GStreamer is given; H.264 comes with its headers before every key frame."""
    encoded = EncodedPieces(INFO)
    encoded.encode(item(0))
    encoded.want_key()
    (piece,) = encoded.encode(item(1))
    assert piece.key
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    assert len(decoder.decode(av.Packet(piece.content)) + decoder.decode(None)) == 1
    with pytest.raises(UsageError, match="makes ffv1"):
        EncodedPieces(INFO, codec="ffv1")


def test_what_cannot_be_written_to_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be written to through GStreamer"):
        GstServerSink(address("http://127.0.0.1:9/x"), INFO)
