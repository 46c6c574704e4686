"""A server that is away for a while, or must be called anew, misses as little as was asked for."""

from __future__ import annotations

import time
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from stream.address import output_address
from stream.anonymizer import Anonymized
from stream.sinks.network import NetworkSink, SinkOptions
from tests.stream.sinks.recordings import INFO, RATE, Paced, number_in, numbered
from tests.stream.sinks.servers import Server, free_port

SPOOLED = SinkOptions(timeout=3.0, longest_wait=0.3, spool=10**7)


def noisy(number: int) -> Anonymized:
    """A frame of a kilobyte or two."""
    item = numbered(number)
    item.image[:12] = np.random.default_rng(number).integers(0, 255, item.image[:12].shape, np.uint8)
    return item


def test_a_server_that_comes_late_gets_all_that_was_spooled() -> None:
    port = free_port()
    sink = NetworkSink(output_address(f"rtmp://127.0.0.1:{port}/live/x"), INFO, SPOOLED)
    stream = Paced(sink)
    stream.run(70)
    assert sink.waiting == 70
    server = Server(f"rtmp://127.0.0.1:{port}/live/x")
    stream.run(50)
    # More than were made since it is there: they come faster than they were made.
    server.wait(110, 15.0)
    sink.close()
    numbers = [number_in(picture) for picture in server.pictures]
    assert numbers == list(range(len(numbers)))
    assert np.allclose(np.diff(server.times), 1 / RATE, atol=0.01)
    assert sink.dropped == 0
    assert 70 <= sink.spooled < 120


def test_a_server_that_was_away_misses_nothing() -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/x"
    first = Server(url, most=5)
    # One group of pictures, however long the first server needs to hang up.
    sink = NetworkSink(output_address(url), replace(INFO, rate=Fraction(100)), SPOOLED)
    stream = Paced(sink)
    stream.run(80)
    assert first.ended()
    second = Server(url)
    stream.run(30)
    second.wait(100, 15.0)
    sink.close()
    numbers = [number_in(picture) for picture in second.pictures]
    assert numbers == list(range(len(numbers)))
    assert sink.reconnects == 1
    assert sink.dropped == 0


def test_a_full_spool_drops_the_oldest_frames() -> None:
    port = free_port()
    options = SinkOptions(timeout=3.0, longest_wait=0.3, spool=200_000)
    sink = NetworkSink(output_address(f"rtmp://127.0.0.1:{port}/live/x"), INFO, options)
    # More than fits into the spool and a courier that waits for the server together.
    for number in range(1000):
        sink.write(noisy(number))
    server = Server(f"rtmp://127.0.0.1:{port}/live/x")
    Paced(sink, lambda number: noisy(number + 1000)).run(20)
    server.wait(100, 15.0)
    end = time.monotonic() + 15.0
    while number_in(server.pictures[-1]) <= 1000:
        assert time.monotonic() < end, "nothing came after the server was there"
        time.sleep(0.02)
    sink.close()
    numbers = [number_in(picture) for picture in server.pictures]
    assert numbers == sorted(set(numbers))
    # What a courier had taken before all was full may have arrived; all else of the first hundreds did not.
    assert 400 < sink.dropped < 1000
    assert set(range(950, 1000)) <= set(numbers)


@pytest.mark.parametrize("spool", [0, 10**7])
def test_a_changed_size_is_followed(spool: int) -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/x"
    first = Server(url)
    time.sleep(0.5)
    sink = NetworkSink(output_address(url), INFO, SinkOptions(timeout=3.0, longest_wait=0.3, spool=spool))
    stream = Paced(sink, lambda number: numbered(number, width=96 if number < 40 else 120, height=48))
    stream.run(50)
    assert first.ended()
    second = Server(url)
    stream.run(50)
    second.wait(40 if spool else 20)
    sink.close()
    assert {picture.shape for picture in first.pictures} == {(48, 96, 3)}
    assert {picture.shape for picture in second.pictures} == {(48, 120, 3)}
    numbers = [number_in(picture) for picture in second.pictures]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert sink.reconnects == 1
    if spool:
        assert numbers[0] == 40
