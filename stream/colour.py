"""Colour: between the YUV frames that codecs know and full-range RGB, with the matrix and range that the tags say."""

from __future__ import annotations

from dataclasses import dataclass

import av
import numpy as np
from av.video.reformatter import ColorRange, ColorTrc, VideoReformatter

from stream.frame import Image, Transfer

#: AVColorSpace (what frames are tagged with) to the matrix that swscale has for it. What is missing here (YCgCo, ICtCp,
#: constant luminance) is treated like untagged pictures, BT.601, both ways, so that pixels survive the round trip.
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
_DEFAULT_MATRIX = 5


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
        if frame.format.name.startswith("yuvj"):
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


class ToRgb:
    """Decoded frames to RGB of one size."""

    def __init__(self, width: int, height: int) -> None:
        self._reformatter = VideoReformatter()
        self._width = width
        self._height = height

    def __call__(self, frame: av.VideoFrame) -> Image:
        """uint8 RGB (height, width, 3), full range."""
        rgb = self._reformatter.reformat(
            frame,
            width=self._width,
            height=self._height,
            format="rgb24",
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        return np.asarray(rgb.to_ndarray(), np.uint8)


class FromRgb:
    """RGB to frames of an encoder's pixel format."""

    def __init__(self, pix_fmt: str, tags: ColourTags) -> None:
        self._reformatter = VideoReformatter()
        self._pix_fmt = pix_fmt
        self._tags = tags

    def __call__(self, image: Image) -> av.VideoFrame:
        """A tagged frame without any side data of the input's.

        Args:
            image: uint8 RGB (height, width, 3), full range.
        """
        rgb = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format="rgb24")
        frame = self._reformatter.reformat(
            rgb,
            format=self._pix_fmt,
            dst_colorspace=_MATRICES.get(self._tags.matrix, _DEFAULT_MATRIX),
            # Untagged means limited range to every decoder.
            dst_color_range=self._tags.colour_range or int(ColorRange.MPEG),
            threads=1,
        )
        self._tags.write_to(frame)
        return frame
