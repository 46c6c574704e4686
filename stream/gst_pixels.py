"""GStreamer's raw video buffers to pictures and back. Knows nothing of GStreamer but where rows of planes lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import av
import numpy as np
import numpy.typing as npt

from stream.colour import ColourTags, FromRgb, ToRgb
from stream.frame import Image

#: GStreamer's formats that are taken, and what FFmpeg calls them. Alpha comes out opaque.
FORMATS: Final = {
    "RGB": "rgb24", "BGR": "bgr24", "RGBx": "rgb0", "BGRx": "bgr0", "RGBA": "rgba", "BGRA": "bgra", "GRAY8": "gray",
    "I420": "yuv420p", "NV12": "nv12", "Y42B": "yuv422p", "Y444": "yuv444p", "YUY2": "yuyv422", "UYVY": "uyvy422",
}  # fmt: skip
#: Bytes of a pixel where all components lie in one plane.
_PACKED: Final = {"rgb24": 3, "bgr24": 3, "rgb0": 4, "bgr0": 4, "rgba": 4, "bgra": 4, "yuyv422": 2, "uyvy422": 2}
#: GstVideoColorMatrix and GstVideoColorRange, by number, in FFmpeg's numbers.
_MATRICES: Final = {2: 4, 3: 1, 4: 6, 5: 7, 6: 9}
_RANGES: Final = {1: 2, 2: 1}


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the pixels of a buffer are.

    Attributes:
        format: GStreamer's name.
        width: in pixels.
        height: in pixels.
        offsets: of each plane's first row, in bytes.
        strides: from each plane's row to the next, in bytes.
        size: of the whole buffer, in bytes.
    """

    format: str
    width: int
    height: int
    offsets: tuple[int, ...]
    strides: tuple[int, ...]
    size: int


def tags_of(matrix: int, colour_range: int) -> ColourTags:
    """Colour tags from GStreamer's numbers for matrix and range."""
    return ColourTags(colour_range=_RANGES.get(colour_range, 0), matrix=_MATRICES.get(matrix, 2))


class Pixels:
    """Reads and writes the buffers of one stream.

    Args:
        layout: of the buffers that are written.
        tags: how YUV values are meant.

    Raises:
        ValueError: a format that is not in `FORMATS`.
    """

    def __init__(self, layout: Layout, tags: ColourTags) -> None:
        if layout.format not in FORMATS:
            raise ValueError(f"format {layout.format} is not known; expected one of {', '.join(FORMATS)}")
        self.layout = layout
        self._name = FORMATS[layout.format]
        self._tags = tags
        self._to_rgb = ToRgb(layout.width, layout.height)
        self._from_rgb = FromRgb(self._name, tags)

    def read(self, content: bytes, layout: Layout | None = None) -> Image:
        """A buffer's picture, uint8 RGB (height, width, 3).

        Args:
            content: of the buffer.
            layout: where it differs from the stream's.

        Raises:
            ValueError: the buffer is too short.
        """
        where = layout or self.layout
        frame = av.VideoFrame(where.width, where.height, self._name)
        self._tags.write_to(frame)
        for number, (offset, stride) in enumerate(zip(where.offsets, where.strides, strict=True)):
            plane = frame.planes[number]
            rows, length = plane.height, self._row(plane, number)
            if offset + stride * (rows - 1) + length > len(content):
                raise ValueError(f"a buffer of {len(content)} bytes is too short for {where.width}x{where.height}")
            given = _rows(np.frombuffer(content, np.uint8, offset=offset), rows, length, stride)
            padded = np.zeros((rows, plane.line_size), np.uint8)
            padded[:, :length] = given
            plane.update(padded.tobytes().ljust(plane.buffer_size, b"\0")[: plane.buffer_size])
        return self._to_rgb(frame)

    def write(self, image: Image) -> bytes:
        """A buffer with a picture, (height, width, 3) RGB, in the stream's layout."""
        frame, where = self._from_rgb(image), self.layout
        # What lies between rows is no pixel, and must say nothing.
        content = np.zeros(where.size, np.uint8)
        for number, (offset, stride) in enumerate(zip(where.offsets, where.strides, strict=True)):
            plane = frame.planes[number]
            rows, length = plane.height, self._row(plane, number)
            made = _rows(np.frombuffer(memoryview(plane), np.uint8), rows, length, plane.line_size)
            target = content[offset : offset + stride * (rows - 1) + length]
            np.lib.stride_tricks.as_strided(target, (rows, length), (stride, 1))[:] = made
        return content.tobytes()

    def _row(self, plane: av.video.plane.VideoPlane, number: int) -> int:
        """Bytes of a row's pixels."""
        if self._name in _PACKED:
            return self.layout.width * _PACKED[self._name]
        return plane.width * (2 if self._name == "nv12" and number == 1 else 1)


def _rows(content: npt.NDArray[np.uint8], rows: int, length: int, stride: int) -> npt.NDArray[np.uint8]:
    return np.lib.stride_tricks.as_strided(content, (rows, length), (stride, 1), writeable=False)
