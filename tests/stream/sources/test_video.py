from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from engines.errors import SourceError
from stream.frame import WITHHELD_LEVEL, Frame
from stream.sources.pictures import TURNED
from stream.sources.video import VideoSource
from tests.media import (
    MATRICES,
    busy_pictures,
    copy_clip,
    display_matrix,
    mean_error,
    noise,
    picture,
    pictures,
    read_clip,
    stored_picture,
    write_clip,
)
from tests.stream.sources.camera import HALF_TURN, QUARTER_TURN, turning

GOP = 12
COUNT = 36

#: Encoder, pixel format, options. All of them have three groups of pictures.
CODECS: Mapping[str, tuple[str, str, dict[str, str]]] = {
    "h264": ("libx264", "yuv420p", {"bf": "0"}),
    "h264-b": ("libx264", "yuv420p", {"bf": "2", "preset": "medium", "sc_threshold": "0"}),
    "h264-slices": ("libx264", "yuv420p", {"slices": "4", "bf": "0"}),
    "hevc": ("libx265", "yuv420p", {"x265-params": f"log-level=error:keyint={GOP}:open-gop=0"}),
    "mpeg4": ("mpeg4", "yuv420p", {"qscale": "3", "bf": "2", "sc_threshold": "1000000000"}),
    "mpeg2": ("mpeg2video", "yuv420p", {"qscale": "3", "bf": "2", "sc_threshold": "1000000000", "flags": "+cgop"}),
    "ffv1": ("ffv1", "yuv420p", {"level": "3", "slices": "4"}),
    "mjpeg": ("mjpeg", "yuvj420p", {}),
    "vp8": ("libvpx", "yuv420p", {"deadline": "realtime", "cpu-used": "8", "b": "2M"}),
    "vp9": ("libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8", "b": "2M"}),
}


def read(path: Path, *, start: float | None = None, end: float | None = None) -> tuple[list[Frame], VideoSource]:
    source = VideoSource(path, start=start, end=end)
    frames = list(source)
    source.close()
    return frames, source


def make(path: Path, name: str, count: int = COUNT) -> Path:
    codec, pix_fmt, options = CODECS[name]
    return write_clip(path, busy_pictures(count), codec=codec, pix_fmt=pix_fmt, options=options, gop=GOP)


def damage(source: Path, target: Path, change: Callable[[int, bytes], bytes | None]) -> Path:
    """Copy a clip's packets; `change` gets each one's number and bytes and gives other bytes, or None to drop it."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        before = reader.streams.video[0]
        after = writer.add_stream_from_template(before, opaque=True)
        number = 0
        for packet in reader.demux(before):
            if not packet.size:
                continue
            content = change(number, bytes(packet))
            number += 1
            if content is None:
                continue
            copy = av.Packet(content)
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.duration, copy.is_keyframe = packet.duration, packet.is_keyframe
            copy.stream = after
            writer.mux(copy)
    return target


def halves(number: int) -> Callable[[int, bytes], bytes]:
    """The second half of one packet becomes zeros."""
    return lambda n, content: content[: len(content) // 2] + bytes(-(-len(content) // 2)) if n == number else content


def rubbish(number: int) -> Callable[[int, bytes], bytes]:
    """All of one packet becomes noise."""
    other = np.random.default_rng(0).integers(0, 256, 3000, np.uint8).tobytes()
    return lambda n, content: other if n == number else content


def assert_nothing_wrong_is_healthy(clean: list[Frame], frames: list[Frame]) -> None:
    whole = {frame.pts: frame.image for frame in clean}
    for frame in frames:
        if frame.damaged is None:
            assert np.array_equal(frame.image, whole[frame.pts])
        else:
            assert (frame.image == WITHHELD_LEVEL).all()


@pytest.mark.parametrize("name", CODECS)
def test_a_whole_clip_gives_every_frame_healthy(tmp_path: Path, name: str) -> None:
    clip = make(tmp_path / "in.mkv", name)
    frames, source = read(clip)
    assert [Fraction(f.pts) * f.time_base for f in frames] == read_clip(clip).times
    assert all(frame.damaged is None for frame in frames)
    assert source.problems() == ()


@pytest.mark.parametrize("name", ["h264", "h264-b", "h264-slices", "mpeg4", "mpeg2", "ffv1"])
@pytest.mark.parametrize("number", [5, 13, 17])
def test_a_packet_that_is_half_gone_never_leaves_a_wrong_picture_healthy(
    tmp_path: Path, name: str, number: int
) -> None:
    clip = make(tmp_path / "in.mkv", name)
    clean, _ = read(clip)
    frames, _ = read(damage(clip, tmp_path / "bad.mkv", halves(number)))
    assert [f.pts for f in frames] == [f.pts for f in clean]
    assert any(frame.damaged for frame in frames)
    assert_nothing_wrong_is_healthy(clean, frames)
    assert all(frame.damaged is None for frame in frames[2 * GOP + 3 :])


@pytest.mark.parametrize("name", [name for name in CODECS if name not in {"vp8", "vp9"}])
@pytest.mark.parametrize("number", [0, 5, 13, 34])
def test_a_packet_of_noise_costs_no_frame_and_later_ones_come(tmp_path: Path, name: str, number: int) -> None:
    clip = make(tmp_path / "in.mkv", name)
    clean, _ = read(clip)
    frames, _ = read(damage(clip, tmp_path / "bad.mkv", rubbish(number)))
    assert [f.pts for f in frames] == [f.pts for f in clean]
    assert any(frame.damaged for frame in frames)
    assert_nothing_wrong_is_healthy(clean, frames)
    if number < GOP:
        assert all(frame.damaged is None for frame in frames[2 * GOP :])


@pytest.mark.parametrize("name", ["vp8", "vp9"])
def test_noise_in_a_stream_without_any_check_is_survived(tmp_path: Path, name: str) -> None:
    clip = make(tmp_path / "in.mkv", name)
    frames, _ = read(damage(clip, tmp_path / "bad.mkv", rubbish(5)))
    assert len(frames) >= COUNT - 1
    times = [frame.pts for frame in frames]
    assert times == sorted(set(times))


@pytest.mark.parametrize("name", ["h264", "mpeg4"])
def test_pictures_that_depend_on_a_damaged_one_are_damaged_up_to_the_next_key_frame(tmp_path: Path, name: str) -> None:
    clip = make(tmp_path / "in.mkv", name)
    frames, _ = read(damage(clip, tmp_path / "bad.mkv", rubbish(3)))
    flags = [frame.damaged is not None for frame in frames]
    assert all(flags[4:GOP])
    assert not any(flags[GOP:])


def test_a_stream_cut_at_an_open_group_of_pictures_is_healthy_from_its_key_frame_on(tmp_path: Path) -> None:
    options = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0", "preset": "medium"}
    clip = write_clip(tmp_path / "in.mkv", busy_pictures(COUNT), options=options)
    with av.open(str(clip)) as container:
        keys = [number for number, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    cut = damage(clip, tmp_path / "cut.mkv", lambda n, content: None if n < keys[1] else content)
    frames, _ = read(cut)
    clean, _ = read(clip)
    assert len(frames) >= 20
    assert all(frame.damaged is None for frame in frames)
    assert_nothing_wrong_is_healthy(clean, frames)


@pytest.mark.parametrize(
    ("codec", "ending", "options"),
    [
        ("libx264", "mkv", {"x264-params": "open-gop=1:keyint=9:scenecut=0:bframes=3:b-adapt=0", "preset": "medium"}),
        ("libx264", "mp4", {"x264-params": "open-gop=1:keyint=9:scenecut=0:bframes=3:b-adapt=0", "preset": "medium"}),
        ("libx264", "ts", {"x264-params": "open-gop=1:keyint=9:scenecut=0:bframes=3:b-adapt=0", "preset": "medium"}),
        ("libx265", "mp4", {"x265-params": "open-gop=1:keyint=9:scenecut=0:bframes=3:log-level=error"}),
        ("mpeg2video", "ts", {"bf": "2", "g": "9", "flags": "-cgop"}),
        ("libx264", "mkv", {"x264-params": "intra-refresh=1:keyint=9:bframes=0", "preset": "medium"}),
        ("mpeg4", "avi", {"g": "9"}),
    ],
)
def test_starting_anywhere_gives_the_same_healthy_frames(
    tmp_path: Path, codec: str, ending: str, options: dict[str, str]
) -> None:
    clip = write_clip(tmp_path / f"in.{ending}", busy_pictures(30, 64, 48), codec=codec, options=options)
    clean, _ = read(clip)
    for index in range(0, 30, 2):
        frames, _ = read(clip, start=index / 25)
        assert [f.pts for f in frames] == [f.pts for f in clean[index:]]
        assert all(frame.damaged is None for frame in frames)
        assert_nothing_wrong_is_healthy(clean, frames)


def test_start_and_end_past_the_last_frame_are_an_error(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mp4", pictures(10))
    with pytest.raises(SourceError, match="no frame lies between"):
        read(clip, start=5.0)
    frames, source = read(clip, end=5.0)
    assert len(frames) == 10
    assert source.problems() == ()


def test_the_expected_number_of_frames_knows_start_and_end(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mp4", pictures(50))
    assert VideoSource(clip).info.frames == 50
    assert VideoSource(clip, start=1).info.frames == 25
    assert VideoSource(clip, start=0.4, end=1).info.frames == 15


def test_an_mp4_whose_index_is_cut_off_is_a_source_error(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mp4", busy_pictures(30))
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 6 // 10])
    with pytest.raises(SourceError) as caught:
        VideoSource(clip)
    assert "\n" not in str(caught.value)
    assert "in.mp4" in str(caught.value)


@pytest.mark.parametrize(
    ("ending", "options"),
    [("mp4", {"movflags": "faststart"}), ("mov", {"movflags": "faststart"}), ("mkv", {}), ("avi", {})],
)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_that_is_cut_off_gives_what_is_there_and_says_so(
    tmp_path: Path, ending: str, options: dict[str, str], share: float
) -> None:
    clip = write_clip(
        tmp_path / f"in.{ending}", busy_pictures(60), container_options=options, options={"bf": "0"}, gop=10
    )
    clean, source = read(clip)
    assert source.problems() == ()
    clip.write_bytes(clip.read_bytes()[: int(clip.stat().st_size * share)])
    frames, source = read(clip)
    assert 60 * share - 6 < len(frames) < 60 * share + 3
    assert_nothing_wrong_is_healthy(clean, frames)
    assert len(source.problems()) == 1


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "avi", "mov", "webm"])
@pytest.mark.parametrize("frames", [1, 2, 40])
def test_whole_files_have_no_problems(tmp_path: Path, ending: str, frames: int) -> None:
    codec = "libvpx-vp9" if ending == "webm" else "libx264"
    options = {"deadline": "realtime"} if ending == "webm" else {"preset": "medium"}
    clip = write_clip(tmp_path / f"in.{ending}", noise(frames), codec=codec, options=options)
    given, source = read(clip)
    assert len(given) == frames
    assert source.problems() == ()


def test_sound_that_goes_on_after_the_last_picture_is_no_problem(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mkv", pictures(10))
    longer = tmp_path / "longer.mkv"
    with av.open(str(clip)) as reader, av.open(str(longer), "w") as writer:
        before = reader.streams.video[0]
        video = writer.add_stream_from_template(before, opaque=True)
        sound = writer.add_stream("pcm_s16le", rate=8000)
        for packet in reader.demux(before):
            if packet.size:
                packet.stream = video
                writer.mux(packet)
        for index in range(30):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), "s16", "stereo")
            frame.rate, frame.pts = 8000, 800 * index
            writer.mux(sound.encode(frame))
    frames, source = read(longer)
    assert len(frames) == 10
    assert source.problems() == ()


@pytest.mark.parametrize(
    "content", [b"this is no video\n" * 200, b"", b"\x00" * 5000, b"\x00\x00\x00\x18ftypmp42" + b"\x00" * 500]
)
def test_a_file_that_is_no_video_is_a_source_error_of_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in.mp4").write_bytes(content)
    with pytest.raises(SourceError) as caught:
        VideoSource(tmp_path / "in.mp4")
    assert "\n" not in str(caught.value)
    assert "in.mp4" in str(caught.value)


def test_a_file_that_is_not_there_is_a_source_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"missing\.mp4"):
        VideoSource(tmp_path / "missing.mp4")


def test_a_video_without_frames_is_a_source_error(tmp_path: Path) -> None:
    clip = tmp_path / "in.mkv"
    with av.open(str(clip), "w") as container:
        container.add_stream("ffv1", rate=25)
        container.start_encoding()
    with pytest.raises(SourceError) as caught:
        VideoSource(clip)
    assert "\n" not in str(caught.value)


def test_sound_alone_is_a_source_error(tmp_path: Path) -> None:
    clip = tmp_path / "in.mkv"
    with av.open(str(clip), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), "s16", "stereo")
        frame.rate = 8000
        container.mux(sound.encode(frame))
    with pytest.raises(SourceError, match="no video stream"):
        VideoSource(clip)


def test_a_codec_that_nothing_here_decodes_is_a_source_error(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mkv", pictures(3), codec="ffv1")
    clip.write_bytes(clip.read_bytes().replace(b"V_FFV1", b"V_XXXX"))
    with pytest.raises(SourceError) as caught:
        VideoSource(clip)
    assert "\n" not in str(caught.value)


def test_a_video_of_one_pixel_is_read(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mkv", [picture(1, 1)] * 3, codec="ffv1", pix_fmt="yuv444p")
    frames, _ = read(clip)
    assert [frame.image.shape for frame in frames] == [(1, 1, 3)] * 3


def test_frames_keep_the_first_size_when_the_stream_changes_it(tmp_path: Path) -> None:
    clip = tmp_path / "in.h264"
    with clip.open("wb") as file:
        for size in ((64, 48), (96, 80)):
            part = write_clip(tmp_path / f"{size[0]}.h264", pictures(5, *size), options={"bf": "0"})
            file.write(part.read_bytes())
    frames, _ = read(clip)
    assert len(frames) == 10
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    assert all(frame.damaged is None for frame in frames)


def test_frames_without_time_stamps_get_increasing_ones(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.h264", busy_pictures(12), options={"bf": "2", "preset": "medium"})
    frames, _ = read(clip)
    times = [frame.time for frame in frames]
    assert len(times) == 12
    assert times == sorted(set(times))
    assert times[-1] - times[0] == pytest.approx(11 / 25, rel=0.05)


def test_time_stamps_that_go_back_come_out_increasing(tmp_path: Path) -> None:
    clip = tmp_path / "in.nut"
    with av.open(str(write_clip(tmp_path / "first.mkv", pictures(10), codec="mjpeg", pix_fmt="yuvj420p"))) as reader:
        packets = [packet for packet in reader.demux(video=0) if packet.size]
        with av.open(str(clip), "w") as writer:
            stream = writer.add_stream_from_template(reader.streams.video[0], opaque=True)
            for index, packet in enumerate(packets):
                packet.dts = 40 * index
                packet.pts = 40 * (index if index != 5 else 8)
                packet.stream = stream
                writer.mux(packet)
    frames, _ = read(clip)
    times = [frame.pts for frame in frames]
    assert len(times) == 10
    assert times == sorted(set(times))
    copy_clip(clip, tmp_path / "out.mp4")
    assert len(read_clip(tmp_path / "out.mp4").times) == 10


@pytest.mark.parametrize("orientation", MATRICES)
def test_turned_video_is_read_upright(tmp_path: Path, orientation: int) -> None:
    upright = picture(80, 48)
    stored = stored_picture(upright, orientation)
    clip = write_clip(tmp_path / "in.mp4", [stored] * 2, matrix=display_matrix(orientation), aspect=Fraction(2))
    frames, source = read(clip)
    assert (source.info.width, source.info.height) == (80, 48)
    assert mean_error(frames[0].image, upright) < 4
    assert frames[0].pixel_aspect == (Fraction(1, 2) if orientation >= 5 else 2)


def test_closing_twice_does_no_harm(tmp_path: Path) -> None:
    source = VideoSource(write_clip(tmp_path / "in.mp4", pictures(2)))
    source.close()
    source.close()


def assert_complete(path: Path) -> None:
    source = VideoSource(path)
    assert len(list(source)) == 40
    assert source.problems() == ()


@pytest.mark.parametrize("begin", [0, 5])
@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm", "nut", "flv", "avi", "ts", "mpg", "mxf", "asf"])
def test_files_of_ours_that_begin_late_count_as_complete(tmp_path: Path, ending: str, begin: int) -> None:
    times = [1000 * begin + 40 * n for n in range(40)]
    clip = write_clip(tmp_path / "in.mkv", pictures(40), time_base=Fraction(1, 1000), times=times)
    assert_complete(clip)
    codec = {"mpg": "mpeg2video", "mxf": "mpeg2video", "asf": "mpeg4"}.get(ending)
    copy_clip(clip, tmp_path / f"out.{ending}", codec=codec)
    assert_complete(tmp_path / f"out.{ending}")


@pytest.mark.parametrize("begin", [0, 5])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_cut_off_file_is_noticed_wherever_it_begins(tmp_path: Path, ending: str, begin: int) -> None:
    times = [1000 * begin + 40 * n for n in range(100)]
    options = {"movflags": "+faststart"} if ending == "mp4" else {}
    clip = write_clip(
        tmp_path / f"in.{ending}",
        pictures(100),
        time_base=Fraction(1, 1000),
        times=times,
        container_options=options,
    )
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) * 7 // 10])
    source = VideoSource(clip)
    assert 10 < sum(not frame.damaged for frame in source) < 95
    assert source.problems()


@pytest.mark.parametrize(("bits", "damaged"), [(HALF_TURN, None), (QUARTER_TURN, TURNED)])
def test_a_picture_that_is_turned_in_the_middle_is_upright_or_withheld(
    tmp_path: Path, bits: bytes, damaged: str | None
) -> None:
    clip = tmp_path / "in.ts"
    clip.write_bytes(b"".join(turning(bits, before=10, count=20)))
    frames = list(VideoSource(clip))
    assert [frame.damaged for frame in frames] == [None] * 10 + [damaged] * 10
    assert all(frame.image[:8].mean() > frame.image[-8:].mean() for frame in frames[:10])
    if damaged is None:
        assert all(frame.image[:8].mean() < frame.image[-8:].mean() for frame in frames[10:])
