"""What depends on something that was lost on the way never comes out as a picture."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from stream.gst import NANOSECONDS, bindings
from stream.sources.connection import Peer
from stream.sources.decoder import CONCEALED, DEPENDENT, Lost, Picture
from stream.sources.gst import GstConnection
from tests.gstreamer import address, need, vp8_packets
from tests.media import busy_pictures, mean_error

PEER = Peer(connect_timeout=5, read_timeout=2)
RATE, COUNT, GROUP = 10, 32, 8
#: Grey, so that nothing is lost but on the way.
IMAGES = [image[..., :1].repeat(3, axis=2) for image in busy_pictures(COUNT, 64, 48)]
#: A picture's packet that never arrives, and what depends on it.
LOST, DEPENDENTS = 11, range(12, 16)


@pytest.fixture(autouse=True)
def gstreamer() -> None:
    need("vp8dec", "decodebin")


def sent(connection: GstConnection, *, first: int = 0, lost: int | None = LOST, pause: float = 0) -> None:
    """Puts a stream, with a hole or without one, into a connection's pipeline."""
    gst = bindings().gst
    feed = connection._outlet.pipeline.get_by_name("feed")
    for number, packet in enumerate(vp8_packets(IMAGES, rate=RATE, group=GROUP)):
        if number < first or number == lost:
            continue
        buffer = gst.Buffer.new_wrapped(bytes(packet))
        buffer.pts, buffer.duration = number * NANOSECONDS // RATE, NANOSECONDS // RATE
        if not packet.is_keyframe:
            buffer.set_flags(gst.BufferFlags.DELTA_UNIT)
        if lost is not None and number == lost + 1:
            buffer.set_flags(gst.BufferFlags.DISCONT)
        feed.push_buffer(buffer)
        time.sleep(pause)
    feed.end_of_stream()


def connected(decoder: str, peer: Peer = PEER) -> GstConnection:
    """A connection that is to be fed."""
    text = f"gst:appsrc name=feed format=time caps=video/x-vp8,width=64,height=48,framerate={RATE}/1 ! {decoder}"
    connection = GstConnection(address(text), peer)
    assert connection._outlet._running.begun.wait(5)
    return connection


def taken(connection: GstConnection, *, strict: bool) -> dict[int, Picture | Lost]:
    """What comes out, by number."""
    try:
        items = list(connection.pictures(strict=strict))
    finally:
        connection.close()
    order = [item.pts or 0 for item in items]
    assert order == sorted(order)
    return {round((item.pts or 0) * RATE / NANOSECONDS): item for item in items}


def decoded(decoder: str, *, strict: bool, first: int = 0) -> dict[int, Picture | Lost]:
    """What comes out, by number, of a stream with a hole."""
    connection = connected(decoder)
    # Before anything passes.
    connection._guard.strict = strict
    sent(connection, first=first)
    return taken(connection, strict=strict)


def error_of(item: Picture | Lost, number: int) -> float:
    assert isinstance(item, Picture)
    return mean_error(np.asarray(item.frame.to_ndarray(format="rgb24")), IMAGES[number])


@pytest.mark.parametrize("decoder", ["vp8dec", "decodebin"])
def test_after_a_hole_nothing_is_shown_up_to_the_next_key_frame(decoder: str) -> None:
    items = decoded(decoder, strict=True)
    assert set(items) == set(range(COUNT)) - {LOST}
    for number, item in items.items():
        if number in DEPENDENTS:
            assert item.damaged == DEPENDENT
            assert isinstance(item, Lost)
        else:
            assert item.damaged is None
            assert error_of(item, number) < 6


def test_the_control_shows_wrong_pictures() -> None:
    """Lenient: what is decoded after a hole counts as healthy, and is not what was sent."""
    items = decoded("vp8dec", strict=False)
    assert not any(item.damaged for item in items.values())
    assert error_of(items[LOST + 1], LOST + 1) > 12


def test_a_stream_begins_with_its_first_key_frame() -> None:
    assert set(decoded("vp8dec", strict=True, first=3)) == set(range(8, COUNT)) - {LOST}


def test_a_key_frame_that_is_far_away_is_waited_for() -> None:
    """Nothing comes out for longer than the time-outs, while something comes in."""
    peer = Peer(connect_timeout=1.5, read_timeout=1.5)
    connection = connected("vp8dec", peer)
    feeding = threading.Thread(target=lambda: sent(connection, first=17, lost=None, pause=0.3))
    began = time.monotonic()
    feeding.start()
    items = taken(connection, strict=True)
    feeding.join()
    assert time.monotonic() - began > 1.8
    assert set(items) == set(range(24, 32))


@pytest.mark.parametrize("strict", [True, False])
def test_what_follows_a_picture_that_the_decoder_calls_wrong_is_wrong_too(strict: bool) -> None:
    gst = bindings().gst
    connection = connected("vp8dec ! identity name=behind")

    def mark(_pad: object, info: Any) -> Any:
        buffer = info.get_buffer()
        if buffer.pts == LOST * NANOSECONDS // RATE:
            buffer.set_flags(gst.BufferFlags.CORRUPTED)
        return gst.PadProbeReturn.OK

    behind = connection._outlet.pipeline.get_by_name("behind")
    behind.get_static_pad("sink").add_probe(gst.PadProbeType.BUFFER, mark)
    sent(connection, lost=None)
    items = taken(connection, strict=strict)
    assert set(items) == set(range(COUNT))
    reasons = {number: item.damaged for number, item in items.items() if item.damaged}
    assert reasons == {LOST: CONCEALED} | (dict.fromkeys(DEPENDENTS, DEPENDENT) if strict else {})
