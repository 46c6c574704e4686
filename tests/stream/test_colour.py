from __future__ import annotations

import os

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from stream.colour import ColourTags, FromRgb, ToRgb, slices
from stream.frame import Image, Transfer
from tests.media import LUMA_WEIGHTS, mean_error, noise, picture, to_frame

BARS: Image = np.ascontiguousarray(
    np.array(
        [
            [255, 255, 255],
            [255, 255, 0],
            [0, 255, 255],
            [0, 255, 0],
            [255, 0, 255],
            [255, 0, 0],
            [0, 0, 255],
            [0, 0, 0],
        ],
        np.uint8,
    )
    .repeat(8, axis=0)[None]
    .repeat(48, axis=0)
)


def to_rgb(image: Image, pix_fmt: str, tags: ColourTags) -> Image:
    full = tags.colour_range == 2 or pix_fmt.startswith("yuvj")
    frame = to_frame(image, pix_fmt, matrix=tags.matrix, full=full)
    tags.write_to(frame)
    return ToRgb(image.shape[1], image.shape[0])(frame)


@pytest.mark.parametrize("matrix", LUMA_WEIGHTS)
@pytest.mark.parametrize("colour_range", [0, 1, 2])
@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv444p10le", "yuv444p12le"])
@pytest.mark.parametrize("content", [BARS, picture()])
def test_decoded_colours_are_those_of_the_standards(
    matrix: int, colour_range: int, pix_fmt: str, content: Image
) -> None:
    result = to_rgb(content, pix_fmt, ColourTags(colour_range, matrix))
    assert mean_error(result, content) < 1.5
    assert np.abs(result.astype(int) - content.astype(int)).max() <= 4


@pytest.mark.parametrize("matrix", LUMA_WEIGHTS)
@pytest.mark.parametrize("colour_range", [0, 1, 2])
@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv422p", "yuv420p"])
def test_encoded_values_are_those_of_the_standards(matrix: int, colour_range: int, pix_fmt: str) -> None:
    expected = to_frame(picture(), pix_fmt, matrix=matrix, full=colour_range == 2)
    made = FromRgb(pix_fmt, ColourTags(colour_range, matrix))(picture())
    for plane, other in zip(made.planes, expected.planes, strict=True):
        values = [np.frombuffer(bytes(p), np.uint8).reshape(p.height, -1)[:, : p.width] for p in (plane, other)]
        assert mean_error(*values) < 1


@pytest.mark.parametrize("matrix", range(1, 18))
@pytest.mark.parametrize("colour_range", [0, 1, 2])
@pytest.mark.parametrize(
    ("planes", "joined"),
    [("yuv420p", "nv12"), ("yuv422p", "nv16"), ("yuv420p10le", "p010le"), ("yuv422p10le", "p210le")],
)
def test_what_a_graphics_card_decodes_is_seen_as_what_a_processor_does(
    planes: str, joined: str, colour_range: int, matrix: int
) -> None:
    """Noise shows every difference, and half a row of chroma whether the last one counts."""
    tags = ColourTags(colour_range, matrix)
    frame = to_frame(noise(1, 64, 47)[0], planes, full=colour_range == 2)
    other = frame.reformat(format=joined)
    for each in (frame, other):
        tags.write_to(each)
    assert np.array_equal(ToRgb(64, 47)(frame), ToRgb(64, 47)(other))
    assert ColourTags.of(other) == tags


@pytest.mark.parametrize("matrix", range(1, 18))
@pytest.mark.parametrize("colour_range", [0, 1, 2])
def test_whatever_the_tags_say_pixels_survive_the_way_there_and_back(matrix: int, colour_range: int) -> None:
    """Matrices that swscale does not know are treated like untagged ones, both ways."""
    tags = ColourTags(colour_range, matrix, 9, 16)
    frame = FromRgb("yuv444p", tags)(picture())
    assert ColourTags.of(frame) == tags
    assert mean_error(ToRgb(64, 48)(frame), picture()) < 1.5


def test_yuv_that_claims_to_be_rgb_is_still_read() -> None:
    frame = FromRgb("yuv444p", ColourTags())(picture())
    frame.colorspace = 0
    assert ToRgb(64, 48)(frame).shape == (48, 64, 3)


@pytest.mark.parametrize("pix_fmt", ["gbrp", "rgb24", "bgr0"])
def test_rgb_survives_to_the_bit(pix_fmt: str) -> None:
    image = noise(1)[0]
    for tags in (ColourTags(), ColourTags(2, 0, 1, 13)):
        assert np.array_equal(ToRgb(64, 48)(FromRgb(pix_fmt, tags)(image)), image)


@pytest.mark.parametrize("colour_range", [0, 1, 2])
def test_grey_survives_and_is_seen_in_its_range(colour_range: int) -> None:
    grey = np.repeat(picture()[:, :, :1], 3, axis=2)
    tags = ColourTags(colour_range)
    frame = to_frame(grey, "gray", full=colour_range != 1)
    tags.write_to(frame)
    seen = ToRgb(64, 48)(frame)
    assert mean_error(seen, grey) < 1
    again = FromRgb("gray", tags)(seen)
    assert bytes(again.planes[0]) == bytes(frame.planes[0])


def test_jpeg_formats_are_full_range_and_bt601_whatever_the_tags_say() -> None:
    converter = FromRgb("yuvj420p", ColourTags(1, 1, 1, 1))
    frame = converter(picture())
    assert (converter.tags.colour_range, converter.tags.matrix) == (2, 5)
    assert ColourTags.of(frame) == converter.tags
    assert mean_error(ToRgb(64, 48)(frame), picture()) < 3


@pytest.mark.parametrize(("transfer", "light"), [(1, Transfer.NORMAL), (16, Transfer.PQ), (18, Transfer.HLG)])
def test_the_transfer_is_told_to_detectors(transfer: int, light: Transfer) -> None:
    assert ColourTags(transfer=transfer).light is light


def test_another_size_is_scaled_to_the_first() -> None:
    assert ToRgb(64, 48)(FromRgb("yuv420p", ColourTags())(picture(96, 80))).shape == (48, 64, 3)


_DECODED = ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p10le", "yuyv422", "nv12", "nv16", "p010le", "gray"]


@pytest.mark.parametrize("size", [(96, 80), (161, 121), (642, 362)])
@pytest.mark.parametrize("pix_fmt", _DECODED)
def test_slices_of_a_decoded_picture_have_the_values_of_the_whole(pix_fmt: str, size: tuple[int, int]) -> None:
    frame = av.VideoFrame.from_ndarray(noise(1, *size)[0], format="rgb24").reformat(format=pix_fmt)
    whole = ToRgb(*size, threads=1)(frame)
    for threads in (2, 3, 4):
        assert np.array_equal(ToRgb(*size, threads=threads)(frame), whole)
    # As where a stream's pictures change their size.
    scaled = ToRgb(200, 150, threads=1)(frame)
    assert np.array_equal(ToRgb(200, 150, threads=4)(frame), scaled)


@pytest.mark.parametrize("size", [(96, 80), (161, 121), (642, 362)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "nv12", "gbrp", "bgr0", "gray"])
def test_slices_for_an_encoder_have_the_values_of_the_whole(pix_fmt: str, size: tuple[int, int]) -> None:
    image = noise(1, *size)[0]
    whole, *sliced = (FromRgb(pix_fmt, ColourTags(1, 1), threads=threads)(image) for threads in (1, 2, 3, 4))
    for frame in sliced:
        assert all(map(np.array_equal, used(frame), used(whole)))


def used(frame: av.VideoFrame) -> list[NDArray[np.uint8]]:
    """What of each plane belongs to the picture, in formats of eight bits: lines are padded with anything."""
    sides = {"nv12": [1, 2], "bgr0": [4]}.get(frame.format.name, [1, 1, 1])
    return [
        np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, : side * plane.width]
        for plane, side in zip(frame.planes, sides, strict=False)
    ]


@pytest.mark.parametrize("pix_fmt", ["p010le", "p210le", "nv12"])
def test_a_large_picture_of_a_graphics_card_is_the_same_each_time(pix_fmt: str) -> None:
    """Slices of it would write into each other, now and then: at this width most of the times."""
    size = (1080, 1920)
    frame = av.VideoFrame.from_ndarray(noise(1, *size)[0], format="rgb24").reformat(format=pix_fmt)
    whole, convert = ToRgb(*size, threads=1)(frame), ToRgb(*size, threads=4)
    for _ in range(10):
        assert np.array_equal(convert(frame), whole)


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv444p10le"])
def test_what_has_more_than_eight_bits_is_the_same_each_time(pix_fmt: str) -> None:
    image = noise(1, 1080, 1920)[0]
    convert = FromRgb(pix_fmt, ColourTags())
    luma = bytes(FromRgb(pix_fmt, ColourTags(), threads=1)(image).planes[0])
    for _ in range(5):
        plane = convert(image).planes[0]
        now, once = (np.frombuffer(b, np.uint16).reshape(plane.height, -1) for b in (bytes(plane), luma))
        assert np.array_equal(now[:, : plane.width], once[:, : plane.width])


def test_large_pictures_are_worth_more_threads_as_far_as_there_are_cores() -> None:
    cores = len(os.sched_getaffinity(0))
    assert slices(1, 1) == slices(640, 360) == slices(1280, 720) == 1
    assert slices(1920, 1080) == min(2, cores)
    assert slices(3840, 2160) == slices(7680, 4320) == min(4, cores)


def test_the_input_frame_and_image_are_left_alone() -> None:
    image = picture()
    before = image.copy()
    frame = FromRgb("yuv420p", ColourTags(1, 1, 1, 1))(image)
    content = [bytes(plane) for plane in frame.planes]
    ToRgb(64, 48)(frame)[...] = 0
    assert np.array_equal(image, before)
    assert [bytes(plane) for plane in frame.planes] == content
    assert ColourTags.of(frame) == ColourTags(1, 1, 1, 1)
