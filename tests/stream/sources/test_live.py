"""A source that is lost comes back, and nothing is mistaken for a picture meanwhile."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator

import pytest

from engines.errors import SourceError
from stream.address import input_address
from stream.frame import Frame
from stream.sources.connection import Peer
from stream.sources.live import AWAY, LiveOptions, LiveSource
from stream.timeline import TIME_BASE
from tests.stream.sources.camera import RATE, Camera, packets

OPTIONS = LiveOptions(peer=Peer(connect_timeout=2, read_timeout=1), longest_wait=0.2)
_DEADLINE = 30.0


@pytest.fixture(scope="module")
def pieces() -> list[bytes]:
    return packets()


def until(frames: Iterator[Frame], *, damaged: str | None, count: int = 1) -> list[Frame]:
    """All frames up to so many of the wanted kind."""
    seen, end = [], time.monotonic() + _DEADLINE
    for frame in frames:
        seen.append(frame)
        if sum(one.damaged == damaged for one in seen) >= count:
            return seen
        assert time.monotonic() < end, [one.damaged for one in seen]
    raise AssertionError("the source has ended")


def test_frames_come_at_their_own_pace_from_zero(pieces: list[bytes]) -> None:
    with Camera(pieces) as camera:
        source = LiveSource(input_address(camera.url), OPTIONS)
        frames = until(iter(source), damaged=None, count=12)
        source.close()
    assert (source.info.width, source.info.height, source.info.frames) == (64, 48, None)
    assert "secret" not in source.info.name
    assert all(frame.time_base == TIME_BASE for frame in frames)
    times = [frame.pts for frame in frames]
    assert times[0] == 0
    assert {later - earlier for earlier, later in itertools.pairwise(times)} == {90_000 // RATE}
    levels = [int(frame.image[24, 32, 0]) for frame in frames]
    assert len(set(levels)) == len(levels)


def test_an_unplugged_camera_is_found_again(pieces: list[bytes], caplog: pytest.LogCaptureFixture) -> None:
    with Camera(pieces) as camera:
        source = LiveSource(input_address(camera.url), OPTIONS)
        frames = iter(source)
        seen = until(frames, damaged=None, count=3)
        camera.unplug()
        seen += until(frames, damaged=AWAY, count=4)
        camera.plug_in()
        seen += until(frames, damaged=None, count=3)
        source.close()
    assert source.reconnects == 1
    assert all(first.pts < second.pts for first, second in itertools.pairwise(seen))
    away = [frame for frame in seen if frame.damaged == AWAY]
    assert all((frame.image == 128).all() for frame in away)
    messages = [record.getMessage() for record in caplog.records]
    assert len([text for text in messages if text.endswith("trying again")]) == 1
    assert len([text for text in messages if "is there (64x48)" in text]) == 1
    assert not any("secret" in text for text in messages)


def test_a_frozen_camera_counts_as_lost(pieces: list[bytes]) -> None:
    with Camera(pieces) as camera:
        source = LiveSource(input_address(camera.url), OPTIONS)
        frames = iter(source)
        until(frames, damaged=None, count=3)
        camera.frozen.set()
        until(frames, damaged=AWAY, count=3)
        # The read time-out hangs up on it.
        deadline = time.monotonic() + _DEADLINE
        while camera.clients < 2 and time.monotonic() < deadline:
            next(frames)
        camera.frozen.clear()
        until(frames, damaged=None, count=3)
        source.close()
    assert camera.clients >= 2


def test_time_goes_on_while_the_source_is_away(pieces: list[bytes]) -> None:
    with Camera(pieces) as camera:
        source = LiveSource(input_address(camera.url), OPTIONS)
        frames = iter(source)
        last = until(frames, damaged=None, count=3)[-1]
        began = time.monotonic()
        camera.unplug()
        time.sleep(0.3)
        away = until(frames, damaged=AWAY, count=10)[-1]
        passed = time.monotonic() - began
        source.close()
    assert float((away.pts - last.pts) * TIME_BASE) == pytest.approx(passed, abs=0.5)


def test_the_stream_may_end_with_the_source(pieces: list[bytes]) -> None:
    options = LiveOptions(peer=OPTIONS.peer, when_lost="end")
    with Camera(pieces) as camera:
        source = LiveSource(input_address(camera.url), options)
        frames = iter(source)
        until(frames, damaged=None, count=3)
        camera.unplug()
        rest = list(frames)
    assert all(frame.damaged is None for frame in rest)


def test_pictures_of_another_size_end_it(pieces: list[bytes]) -> None:
    with Camera(pieces) as camera:
        source = LiveSource(input_address(camera.url), OPTIONS)
        frames = iter(source)
        until(frames, damaged=None, count=2)
        camera.unplug()
        camera.pieces = packets((96, 48))
        camera.plug_in()
        with pytest.raises(SourceError, match="96x48 instead of 64x48"):
            until(frames, damaged=None, count=1000)
        source.close()


def test_late_pictures_are_dropped_and_counted(pieces: list[bytes]) -> None:
    options = LiveOptions(peer=OPTIONS.peer, budget=0.15)
    with Camera(pieces) as camera:
        source = LiveSource(input_address(camera.url), options)
        frames = iter(source)
        first = next(frames)
        time.sleep(1.0)
        second = next(frames)
        source.close()
    assert source.dropped >= 10
    assert float((second.pts - first.pts) * TIME_BASE) > 0.5


def test_attempts_come_to_an_end(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    options = LiveOptions(peer=OPTIONS.peer, attempts=2, longest_wait=0.1)
    with pytest.raises(SourceError, match=r"given up after 3 attempts") as caught:
        LiveSource(input_address(f"rtsp://user:secret@127.0.0.1:{port}/x"), options)
    assert "secret" not in str(caught.value)
    assert not any("secret" in record.getMessage() for record in caplog.records)


def test_garbage_is_no_video() -> None:
    with (
        Camera([bytes(range(256)) * 40] * 10) as camera,
        pytest.raises(SourceError, match=r"cannot be opened|no video"),
    ):
        LiveSource(input_address(camera.url), LiveOptions(peer=OPTIONS.peer, attempts=0))


def test_what_depends_on_a_picture_that_was_lost_on_the_way_is_damaged(pieces: list[bytes]) -> None:
    """Nothing but the transport stream's count of packets tells of the hole: it must reach who judges pictures."""
    holed = [b"" if number % 5 == 2 else piece for number, piece in enumerate(pieces)]
    with Camera(holed) as camera:
        source = LiveSource(input_address(camera.url), OPTIONS)
        frames = until(iter(source), damaged=None, count=30)
        source.close()
    assert len([frame for frame in frames if frame.damaged not in (None, AWAY)]) >= 10
