"""A source that is lost comes back, and nothing is mistaken for a picture meanwhile."""

from __future__ import annotations

import io
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction

import av
import pytest

from engines.errors import SourceError, UsageError
from stream.address import input_address
from stream.frame import Frame
from stream.sources.base import StreamInfo
from stream.sources.connection import Peer
from stream.sources.decoder import Picture
from stream.sources.live import AWAY, LiveOptions, LiveSource
from stream.timeline import TIME_BASE
from tests.fakes import finishes_within
from tests.stream.sources.camera import HALF_TURN, QUARTER_TURN, RATE, Camera, packets, turning

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
    # That it broke, and that nobody is there then.
    assert 1 <= len([text for text in messages if text.endswith("trying again")]) <= 2
    assert len([text for text in messages if "is there (64x48)" in text]) == 1
    assert not any("secret" in text for text in messages)


def test_what_happens_to_a_camera_is_told_once_each_time(pieces: list[bytes], caplog: pytest.LogCaptureFixture) -> None:
    told: list[str | None] = []
    with Camera(pieces) as camera:
        camera.status = "404 Not Found"
        source = finishes_within(
            _DEADLINE, lambda: LiveSource(input_address(camera.url), OPTIONS, on_change=found_after(camera, told))
        )
        assert source.there
        frames = iter(source)
        until(frames, damaged=None, count=3)
        camera.unplug()
        away = until(frames, damaged=AWAY, count=40)
        assert not source.there
        assert source.last_error is not None
        camera.status = "401 Unauthorized"
        camera.plug_in()
        end = time.monotonic() + _DEADLINE
        while "401" not in str(source.last_error):
            away.append(next(frames))
            assert time.monotonic() < end
        away += until(frames, damaged=AWAY, count=40)
        camera.status = "200 OK"
        *more, _ = until(frames, damaged=None)
        source.close()
    assert source.last_error is None
    assert all("secret" not in str(reason) for reason in told)
    assert "404" in str(told[0])
    assert (told[1], told[-1]) == (None, None)
    lines = [line for line in caplog.messages if str(camera.port) in line]
    trying = [line for line in lines if "trying again" in line]
    assert "404" in trying[0]
    assert "refused" in trying[-2]
    assert "401" in trying[-1]
    assert len(trying) == len(set(trying)) <= 5
    withheld = sum(frame.damaged == AWAY for frame in [*away, *more])
    assert [line for line in lines if "withheld" in line] == [
        f"{input_address(camera.url)} gives no pictures: frames are withheld until it does",
        f"{input_address(camera.url)} gives pictures again; {withheld} frames were withheld",
    ]


def found_after(camera: Camera, told: list[str | None]) -> Callable[[str | None], None]:
    """Notes what is told; a camera that cannot be found can be once that was."""

    def note(reason: str | None) -> None:
        told.append(reason)
        if reason is not None and "404" in reason:
            camera.status = "200 OK"

    return note


def test_a_camera_that_comes_back_without_the_wanted_stream_is_waited_for(pieces: list[bytes]) -> None:
    twice = packets(streams=2)
    with Camera(twice) as camera:
        source = LiveSource(input_address(camera.url), replace(OPTIONS, video_stream="1"))
        frames = iter(source)
        until(frames, damaged=None, count=3)
        camera.unplug()
        camera.pieces = pieces
        camera.plug_in()
        end = time.monotonic() + _DEADLINE
        while "no video stream '1'" not in str(source.last_error):
            next(frames)
            assert time.monotonic() < end
        camera.pieces = twice
        until(frames, damaged=None, count=3)
        source.close()
    with Camera(pieces) as camera, pytest.raises(UsageError, match="no video stream '1'"):
        LiveSource(input_address(camera.url), replace(OPTIONS, video_stream="1"))


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


class Stuck:
    """A connection whose second picture takes as long as it is held.

    Args:
        pieces: of a camera.
    """

    ends = waits = False

    def __init__(self, pieces: list[bytes]) -> None:
        with av.open(io.BytesIO(b"".join(pieces)), "r") as container:
            self._pictures = [Picture(frame, None) for frame in itertools.islice(container.decode(video=0), 2)]
        self.held = threading.Event()

    def pictures(self, *, strict: bool, beat: Callable[[], None]) -> Iterator[Picture]:
        assert strict
        for picture in self._pictures:
            beat()
            yield picture
            self.held.wait(_DEADLINE)

    def shape(self, _: Picture) -> int:
        return 0

    def describe(self, picture: Picture) -> StreamInfo:
        return StreamInfo("stuck", picture.frame.width, picture.frame.height, rate=Fraction(RATE))

    def arrived(self, _: Picture) -> None:
        """Now."""

    def close(self) -> None:
        """Nothing to do."""


def test_a_call_that_no_time_out_ends_shows(pieces: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    connection, later = Stuck(pieces), [0.0]
    monkeypatch.setattr("stream.sources.live._connect", lambda *_: connection)
    source = LiveSource(
        input_address("http://camera/x"), OPTIONS, clock=lambda: time.monotonic() + later[0], on_change=lambda _: None
    )
    frames = iter(source)
    until(frames, damaged=None)
    assert not source.hangs
    later[0] = 40
    until(frames, damaged=AWAY)
    assert not source.hangs
    later[0] = 100
    until(frames, damaged=AWAY)
    assert source.hangs
    connection.held.set()
    until(frames, damaged=None)
    assert not source.hangs
    source.close()


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


def test_the_stream_may_end_with_the_source(pieces: list[bytes], caplog: pytest.LogCaptureFixture) -> None:
    options = replace(OPTIONS, peer=Peer(connect_timeout=2, read_timeout=10), when_lost="end")
    with Camera(pieces) as camera:
        source = LiveSource(input_address(camera.url), options)
        frames = iter(source)
        until(frames, damaged=None, count=3)
        camera.frozen.set()
        until(frames, damaged=AWAY, count=RATE // 2)
        camera.frozen.clear()
        # A stall is no loss.
        until(frames, damaged=None, count=3)
        camera.unplug()
        rest = list(frames)
    assert all(frame.damaged is None for frame in rest)
    assert len([line for line in caplog.messages if line.endswith(": the stream ends with it")]) == 1


def test_a_stream_that_ends_with_its_source_does_so_once_that_counts_as_lost(
    pieces: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    with Camera(pieces) as camera:
        source = LiveSource(input_address(camera.url), replace(OPTIONS, when_lost="end"))
        frames = iter(source)
        until(frames, damaged=None, count=3)
        camera.frozen.set()
        list(frames)
    assert "cannot be read any further: no answer in time: the stream ends with it" in caplog.text


def test_what_is_shown_meanwhile_is_said(pieces: list[bytes], caplog: pytest.LogCaptureFixture) -> None:
    with Camera(pieces) as camera:
        source = LiveSource(input_address(camera.url), replace(OPTIONS, when_lost="hold"))
        frames = iter(source)
        until(frames, damaged=None, count=3)
        camera.unplug()
        until(frames, damaged=AWAY)
        source.close()
    assert source.holds
    assert "gives no pictures: the last anonymized one is shown until it does" in caplog.text


def test_waiting_for_pictures_is_no_work_and_decoding_is(pieces: list[bytes]) -> None:
    with Camera(pieces) as camera:
        source = LiveSource(input_address(camera.url), OPTIONS)
        frames, began, before = iter(source), time.monotonic(), source.waited
        until(frames, damaged=None, count=RATE)
        passed, waited = time.monotonic() - began, source.waited - before
        source.close()
    assert 0.5 * passed < waited < passed
    # Some of what it waited, its thread has worked.
    assert waited < source.pace.idle


def test_a_camera_that_comes_back_with_another_size_is_followed(
    pieces: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    with Camera(pieces) as camera:
        source = LiveSource(input_address(camera.url), OPTIONS)
        frames = iter(source)
        seen = until(frames, damaged=None, count=3)
        camera.unplug()
        camera.pieces = packets((96, 64))
        camera.plug_in()
        seen += until((frame for frame in frames if frame.width == 96), damaged=None, count=3)
        source.close()
    assert {(frame.width, frame.height) for frame in seen} == {(64, 48), (96, 64)}
    times = [frame.pts for frame in seen]
    assert times == sorted(set(times))
    assert any("shows 96x64 instead of 64x48" in line for line in caplog.messages)
    # What sinks were opened with stays what they were opened with.
    assert (source.info.width, source.info.height) == (64, 48)


def test_a_size_that_changes_within_a_connection_is_followed(pieces: list[bytes]) -> None:
    mixed = [*pieces[: len(pieces) // 2], *packets((96, 64))]
    with Camera(mixed) as camera:
        source = LiveSource(input_address(camera.url), OPTIONS)
        frames = iter(source)
        until((frame for frame in frames if frame.width == 64), damaged=None, count=3)
        until((frame for frame in frames if frame.width == 96), damaged=None, count=3)
        assert source.reconnects == 0
        source.close()


def test_pixels_that_change_their_shape_within_a_connection_are_followed(pieces: list[bytes]) -> None:
    with Camera([*pieces[: len(pieces) // 2], *packets(aspect=Fraction(4, 3))]) as camera:
        source = LiveSource(input_address(camera.url), OPTIONS)
        frames = iter(source)
        until((frame for frame in frames if frame.pixel_aspect == 1), damaged=None, count=3)
        until((frame for frame in frames if frame.pixel_aspect == Fraction(4, 3)), damaged=None, count=3)
        assert source.reconnects == 0
        source.close()


def bright(frame: Frame) -> str:
    """Where a picture is bright that is bright in its upper half as it is stored."""
    shares = {
        "top": frame.image[:8],
        "bottom": frame.image[-8:],
        "left": frame.image[:, :8],
        "right": frame.image[:, -8:],
    }
    return max(shares, key=lambda side: float(shares[side].mean()))


def test_a_picture_that_says_that_it_is_upside_down_is_turned_though_its_size_stays() -> None:
    with Camera(turning(HALF_TURN)) as camera:
        source = LiveSource(input_address(camera.url), OPTIONS)
        frames = [frame for frame in until(iter(source), damaged=None, count=50) if frame.damaged is None]
        source.close()
    sides = [bright(frame) for frame in frames]
    assert sides == sorted(sides, reverse=True)
    assert "top" in sides
    assert sides.count("bottom") >= 15
    assert source.reconnects == 0


def test_a_picture_that_lies_on_its_side_from_now_on_changes_the_size_of_the_frames(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Camera(turning(QUARTER_TURN)) as camera:
        source = LiveSource(input_address(camera.url), OPTIONS)
        frames = [frame for frame in until(iter(source), damaged=None, count=50) if frame.damaged is None]
        source.close()
    assert {(frame.width, frame.height, bright(frame)) for frame in frames} == {(64, 48, "top"), (48, 64, "left")}
    assert any("shows 48x64 instead of 64x48" in line for line in caplog.messages)


def test_frames_say_when_their_packets_came(pieces: list[bytes]) -> None:
    began = time.monotonic()
    with Camera(pieces) as camera:
        source = LiveSource(input_address(camera.url), OPTIONS)
        for frame in until(iter(source), damaged=None, count=5):
            assert frame.arrived is not None
            assert began < frame.arrived <= time.monotonic()
        camera.frozen.set()
        away = until(iter(source), damaged=AWAY)[-1]
        source.close()
    assert away.arrived is None


def test_a_lower_rate_leaves_pictures_out_before_they_are_late(pieces: list[bytes]) -> None:
    with Camera(pieces) as camera:
        source = LiveSource(input_address(camera.url), replace(OPTIONS, when_slow="lower-rate"))
        end = time.monotonic() + 9
        for _ in source:
            if time.monotonic() > end:
                break
            time.sleep(2.5 / RATE)
        source.close()
    assert source.pace.every >= 3
    assert source.dropped >= source.pace.skipped > 20


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
    with pytest.raises(SourceError, match=r"given up: failed 3 times in a row") as caught:
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
