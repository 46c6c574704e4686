from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from engines.errors import SinkError, StreamStoppedError, UsageError
from stream.anonymizer import Anonymized
from stream.colour import ColourTags
from stream.frame import Frame
from stream.regions import Regions
from stream.sinks.video import VideoSink
from tests.media import (
    BOTTOM_FIRST,
    TOP_FIRST,
    busy_pictures,
    copy_clip,
    display_matrix,
    info_like,
    mean_error,
    noise,
    picture,
    pictures,
    read_clip,
    stored_picture,
    write_clip,
)

MILLISECOND = Fraction(1, 1000)
UNEVEN = [0, 3, 4, 9, 15, 16, 17, 30, 31, 40]
BT601 = ColourTags(1, 6, 6, 6)
BT709 = ColourTags(1, 1, 1, 1)
BT2020 = ColourTags(1, 9, 9, 14)


def assert_same_stream(source: Path, target: Path, *, exact: bool = True) -> None:
    """Everything that says how pictures are to be shown and when, as FFmpeg reads it from both files."""
    before, after = read_clip(source), read_clip(target)
    assert len(after.times) == len(before.times)
    if exact:
        assert after.times == before.times
        assert after.rate == before.rate
    else:
        pairs = list(zip(before.times, after.times, strict=True))
        assert max(abs(a - b) for a, b in pairs) <= MILLISECOND
        assert after.rate == pytest.approx(before.rate, rel=0.01)
    assert abs(after.length - before.length) <= MILLISECOND
    assert after.aspect == before.aspect
    assert after.tags == before.tags
    assert after.matrix == before.matrix
    assert after.types == ["video"]


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "ts", "avi"])
def test_a_clip_of_constant_rate_keeps_its_times_and_rate(tmp_path: Path, ending: str) -> None:
    source = write_clip(tmp_path / f"in.{ending}", pictures(12), rate=25, options={"bf": "0"})
    copy_clip(source, tmp_path / f"out.{ending}")
    assert_same_stream(source, tmp_path / f"out.{ending}")


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(50), Fraction(15, 2)])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_odd_frame_rates_stay(tmp_path: Path, rate: Fraction, ending: str) -> None:
    source = write_clip(tmp_path / f"in.{ending}", pictures(12), rate=rate)
    copy_clip(source, tmp_path / f"out.{ending}")
    assert_same_stream(source, tmp_path / f"out.{ending}", exact=ending == "mp4")


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "ts"])
def test_a_clip_of_variable_rate_keeps_every_time_stamp(tmp_path: Path, ending: str) -> None:
    lengths = [b - a for a, b in zip(UNEVEN, [*UNEVEN[1:], 47], strict=True)]
    source = write_clip(
        tmp_path / f"in.{ending}",
        pictures(len(UNEVEN)),
        rate=20,
        time_base=Fraction(1, 90_000),
        times=[9_000 * t for t in UNEVEN],
        durations=[9_000 * length for length in lengths],
    )
    copy_clip(source, tmp_path / f"out.{ending}")
    after = read_clip(tmp_path / f"out.{ending}")
    start = after.times[0] if ending == "ts" else 0
    assert [time - start for time in after.times] == [Fraction(t, 10) for t in UNEVEN]
    assert_same_stream(source, tmp_path / f"out.{ending}", exact=ending != "mkv")


@pytest.mark.parametrize(("first", "second"), [("mkv", "mp4"), ("mp4", "mkv"), ("ts", "mp4"), ("mp4", "ts")])
def test_times_survive_a_change_of_container(tmp_path: Path, first: str, second: str) -> None:
    source = write_clip(tmp_path / f"in.{first}", pictures(10), rate=25)
    copy_clip(source, tmp_path / f"out.{second}")
    before, after = read_clip(source), read_clip(tmp_path / f"out.{second}")
    assert max(abs(a - b) for a, b in zip(before.times, after.times, strict=True)) <= MILLISECOND


def test_avi_of_a_source_with_a_fine_clock_has_one_chunk_a_frame(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", pictures(10), rate=25)
    copy_clip(source, tmp_path / "out.avi")
    after = read_clip(tmp_path / "out.avi")
    assert [time - after.times[0] for time in after.times] == [Fraction(n, 25) for n in range(10)]
    assert after.length == Fraction(10, 25)
    assert after.rate == 25


@pytest.mark.parametrize("ending", ["mp4", "ts", "mkv"])
def test_a_clip_that_begins_later_keeps_its_begin(tmp_path: Path, ending: str) -> None:
    source = write_clip(
        tmp_path / f"in.{ending}",
        pictures(10),
        time_base=Fraction(1, 1000),
        times=[5_000 + 40 * n for n in range(10)],
        options={"bf": "0"},
    )
    assert read_clip(source).times[0] >= 5
    copy_clip(source, tmp_path / f"out.{ending}")
    assert_same_stream(source, tmp_path / f"out.{ending}")


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_b_frames_come_out_in_order_of_presentation(tmp_path: Path, ending: str) -> None:
    source = write_clip(
        tmp_path / f"in.{ending}", busy_pictures(20), options={"bf": "3", "preset": "medium", "b-adapt": "0"}
    )
    frames = copy_clip(source, tmp_path / f"out.{ending}", crf=10)
    before, after = read_clip(source), read_clip(tmp_path / f"out.{ending}")
    assert after.times == before.times
    assert [f.pts for f in frames] == sorted(f.pts for f in frames)
    for old, new in zip(before.images, after.images, strict=True):
        assert mean_error(old, new) < 8


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "ts", "webm"])
def test_a_clip_of_one_frame_stays_one(tmp_path: Path, ending: str) -> None:
    codec = "libvpx-vp9" if ending == "webm" else "libx264"
    source = write_clip(tmp_path / f"in.{ending}", pictures(1), codec=codec)
    copy_clip(source, tmp_path / f"out.{ending}")
    assert len(read_clip(tmp_path / f"out.{ending}").images) == 1


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_turned_video_keeps_its_matrix_and_stored_pixels(tmp_path: Path, orientation: int, ending: str) -> None:
    upright = picture(64, 48)
    stored = stored_picture(upright, orientation)
    source = write_clip(tmp_path / f"in.{ending}", [stored] * 3, matrix=display_matrix(orientation))
    frames = copy_clip(source, tmp_path / f"out.{ending}")
    assert mean_error(frames[0].image, upright) < 4
    after = read_clip(tmp_path / f"out.{ending}")
    assert mean_error(after.images[0], stored) < 4
    assert after.matrix is not None
    assert_same_stream(source, tmp_path / f"out.{ending}")


@pytest.mark.parametrize("ending", ["avi", "ts"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_turned_video_is_stored_upright_where_no_matrix_fits(tmp_path: Path, orientation: int, ending: str) -> None:
    upright = picture(64, 48)
    stored = stored_picture(upright, orientation)
    aspect = Fraction(4, 3)
    source = write_clip(tmp_path / "in.mp4", [stored] * 20, matrix=display_matrix(orientation), aspect=aspect)
    copy_clip(source, tmp_path / f"out.{ending}")
    after = read_clip(tmp_path / f"out.{ending}")
    assert after.matrix is None
    assert after.images[0].shape == upright.shape
    assert mean_error(after.images[0], upright) < 4
    assert after.aspect == (1 / aspect if orientation >= 5 else aspect)


@pytest.mark.parametrize("aspect", [Fraction(2), Fraction(1, 2), Fraction(16, 15), Fraction(1)])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_the_pixel_aspect_stays(tmp_path: Path, aspect: Fraction, ending: str) -> None:
    source = write_clip(tmp_path / f"in.{ending}", pictures(3), aspect=aspect)
    frames = copy_clip(source, tmp_path / f"out.{ending}")
    assert frames[0].pixel_aspect == aspect
    assert_same_stream(source, tmp_path / f"out.{ending}")


def test_an_aspect_that_is_lost_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_clip(tmp_path / "in.mp4", pictures(3), aspect=Fraction(2))
    copy_clip(source, tmp_path / "fine.mkv")
    copy_clip(source, tmp_path / "fine.mp4", codec="libvpx-vp9")
    assert read_clip(tmp_path / "fine.mp4").aspect == 2
    assert not caplog.records
    copy_clip(source, tmp_path / "out.webm")
    assert "pixels are not square" in caplog.text


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "expected", "limit"),
    [
        ("yuv420p", "libx264", "yuv420p", 2.5),
        ("yuv422p", "libx264", "yuv422p", 2.5),
        ("yuv444p", "libx264", "yuv444p", 2.5),
        ("gray", "libx264", "yuv420p", 2.5),
        ("yuv420p10le", "libx264", "yuv420p", 2.5),
        ("yuv422p10le", "libx264", "yuv422p", 2.5),
        ("yuv420p", "ffv1", "yuv420p", 1.5),
        ("yuv422p", "ffv1", "yuv422p", 1.5),
        ("yuv444p", "ffv1", "yuv444p", 1.5),
        ("yuv420p10le", "ffv1", "yuv420p", 1.5),
        ("yuv444p10le", "ffv1", "yuv444p", 1.5),
        ("gray", "ffv1", "gray", 1.5),
        ("yuv420p", "libvpx-vp9", "yuv420p", 3.0),
    ],
)
def test_pixel_formats_keep_their_subsampling_in_eight_bits(
    tmp_path: Path, pix_fmt: str, codec: str, expected: str, limit: float
) -> None:
    source = write_clip(tmp_path / "in.mkv", pictures(4), codec="ffv1", pix_fmt=pix_fmt, tags=BT601)
    copy_clip(source, tmp_path / "out.mkv", codec=codec, crf=None if codec == "ffv1" else 8)
    after = read_clip(tmp_path / "out.mkv")
    assert after.pix_fmt == expected
    if "10" not in pix_fmt:
        luma = [_luma(path) for path in (source, tmp_path / "out.mkv")]
        assert mean_error(luma[0], luma[1]) < limit
    if pix_fmt != "gray":
        # FFmpeg itself takes grey for full range, whatever the tag says.
        assert mean_error(np.stack(read_clip(source).images), np.stack(after.images)) < limit


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "sink_codec", "expected"),
    [
        ("yuv444p", "libx264", "libx264", "yuv444p"),
        ("yuv420p", "ffv1", "libx264", "yuv444p"),
        ("yuv420p", "ffv1", "ffv1", "yuv420p"),
        ("yuv420p", "libvpx-vp9", "libvpx-vp9", "yuv420p"),
    ],
)
def test_odd_sizes_stay(tmp_path: Path, pix_fmt: str, codec: str, sink_codec: str, expected: str) -> None:
    source = write_clip(tmp_path / "in.mkv", pictures(3, 101, 75), codec=codec, pix_fmt=pix_fmt)
    copy_clip(source, tmp_path / "out.mkv", codec=sink_codec)
    before, after = read_clip(source), read_clip(tmp_path / "out.mkv")
    assert after.images[0].shape == (75, 101, 3)
    assert after.pix_fmt == expected
    assert mean_error(np.stack(before.images), np.stack(after.images)) < 4


def test_lossless_rgb_stays_as_it_is_to_the_bit(tmp_path: Path) -> None:
    images = noise(4)
    frames = [av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="bgr0") for image in images]
    source = write_clip(tmp_path / "in.mkv", frames, codec="ffv1")
    copy_clip(source, tmp_path / "out.mkv", codec="ffv1")
    after = read_clip(tmp_path / "out.mkv")
    assert after.pix_fmt == "bgr0"
    assert np.array_equal(np.stack(after.images), np.stack(images))


@pytest.mark.parametrize("colour_range", [1, 2])
def test_lossless_grey_stays_as_it_is_to_the_bit(tmp_path: Path, colour_range: int) -> None:
    grey = [np.repeat(image[:, :, :1], 3, axis=2) for image in noise(4)]
    source = write_clip(tmp_path / "in.mkv", grey, codec="ffv1", pix_fmt="gray", tags=ColourTags(colour_range))
    copy_clip(source, tmp_path / "out.mkv", codec="ffv1")
    assert np.array_equal(_luma(source), _luma(tmp_path / "out.mkv"))


@pytest.mark.parametrize("tags", [BT601, BT709, BT2020, ColourTags(2, 1, 1, 1), ColourTags(2, 6, 1, 13), ColourTags()])
@pytest.mark.parametrize("codec", ["libx264", "ffv1"])
def test_colour_tags_and_colours_stay(tmp_path: Path, tags: ColourTags, codec: str) -> None:
    images = pictures(3)
    source = write_clip(tmp_path / "in.mkv", images, codec="ffv1", pix_fmt="yuv444p", tags=tags)
    frames = copy_clip(source, tmp_path / "out.mkv", codec=codec, crf=4 if codec == "libx264" else None)
    assert mean_error(frames[0].image, images[0]) < 1.5
    assert_same_stream(source, tmp_path / "out.mkv")
    again = copy_clip(tmp_path / "out.mkv", tmp_path / "again.mkv", codec=codec)
    assert mean_error(again[0].image, images[0]) < 1.5
    assert mean_error(_luma(source), _luma(tmp_path / "out.mkv")) < 1.5


def test_full_range_by_name_becomes_full_range_by_tag(tmp_path: Path) -> None:
    images = pictures(3)
    source = write_clip(tmp_path / "in.avi", images, codec="mjpeg", pix_fmt="yuvj420p", options={"qscale": "2"})
    frames = copy_clip(source, tmp_path / "out.mkv")
    assert mean_error(frames[0].image, images[0]) < 3
    after = read_clip(tmp_path / "out.mkv")
    assert after.tags.colour_range == 2
    assert mean_error(after.images[0], images[0]) < 4


@pytest.mark.parametrize("fields", [TOP_FIRST, BOTTOM_FIRST])
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_interlaced_video_stays_interlaced_in_the_same_order(tmp_path: Path, fields: str, ending: str) -> None:
    source = write_clip(tmp_path / f"in.{ending}", busy_pictures(6, 96, 96), fields=fields)
    before = read_clip(source)
    assert all(before.interlaced)
    copy_clip(source, tmp_path / f"out.{ending}")
    after = read_clip(tmp_path / f"out.{ending}")
    assert after.interlaced == before.interlaced
    assert after.field_order == before.field_order
    assert after.times == before.times


def test_progressive_video_is_not_marked_interlaced(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", pictures(3))
    copy_clip(source, tmp_path / "out.mp4")
    assert not any(read_clip(tmp_path / "out.mp4").interlaced)


@pytest.mark.parametrize(
    ("ending", "begin"),
    # AVI has no time stamps, so nothing in it begins later.
    [("mp4", 0), ("mkv", 0), ("ts", 0), ("avi", 0), ("mp4", 5_000), ("mkv", 5_000), ("ts", 5_000)],
)
def test_a_cut_begins_at_zero_and_ends_before_the_end(tmp_path: Path, ending: str, begin: int) -> None:
    images = busy_pictures(40)
    source = write_clip(
        tmp_path / f"in.{ending}",
        images,
        gop=10,
        time_base=Fraction(1, 25) if ending == "avi" else Fraction(1, 1000),
        times=None if ending == "avi" else [begin + 40 * n for n in range(40)],
        options={"bf": "0" if ending == "avi" else "2"},
    )
    all_frames = copy_clip(source, tmp_path / f"all.{ending}")
    frames = copy_clip(source, tmp_path / f"out.{ending}", start=0.68, end=1.2)
    assert [f.pts for f in frames] == [f.pts for f in all_frames[17:30]]
    for cut, whole in zip(frames, all_frames[17:30], strict=True):
        assert cut.damaged is None
        assert np.array_equal(cut.image, whole.image)
    after, reference = read_clip(tmp_path / f"out.{ending}"), read_clip(tmp_path / f"all.{ending}")
    assert after.times == [time - Fraction(17, 25) for time in reference.times[17:30]]


def test_nothing_lies_under_the_final_name_before_close(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    sink = VideoSink(target, info_like(picture()))
    for n in range(5):
        sink.write(_item(n))
    assert not target.exists()
    sink.close()
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    sink.abort()
    sink.close()
    assert target.exists()


def test_abort_leaves_nothing(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4", info_like(picture()))
    sink.write(_item(0))
    sink.abort()
    assert list(tmp_path.iterdir()) == []
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_abort_keeps_the_file_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_text("earlier")
    sink = VideoSink(tmp_path / "out.mp4", info_like(picture()), overwrite=True)
    sink.write(_item(0))
    sink.abort()
    assert (tmp_path / "out.mp4").read_text() == "earlier"


def test_an_output_without_any_frame_does_not_appear(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4", info_like(picture()))
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_writing_after_close_is_an_error(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4", info_like(picture()))
    sink.write(_item(0))
    sink.close()
    with pytest.raises(SinkError, match="closed"):
        sink.write(_item(1))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("out.xyz", {}, "container"),
        ("out", {}, "container"),
        ("out.webm", {"codec": "libx264"}, "cannot hold"),
        ("out.mp4", {"codec": "huffyuv"}, "cannot hold"),
        ("out.mp4", {"codec": "nonsense"}, "no encoder"),
        ("out.mp4", {"codec": "aac"}, "not for video"),
        ("out.mp4", {"speed": "quick"}, "speed"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_the_first_frame(
    tmp_path: Path, name: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        VideoSink(tmp_path / name, info_like(picture()), **settings)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("codec", "ending"),
    [
        ("mpeg4", "mp4"),
        ("mpeg4", "avi"),
        ("mpeg2video", "ts"),
        ("mpeg2video", "mpg"),
        ("mjpeg", "avi"),
        ("ffv1", "mkv"),
    ],
)
@pytest.mark.parametrize("clock", [90_000, 1_000_000])
def test_encoders_with_coarse_clocks_take_streams_with_fine_ones(
    tmp_path: Path, codec: str, ending: str, clock: int
) -> None:
    info = info_like(picture(), time_base=Fraction(1, clock))
    sink = VideoSink(tmp_path / f"out.{ending}", info, codec=codec)
    for n in range(5):
        sink.write(_item(n * clock // 25, Fraction(1, clock)))
    sink.close()
    times = read_clip(tmp_path / f"out.{ending}").times
    assert [round((time - times[0]) * 25) for time in times] == [0, 1, 2, 3, 4]


def _item(pts: int, time_base: Fraction = Fraction(1, 25)) -> Anonymized:
    frame = Frame(picture(phase=0.1 * pts), pts=pts, time_base=time_base, duration=int(1 / (25 * time_base)))
    return Anonymized(frame, Regions.empty())


def _luma(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The first plane of every frame as it is stored."""
    with av.open(str(path)) as container:
        planes = [frame.planes[0] for frame in container.decode(video=0)]
        return np.stack([np.frombuffer(bytes(p), np.uint8).reshape(p.height, -1)[:, : p.width] for p in planes])


@pytest.mark.parametrize(
    "stem", ["12:30", "file:z", "http:", "-dash", "50%", "frame%03d", "with space", "ü 人", "a?b#c"]
)
def test_any_name_of_a_file_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stem: str) -> None:
    monkeypatch.chdir(tmp_path)
    plain = write_clip(tmp_path / "plain.mp4", pictures(5))
    source, target = Path(f"{stem}.mp4"), Path(f"{stem}.out.mkv")
    plain.rename(source)
    assert len(copy_clip(source, target, audio_from=source)) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, target.name])


@pytest.mark.parametrize(
    "name", ["a.m3u8", "a.mpd", "f%03d.png", "f%03d.jpg", "a.png", "a.jpg", "a.yuv", "a.txt", "a.md5"]
)
@pytest.mark.parametrize("codec", [None, "mjpeg"])
def test_endings_that_do_not_mean_one_video_file_are_refused(tmp_path: Path, name: str, codec: str | None) -> None:
    with pytest.raises(UsageError, match="use an ending like") as caught:
        VideoSink(tmp_path / name, info_like(picture()), codec=codec)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("colour_range", [0, 1, 2])
def test_the_range_stays_where_nothing_else_is_tagged(tmp_path: Path, ending: str, colour_range: int) -> None:
    tags = ColourTags(colour_range=colour_range)
    source = write_clip(tmp_path / "in.mkv", pictures(25), codec="ffv1", tags=tags)
    copy_clip(source, tmp_path / f"out.{ending}")
    assert read_clip(tmp_path / f"out.{ending}").tags == tags


def test_pictures_of_another_size_end_the_file_and_leave_what_is_there(tmp_path: Path) -> None:
    first, larger = noise(1)[0], noise(1, 96, 64)[0]
    sink = VideoSink(tmp_path / "out.mkv", info_like(first), codec="ffv1")
    for pts in range(3):
        sink.write(Anonymized(Frame(first, pts=pts, time_base=Fraction(1, 25)), Regions.empty()))
    with pytest.raises(StreamStoppedError, match="from 64x48 to 96x64"):
        sink.write(Anonymized(Frame(larger, pts=3, time_base=Fraction(1, 25)), Regions.empty()))
    sink.close()
    assert len(read_clip(tmp_path / "out.mkv").times) == 3
