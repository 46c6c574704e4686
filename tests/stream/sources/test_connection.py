"""Recordings wait for whoever takes their pictures, and streams that others fetch end as those say."""

from __future__ import annotations

import itertools
import time
from fractions import Fraction
from pathlib import Path

import pytest

from engines.errors import SourceError
from stream.address import Address, Place
from stream.sources.connection import AvConnection, Peer
from stream.sources.live import LiveOptions, LiveSource
from tests.media import pictures, write_clip
from tests.stream.sources.camera import packets
from tests.stream.sources.web import Web

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
