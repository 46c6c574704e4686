"""Our own RTSP server: several watch, nobody without the password, and nobody holds up anybody else."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import av.error
import numpy as np
import pytest

from engines.errors import RuntimeUnavailableError, SinkError, SourceError, UsageError
from stream.frame import Image
from stream.gst import rtsp_bindings
from stream.sinks.base import Hurried
from stream.sinks.rtsp_server import RtspServerSink
from stream.sources.connection import Peer
from stream.sources.live import LiveOptions, LiveSource
from tests.gstreamer import address, need, threads, wait_until
from tests.stream.certificates import Authority
from tests.stream.sinks.feeding import HEIGHT, INFO, WIDTH, Feeding, numbers
from tests.stream.sinks.servers import free_port


@pytest.fixture(autouse=True)
def gstreamer() -> None:
    need("appsrc", "h264parse", "rtph264pay")
    try:
        rtsp_bindings()
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))


class Served:
    """A server that is fed from another thread."""

    def __init__(
        self, *, user: str = "", scheme: str = "rtsp-server", files: tuple[Path | None, Path | None] = (None, None)
    ) -> None:
        where = f"{user}127.0.0.1:{free_port()}/live/x"
        self.sink = RtspServerSink(address(f"{scheme}://{where}"), INFO, certificate=files[0], private_key=files[1])
        self.feeding = Feeding(self.sink)
        self.url = f"{scheme.removesuffix('-server')}://{where}"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._feed)

    def _feed(self) -> None:
        while not self._ended.is_set():
            self.feeding.run(1)

    def feeding_ends(self) -> None:
        self._ended.set()
        self._thread.join(10)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.feeding_ends()
        self.sink.close()
        wait_until(lambda: not threads())


class Viewer:
    """Watches until it is told to go.

    Args:
        url: of the stream.
        transport: `tcp` or `udp`.
    """

    def __init__(self, url: str, transport: str = "tcp") -> None:
        self._url = url
        self._transport = transport
        self._gone = threading.Event()
        self.images: list[Image] = []
        self.first: float | None = None
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def go(self) -> None:
        self._gone.set()
        self._thread.join(10)

    def _watch(self) -> None:
        options = {"rtsp_transport": self._transport, "analyzeduration": "100000"}
        with (
            contextlib.suppress(av.error.FFmpegError),
            av.open(self._url, options=options, timeout=(5, 2)) as container,
        ):
            for frame in container.decode(video=0):
                self.first = self.first or time.monotonic() - self._began
                self.images.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
                if self._gone.is_set():
                    return


def in_order(images: list[Image]) -> bool:
    seen = numbers(images)
    return all((second - first) % 20 == 1 for first, second in itertools.pairwise(seen))


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_several_watch_the_same(transport: str) -> None:
    with Served() as served:
        assert served.sink.clients == 0
        first = Viewer(served.url, transport)
        wait_until(lambda: len(first.images) >= 10, 20)
        second = Viewer(served.url, transport)
        wait_until(lambda: len(second.images) >= 10, 20)
        assert served.sink.clients == 2
        first.go()
        wait_until(lambda: served.sink.clients == 1)
        seen = len(second.images)
        wait_until(lambda: len(second.images) >= seen + 10, 20)
        second.go()
        wait_until(lambda: served.sink.clients == 0)
        assert served.feeding.slowest < 0.5
        assert served.sink.dropped == 0
    assert in_order(first.images)
    assert in_order(second.images)
    assert first.images[0].shape == (HEIGHT, WIDTH, 3)


def test_one_that_comes_after_everybody_has_gone_is_served_too() -> None:
    with Served() as served:
        for _ in range(2):
            viewer = Viewer(served.url)
            wait_until(lambda viewer=viewer: len(viewer.images) >= 5, 20)
            viewer.go()
            wait_until(lambda: served.sink.clients == 0)


def test_nobody_watches_without_the_password() -> None:
    with Served(user="user:s3cret%21@") as served:
        for wrong in (
            served.url.replace("s3cret", "guess"),
            served.url.replace("user", "root"),
            re.sub("//.*@", "//", served.url),
        ):
            with pytest.raises(av.error.HTTPUnauthorizedError):
                av.open(wrong, options={"rtsp_transport": "tcp"}, timeout=5)
        assert served.sink.clients == 0
        viewer = Viewer(served.url.replace("%21", "!"))
        wait_until(lambda: len(viewer.images) >= 3, 20)
        viewer.go()


@contextlib.contextmanager
def plays_and_never_reads(url: str) -> Iterator[None]:
    """A client that asks for the stream over its own connection and then takes nothing of it."""
    port = int(url.split(":")[2].split("/")[0])
    session = ""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(5)

        def ask(method: str, where: str, more: str = "") -> str:
            client.sendall(f"{method} {where} RTSP/1.0\r\nCSeq: 1\r\n{more}\r\n".encode())
            return client.recv(4096).decode(errors="replace")

        assert "200 OK" in ask("DESCRIBE", url, "Accept: application/sdp\r\n")
        answer = ask("SETUP", f"{url}/stream=0", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n")
        session = re.findall(r"Session: ([^;\s]+)", answer)[0]
        client.sendall(f"PLAY {url} RTSP/1.0\r\nCSeq: 3\r\nSession: {session}\r\n\r\n".encode())
        yield


def test_one_who_never_reads_holds_up_nobody() -> None:
    with Served() as served:
        served.feeding.size, served.feeding.grain = (480, 360), 100
        with plays_and_never_reads(served.url):
            wait_until(lambda: served.sink.clients == 1)
            viewer = Viewer(served.url)
            wait_until(lambda: len(viewer.images) >= 100, 30)
            assert served.feeding.slowest < 0.5
            viewer.go()
    assert in_order(viewer.images)


def test_one_who_never_reads_is_sent_away_before_others_come(caplog: pytest.LogCaptureFixture) -> None:
    with Served() as served:
        served.feeding.size, served.feeding.grain = (480, 360), 100
        with plays_and_never_reads(served.url):
            wait_until(lambda: served.sink.clients == 1)
            wait_until(lambda: served.sink.clients == 0, 30)
            assert "nobody who watches takes anything" in caplog.text
            viewer = Viewer(served.url)
            wait_until(lambda: len(viewer.images) >= 10)
            viewer.go()
        assert served.feeding.slowest < 0.5


@pytest.mark.parametrize(("hurry", "limit"), [(None, 1.5), (0.3, 0.6)])
def test_one_who_never_reads_holds_up_no_end(hurry: float | None, limit: float) -> None:
    with Served() as served:
        served.feeding.size, served.feeding.grain = (480, 360), 100
        with plays_and_never_reads(served.url):
            wait_until(lambda: served.sink.clients == 1)
            served.feeding_ends()
            if hurry is not None:
                served.sink.hurry(hurry)
            assert seconds_to_close(served.sink) < limit


def test_a_server_that_is_stuck_holds_up_an_end_for_as_long_as_there_is_time() -> None:
    release = threading.Event()
    sink = RtspServerSink(address(f"rtsp-server://127.0.0.1:{free_port()}/x"), INFO)
    assert isinstance(sink, Hurried)
    sink._server._call(lambda *_: release.wait(10) and False)
    sink.hurry(0.3)
    sink.hurry(60)
    assert 0.25 < seconds_to_close(sink) < 0.6
    release.set()
    wait_until(lambda: not threads())


def test_control_without_a_hurry_a_server_that_is_stuck_holds_up_an_end_for_longer() -> None:
    release = threading.Event()
    sink = RtspServerSink(address(f"rtsp-server://127.0.0.1:{free_port()}/x"), INFO)
    sink._server._call(lambda *_: release.wait(10) and False)
    assert 0.9 < seconds_to_close(sink) < 1.5
    release.set()
    wait_until(lambda: not threads())


def test_it_is_there_whether_anybody_watches_or_not_until_it_is_closed() -> None:
    sink = RtspServerSink(address(f"rtsp-server://127.0.0.1:{free_port()}/x"), INFO)
    assert sink.there
    sink.close()
    assert not sink.there


def seconds_to_close(sink: RtspServerSink) -> float:
    began = time.monotonic()
    sink.close()
    return time.monotonic() - began


def test_a_client_that_is_gone_is_counted_no_more() -> None:
    with Served() as served:
        with plays_and_never_reads(served.url):
            wait_until(lambda: served.sink.clients == 1)
        wait_until(lambda: served.sink.clients == 0)
        viewer = Viewer(served.url)
        wait_until(lambda: len(viewer.images) >= 5, 20)
        viewer.go()


def test_pictures_of_another_size_go_on() -> None:
    with Served() as served:
        viewer = Viewer(served.url)
        wait_until(lambda: len(viewer.images) >= 5, 20)
        served.feeding.size = (96, 80)
        wait_until(lambda: viewer.images[-1].shape == (80, 96, 3), 20)
        viewer.go()


def test_gstreamer_reads_it_too() -> None:
    need("rtspsrc", "openh264dec", "uridecodebin")
    options = LiveOptions(peer=Peer(connect_timeout=5, read_timeout=5), backend="gst", attempts=0)
    with Served(user="user:s3cret@") as served:
        # On a busy machine a first attempt may come to nothing: the server sends away who takes nothing yet.
        source = LiveSource(address(served.url), replace(options, attempts=5, longest_wait=0.5))
        images = []
        for frame in source:
            assert frame.damaged is None
            images.append(frame.image)
            if len(images) == 30:
                break
        source.close()
        assert "s3cret" not in source.info.name
        wait_until(lambda: served.sink.clients == 0)
        with pytest.raises(SourceError) as caught:
            LiveSource(address(served.url.replace("s3cret", "guessed")), options)
        assert "guessed" not in str(caught.value)
    assert in_order(images)


@pytest.mark.parametrize("backend", ["av", "gst"])
def test_with_a_certificate_it_is_read_by_those_who_take_it(backend: str, tmp_path: Path) -> None:
    need("rtspsrc", "openh264dec", "uridecodebin")
    files = Authority(tmp_path).self_signed("IP:127.0.0.1")
    with Served(user="user:s3cret@", scheme="rtsps-server", files=files) as served:
        for insecure in (False, True):
            peer = Peer(connect_timeout=5, read_timeout=5, insecure=insecure)
            options = LiveOptions(peer=peer, attempts=0, backend="gst" if backend == "gst" else "av")
            if not insecure:
                with pytest.raises(SourceError):
                    LiveSource(address(served.url), options)
                continue
            source = LiveSource(address(served.url), replace(options, attempts=5, longest_wait=0.5))
            assert next(iter(source)).image.shape == (HEIGHT, WIDTH, 3)
            source.close()


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs --certificate and --private-key"):
        RtspServerSink(address("rtsps-server://127.0.0.1:9/x"), INFO)
    (tmp_path / "bad.pem").write_text("nonsense")
    bad = tmp_path / "bad.pem"
    with pytest.raises(UsageError, match="are no certificate and key"):
        RtspServerSink(address("rtsps-server://127.0.0.1:9/x"), INFO, certificate=bad, private_key=bad)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"rtsp-server://user:s3cret@127.0.0.1:{taken.getsockname()[1]}/x"
        with pytest.raises(SinkError, match="cannot listen") as caught:
            RtspServerSink(address(url), INFO)
    assert "s3cret" not in str(caught.value)


def test_it_is_seen_on_this_machine_only_unless_told_otherwise(caplog: pytest.LogCaptureFixture) -> None:
    sink = RtspServerSink(address(f"rtsp-server://:{free_port()}/x"), INFO)
    assert not caplog.records
    with socket.create_connection(("127.0.0.1", sink.port)), pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", sink.port), timeout=2)
    sink.abort()
    sink.abort()
    open_to_all = RtspServerSink(address(f"rtsp-server://0.0.0.0:{free_port()}/x"), INFO)
    open_to_all.abort()
    assert "it has no password" in caplog.text
