"""Colour: between the YUV frames that codecs know and full-range RGB, with the matrix and range that the tags say."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Final

import av
import numpy as np
from av.video.reformatter import ColorRange, ColorTrc, VideoReformatter

from stream.frame import Image, Transfer

#: AVColorSpace (what frames are tagged with) to the matrix that swscale has for it. What is missing here (YCgCo, ICtCp,
#: constant luminance) is treated like untagged pictures, BT.601, both ways, so that pixels survive the round trip.
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
_DEFAULT_MATRIX = 5
#: Formats with both chroma planes in one, as graphics cards decode, and those with the same values in planes of their
#: own. Of the former swscale makes other RGB: it brings their chroma to full size in another way.
_IN_PLANES = {"nv12": "yuv420p", "nv16": "yuv422p", "p010le": "yuv420p10le", "p210le": "yuv422p10le"}
#: Limited to full range and back, for grey, which swscale takes for full range whatever the tag says.
_EXPAND = ((np.arange(256) - 16) * 255 / 219).round().clip(0, 255).astype(np.uint8)
_REDUCE = (16 + np.arange(256) * 219 / 255).round().astype(np.uint8)
#: Pixels that one thread converts: a larger picture is cut into slices, which have the same values. One thread takes
#: 32 ms for a picture of 3840x2160 on its way to an encoder, and 39 for one of ten bits from a decoder.
_SLICE: Final = 2**20
_MOST_SLICES: Final = 4


@dataclass(frozen=True, slots=True)
class ColourTags:
    """How YUV values are meant, in FFmpeg's numbers (2 is "unspecified", for the range 0 is).

    Attributes:
        colour_range: AVColorRange, 1 limited, 2 full.
        matrix: AVColorSpace.
        primaries: AVColorPrimaries.
        transfer: AVColorTransferCharacteristic.
    """

    colour_range: int = 0
    matrix: int = 2
    primaries: int = 2
    transfer: int = 2

    @classmethod
    def of(cls, frame: av.VideoFrame) -> ColourTags:
        """The tags of a decoded frame."""
        colour_range = int(frame.color_range)
        if _is_jpeg(frame.format.name):
            # The deprecated "j" formats say by their name what the tag may leave out.
            colour_range = int(ColorRange.JPEG)
        return cls(colour_range, int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc))

    @property
    def light(self) -> Transfer:
        """The transfer characteristic, as far as a detector cares."""
        if self.transfer == ColorTrc.SMPTE2084:
            return Transfer.PQ
        if self.transfer == ColorTrc.ARIB_STD_B67:
            return Transfer.HLG
        return Transfer.NORMAL

    def write_to(self, frame: av.VideoFrame) -> None:
        """Tag a frame."""
        frame.color_range = self.colour_range
        frame.colorspace = self.matrix
        frame.color_primaries = self.primaries
        frame.color_trc = self.transfer


def slices(width: int, height: int) -> int:
    """How many threads convert a picture of this size, where so many cores are there.

    What swscale writes of more than eight bits a value, or moves from one plane to two, it writes beyond the ends of
    lines, where another slice may be done already: both are one thread's.
    """
    return min(_MOST_SLICES, len(os.sched_getaffinity(0)), -(-width * height // _SLICE))


class ToRgb:
    """Decoded frames to RGB of one size.

    Args:
        width: in pixels.
        height: in pixels.
        threads: that convert; None for what the size is worth.
    """

    def __init__(self, width: int, height: int, *, threads: int | None = None) -> None:
        self._threads = threads or slices(width, height)
        self._reformatter, self._to_planes = VideoReformatter(), VideoReformatter()
        self._width = width
        self._height = height

    def __call__(self, frame: av.VideoFrame) -> Image:
        """uint8 RGB (height, width, 3), full range; the same from one format in planes as from another."""
        matrix = _MATRICES.get(int(frame.colorspace), _DEFAULT_MATRIX)
        if (planes := _IN_PLANES.get(frame.format.name)) is not None:
            frame = self._apart(frame, planes)
        rgb = self._reformatter.reformat(
            frame,
            width=self._width,
            height=self._height,
            format="rgb24",
            src_colorspace=None if frame.format.is_rgb else matrix,
            dst_color_range=ColorRange.JPEG,
            threads=self._threads,
        )
        image = np.asarray(rgb.to_ndarray(), np.uint8)
        return np.asarray(_EXPAND[image], np.uint8) if _is_limited_grey(frame.format.name, frame.color_range) else image

    def _apart(self, frame: av.VideoFrame, planes: str) -> av.VideoFrame:
        """The same values, with each chroma plane by itself."""
        # One matrix and range both ways: values are only moved, and tags that swscale does not know do not matter.
        # One thread: see `slices`.
        apart = self._to_planes.reformat(
            frame,
            format=planes,
            src_colorspace=_DEFAULT_MATRIX,
            dst_colorspace=_DEFAULT_MATRIX,
            src_color_range=ColorRange.MPEG,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        apart.color_range = frame.color_range
        return apart


class FromRgb:
    """RGB to frames of an encoder's pixel format.

    Args:
        pix_fmt: of the encoder.
        tags: of the input.
        threads: that convert; None for what a picture's size is worth, one for more than eight bits.

    Attributes:
        tags: what the frames are tagged with: the input's, as far as the pixel format leaves a choice.
    """

    def __init__(self, pix_fmt: str, tags: ColourTags, *, threads: int | None = None) -> None:
        self._threads = threads or (None if _has_eight_bits(pix_fmt) else 1)
        self._reformatter = VideoReformatter()
        self._pix_fmt = pix_fmt
        # JPEG is full range and BT.601 by definition, whatever the input was.
        self.tags = (
            replace(tags, colour_range=int(ColorRange.JPEG), matrix=_DEFAULT_MATRIX) if _is_jpeg(pix_fmt) else tags
        )

    def __call__(self, image: Image) -> av.VideoFrame:
        """A tagged frame without any side data of the input's.

        Args:
            image: uint8 RGB (height, width, 3), full range.
        """
        if _is_limited_grey(self._pix_fmt, self.tags.colour_range):
            image = np.asarray(_REDUCE[image], np.uint8)
        rgb = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format="rgb24")
        frame = self._reformatter.reformat(
            rgb,
            format=self._pix_fmt,
            dst_colorspace=_MATRICES.get(self.tags.matrix, _DEFAULT_MATRIX),
            # Untagged means limited range to every decoder.
            dst_color_range=self.tags.colour_range or int(ColorRange.MPEG),
            threads=self._threads or slices(rgb.width, rgb.height),
        )
        self.tags.write_to(frame)
        return frame


def _has_eight_bits(pix_fmt: str) -> bool:
    return all(component.bits <= 8 for component in av.VideoFormat(pix_fmt).components)


def _is_jpeg(pix_fmt: str) -> bool:
    return pix_fmt.startswith("yuvj")


def _is_limited_grey(pix_fmt: str, colour_range: int) -> bool:
    return pix_fmt.startswith("gray") and colour_range == int(ColorRange.MPEG)
