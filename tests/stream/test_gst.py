"""Descriptions of pipelines that cannot be meant, and pipelines that cannot be ended."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest

from engines.errors import RuntimeUnavailableError, UsageError
from stream.address import shown
from stream.gst import ENDED, Running, parse, require, trouble
from tests.gstreamer import need, threads, wait_until


@pytest.mark.parametrize(
    "text",
    [
        "rtspsrc location=rtsp://user:s3cret@camera/live ! decodebin",
        "rtspsrc location=rtsp://camera/live user-id=me user-pw=s3cret ! decodebin",
        'srtsink passphrase="s3cret of many words" uri=srt://x:1',
        "srtsink uri=srt://x:1?passphrase=s3cret",
        "souphttpsrc extra-headers='a, Authorization=s3cret' ! decodebin",
        "webrtcsink stun-token=s3cret!fakesink",
    ],
)
def test_secrets_are_not_shown(text: str) -> None:
    assert "s3cret" not in shown(text)
    assert shown(text).split()[0] == text.split()[0]


def test_what_is_no_secret_is_shown() -> None:
    text = "filesrc location=/videos/a.mkv ! decodebin ! videorate max-rate=5"
    assert shown(text) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("videotestsrc !", "syntax error"),
        ("videotestsrc colour=1", 'no property "colour"'),
        ("videotestsrc ! audioconvert", "could not link"),
        ("", "empty pipeline"),
    ],
)
def test_what_is_no_pipeline_is_refused_in_gstreamer_s_words(text: str, message: str) -> None:
    need("videotestsrc", "audioconvert")
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_a_missing_element_is_named() -> None:
    need("videotestsrc")
    with pytest.raises(RuntimeUnavailableError, match="no element nonsense"):
        parse("videotestsrc ! nonsense ! fakesink")
    with pytest.raises(RuntimeUnavailableError, match="no element nonsense"):
        require("videotestsrc", "nonsense")


def test_a_secret_is_not_in_the_message() -> None:
    need("videotestsrc")
    with pytest.raises(UsageError) as caught:
        parse("videotestsrc password=s3cret ! fakesink")
    assert "s3cret" not in str(caught.value)


def test_errors_and_the_end_are_told_apart() -> None:
    need("videotestsrc", "identity")
    for text, wanted in (("videotestsrc num-buffers=2", ENDED), ("videotestsrc ! identity error-after=2", "identity")):
        running = Running(parse(f"{text} ! fakesink"))
        said: list[str | None] = []
        wait_until(lambda running=running, said=said: said.append(trouble(running.bus)) or said[-1])
        assert wanted in str(said[-1])
        assert running.stop(5)
    wait_until(lambda: not threads())


def test_a_pipeline_that_does_not_end_is_left_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Opening a pipe that nobody writes to waits for ever."""
    need("filesrc")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with caplog.at_level(logging.WARNING):
        running = Running(parse(f"filesrc location={pipe} ! fakesink"))
        time.sleep(0.2)
        began = time.monotonic()
        assert not running.stop(0.2)
        assert time.monotonic() - began < 2
    assert "left behind" in caplog.text
    with pipe.open("wb"):
        pass
    wait_until(lambda: not threads())


def test_too_many_of_those_are_an_error(tmp_path: Path) -> None:
    need("filesrc")
    pipes = [tmp_path / str(number) for number in range(4)]
    for pipe in pipes:
        os.mkfifo(pipe)
        assert not Running(parse(f"filesrc location={pipe} ! fakesink")).stop(0.05)
    with pytest.raises(RuntimeUnavailableError, match="4 pipelines of GStreamer hang"):
        parse("fakesrc ! fakesink")
    for pipe in pipes:
        with pipe.open("wb"):
            pass
    wait_until(lambda: not threads())
    parse("fakesrc ! fakesink")
