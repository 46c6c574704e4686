"""Sinks through GStreamer say whether the stream is taken, which is shown, and makes `/readyz` say no."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.errors import SinkError
from stream.anonymizer import Anonymizer
from stream.gst import Running, parse
from stream.metrics import SinkState
from stream.pipeline import Pipeline
from stream.sinks.gst import GstServerSink, GstSink
from stream.sinks.gst_line import Feed, Piece
from stream.sinks.network import SinkOptions
from stream.watch import Watch
from tests.fakes import FILLS, FixedDetector, MemorySource, flat_settings, frames, noise
from tests.gstreamer import address, need, threads, wait_until
from tests.stream.sinks.feeding import INFO, Feeding
from tests.stream.sinks.servers import Deaf, Server, free_port

FAST = SinkOptions(timeout=1.0, longest_wait=0.2)
#: As FFmpeg's way says it, where the stream is not taken.
SILENT = "it took nothing in time"


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    need("appsrc", "identity", "fakesink", "filesink", "h264parse", "flvmux", "rtmp2sink")
    yield
    wait_until(lambda: not threads())


def seen(sink: GstSink | GstServerSink) -> SinkState:
    """What is shown of a sink."""
    source, covering = MemorySource(frames(noise(1))), Anonymizer([FixedDetector()], FILLS, flat_settings())
    return Watch(source, [sink], Pipeline(source, covering, sink), names=["x"]).snapshot().sinks[0]


def test_a_server_is_there_while_it_takes_the_stream() -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/x"
    first = Server(url, most=5)
    sink = GstServerSink(address(url), INFO, FAST)
    feeding = Feeding(sink)
    assert not sink.there
    feeding.until(lambda: sink.there)
    assert (sink.last_error, seen(sink).trouble) == (None, None)
    feeding.until(lambda: not sink.there)
    assert first.ended()
    feeding.until(lambda: seen(sink).error is not None)
    second = Server(url)
    feeding.until(lambda: sink.there and len(second.pictures) > 5)
    assert (sink.last_error, sink.reconnects) == (None, 1)
    sink.close()
    assert not sink.there


@pytest.mark.parametrize("scheme", ["rtmp", "rtsp"])
def test_a_server_that_takes_nothing_is_not_there(scheme: str) -> None:
    need("rtspclientsink")
    with Deaf() as deaf:
        sink = GstServerSink(address(f"{scheme}://user:s3cret@127.0.0.1:{deaf.port}/live/x"), INFO, FAST)
        feeding = Feeding(sink)
        ever = False
        for _ in range(60):
            feeding.run(1)
            ever |= sink.there
        assert (ever, sink.last_error) == (False, SILENT)
        assert seen(sink).trouble == f"x is away: {SILENT}"
        sink.abort()


def test_one_that_is_deaf_is_not_there_however_slowly_pieces_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is still being made has not been taken. Four pieces get to where the fifth would show that somebody is."""
    make = Feed._buffer

    def slowly(feed: Feed, piece: Piece) -> object:
        made = make(feed, piece)
        time.sleep(0.1)
        return made

    monkeypatch.setattr(Feed, "_buffer", slowly)
    with Deaf() as deaf:
        sink = GstServerSink(address(f"rtmp://127.0.0.1:{deaf.port}/live/x"), INFO, FAST)
        feeding = Feeding(sink)
        ever = False
        for _ in range(12):
            feeding.run(1, pause=0.0)
            ever |= sink.there
        assert not ever
        sink.abort()


@pytest.mark.parametrize("scheme", ["rtmp", "rtsp"])
def test_why_a_server_is_away_is_said_without_secrets(scheme: str) -> None:
    need("rtspclientsink")
    sink = GstServerSink(address(f"{scheme}://user:s3cret@127.0.0.1:{free_port()}/live/x"), INFO, FAST)
    feeding = Feeding(sink)
    feeding.until(lambda: sink.last_error is not None)
    assert not sink.there
    assert "connect" in (sink.last_error or "")
    assert "s3cret" not in (sink.last_error or "")
    sink.abort()


def test_nobody_who_answers_over_srt_is_not_taken_for_a_server_and_given_up() -> None:
    """Its element takes pieces, and drops them, long before anybody answers."""
    need("srtsink", "mpegtsmux")
    url = f"srt://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    sink = GstServerSink(address(url), INFO, SinkOptions(timeout=1.0, longest_wait=0.2, attempts=2))
    feeding = Feeding(sink)
    with pytest.raises(SinkError, match="given up: failed 3 times in a row"):
        feeding.until(lambda: sink.there)
    assert (sink.there, sink.reconnects) == (False, 0)


def test_who_answers_over_srt_is_there() -> None:
    need("srtsink", "srtsrc", "mpegtsmux")
    url = f"srt://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    server = Running(parse(f"srtsrc uri={url}?mode=listener ! fakesink"))
    assert server.begun.wait(5)
    sink = GstServerSink(address(url), INFO, FAST)
    feeding = Feeding(sink)
    feeding.until(lambda: sink.there)
    sink.close()
    assert server.stop(5)


def test_who_listens_over_srt_is_there_for_whoever_comes() -> None:
    need("srtsink", "mpegtsmux")
    sink = GstServerSink(address(f"srt://127.0.0.1:{free_port(socket.SOCK_DGRAM)}?mode=listener"), INFO, FAST)
    Feeding(sink).until(lambda: sink.there)
    sink.close()


def test_a_pipeline_that_takes_nothing_any_more_is_away_and_what_waits_is_counted(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    sink = GstSink(address(f"gst:filesink location={pipe} buffer-mode=unbuffered"), INFO, FAST)
    feeding = Feeding(sink)
    feeding.until(lambda: sink.there)
    feeding.until(lambda: sink.waiting >= 8)
    feeding.until(lambda: not sink.there)
    assert seen(sink).trouble == f"x is away: {SILENT}"
    sink.abort()
    os.close(reader)


def test_a_pipeline_that_is_always_behind_is_there() -> None:
    """As one is that gets a file, and takes it as fast as it can."""
    sink = GstSink(address("gst:identity sleep-time=30000 ! fakesink"), INFO, FAST, patient=True)
    feeding = Feeding(sink)
    for _ in range(40):
        feeding.run(1, pause=0.0)
    assert sink.waiting > 0
    assert (sink.there, sink.last_error) == (True, None)
    sink.abort()
