from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import av
import pytest
from av.packet import Packet
from av.video.stream import VideoStream

from stream.sources.decoder import CONCEALED, DEPENDENT, FAILED, Decoder, Lost, Picture, ffv1_sums_match
from tests.media import busy_pictures, write_clip


def packets_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("slices", [4, 9])
def test_sums_of_ffv1_packets_match_until_a_single_bit_changes(tmp_path: Path, slices: int) -> None:
    options = {"level": "3", "slices": str(slices), "slicecrc": "1"}
    for content in packets_of(write_clip(tmp_path / "in.mkv", busy_pictures(3), codec="ffv1", options=options)):
        assert ffv1_sums_match(content)
        for place in range(0, len(content), len(content) // 40):
            changed = bytearray(content)
            changed[place] ^= 1
            assert not ffv1_sums_match(bytes(changed))
        assert not ffv1_sums_match(content[:-1])
        assert not ffv1_sums_match(content[1:])


def test_what_has_no_sums_matches_nothing(tmp_path: Path) -> None:
    options = {"level": "3", "slicecrc": "0"}
    clip = write_clip(tmp_path / "in.mkv", busy_pictures(3), codec="ffv1", options=options)
    assert not any(ffv1_sums_match(content) for content in packets_of(clip))
    assert not ffv1_sums_match(b"")
    assert not ffv1_sums_match(bytes(7))


@pytest.mark.parametrize("options", [{"level": "3", "slicecrc": "0"}, {"level": "1"}])
def test_ffv1_without_sums_is_not_called_broken(tmp_path: Path, options: dict[str, str]) -> None:
    clip = write_clip(tmp_path / "in.mkv", busy_pictures(5), codec="ffv1", options=options)
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        found = list(Decoder(stream).pictures(container.demux(stream)))
    assert [item.damaged for item in found] == [None] * 5


def test_empty_packets_in_the_middle_do_not_end_the_stream(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mkv", busy_pictures(10), options={"bf": "2", "preset": "medium"})
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]

        def packets() -> list[Packet[VideoStream]]:
            out: list[Packet[VideoStream]] = []
            for packet in container.demux(stream):
                empty = cast("Packet[VideoStream]", Packet())
                empty.pts, empty.dts, empty.stream = packet.pts, packet.dts, stream
                out += [packet, empty] if packet.size else [packet]
            return out

        found = list(Decoder(stream).pictures(packets()))
    assert len(found) == 10
    assert all(isinstance(item, Picture) for item in found)


def test_a_packet_that_its_container_calls_corrupt_is_damaged_up_to_the_next_key_frame(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mkv", busy_pictures(20), options={"bf": "0"}, gop=10)
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        packets = list(container.demux(stream))
        packets[4].is_corrupt = True
        found = list(Decoder(stream).pictures(packets))
    assert [item.damaged is not None for item in found] == [False] * 4 + [True] * 6 + [False] * 10
    assert {item.damaged for item in found} <= {None, FAILED, DEPENDENT, CONCEALED}
    assert all(isinstance(item, Lost) for item in found[4:10])


def test_a_broken_stretch_is_told_of_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = write_clip(tmp_path / "in.mkv", busy_pictures(30), options={"bf": "0"}, gop=10)
    caplog.set_level("DEBUG", logger="stream.sources.decoder")
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]

        def packets() -> Iterator[Packet[VideoStream]]:
            for number, packet in enumerate(container.demux(stream)):
                if number % 10 not in range(4, 8) or not packet.size:
                    yield packet
                    continue
                broken = cast("Packet[VideoStream]", Packet((99).to_bytes(4, "big") + bytes(60)))
                broken.pts, broken.dts, broken.duration = packet.pts, packet.dts, packet.duration
                broken.time_base, broken.stream = packet.time_base, stream
                yield broken

        found = list(Decoder(stream).pictures(packets()))
    told = [record.levelname for record in caplog.records if "cannot be decoded" in record.getMessage()]
    assert told == ["INFO", *["DEBUG"] * 3] * 3
    assert [item.damaged is not None for item in found] == ([False] * 4 + [True] * 6) * 3


@pytest.mark.parametrize(("strict", "damaged"), [(True, 9), (False, 0)])
def test_harmless_breaches_of_the_rules_count_only_for_a_strict_decoder(
    tmp_path: Path, strict: bool, damaged: int
) -> None:
    clip = write_clip(tmp_path / "in.mkv", busy_pictures(10), options={"bf": "0", "preset": "veryfast"})
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]

        def packets() -> Iterator[Packet[VideoStream]]:
            for number, packet in enumerate(container.demux(stream)):
                if number == 0 or not packet.size:
                    yield packet
                    continue
                # A supplemental message that claims 32 bytes and has two, as some cameras write them.
                message = b"\x06\x01\x20\x00\x80"
                sloppy = cast("Packet[VideoStream]", Packet(len(message).to_bytes(4, "big") + message + bytes(packet)))
                sloppy.pts, sloppy.dts, sloppy.duration = packet.pts, packet.dts, packet.duration
                sloppy.time_base, sloppy.stream = packet.time_base, stream
                yield sloppy

        found = list(Decoder(stream, strict=strict).pictures(packets()))
    assert len(found) == 10
    assert sum(item.damaged is not None for item in found) == damaged
