"""What an address names, and what of it may be shown."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engines.errors import UsageError
from stream.address import READABLE, Address, Place, input_address, output_address, redacted


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
        ("gst:videotestsrc ! identity", Place.PIPELINE, "gst"),
        ("./gst:clip.mp4", Place.FILE, ""),
        ("-", Place.PIPE, ""),
        ("./-", Place.FILE, ""),
    ],
)
def test_what_an_input_is(text: str, place: Place, scheme: str) -> None:
    address = input_address(text)
    assert (address.place, address.scheme, address.text) == (place, scheme, text)
    assert address.live == (place not in {Place.FILE, Place.PIPE})


def test_a_pipeline_is_what_follows() -> None:
    assert input_address("gst: videotestsrc").description == " videotestsrc"
    with pytest.raises(UsageError, match="followed by"):
        input_address("gst: ")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("gst:rtspsrc location=rtsp://u:p@h/x ! decodebin", "gst:rtspsrc location=rtsp://***@h/x ! decodebin"),
        ('gst:rtspsrc user-id=me user-pw="a b" ! x', "gst:rtspsrc user-id=*** user-pw=*** ! x"),
        ("gst:srtsrc passphrase = 'my words' latency=5", "gst:srtsrc passphrase = *** latency=5"),
        ("gst:kvssink access-key=A secret-key=B", "gst:kvssink access-key=*** secret-key=***"),
        (r'gst:rtspsrc user-pw="a\"b c" ! x', "gst:rtspsrc user-pw=*** ! x"),
        ("gst:rtspsrc user-pw=a!b'c ! x", "gst:rtspsrc user-pw=*** ! x"),
        ('gst:rtspsrc location="rtsp://u:a b@h/x" ! x', 'gst:rtspsrc location="rtsp://***@h/x" ! x'),
        (
            "gst:srtsink streamid=a/b pbkeylen=16 pin = 12 spin=1",
            "gst:srtsink streamid=*** pbkeylen=16 pin = *** spin=1",
        ),
        ("gst:x credentials=A my-session=B keyframes", "gst:x credentials=*** my-session=*** keyframes"),
        ("-", "the pipe"),
    ],
)
def test_secrets_of_a_pipeline_are_hidden(text: str, shown: str) -> None:
    assert str(input_address(text)) == shown
    assert shown in repr(input_address(text))


def test_our_own_server_is_an_output_only() -> None:
    assert output_address("rtsp-server://u:p@127.0.0.1:8554/live").scheme == "rtsp-server"
    assert str(output_address("rtsps-server://u:p@127.0.0.1:8554/live")) == "rtsps-server://***@127.0.0.1:8554/live"
    with pytest.raises(UsageError):
        input_address("rtsp-server://127.0.0.1:8554/live")


def test_a_file_url_is_a_file() -> None:
    assert input_address("file:///tmp/clip.mp4") == Address(Place.FILE, "/tmp/clip.mp4")
    assert input_address("file:///tmp/clip.mp4").path == Path("/tmp/clip.mp4")
    assert input_address("file://localhost/tmp/clip.mp4").path == Path("/tmp/clip.mp4")


def test_whose_peer_shows_a_certificate() -> None:
    assert input_address("https://host/x").secure
    assert not input_address("http://host/x").secure


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("rtps://camera/1", "expected a file or one of rtsp://, rtsps://, rtmp://, rtmps://, srt://, udp://, http"),
        ("ftp://user:secret@camera/1", r"^ftp://\*\*\*@camera/1 cannot be read"),
        ("rtsp://user:secret", "is no URL"),
        ("rtsp://user:secret/word@camera/1", "are written %2F"),
        ("rtsp://", "names no host"),
        ("rtsp://user:secret@/x", "names no host"),
        ("rtsp://camera:0/x", "names no host"),
        ("rtsp://camera:port/x", "is no URL"),
        ("rtsp://[::1/x", "is no URL"),
        ("file://data[1]/clip.mp4", "is no URL: its host cannot be read; expected something like file:///"),
        ("file://recordings/front/", "names a host, and no file of this machine; expected something like file:///"),
        ("file://user:secret@host/x", r"^file://\*\*\*@host/x names a host"),
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
        ("udp://@:5000", "udp://@:5000"),
        ("rtsp://camera:554 -> udp://@:5000", "rtsp://camera:554 -> udp://@:5000"),
        ("see rtsp://camera:554. It", "see rtsp://camera:554. It"),
        ("rtsp://[::1]:554/x", "rtsp://[::1]:554/x"),
        ("rtsp://admin:secret", "rtsp://admin:***"),
        ("'rtsp://u:p(a'b@h/x': refused", "'rtsp://***@h/x': refused"),
        ('"rtsp://u:<a>[b]"c@h/x": refused', '"rtsp://***@h/x": refused'),
        ("'rtsp://u:my pass@h/x': refused", "'rtsp://***@h/x': refused"),
        ("rtsp://u:my pass@h/x: refused", "rtsp://***@h/x: refused"),
        ("rtsp://u:my/own pass@h/x: refused", "rtsp://***@h/x: refused"),
        ("'http://h/x?key=a b': refused", "'http://h/x?***': refused"),
        ("'http://h/x?key=a'b(c': refused", "'http://h/x?***': refused"),
        ("rtmp://h/live/key", "rtmp://h/live/***"),
        ("rtmps://u:p@h:1935/live/a/key?x=1", "rtmps://***@h:1935/live/***?***"),
        ("(rtmp://h/live/key), rtmp://h/live/", "(rtmp://h/live/***), rtmp://h/live/"),
        ("rtmp://h/live/${file:key}", "rtmp://h/live/${file:key}"),
        ("srt://h:9000?streamid=me&passphrase=secret", "srt://h:9000?***"),
        (
            "rtsp://h/user=me&password=secret&channel=1&stream=0.sdp?real_stream",
            "rtsp://h/user=***&password=***&channel=1&stream=0.sdp?***",
        ),
        ("rtsp://h:554/user=me_password=secret_channel=1/x.sdp", "rtsp://h:554/user=***/x.sdp"),
        ("http://h/live;jsessionid=a;pwd=b/1?c", "http://h/live;jsessionid=***;pwd=***/1?***"),
        ("rtsp://h/keyframes/monkey/password/1", "rtsp://h/keyframes/monkey/password/1"),
    ],
)
def test_secrets_are_not_shown(text: str, shown: str) -> None:
    assert redacted(text) == shown


#: What is said of an address that is none. Nothing of it is quoted there.
REFUSALS = (
    (
        "is no URL: its host or its port cannot be read; "
        "signs like / ? # @ in a user or a password are written %2F %3F %23 %40"
    ),
    "names no host; expected something like rtsp://camera.local:554/stream",
)


@settings(max_examples=300, deadline=None)
@given(
    password=st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("()'\"[]<>@/?#:!{} "), min_size=3),
    scheme=st.sampled_from(READABLE),
)
def test_a_password_is_never_shown_whatever_it_holds(password: str, scheme: str) -> None:
    url = f"{scheme}://me:{password}@host/1"
    shown = f"{scheme}://***@host/1"
    message = "cannot open '{}': refused (one), \"{}\" and {}: no"
    assume(password not in message and password not in shown and password not in f"Address(network, {shown})")
    address = Address(Place.NETWORK, url, scheme)
    assert (str(address), repr(address)) == (shown, f"Address(network, {shown})")
    try:
        said = str(input_address(url))
    except UsageError as error:
        said = str(error)
    assert said in {shown, *(f"{shown} {why}" for why in REFUSALS)}
    if not any(sign.isspace() for sign in password):
        assert redacted(message.format(url, url, url)) == message.format(shown, shown, shown)


def test_long_texts_take_no_long_time() -> None:
    began = time.monotonic()
    for text in ("a" * 200_000, "rtsp://u:" * 20_000, "'rtsp://" * 20_000, "rtsp://a:b " * 10_000):
        redacted(text)
    assert time.monotonic() - began < 5


def test_an_address_shows_itself_without_secrets() -> None:
    address = input_address("rtsp://user:pass@camera/1?token=abc")
    assert f"{address} {address!r}" == "rtsp://***@camera/1?*** Address(network, rtsp://***@camera/1?***)"
