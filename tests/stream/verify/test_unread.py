from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from stream.verify.streams import left_streams
from tests.media import copy_clip, pictures, write_clip

MUCH = 200_000


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "in.mp4", pictures(12))


def noise(size: int) -> bytes:
    return np.random.default_rng(0).integers(1, 256, size, np.uint8).tobytes()


def box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def with_more(clip: Path, path: Path, more: bytes) -> Path:
    path.write_bytes(clip.read_bytes() + more)
    return path


@pytest.mark.parametrize(
    ("more", "found"),
    [
        (box(b"free", noise(5000)), "5000 bytes in a box 'free'"),
        (box(b"uuid", noise(5000)), "5000 bytes in a box 'uuid'"),
        (box(b"mdat", noise(MUCH)), "200000 bytes of media that belong to no stream"),
        (noise(300), "300 bytes behind its end"),
        (b"\0\0\0\1free" + (16 + 5000).to_bytes(8, "big") + noise(5000), "5000 bytes in a box 'free'"),
        (b"\0\0\0\0free" + noise(5000), "5000 bytes in a box 'free'"),
    ],
)
def test_what_lies_behind_the_film_is_named(clip: Path, tmp_path: Path, more: bytes, found: str) -> None:
    (text,) = left_streams(with_more(clip, tmp_path / "x.mp4", more))
    number, _, words = text.partition(" ")
    # FFmpeg's own box lies in the media too, some bytes of it.
    assert words == found.partition(" ")[2]
    assert int(number) == pytest.approx(int(found.partition(" ")[0]), abs=2000 if "media" in found else 0)


def test_a_film_behind_the_film_is_named(clip: Path, tmp_path: Path) -> None:
    assert "a second film in the file" in left_streams(with_more(clip, tmp_path / "x.mp4", clip.read_bytes()))


@pytest.mark.parametrize("more", [box(b"free", bytes(5000)), box(b"free", b"made by a muxer"), box(b"wide", b"")])
def test_room_and_short_notes_are_nothing(clip: Path, tmp_path: Path, more: bytes) -> None:
    assert left_streams(with_more(clip, tmp_path / "x.mp4", more)) == ()


def test_a_recording_that_was_cut_off_holds_nothing_else(clip: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.mp4"
    with (
        av.open(str(clip)) as before,
        av.open(str(whole), "w", options={"movflags": "frag_keyframe+empty_moov"}) as out,
    ):
        stream = out.add_stream_from_template(before.streams.video[0])
        for packet in before.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    assert left_streams(whole) == ()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])
    assert left_streams(cut) == ()


@pytest.mark.parametrize("ending", [".mkv", ".avi"])
def test_bytes_of_no_stream_are_named_in_other_containers(clip: Path, tmp_path: Path, ending: str) -> None:
    plain = tmp_path / f"x{ending}"
    copy_clip(clip, plain)
    assert left_streams(plain) == ()
    (text,) = left_streams(with_more(plain, tmp_path / f"more{ending}", noise(MUCH)))
    assert text.endswith("bytes that belong to no stream")
