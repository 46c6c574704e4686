from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from engines.errors import SinkError, UsageError
from stream.sinks import encoder
from stream.sinks.encoder import EncoderChoice, choose_encoder, gpu_codec
from tests.media import info_like, picture


def choose(
    pix_fmt: str = "yuv420p",
    ending: str = ".mp4",
    size: tuple[int, int] = (64, 48),
    info: dict[str, Any] | None = None,
    **settings: Any,
) -> EncoderChoice:
    about = info_like(picture(*size), pix_fmt=pix_fmt, **(info or {}))
    return choose_encoder(about, ending, width=size[0], height=size[1], **settings)


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "expected"),
    [
        ("yuv420p", None, "yuv420p"),
        ("yuvj420p", None, "yuv420p"),
        ("nv12", None, "yuv420p"),
        ("yuv422p", None, "yuv422p"),
        ("yuyv422", None, "yuv422p"),
        ("yuv444p", None, "yuv444p"),
        ("yuv420p10le", None, "yuv420p"),
        ("yuv422p12le", None, "yuv422p"),
        ("yuva420p", None, "yuv420p"),
        ("gray", None, "yuv420p"),
        ("gray10le", "ffv1", "gray"),
        ("yuv411p", "ffv1", "yuv411p"),
        ("gbrp", "libx264rgb", "rgb24"),
        ("pal8", None, "yuv444p"),
        ("rgb24", "ffv1", "bgr0"),
        ("yuv420p", "mjpeg", "yuvj420p"),
        ("yuv444p", "mjpeg", "yuvj444p"),
        ("yuv420p", "libvpx-vp9", "yuv420p"),
        ("yuv444p", "libvpx-vp9", "yuv444p"),
    ],
)
def test_the_pixel_format_is_the_nearest_with_eight_bits(pix_fmt: str, codec: str | None, expected: str) -> None:
    assert choose(pix_fmt, codec=codec).pix_fmt == expected


@pytest.mark.parametrize(("ending", "codec"), [(".mp4", "libx264"), (".mkv", "libx264"), (".webm", "libvpx-vp9")])
def test_the_ending_chooses_the_codec(ending: str, codec: str) -> None:
    assert choose(ending=ending).codec == codec


def test_odd_sizes_go_to_a_format_that_takes_them() -> None:
    assert choose(size=(101, 75)).pix_fmt == "yuv444p"
    assert choose(size=(100, 75)).pix_fmt == "yuv444p"
    assert choose(size=(101, 75), codec="libvpx-vp9").pix_fmt == "yuv420p"


def test_quality_and_speed_reach_the_encoder_under_its_own_names() -> None:
    assert choose(crf=30, speed="slow").options == {"crf": "30", "preset": "slow"}
    assert choose(crf=23.5).options["crf"] == "23.5"
    assert choose(ending=".webm", speed="7").options["cpu-used"] == "7"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codec": "nonsense"}, "no encoder 'nonsense'"),
        ({"codec": "aac"}, "audio"),
        ({"codec": "ffv1", "crf": 20}, "no quality scale"),
        ({"codec": "ffv1", "speed": "fast"}, "no speed setting"),
        ({"speed": "quick"}, "speed=quick"),
        ({"codec": "libvpx-vp9", "crf": 200}, "crf=200"),
    ],
)
def test_wrong_settings_are_usage_errors_of_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        choose(**settings)
    assert "\n" not in str(caught.value)


def test_a_size_that_an_encoder_does_not_take_is_named() -> None:
    with pytest.raises(SinkError, match="64x48"):
        choose(codec="dvvideo")


def test_the_clock_is_the_inputs_where_the_encoder_takes_it() -> None:
    assert choose(info={"time_base": Fraction(1, 90_000)}).time_base == Fraction(1, 90_000)
    assert choose(codec="mpeg4", info={"time_base": Fraction(1, 90_000)}).time_base == Fraction(1, 60_000)
    assert choose(codec="mpeg2video", info={"time_base": Fraction(1, 90_000)}).time_base == Fraction(1, 25)
    assert choose(info={"time_base": Fraction(1, 90_000)}, constant_rate=True).time_base == Fraction(1, 25)


def test_a_rate_that_an_encoder_does_not_know_is_named() -> None:
    with pytest.raises(SinkError, match=r"7\.5 frames per second"):
        choose(codec="mpeg1video", info={"rate": Fraction(15, 2), "time_base": Fraction(1, 90_000)})


def of_gpu(monkeypatch: pytest.MonkeyPatch, ending: str = ".mp4", *, opens: bool = True, **given: Any) -> Any:
    """What is chosen beside a GPU, and the settings with which its encoder was opened."""
    tried: list[tuple[str, dict[str, str]]] = []

    def opened(name: str, pix_fmt: str, options: dict[str, str], *_: object) -> str | None:
        tried.append((name, options))
        return None if opens and pix_fmt == "yuv420p" else "Operation not permitted"

    monkeypatch.setattr(encoder, "_try", opened)
    options = {"crf": None, "speed": None, **given}
    return gpu_codec(info_like(picture(320, 240)), ending, **options), tried


def test_where_the_gpu_has_an_encoder_it_writes_what_is_usual_by_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    found, tried = of_gpu(monkeypatch)
    assert found == "h264_nvenc"
    assert tried == [("h264_nvenc", {"cq": "22", "preset": "p4", "rc": "vbr", "b": "0"})]
    found, tried = of_gpu(monkeypatch, crf=30, speed="p1")
    assert found == "h264_nvenc"
    assert tried == [("h264_nvenc", {"cq": "30", "preset": "p1", "rc": "vbr", "b": "0"})]


def test_what_is_usual_otherwise_stays_with_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of_gpu(monkeypatch, ".webm") == (None, [])
    found, tried = of_gpu(monkeypatch, opens=False)
    assert found is None
    assert {name for name, _ in tried} == {"h264_nvenc"}


def test_without_a_gpu_no_encoder_of_one_is_chosen(caplog: pytest.LogCaptureFixture) -> None:
    """The real one does not open here, though every FFmpeg lists it."""
    caplog.set_level("INFO")
    if gpu_codec(info_like(picture(320, 240)), ".mp4", crf=None, speed=None) is None:
        assert "the processor encodes: " in caplog.text
