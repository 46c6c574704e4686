"""Recordings wait for whoever takes their pictures, and streams that others fetch end as those say.

And through FFmpeg, what comes is read as it is meant to be shown, by whatever protocol.
"""

from __future__ import annotations

import itertools
import socket
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from engines.errors import SourceError
from stream.address import Address, Place, input_address
from stream.frame import Frame
from stream.sources.connection import AvConnection, Peer, Progress
from stream.sources.live import AWAY, LiveOptions, LiveSource
from stream.timeline import TIME_BASE
from tests.media import pictures, write_clip
from tests.stream.sinks.servers import free_port
from tests.stream.sources.broadcast import PIECE, PIECES, over_udp, playlist, rtmp_server, with_sound
from tests.stream.sources.camera import RATE, Camera, packets
from tests.stream.sources.web import Web

OPTIONS = LiveOptions(peer=Peer(connect_timeout=5, read_timeout=1), longest_wait=0.2)
_DEADLINE = 30.0
HERE = Address(Place.NETWORK, "srt://user:s3cret@127.0.0.1:1", "srt")


class Pieces:
    """A stream that is fetched already.

    Args:
        pieces: what comes.
        error: what comes then.
    """

    def __init__(self, pieces: list[bytes], error: SourceError | None = None) -> None:
        self._pieces = list(pieces)
        self._error = error
        self.error: SourceError | None = None
        self.closed = False

    def read(self, size: int) -> bytes:
        if not self._pieces:
            self.error = self._error
            return b""
        some, rest = self._pieces[0][:size], self._pieces[0][size:]
        self._pieces[:1] = [rest] if rest else []
        return some

    def close(self) -> None:
        self.closed = True


def test_a_recording_loses_nothing_to_whoever_is_slow(tmp_path: Path) -> None:
    write_clip(tmp_path / "in.webm", pictures(12), codec="libvpx", rate=Fraction(10), gop=1)
    with Web(tmp_path) as web:
        options = LiveOptions(peer=Peer(connect_timeout=5, read_timeout=5), attempts=0, budget=0.001)
        source = LiveSource(web.address("/in.webm"), options)
        frames = []
        for frame in source:
            frames.append(frame)
            time.sleep(0.1)
        source.close()
    # FFmpeg keeps nothing of what it looks at first.
    assert 10 <= len(frames) <= 12
    assert {second.pts - first.pts for first, second in itertools.pairwise(frames)} == {9_000}
    assert not any(frame.damaged for frame in frames)
    assert source.dropped == 0


def test_what_somebody_else_fetches_is_decoded() -> None:
    fetched = Pieces(packets()[:40])
    connection = AvConnection(HERE, Peer(), fetched)
    items = list(connection.pictures(strict=True))
    assert len(items) >= 10
    assert not any(item.damaged for item in items)
    assert not connection.ends
    assert not connection.waits
    connection.close()
    assert fetched.closed


def test_its_error_is_the_connection_s() -> None:
    fetched = Pieces(packets()[:40], SourceError("the line was cut"))
    connection = AvConnection(HERE, Peer(), fetched)
    with pytest.raises(SourceError, match="the line was cut"):
        list(connection.pictures(strict=True))
    connection.close()


@pytest.mark.parametrize("error", [None, SourceError("nothing came in time")])
def test_where_nothing_comes_there_is_no_connection(error: SourceError | None) -> None:
    fetched = Pieces([], error)
    with pytest.raises(SourceError, match=str(error) if error else "cannot be opened") as caught:
        AvConnection(HERE, Peer(), fetched)
    assert fetched.closed
    assert "s3cret" not in str(caught.value)


def lasted(frames: list[Frame]) -> tuple[float, float]:
    """Seconds from the first to the last of these by the timeline, and by their arrival."""
    assert frames[0].arrived is not None
    assert frames[-1].arrived is not None
    return float((frames[-1].pts - frames[0].pts) * TIME_BASE), frames[-1].arrived - frames[0].arrived


@pytest.mark.parametrize("path", ["/live.m3u8", "/live.list"])
def test_a_live_playlist_is_shown_at_its_own_pace_and_its_pieces_are_waited_for(path: str, tmp_path: Path) -> None:
    # By whatever name it goes. The time-out is shorter than a piece.
    (tmp_path / "live.list").symlink_to("live.m3u8")
    with Web(tmp_path) as web, playlist(tmp_path / "live.m3u8"):
        source = LiveSource(web.address(path), OPTIONS)
        frames = list(itertools.islice(source, RATE * PIECE * (PIECES + 1)))
        source.close()
    assert source.reconnects == 0
    whole = [frame for frame in frames if frame.damaged is None]
    # A machine that is busy may be late now and then.
    assert len(whole) > 0.8 * len(frames)
    assert source.dropped < RATE
    shown, passed = lasted(whole)
    assert shown == pytest.approx(passed, abs=1)
    assert passed > PIECE * PIECES


def test_a_live_playlist_that_is_opened_again_goes_on_where_it_was(tmp_path: Path) -> None:
    progress, stamps = Progress(), []
    with Web(tmp_path) as web, playlist(tmp_path / "live.m3u8"):
        for _ in range(2):
            connection = AvConnection(web.address("/live.m3u8"), OPTIONS.peer, progress=progress)
            stamps += [item.pts or 0 for item in itertools.islice(connection.pictures(strict=True), RATE // 2)]
            connection.close()
    assert {second - first for first, second in itertools.pairwise(stamps)} == {90_000 // RATE}


def test_a_playlist_whose_clock_begins_anew_is_shown() -> None:
    progress = Progress()
    assert not progress.has(5)
    progress.at = 1000
    assert [progress.has(at) for at in (5, 900, 990, 1000, 1001)] == [False, False, True, True, False]


def test_a_camera_that_sends_motion_jpeg_goes_by_the_time_at_which_its_pictures_come(tmp_path: Path) -> None:
    with Web(tmp_path) as web:
        source = LiveSource(web.address("/mjpeg?5"), OPTIONS)
        frames = [frame for frame in itertools.islice(source, 20) if frame.damaged is None]
        source.close()
    assert len(frames) >= 10
    shown, passed = lasted(frames)
    assert shown == pytest.approx(passed, abs=0.5)
    assert passed > 1.5


def test_sound_that_goes_on_does_not_hide_that_the_video_has_stopped(caplog: pytest.LogCaptureFixture) -> None:
    with Camera(with_sound(3 * RATE, 30)) as camera:
        source = LiveSource(input_address(camera.url), OPTIONS)
        frames, end = iter(source), time.monotonic() + _DEADLINE
        while not source.reconnects:
            next(frames)
            assert time.monotonic() < end, "it was never connected again"
        source.close()
    assert "cannot be read any further: no video came in time; trying again" in caplog.text


def test_a_transport_stream_over_udp_is_read() -> None:
    port = free_port(socket.SOCK_DGRAM)
    with over_udp(port):
        source = LiveSource(input_address(f"udp://127.0.0.1:{port}"), replace(OPTIONS, attempts=0))
        frames = list(itertools.islice(source, RATE))
        source.close()
    assert (source.info.width, source.info.height) == (64, 48)
    assert sum(frame.damaged is None for frame in frames) >= RATE // 2


def test_what_a_demuxer_had_held_back_is_no_sign_of_life(caplog: pytest.LogCaptureFixture) -> None:
    """FFmpeg gives the last packets of a transport stream when the read times out; their pictures are of before."""
    port = free_port(socket.SOCK_DGRAM)
    told: list[str | None] = []
    name = f"udp://127.0.0.1:{port}"
    with over_udp(port) as silent:
        source = LiveSource(input_address(name), OPTIONS, on_change=told.append)
        frames, end = iter(source), time.monotonic() + _DEADLINE
        seen = list(itertools.islice(frames, 5))
        silent.set()
        while source.last_error is None or "cannot be read" not in source.last_error:
            seen.append(next(frames))
            assert time.monotonic() < end
        silent.clear()
        while seen[-1].damaged is not None:
            seen.append(next(frames))
            assert time.monotonic() < end
        source.close()
    assert told[0] == f"{name} cannot be read any further: no answer in time"
    away = [frame.damaged == AWAY for frame in seen]
    # Nothing but one loss.
    assert len(list(itertools.groupby(away))) == 3
    assert [line for line in caplog.messages if " gives " in line] == [
        f"{name} gives no pictures: frames are withheld until it does",
        f"{name} gives pictures again; {sum(away)} frames were withheld",
    ]


def test_what_was_held_back_of_a_fetched_stream_is_dropped_with_its_error() -> None:
    pieces = packets()
    whole = AvConnection(HERE, Peer(), Pieces(pieces))
    stamps = [item.pts for item in whole.pictures(strict=True)]
    whole.close()
    broken = AvConnection(HERE, Peer(), Pieces(pieces, SourceError("nothing came in time")))
    seen: list[int | None] = []
    with pytest.raises(SourceError, match="nothing came in time"):
        seen.extend(item.pts for item in broken.pictures(strict=True))
    broken.close()
    assert seen == stamps[: len(seen)]
    assert len(seen) < len(stamps)


def test_a_server_s_rtmp_is_read() -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/k3y"
    with rtmp_server(url):
        # It has to start first.
        source = LiveSource(input_address(url), replace(OPTIONS, attempts=100))
        frames = list(itertools.islice(source, RATE))
        source.close()
    assert "k3y" not in source.info.name
    assert (source.info.width, source.info.height) == (64, 48)
    assert sum(frame.damaged is None for frame in frames) >= RATE // 2
