from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from engines.errors import SinkError, UsageError
from engines.runtime import DEVICES
from stream.sinks import encoder
from stream.sinks.encoder import GPU, EncoderChoice, choose_encoder, usual_codec
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


def beside_a_gpu(
    monkeypatch: pytest.MonkeyPatch, ending: str = ".mp4", *, opens: bool = True, **given: Any
) -> tuple[EncoderChoice, set[str]]:
    """What is chosen where the GPU's encoder is wanted, and the encoders that were tried."""
    tried: set[str] = set()

    def opened(name: str, pix_fmt: str, *_: object) -> str | None:
        tried.add(name)
        return None if (opens and pix_fmt == "yuv420p") or name != "h264_nvenc" else "Operation not permitted"

    monkeypatch.setattr(encoder, "_try", opened)
    return choose(ending=ending, size=(320, 240), codec=GPU, **given), tried


def test_where_the_gpu_has_an_encoder_it_writes_what_is_usual_by_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = beside_a_gpu(monkeypatch)
    assert found.codec == "h264_nvenc"
    assert found.options == {"cq": "22", "preset": "p4", "rc": "vbr", "b": "0"}
    found, _ = beside_a_gpu(monkeypatch, crf=30, speed="p1")
    assert found.options == {"cq": "30", "preset": "p1", "rc": "vbr", "b": "0"}


def test_where_it_does_not_open_the_processor_encodes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    found, tried = beside_a_gpu(monkeypatch, opens=False, crf=30, speed="fast")
    assert tried == {"h264_nvenc", "libx264"}
    assert (found.codec, found.options) == ("libx264", {"crf": "30", "preset": "fast"})
    assert "the processor encodes: h264_nvenc" in caplog.text


@pytest.mark.parametrize(("ending", "crf", "codec"), [(".webm", None, "libvpx-vp9"), (".mp4", 0, "libx264")])
def test_what_it_does_not_write_is_not_asked_of_it(
    ending: str, crf: float | None, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lossless for x264 is a quality of zero, which means nothing in particular to the GPU's."""
    found, tried = beside_a_gpu(monkeypatch, ending, crf=crf)
    assert found.codec == codec
    assert "h264_nvenc" not in tried


def test_without_a_gpu_the_real_one_does_not_open_and_all_goes_on() -> None:
    assert choose(size=(320, 240), codec=GPU).codec in ("libx264", "h264_nvenc")


def test_the_gpu_s_is_usual_beside_networks_on_a_gpu() -> None:
    assert [usual_codec(device) for device in DEVICES] == [GPU if d in ("cuda", "tensorrt") else None for d in DEVICES]
