"""Anonymized frames reach a server, whatever it did before, and no server holds up the stream."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from engines.errors import SinkError, UsageError
from stream.address import Address, Place, output_address
from stream.anonymizer import Anonymized
from stream.frame import Frame
from stream.regions import Regions
from stream.sinks.network import NetworkSink, SinkOptions
from stream.sources.base import StreamInfo
from stream.timeline import TIME_BASE
from tests.stream.sinks.recordings import Paced
from tests.stream.sinks.servers import Deaf, Server, free_port

RATE = 20
INFO = StreamInfo("camera", 64, 48, time_base=TIME_BASE, rate=Fraction(RATE), pix_fmt="yuv420p")
FAST = SinkOptions(timeout=3.0, longest_wait=0.3)


def item(number: int) -> Anonymized:
    image = np.full((48, 64, 3), number * 10 % 200 + 20, np.uint8)
    return Anonymized(Frame(image, pts=number * 90_000 // RATE, time_base=TIME_BASE), Regions.empty())


@pytest.mark.parametrize("scheme", ["udp", "rtmp", "rtsp"])
def test_a_server_gets_every_picture_in_time(scheme: str) -> None:
    kind = socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM
    url = f"{scheme}://127.0.0.1:{free_port(kind)}{'' if scheme == 'udp' else '/live/x'}"
    server = Server(url)
    time.sleep(0.5)
    sink = NetworkSink(output_address(url), INFO, FAST)
    stream = Paced(sink, item)
    stream.run(60)
    server.wait(30)
    sink.close()
    assert sink.reconnects == 0
    # An RTSP receiver places the first picture before it has heard the sender's clock.
    steps = np.diff(server.times)[1:]
    assert np.allclose(steps, 1 / RATE, atol=0.01)
    levels = [int(picture[24, 32, 0]) for picture in server.pictures]
    wanted = [int(item(number).image[0, 0, 0]) for number in range(stream.number)]
    first = min(range(len(wanted)), key=lambda start: abs(wanted[start] - levels[0]))
    pairs = list(zip(levels, wanted[first:], strict=False))
    assert len(pairs) >= 30
    assert all(abs(level - want) <= 4 for level, want in pairs)


def test_a_server_that_comes_late_gets_the_stream_from_a_key_frame(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    sink = NetworkSink(output_address(f"rtmp://user:secret@127.0.0.1:{port}/live/x"), INFO, FAST)
    stream = Paced(sink, item)
    stream.run(20)
    server = Server(f"rtmp://127.0.0.1:{port}/live/x")
    stream.run(80)
    server.wait(10)
    sink.close()
    assert sink.dropped >= 1
    messages = [record.getMessage() for record in caplog.records]
    assert len([text for text in messages if text.endswith("trying again")]) == 1
    assert len([text for text in messages if "takes the stream again" in text]) == 1
    assert not any("secret" in text for text in messages)


def test_a_server_that_hangs_up_is_called_again() -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/x"
    first = Server(url, most=5)
    sink = NetworkSink(output_address(url), INFO, FAST)
    stream = Paced(sink, item)
    stream.run(40)
    assert first.ended()
    second = Server(url)
    stream.run(80)
    second.wait(10)
    sink.close()
    assert sink.reconnects >= 1


def test_a_server_that_never_reads_does_not_hold_up_the_stream() -> None:
    with Deaf() as deaf:
        options = SinkOptions(timeout=0.5, longest_wait=0.2)
        sink = NetworkSink(output_address(f"rtmp://127.0.0.1:{deaf.port}/live/x"), INFO, options)
        stream = Paced(sink, item)
        stream.run(80)
        began = time.monotonic()
        sink.close()
        assert time.monotonic() - began < 4
        assert deaf.clients >= 2
        # It heard of none of them.
        assert sink.dropped == 80
        assert sink.reconnects == 0
        assert not sink.there
        assert sink.last_error == "the server took nothing in time"
    assert stream.slowest < 0.5


def test_attempts_come_to_an_end() -> None:
    options = SinkOptions(timeout=1.0, attempts=1, longest_wait=0.1)
    sink = NetworkSink(output_address(f"rtmp://user:secret@127.0.0.1:{free_port()}/live/x"), INFO, options)
    with pytest.raises(SinkError, match=r"given up: failed 2 times in a row") as caught:
        Paced(sink, item).run(600)
    assert "secret" not in str(caught.value)
    sink.abort()


def test_giving_up_takes_no_time() -> None:
    with Deaf() as deaf:
        sink = NetworkSink(output_address(f"rtmp://127.0.0.1:{deaf.port}/live/x"), INFO)
        Paced(sink, item).run(5)
        began = time.monotonic()
        sink.abort()
        assert time.monotonic() - began < 3


def test_who_is_told_to_hurry_does() -> None:
    with Deaf() as deaf:
        sink = NetworkSink(output_address(f"rtmp://127.0.0.1:{deaf.port}/live/x"), INFO)
        Paced(sink, item).run(5)
        sink.hurry(0.5)
        sink.hurry(60)
        began = time.monotonic()
        sink.close()
        assert time.monotonic() - began < 1.2


def test_whoever_watches_sees_whether_the_server_is_there_and_why_not() -> None:
    port = free_port()
    sink = NetworkSink(output_address(f"rtmp://user:secret@127.0.0.1:{port}/live/x"), INFO, FAST)
    stream = Paced(sink, item)
    assert (sink.there, sink.last_error, sink.reconnects) == (False, None, 0)
    run_until(stream, lambda: sink.last_error is not None)
    assert not sink.there
    assert sink.last_error is not None
    assert "refused" in sink.last_error
    assert "secret" not in sink.last_error
    first = Server(f"rtmp://127.0.0.1:{port}/live/x", most=20)
    run_until(stream, lambda: sink.there)
    assert sink.last_error is None
    assert sink.reconnects == 0
    run_until(stream, lambda: not sink.there)
    assert first.ended()
    second = Server(f"rtmp://127.0.0.1:{port}/live/x")
    run_until(stream, lambda: sink.there)
    # It counts when the server is back, and not when it goes again.
    assert sink.reconnects == 1
    run_until(stream, lambda: bool(second.pictures))
    sink.close()
    assert not sink.there


def run_until(stream: Paced, true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        stream.run(1)


def test_a_certificate_that_would_not_be_looked_at_is_refused() -> None:
    with pytest.raises(UsageError, match="does not verify"):
        NetworkSink(output_address("rtmps://127.0.0.1:9/live/x"), INFO)
    NetworkSink(output_address("rtmps://127.0.0.1:9/live/x"), INFO, SinkOptions(insecure=True)).abort()


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(UsageError, match="has no srt"):
        NetworkSink(Address(Place.NETWORK, "srt://127.0.0.1:9000", "srt"), INFO)
    with pytest.raises(UsageError, match="no encoder 'nonsense'"):
        NetworkSink(output_address("udp://127.0.0.1:9000"), INFO, codec="nonsense")
