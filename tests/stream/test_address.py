"""What an address names, and what of it may be shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.errors import UsageError
from stream.address import Address, Place, input_address, output_address, redacted


@pytest.mark.parametrize(
    ("text", "place", "scheme"),
    [
        ("clip.mp4", Place.FILE, ""),
        ("C:clip.mp4", Place.FILE, ""),
        ("a:b.mp4", Place.FILE, ""),
        ("/dev/video0", Place.DEVICE, ""),
        ("/dev/video", Place.FILE, ""),
        ("rtsp://camera/1", Place.NETWORK, "rtsp"),
        ("RTSPS://camera/1", Place.NETWORK, "rtsps"),
        ("udp://127.0.0.1:5000", Place.NETWORK, "udp"),
        ("udp://@:5000", Place.NETWORK, "udp"),
        ("http://[::1]:8080/a.mjpg?x=1", Place.NETWORK, "http"),
    ],
)
def test_what_an_input_is(text: str, place: Place, scheme: str) -> None:
    address = input_address(text)
    assert (address.place, address.scheme, address.text) == (place, scheme, text)
    assert address.live == (place is not Place.FILE)


def test_a_file_url_is_a_file() -> None:
    assert input_address("file:///tmp/clip.mp4") == Address(Place.FILE, "/tmp/clip.mp4")
    assert input_address("file:///tmp/clip.mp4").path == Path("/tmp/clip.mp4")


def test_whose_peer_shows_a_certificate() -> None:
    assert input_address("https://host/x").secure
    assert not input_address("http://host/x").secure


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("rtps://camera/1", "did you mean 'rtsps'"),
        ("rtsp://", "names no host"),
        ("rtsp://user:secret@/x", "names no host"),
        ("rtsp://camera:0/x", "names no host"),
        ("rtsp://camera:port/x", "is no URL"),
        ("rtsp://[::1/x", "is no URL"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        input_address(text)
    assert "secret" not in str(caught.value)


def test_not_everything_that_is_read_can_be_written() -> None:
    assert output_address("rtmp://server/live").place is Place.NETWORK
    assert output_address("out.mp4").place is Place.FILE
    with pytest.raises(UsageError, match="cannot be written"):
        output_address("http://server/live")
    with pytest.raises(UsageError, match="is a camera"):
        output_address("/dev/video0")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("clip.mp4", "clip.mp4"),
        ("rtsp://camera/1", "rtsp://camera/1"),
        ("rtsp://user:pass@camera:554/1", "rtsp://***@camera:554/1"),
        ("rtsp://us@er:p@ss@camera/1", "rtsp://***@camera/1"),
        ("rtmp://server/live?key=abc#x", "rtmp://server/live?***"),
        ("cannot open 'rtsp://u:p@h/x': refused", "cannot open 'rtsp://***@h/x': refused"),
        ("rtsp://u:p@[::1]:554/x and http://u@h/", "rtsp://***@[::1]:554/x and http://***@h/"),
        ("rtsp://u:p@[::1/x", "rtsp://***@[::1/x"),
        ("rtsp://u:p/?#a@b@camera/1?q@r", "rtsp://***@r"),
    ],
)
def test_secrets_are_not_shown(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_an_address_shows_itself_without_secrets() -> None:
    address = input_address("rtsp://user:pass@camera/1?token=abc")
    assert f"{address} {address!r}" == "rtsp://***@camera/1?*** Address(network, rtsp://***@camera/1?***)"
