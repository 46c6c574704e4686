from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from engines.errors import UsageError
from stream.sinks.video import VideoSink
from stream.sources.video import VideoSource
from tests.media import copy_clip, pictures, read_clip, to_frame, write_clip

RATE = 48_000


def with_sound(path: Path, codec: str = "aac", *, begin: Fraction = Fraction(0), seconds: int = 2) -> Path:
    """A clip with a tone whose pitch rises, so that no two packets are alike."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "bf": "0"})
        assert isinstance(video, VideoStream)
        video.width, video.height, video.pix_fmt, video.gop_size = 64, 48, "yuv420p", 10
        sound = container.add_stream(codec, rate=RATE)
        assert isinstance(sound, AudioStream)
        for index, image in enumerate(pictures(25 * seconds)):
            frame = to_frame(image)
            frame.pts, frame.time_base = index + round(begin * 25), Fraction(1, 25)
            container.mux(video.encode(frame))
            t = np.arange(index * RATE // 25, (index + 1) * RATE // 25) / RATE
            tone = (12_000 * np.sin(2 * np.pi * (300 + 200 * t) * t)).astype(np.int16)
            piece = av.AudioFrame.from_ndarray(tone.repeat(2)[None], "s16", "stereo")
            piece.rate, piece.time_base = RATE, Fraction(1, RATE)
            piece.pts = index * RATE // 25 + round(begin * RATE)
            container.mux(sound.encode(piece))
        container.mux([*video.encode(None), *sound.encode(None)])
    return path


def sound_of(path: Path) -> list[tuple[Fraction, bytes]]:
    """Time and bytes of every audio packet."""
    with av.open(str(path)) as container:
        return [
            (packet.pts * packet.time_base, bytes(packet))
            for packet in container.demux(audio=0)
            if packet.size and packet.pts is not None and packet.time_base is not None
        ]


def test_sound_is_dropped_by_default_and_listed(tmp_path: Path) -> None:
    clip = with_sound(tmp_path / "in.mp4")
    copy_clip(clip, tmp_path / "out.mp4")
    assert read_clip(tmp_path / "out.mp4").types == ["video"]
    assert any("audio" in line for line in VideoSource(clip).side_exits())


@pytest.mark.parametrize(
    ("first", "second", "codec"),
    [
        ("mp4", "mp4", "aac"),
        ("mp4", "mkv", "aac"),
        ("mkv", "mkv", "libopus"),
        ("mkv", "mov", "pcm_s16le"),
        ("mkv", "mp4", "libmp3lame"),
        ("mkv", "avi", "pcm_s16le"),
        ("ts", "ts", "libmp3lame"),
    ],
)
def test_sound_is_copied_to_the_bit_and_stays_in_step(tmp_path: Path, first: str, second: str, codec: str) -> None:
    clip = with_sound(tmp_path / f"in.{first}", codec)
    copy_clip(clip, tmp_path / f"out.{second}", audio_from=clip)
    assert sorted(read_clip(tmp_path / f"out.{second}").types) == ["audio", "video"]
    before, after = sound_of(clip), sound_of(tmp_path / f"out.{second}")
    assert b"".join(content for _, content in before).startswith(b"".join(content for _, content in after))
    assert sum(len(content) for _, content in after) > 0.9 * sum(len(content) for _, content in before)
    offset = read_clip(tmp_path / f"out.{second}").times[0] - read_clip(clip).times[0]
    assert abs(after[0][0] - before[0][0] - offset) <= Fraction(1, 20)


@pytest.mark.parametrize("begin", [Fraction(0), Fraction(5)])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_sound_of_a_cut_begins_and_ends_with_the_pictures(tmp_path: Path, ending: str, begin: Fraction) -> None:
    clip = with_sound(tmp_path / f"in.{ending}", begin=begin)
    copy_clip(clip, tmp_path / f"out.{ending}", audio_from=clip, start=0.8, end=1.4)
    pictures_at = read_clip(tmp_path / f"out.{ending}").times
    assert pictures_at[0] == begin
    assert len(pictures_at) == 15
    before = {content: time for time, content in sound_of(clip)}
    after = sound_of(tmp_path / f"out.{ending}")
    for time, content in after:
        assert abs(before[content] - time - Fraction(4, 5)) <= Fraction(1, 1000)
    assert Fraction(0) <= after[0][0] - begin <= Fraction(1, 40)
    assert abs(after[-1][0] - begin - Fraction(3, 5)) <= Fraction(1, 20)


def test_a_container_that_cannot_hold_the_sound_is_refused_and_nothing_stays(tmp_path: Path) -> None:
    clip = with_sound(tmp_path / "in.mkv", "pcm_s16le")
    (tmp_path / "out").mkdir()
    for ending in ("webm", "ts"):
        with pytest.raises(UsageError) as caught:
            copy_clip(clip, tmp_path / "out" / f"out.{ending}", audio_from=clip)
        assert "audio" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert list((tmp_path / "out").iterdir()) == []


def test_a_clip_without_sound_can_be_asked_for_its_sound(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mp4", pictures(5))
    copy_clip(clip, tmp_path / "out.mp4", audio_from=clip)
    assert read_clip(tmp_path / "out.mp4").types == ["video"]


def test_sound_of_an_aborted_run_leaves_nothing(tmp_path: Path) -> None:
    clip = with_sound(tmp_path / "in.mp4")
    (tmp_path / "out").mkdir()
    sink = VideoSink(tmp_path / "out" / "out.mp4", VideoSource(clip).info, audio_from=clip)
    sink.abort()
    assert list((tmp_path / "out").iterdir()) == []
