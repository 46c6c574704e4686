"""What a file holds beside its main pictures must not reach the output, in whatever way it is kept there."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream
from PIL import Image as Pillow

from engines.errors import UsageError
from stream.sources.video import VideoSource
from tests.media import Decoded, copy_clip, mean_error, noise, picture, pictures, read_clip, to_frame, write_clip

GPS = "+59.9139+010.7522/"
PLACES = {
    "com.apple.quicktime.location.ISO6709": GPS,
    "com.apple.quicktime.make": "Fruit",
    "com.apple.quicktime.model": "Phone 99",
    "location": GPS,
    "creation_time": "2024-05-06T07:08:09.000000Z",
    "title": "At home",
    "comment": "ring twice",
}
SECRETS = [GPS.encode(), b"Fruit", b"Phone 99", b"At home", b"ring twice", b"2024-05-06"]
CAPTION = b"WHO SPEAKS"


def jpeg(seed: int) -> bytes:
    file = BytesIO()
    Pillow.fromarray(noise(1, 32, 32, seed)[0]).save(file, "JPEG")
    return file.getvalue()


def main_stream(container: OutputContainer, count: int = 10) -> Iterator[None]:
    """Adds the stream at once; the packets are written on the next step."""
    stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
    assert isinstance(stream, VideoStream)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    yield
    for index, image in enumerate(pictures(count)):
        frame = to_frame(image)
        frame.pts, frame.time_base = index, Fraction(1, 25)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def mux_bytes(stream: av.stream.Stream, container: OutputContainer, content: bytes, *, pts: int, duration: int) -> None:
    packet: Packet[av.stream.Stream] = Packet(content)
    packet.pts = packet.dts = pts
    packet.duration, packet.time_base, packet.is_keyframe = duration, Fraction(1, 1000), True
    packet.stream = stream
    container.mux(packet)


def with_cover(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        cover = container.add_mux_stream("mjpeg", width=320, height=320)
        cover.disposition = Disposition.attached_pic
        main = main_stream(container)
        next(main)
        container.start_encoding()
        mux_bytes(cover, container, jpeg(1), pts=0, duration=0)
        next(main, None)
    return path


def with_everything(path: Path) -> Path:
    """Matroska with a smaller video first, subtitles, an attachment, chapters and tags."""
    with av.open(str(path), "w") as container:
        small = container.add_stream("mjpeg", rate=25, options={"strict": "unofficial"})
        assert isinstance(small, VideoStream)
        small.width, small.height, small.pix_fmt = 32, 24, "yuvj420p"
        main = main_stream(container)
        next(main)
        words = container.add_mux_stream("subrip")
        container.add_attachment("face.jpg", "image/jpeg", jpeg(2))
        container.add_attachment("notes.bin", "application/octet-stream", b"ring twice")
        container.set_chapters(
            [{"id": 1, "start": 0, "end": 200, "time_base": Fraction(1, 1000), "metadata": {"title": "At home"}}]
        )
        container.metadata.update(PLACES)
        container.start_encoding()
        frame = to_frame(picture(32, 24), "yuvj420p", full=True)
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux([*small.encode(frame), *small.encode(None)])
        mux_bytes(words, container, b"ring twice", pts=0, duration=300)
        next(main, None)
    return path


def sei(kind: int, payload: bytes) -> bytes:
    """An H.264 SEI message as a NAL unit (ITU-T H.264, 7.3.2.3); the payload must not need escapes."""
    return b"\0\0\0\1\x06" + bytes([kind, len(payload)]) + payload + b"\x80"


def with_user_data(path: Path) -> Path:
    """A transport stream whose pictures carry user data and A53 closed captions."""
    plain = write_clip(path.with_name("plain.ts"), pictures(10), options={"bf": "0"})
    words = b"".join(b"\xfc" + CAPTION[i : i + 2] for i in range(0, len(CAPTION), 2))
    captions = b"\xb5\x00\x31GA94\x03" + bytes([0xC0 | len(words) // 3, 0xFF]) + words + b"\xff"
    extra = sei(4, captions) + sei(5, b"0123456789abcdef" + GPS.encode())
    with av.open(str(plain)) as reader, av.open(str(path), "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0], opaque=True)
        for packet in reader.demux(video=0):
            if not packet.size:
                continue
            copy: Packet[av.stream.Stream] = Packet(extra + bytes(packet))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe, copy.stream = packet.is_keyframe, stream
            writer.mux(copy)
    return path


def assert_only_pictures(path: Path) -> Decoded:
    found = read_clip(path)
    assert found.types == ["video"]
    assert found.chapters == 0
    assert found.side_data <= {"SEI_UNREGISTERED"}
    content = path.read_bytes()
    assert jpeg(1)[-300:-100] not in content
    assert jpeg(2)[-300:-100] not in content
    assert CAPTION[:4] not in content
    return found


@pytest.mark.parametrize("ending", ["mp4"])
@pytest.mark.parametrize("metadata", [False, True])
def test_a_cover_picture_is_listed_and_dropped(tmp_path: Path, ending: str, metadata: bool) -> None:
    clip = with_cover(tmp_path / f"in.{ending}")
    assert jpeg(1)[-300:-100] in clip.read_bytes()
    frames = copy_clip(clip, tmp_path / f"out.{ending}", metadata=metadata)
    assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * 10
    assert_only_pictures(tmp_path / f"out.{ending}")
    source = VideoSource(clip)
    assert any("cover picture" in line for line in source.side_exits())


@pytest.mark.parametrize("metadata", [False, True])
def test_all_other_streams_are_listed_and_dropped(tmp_path: Path, metadata: bool) -> None:
    clip = with_everything(tmp_path / "in.mkv")
    assert len(read_clip_types(clip)) >= 4
    source = VideoSource(clip)
    assert (source.info.width, source.info.height) == (64, 48)
    exits = "\n".join(source.side_exits())
    for word in ("video stream 0", "subtitle", "cover picture", "attachment", "chapters"):
        assert word in exits
    frames = copy_clip(clip, tmp_path / "out.mkv", metadata=metadata)
    assert mean_error(frames[0].image, picture()) < 4
    assert_only_pictures(tmp_path / "out.mkv")


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
def test_places_and_devices_go_unless_asked_for(tmp_path: Path, ending: str) -> None:
    options = {} if ending == "mkv" else {"movflags": "use_metadata_tags"}
    clip = write_clip(tmp_path / f"in.{ending}", pictures(5), metadata=PLACES, container_options=options)
    assert GPS.encode() in clip.read_bytes()
    copy_clip(clip, tmp_path / f"out.{ending}")
    content = (tmp_path / f"out.{ending}").read_bytes()
    assert not [secret for secret in SECRETS if secret in content]
    assert not set(PLACES) & {key.lower() for key in read_clip(tmp_path / f"out.{ending}").metadata}
    copy_clip(clip, tmp_path / f"kept.{ending}", metadata=True)
    kept = read_clip(tmp_path / f"kept.{ending}").metadata
    for name in ("com.apple.quicktime.make", "title"):
        assert PLACES[name] in kept.values(), name
    assert GPS in kept.values()


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("metadata", [False, True])
def test_user_data_and_captions_are_listed_and_dropped(tmp_path: Path, ending: str, metadata: bool) -> None:
    clip = with_user_data(tmp_path / "in.ts")
    assert {"A53_CC", "SEI_UNREGISTERED"} <= read_clip(clip).side_data
    copy_clip(clip, tmp_path / f"out.{ending}", metadata=metadata)
    assert_only_pictures(tmp_path / f"out.{ending}")
    assert GPS.encode() not in (tmp_path / f"out.{ending}").read_bytes()
    source = VideoSource(clip)
    list(source)
    assert "closed captions" in source.side_exits()
    assert "SEI user data" in source.side_exits()


def test_of_two_videos_the_larger_one_is_taken_wherever_it_stands(tmp_path: Path) -> None:
    clip = tmp_path / "in.mkv"
    with av.open(str(clip), "w") as container:
        streams = []
        for width, height in ((32, 24), (96, 64), (64, 48)):
            stream = container.add_stream("ffv1", rate=25)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        for stream in streams:
            frame = to_frame(picture(stream.width, stream.height))
            frame.pts, frame.time_base = 0, Fraction(1, 25)
            container.mux([*stream.encode(frame), *stream.encode(None)])
    source = VideoSource(clip)
    assert np.shape(next(iter(source)).image) == (64, 96, 3)
    assert len(source.side_exits()) == 2


def test_pictures_in_tags_and_stale_measures_are_not_kept(tmp_path: Path) -> None:
    tags = {"METADATA_BLOCK_PICTURE": "A" * 900, "title": "At home", "other": "B" * 20_000}
    clip = write_clip(tmp_path / "in.mkv", pictures(30), metadata=tags)
    copy_clip(clip, tmp_path / "out.mkv", metadata=True, end=0.4)
    content = (tmp_path / "out.mkv").read_bytes()
    assert b"A" * 900 not in content
    assert b"B" * 900 not in content
    assert b"At home" in content
    source = VideoSource(tmp_path / "out.mkv")
    assert len(list(source)) == 10
    assert source.problems() == ()


def test_stream_tags_are_kept_only_when_asked_for(tmp_path: Path) -> None:
    clip = tmp_path / "in.mkv"
    with av.open(str(clip), "w") as container:
        main = main_stream(container)
        next(main)
        container.streams.video[0].metadata["comment"] = "ring twice"
        next(main, None)
    copy_clip(clip, tmp_path / "out.mkv")
    assert b"ring twice" not in (tmp_path / "out.mkv").read_bytes()
    copy_clip(clip, tmp_path / "kept.mkv", metadata=True)
    assert b"ring twice" in (tmp_path / "kept.mkv").read_bytes()


def read_clip_types(path: Path) -> list[str]:
    with av.open(str(path)) as container:
        return [stream.type for stream in container.streams]


def two_cameras(path: Path) -> Path:
    """Two camera streams of the same size, one of them named, and a cover picture that is larger than both."""
    with av.open(str(path), "w") as container:
        cover = container.add_mux_stream("mjpeg", width=320, height=320)
        cover.disposition = Disposition.attached_pic
        cameras = []
        for title in (None, "rear"):
            stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "tune": "zerolatency"})
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            if title is not None:
                stream.metadata["handler_name"] = title
            cameras.append(stream)
        container.start_encoding()
        mux_bytes(cover, container, jpeg(1), pts=0, duration=0)
        for index in range(10):
            for stream, level in zip(cameras, (40, 200), strict=True):
                frame = to_frame(np.full((48, 64, 3), level, np.uint8))
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in cameras:
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("wanted", "level"), [(None, 40), ("0", 40), ("1", 200), ("rear", 200)])
def test_of_two_cameras_and_a_cover_picture_one_camera_goes_on(tmp_path: Path, wanted: str | None, level: int) -> None:
    clip, output = two_cameras(tmp_path / "in.mp4"), tmp_path / "out.mkv"
    copy_clip(clip, output, wanted=wanted)
    with av.open(str(output)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(shown) == 10
    assert all(abs(image.astype(int) - level).max() <= 4 for image in shown)
    listed = VideoSource(clip, wanted=wanted).side_exits()
    assert sum(line.startswith("video stream") for line in listed) == 1
    assert sum(line.startswith("cover picture") for line in listed) == 1


def test_a_camera_that_is_not_in_the_file_is_refused_with_those_that_are(tmp_path: Path) -> None:
    clip = two_cameras(tmp_path / "in.mp4")
    for wanted in ("front", "2", "3", ""):
        with pytest.raises(UsageError, match=r"it has 0 \(64x48.*\), 1 \(64x48, rear\)"):
            VideoSource(clip, wanted=wanted)
