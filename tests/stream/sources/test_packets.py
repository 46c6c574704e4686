from __future__ import annotations

from pathlib import Path

import av

from stream.sources.packets import read_packets
from tests.media import busy_pictures, write_clip
from tests.stream.sources.torn import REORDERED, write_unreadable

COUNT = 20


def read(path: Path) -> tuple[list[int], list[str]]:
    """Sizes of the packets, and what was told."""
    told: list[str] = []
    with av.open(str(path)) as container:
        packets = read_packets(container, container.streams.video[0], "it", told.append)
        return [packet.size for packet in packets], told


def test_a_whole_stream_ends_with_one_empty_packet_and_nothing_to_tell(tmp_path: Path) -> None:
    sizes, told = read(write_clip(tmp_path / "in.nut", busy_pictures(COUNT), options=REORDERED))
    assert len(sizes) == COUNT + 1
    assert all(sizes[:-1])
    assert sizes[-1] == 0
    assert told == []


def test_what_cannot_be_read_to_its_end_ends_with_one_empty_packet_too(tmp_path: Path) -> None:
    sizes, told = read(write_unreadable(tmp_path / "in.nut", 32))
    assert len(sizes) == 33
    assert all(sizes[:-1])
    assert sizes[-1] == 0
    assert told == ["it cannot be read to its end: Invalid data found when processing input"]


def test_a_packet_that_is_cut_off_is_told(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.flv", busy_pictures(COUNT), options=REORDERED)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 3])
    sizes, told = read(clip)
    assert sizes[-1] == 0
    assert told == ["it ends in the middle of a picture"]
