"""Files wait for the server that they are sent to, for a time; and whoever sent one learns whether it arrived."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from engines.errors import SinkError
from stream.address import output_address
from stream.sinks.gst import GstServerSink
from stream.sinks.network import NetworkSink, SinkOptions
from tests.gstreamer import need
from tests.stream.sinks.recordings import INFO, number_in, numbered
from tests.stream.sinks.servers import Deaf, Server, free_port

FAST = SinkOptions(timeout=1.5, longest_wait=0.2)
Opens = Callable[[str, SinkOptions], NetworkSink | GstServerSink]


@pytest.fixture(params=["av", "gst"])
def opens(request: pytest.FixtureRequest) -> Opens:
    if request.param == "gst":
        need("appsrc", "h264parse", "flvmux", "rtmp2sink")
        return lambda url, options: GstServerSink(output_address(url), INFO, options, patient=True)
    return lambda url, options: NetworkSink(output_address(url), INFO, options, patient=True)


def send(sink: NetworkSink | GstServerSink, count: int) -> None:
    for number in range(count):
        sink.write(numbered(number))


def whole_file(sink: NetworkSink | GstServerSink) -> None:
    send(sink, 10)
    sink.close()


def test_a_server_that_comes_late_gets_the_whole_file() -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/x"
    sink = NetworkSink(output_address(url), INFO, SinkOptions(timeout=20, longest_wait=0.2), patient=True)
    servers: list[Server] = []
    threading.Timer(1.5, lambda: servers.append(Server(url))).start()
    send(sink, 300)
    sink.close()
    servers[0].ended()
    assert [number_in(picture) for picture in servers[0].pictures] == list(range(300))
    assert (sink.dropped, sink.spooled) == (0, 0)


def test_a_server_that_never_comes_is_an_error_while_the_file_is_sent(opens: Opens) -> None:
    sink = opens(f"rtmp://me:s3cret@127.0.0.1:{free_port()}/live/x", FAST)
    began = time.monotonic()
    with pytest.raises(SinkError, match=r"given up: failed \d+ times in a row") as caught:
        send(sink, 30_000)
    sink.abort()
    assert "s3cret" not in str(caught.value)
    assert 1 < time.monotonic() - began < 15


def test_a_server_that_never_comes_is_an_error_at_the_end_of_a_short_file(opens: Opens) -> None:
    sink = opens(f"rtmp://127.0.0.1:{free_port()}/live/x", FAST)
    with pytest.raises(SinkError, match=r"given up|did not reach"):
        whole_file(sink)
    sink.abort()


def test_so_many_attempts_as_were_asked_for_are_made(opens: Opens) -> None:
    sink = opens(f"rtmp://127.0.0.1:{free_port()}/live/x", SinkOptions(timeout=60, longest_wait=0.1, attempts=1))
    with pytest.raises(SinkError, match="given up: failed 2 times in a row"):
        send(sink, 30_000)
    sink.abort()


def test_a_server_that_reads_nothing_is_an_error_in_the_end() -> None:
    with Deaf() as deaf:
        sink = NetworkSink(output_address(f"rtmp://127.0.0.1:{deaf.port}/live/x"), INFO, FAST, patient=True)
        with pytest.raises(SinkError, match="given up: failed 2 times"):
            send(sink, 300)
        sink.abort()


def test_who_is_asked_to_end_waits_for_no_server(opens: Opens) -> None:
    sink = opens(f"rtmp://127.0.0.1:{free_port()}/live/x", SinkOptions(timeout=60, longest_wait=0.1))
    threading.Timer(1.0, sink.hurry, (0.5,)).start()
    began = time.monotonic()
    send(sink, 200)
    sink.close()
    assert time.monotonic() - began < 10
