from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo

from engines.errors import SourceError
from stream.verify.streams import left_in_image, left_metadata, left_streams
from tests.media import copy_clip, exif_block, pictures, read_clip, write_clip
from tests.stream.sinks.test_side_exits import with_cover, with_everything, with_user_data
from tests.stream.verify.clips import add_sound, tag


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "in.mp4", pictures(4))


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".webm", ".avi"])
def test_what_our_own_sink_writes_holds_nothing(clip: Path, tmp_path: Path, ending: str) -> None:
    source = tag(clip, tmp_path / "in.mp4", {"title": "holiday", "location": "+59+010/"})
    assert len(left_metadata(source)) == 2
    copy_clip(source, tmp_path / f"out{ending}")
    assert left_streams(tmp_path / f"out{ending}") == ()
    assert left_metadata(tmp_path / f"out{ending}") == ()


def test_sound_is_named(clip: Path, tmp_path: Path) -> None:
    assert left_streams(add_sound(clip, tmp_path / "x.mp4")) == ("audio (stream 1, aac)",)


def test_further_videos_subtitles_attachments_and_chapters_are_named(tmp_path: Path) -> None:
    found = left_streams(with_everything(tmp_path / "x.mkv"))
    # Matroska gives an attached picture as a cover.
    for word in ("video (stream 0", "subtitles", "cover picture", "attachment", "1 chapter"):
        assert sum(text.startswith(word) for text in found) == 1, found
    assert len(found) == 5


def test_a_cover_picture_is_named(tmp_path: Path) -> None:
    assert left_streams(with_cover(tmp_path / "x.mp4")) == ("cover picture (stream 1)",)


def test_what_frames_carry_is_named_and_what_encoders_write_is_not(clip: Path, tmp_path: Path) -> None:
    assert left_metadata(with_user_data(tmp_path / "x.ts")) == (
        "closed captions (in frames)",
        "SEI user data (in frames)",
    )
    # The control: x264 writes user data as well, about itself.
    assert "SEI_UNREGISTERED" in read_clip(clip).side_data
    assert left_metadata(clip) == ()


@pytest.mark.parametrize(
    ("words", "topic"),
    [
        ({"location": "+59.9+010.7/"}, "place"),
        ({"com.apple.quicktime.location.ISO6709": "+59.9+010.7/"}, "place"),
        ({"make": "Fruit"}, "device"),
        ({"com.android.version": "14"}, "device"),
        ({"creation_time": "2026-01-01T00:00:00Z"}, "time"),
        ({"title": "my street"}, "title"),
        ({"comment": "with Anna"}, "title"),
    ],
)
def test_words_about_place_device_time_and_title_are_named(
    clip: Path, tmp_path: Path, words: dict[str, str], topic: str
) -> None:
    path = tmp_path / "x.mov"
    with av.open(str(clip)) as before, av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as after:
        after.metadata.update(words)
        video = after.add_stream_from_template(before.streams.video[0])
        for packet in before.demux(before.streams.video[0]):
            if packet.size:
                packet.stream = video
                after.mux(packet)
    found = left_metadata(path)
    assert any(text.startswith(f"{topic}: ") for text in found), found
    # What it says is not told.
    assert not any(value in text for value in words.values() for text in found)


def test_a_file_that_is_no_video_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("no video")
    for function in (left_streams, left_metadata):
        with pytest.raises(SourceError, match="cannot be opened as video"):
            function(path)


def save(path: Path, **options: object) -> Path:
    Pillow.fromarray(pictures(1)[0]).save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif", ".bmp"])
def test_a_bare_image_holds_nothing(tmp_path: Path, ending: str) -> None:
    assert left_in_image(save(tmp_path / f"x{ending}")) == ((), ())


def test_exif_with_a_place_and_a_thumbnail_is_named(tmp_path: Path) -> None:
    thumbnail = save(tmp_path / "small.jpg").read_bytes()
    streams, words = left_in_image(save(tmp_path / "x.jpg", exif=exif_block(make="Fruit", thumbnail=thumbnail)))
    assert streams == ("a thumbnail in its EXIF",)
    assert "device: Make (EXIF)" in words
    assert any(text.startswith("place: GPS") for text in words)
    assert not any("Fruit" in text for text in words)


def test_an_orientation_alone_is_nothing_to_name(tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    assert left_in_image(save(tmp_path / "x.jpg", exif=exif)) == ((), ())


def _comment(path: Path) -> Path:
    return save(path.with_suffix(".jpg"), comment="Anna at home")


def _text(path: Path) -> Path:
    info = PngInfo()
    info.add_text("Author", "Anna")
    return save(path.with_suffix(".png"), pnginfo=info)


def _xmp(path: Path) -> Path:
    return save(path.with_suffix(".webp"), xmp=b"<x:xmpmeta xmlns:x='adobe:ns:meta/'></x:xmpmeta>")


@pytest.mark.parametrize(("make", "name"), [(_comment, "a comment"), (_text, "text 'Author'"), (_xmp, "XMP")])
def test_comments_texts_and_xmp_are_named(tmp_path: Path, make: Callable[[Path], Path], name: str) -> None:
    assert left_in_image(make(tmp_path / "x"))[1] == (name,)


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_what_lies_behind_a_picture_is_named(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"x{ending}")
    path.write_bytes(path.read_bytes() + struct.pack(">I", 24) + b"ftypmp42" + bytes(range(1, 100)))
    streams, _ = left_in_image(path)
    assert len(streams) == 1
    assert streams[0].endswith("behind the picture's end")


def test_further_pictures_in_a_file_are_named(tmp_path: Path) -> None:
    first, second = (Pillow.fromarray(image) for image in pictures(2))
    first.save(tmp_path / "x.tif", save_all=True, append_images=[second])
    assert left_in_image(tmp_path / "x.tif")[0] == ("1 further picture in the file",)


def test_a_broken_image_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(np.arange(200, dtype=np.uint8).tobytes())
    with pytest.raises(SourceError, match="cannot be read as an image"):
        left_in_image(path)


def test_xmp_in_a_video_is_named(tmp_path: Path) -> None:
    content = write_clip(tmp_path / "x.mp4", pictures(2)).read_bytes()
    assert not left_metadata(tmp_path / "x.mp4")
    box = bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + b"<x:xmpmeta><exif:GPSLatitude/></x:xmpmeta>"
    (tmp_path / "y.mp4").write_bytes(content + (len(box) + 8).to_bytes(4, "big") + b"uuid" + box)
    assert left_metadata(tmp_path / "y.mp4") == ("other: xmp (container)",)


@pytest.mark.parametrize(
    ("marker", "content", "found"),
    [
        (0xEB, b"JP\0\0claims with thumbnails", ("a segment APP11",)),
        (0xE0, b"JFXX\0\x10thumbnail", ("a segment APP0",)),
        (0xE0, b"JFIF\0\1\1\0\0\1\0\1\1\1abc", ("a segment APP0",)),
        (0xE2, b"ICC_PROFILE\0\1\1", ()),
    ],
)
def test_segments_that_no_decoder_needs_are_named(
    tmp_path: Path, marker: int, content: bytes, found: tuple[str, ...]
) -> None:
    path = tmp_path / "x.jpg"
    Pillow.fromarray(np.zeros((32, 32, 3), np.uint8)).save(path)
    picture = path.read_bytes()
    assert left_in_image(path) == ((), ())
    segment = bytes((0xFF, marker)) + (2 + len(content)).to_bytes(2, "big") + content
    path.write_bytes(picture[:2] + segment + picture[2:])
    assert left_in_image(path)[1] == found
