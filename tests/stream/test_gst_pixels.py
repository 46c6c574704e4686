"""Every layout comes back as it went."""

from __future__ import annotations

import numpy as np
import pytest

from stream.colour import ColourTags
from stream.gst_pixels import FORMATS, Layout, Pixels, rgb_colorimetry, tags_of, video_frame

#: Bytes of a pixel, or (rows divided by, bytes of a row divided by) for each plane.
_PACKED = {"RGB": 3, "BGR": 3, "RGBx": 4, "BGRx": 4, "RGBA": 4, "BGRA": 4, "YUY2": 2, "UYVY": 2, "GRAY8": 1}
_PLANAR = {
    "I420": [(1, 1), (2, 2), (2, 2)],
    "NV12": [(1, 1), (2, 1)],
    "Y42B": [(1, 1), (1, 2), (1, 2)],
    "Y444": [(1, 1), (1, 1), (1, 1)],
}
WIDTH, HEIGHT = 36, 20


def layout(name: str, gap: int = 0) -> Layout:
    """As GStreamer lays pictures out: rows begin at multiples of 4; `gap` bytes more lie between them."""
    planes = [(1, 1)] if name in _PACKED else _PLANAR[name]
    offsets, strides, at = [], [], 0
    for rows, part in planes:
        stride = -(-WIDTH * _PACKED.get(name, 1) // part // 4) * 4 + gap
        offsets.append(at)
        strides.append(stride)
        at += stride * (HEIGHT // rows)
    return Layout(name, WIDTH, HEIGHT, tuple(offsets), tuple(strides), at)


def picture() -> np.ndarray:
    """Smooth, so that formats with less colour keep it."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([60 + 3 * x, 80 + 4 * y, 150 - 2 * x], axis=2).astype(np.uint8)


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("gap", [0, 12])
def test_a_picture_comes_back(name: str, gap: int) -> None:
    pixels = Pixels(layout(name, gap), tags_of(3, 2))
    image = picture()
    content = pixels.write(image)
    assert len(content) == pixels.layout.size
    wanted = image.astype(int)
    if name == "GRAY8":
        wanted = np.repeat((wanted @ [0.299, 0.587, 0.114])[..., None], 3, axis=2)
    assert np.abs(pixels.read(content).astype(int) - wanted).max() <= 8
    if name in ("RGB", "BGR", "RGBx", "BGRx", "RGBA", "BGRA"):
        assert np.array_equal(pixels.read(content), image)


def test_a_buffer_s_own_layout_counts() -> None:
    usual, other = layout("RGB"), layout("RGB", 8)
    content = Pixels(other, tags_of(0, 0)).write(picture())
    assert np.array_equal(Pixels(usual, tags_of(0, 0)).read(content, other), picture())


def test_nothing_lies_between_rows() -> None:
    wide = layout("RGB", 12)
    content = np.frombuffer(Pixels(wide, tags_of(0, 0)).write(picture()), np.uint8).reshape(HEIGHT, -1)
    assert not content[:, WIDTH * 3 :].any()


def test_a_short_buffer_is_refused() -> None:
    pixels = Pixels(layout("I420"), tags_of(3, 2))
    content = pixels.write(picture())
    with pytest.raises(ValueError, match="too short"):
        pixels.read(content[:-8])


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format P010 is not known"):
        Pixels(Layout("P010", 4, 4, (0,), (8,), 32), tags_of(0, 0))


def test_colours_are_meant_as_gstreamer_says() -> None:
    assert (tags_of(3, 1).matrix, tags_of(3, 1).colour_range) == (1, 2)
    assert (tags_of(4, 2).matrix, tags_of(4, 2).colour_range) == (6, 1)
    assert (tags_of(0, 0).matrix, tags_of(0, 0).colour_range) == (2, 0)


def test_light_and_primaries_are_meant_as_gstreamer_says() -> None:
    assert tags_of(6, 2, 14, 7) == ColourTags(colour_range=1, matrix=9, primaries=9, transfer=16)
    assert tags_of(3, 2, 15, 1).transfer == 18
    assert tags_of(1, 1, 0, 0) == ColourTags(colour_range=2, matrix=2, primaries=2, transfer=2)


def test_what_is_meant_survives_the_way_to_gstreamer_and_back() -> None:
    """The third and fourth of its numbers are the transfer function and the primaries."""
    for tags in (tags_of(6, 2, 14, 7), tags_of(3, 2, 5, 1), tags_of(4, 2, 16, 4)):
        numbers = [int(number) for number in rgb_colorimetry(tags).split(":")]
        assert numbers[:2] == [1, 1]
        back = tags_of(0, 0, *numbers[2:])
        assert (back.transfer, back.primaries) == (tags.transfer, tags.primaries)
    assert rgb_colorimetry(ColourTags()) == "1:1:7:1"


@pytest.mark.parametrize("name", ["I420", "NV12", "YUY2", "RGB"])
def test_a_buffer_becomes_ffmpeg_s_picture_with_its_tags(name: str) -> None:
    tags = tags_of(3, 2, 5, 1)
    frame = video_frame(Pixels(layout(name, 8), tags).write(picture()), layout(name, 8), tags)
    assert (frame.width, frame.height, frame.format.name) == (WIDTH, HEIGHT, FORMATS[name])
    assert ColourTags.of(frame) == tags
