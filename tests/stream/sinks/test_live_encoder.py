from __future__ import annotations

from typing import Any

import av
import pytest
from av.packet import Packet

from stream.anonymizer import Anonymized
from stream.frame import Frame
from stream.regions import Regions
from stream.sinks import live_encoder
from stream.sinks.live_encoder import LiveEncoder
from tests.media import busy_pictures, info_like

#: How a set of parameters begins.
SPS = {"h264": b"\x00\x00\x01\x67", "hevc": b"\x00\x00\x01\x42"}


def packets(codec: str, keys: tuple[int, ...] = (5,), count: int = 9) -> list[Packet[Any]]:
    """What is encoded where a key frame is asked for at some frames."""
    shown = busy_pictures(count)
    made = LiveEncoder(info_like(shown[0]), codec=codec)
    found: list[Packet[Any]] = []
    for number, image in enumerate(shown):
        if number in keys:
            made.want_key()
        found += made.encode(Anonymized(Frame(image, pts=number), Regions.empty()))
    return found + made.flush()


def pictures_in(codec: str, given: list[Packet[Any]]) -> int:
    """How many pictures a decoder finds that knows nothing but these packets."""
    decoder = av.CodecContext.create(codec, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    found = [frame for packet in given for frame in decoder.decode(Packet(bytes(packet)))]
    return len(found) + len(decoder.decode(None))


@pytest.mark.parametrize(("codec", "name"), [("libx264", "h264"), ("libx265", "hevc")])
@pytest.mark.parametrize("repeats", [True, False])
def test_whoever_tunes_in_at_a_key_frame_has_the_headers(
    codec: str, name: str, repeats: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVIDIA's encoder repeats none where they are asked for beside the stream, as x264 does unless it is told to."""
    if not repeats:
        monkeypatch.setattr(live_encoder, "_headers_too", lambda _: {"x265-params": "log-level=error"})
    found = packets(codec)
    assert [number for number, packet in enumerate(found) if packet.is_keyframe] == [0, 5]
    assert [packet.pts for packet in found] == [packet.dts for packet in found] == list(range(9))
    assert pictures_in(name, found[5:]) == 4
    # Once, not twice.
    assert [bytes(packet).count(SPS[name]) for packet in found] == [1, 0, 0, 0, 0, 1, 0, 0, 0]


def test_control_without_them_nothing_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_encoder, "_headers_too", lambda _: {})
    monkeypatch.setattr(live_encoder, "_WITH_HEADERS", frozenset[str]())
    with pytest.raises(av.error.InvalidDataError):
        pictures_in("h264", packets("libx264")[5:])


def test_the_gpu_s_encoder_is_told_to_make_key_frames_of_those_that_are_asked_for() -> None:
    options = [live_encoder._WITHOUT_DELAY[name] for name in ("h264_nvenc", "hevc_nvenc")]
    assert [given["forced-idr"] for given in options] == ["1", "1"]
    known = {option.name for option in av.codec.Codec("h264_nvenc", "w").create("video").supported_options.private}
    assert set(options[0]) <= known
