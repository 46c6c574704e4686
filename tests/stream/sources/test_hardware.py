"""Decoding in a graphics card: what is said where there is none, and where one does not take a codec."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import av.error
import pytest
from av.codec.hwaccel import HWAccel

from engines.errors import RuntimeUnavailableError, SourceError
from stream.address import input_address
from stream.config import DecoderDevice
from stream.sources.connection import AvConnection, Peer
from stream.sources.decoder import Lost, Picture
from stream.sources.hardware import accelerated, begun, check_accelerated, check_decoder
from stream.sources.pipe import PipeSource
from stream.sources.video import VideoSource
from tests.media import busy_pictures, write_clip


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    """Whether there is a card is asked once per process."""
    check_decoder.cache_clear()
    yield
    check_decoder.cache_clear()


def test_the_processor_needs_nothing() -> None:
    check_decoder("cpu")
    assert accelerated("cpu") is None


def test_each_container_gets_its_own() -> None:
    one, other = accelerated("cuda"), accelerated("cuda")
    assert one is not None
    assert other is not None
    assert one is not other


class Card:
    """A decoder in PyAV's place: the processor's, and what is asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None, *, gives: bool = True) -> None:
        self.asked: list[object] = []
        create: Any = av.CodecContext.create

        def created(name: str, mode: str, hwaccel: object = None) -> Any:
            if mode == "w":
                return create(name, mode)
            self.asked.append((name, type(hwaccel)))
            if error is not None:
                raise error
            decoder = create(name, mode)
            return decoder if gives else SimpleNamespace(decode=lambda packet: [])

        monkeypatch.setattr("stream.sources.hardware.av.CodecContext", SimpleNamespace(create=created))


@pytest.mark.parametrize(
    "error", [av.error.PermissionError(1, "Operation not permitted"), RuntimeError("no device"), NotImplementedError()]
)
def test_without_a_card_that_decodes_somebody_is_told_so(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(monkeypatch, error)
    for _ in range(2):
        with pytest.raises(RuntimeUnavailableError, match=r"no GPU decodes video here .*use --decoder cpu"):
            check_decoder("cuda")
    assert card.asked == [("h264", HWAccel)] * 2


def test_a_card_that_opens_and_gives_no_picture_decodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    Card(monkeypatch, gives=False)
    with pytest.raises(RuntimeUnavailableError, match="it gives no picture"):
        check_decoder("cuda")


def test_a_card_that_decodes_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(monkeypatch)
    check_decoder("cuda")
    check_decoder("cuda")
    assert card.asked == [("h264", HWAccel)]


def from_file(path: Path, decoder: DecoderDevice) -> Any:
    return VideoSource(path, strict=False, decoder=decoder)


def from_pipe(path: Path, decoder: DecoderDevice) -> Any:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return PipeSource(descriptor, strict=False, decoder=decoder)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("opened", [from_file, from_pipe])
def test_what_no_card_decodes_is_refused_with_a_hint(
    opened: Callable[[Path, DecoderDevice], Any], tmp_path: Path
) -> None:
    path = write_clip(tmp_path / "clip.mkv", busy_pictures(3, 64, 48), codec="ffv1")
    opened(path, "cpu").close()
    with pytest.raises(SourceError, match="no stream is compatible; the GPU may not decode such pictures; try"):
        opened(path, "cuda")


def test_a_connection_is_opened_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    def refuse(*args: object, hwaccel: object, **more: object) -> None:
        given.append(hwaccel)
        raise RuntimeError("no stream is compatible")

    monkeypatch.setattr("stream.sources.connection.av.open", refuse)
    address = input_address("rtsp://127.0.0.1:9/x")
    with pytest.raises(SourceError, match="no stream is compatible; the GPU may not decode such pictures; try"):
        AvConnection(address, Peer(), decoder="cuda")
    with pytest.raises(SourceError, match=r"no stream is compatible$"):
        AvConnection(address, Peer())
    assert isinstance(given[0], HWAccel)
    assert given[1] is None


def test_secrets_of_an_address_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of FFmpeg's errors are errors of Python's as well, with the address in them."""

    def refuse(*args: object, **more: object) -> None:
        raise av.error.NotImplementedError(38, "Function not implemented", "rtsp://user:secret@127.0.0.1:9/x")

    monkeypatch.setattr("stream.sources.connection.av.open", refuse)
    with pytest.raises(SourceError, match="Function not implemented") as raised:
        AvConnection(input_address("rtsp://user:secret@127.0.0.1:9/x"), Peer())
    assert "secret" not in str(raised.value)


def test_what_the_processor_would_decode_is_refused() -> None:
    """Such as AV1 beside a cover in JPEG: PyAV looks whether a card takes any stream."""
    stream: Any = SimpleNamespace(codec_context=SimpleNamespace(is_hwaccel=False, name="libdav1d"))
    check_accelerated(stream, "cpu", "clip")
    with pytest.raises(SourceError, match="clip is in libdav1d, which FFmpeg decodes on no GPU here; the GPU may not"):
        check_accelerated(stream, "cuda", "clip")
    stream.codec_context.is_hwaccel = True
    check_accelerated(stream, "cuda", "clip")


def test_nobody_waits_for_ever_for_a_picture_that_can_be_decoded() -> None:
    lost: list[Picture | Lost] = [Lost(number, 1) for number in range(2000)]
    with pytest.raises(SourceError, match="none of the first 1000 pictures of clip can be decoded; the GPU may not"):
        list(begun(lost, "clip", "cuda"))
    picture = Picture(av.VideoFrame(16, 16, "gray"), None)
    late = [*lost[:999], picture, *lost]
    assert list(begun(late, "clip", "cpu")) == late
    assert list(begun(lost[:999], "clip", "cpu")) == lost[:999]
