"""GStreamer's raw video buffers to pictures and back. Knows nothing of GStreamer but where rows of planes lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import av
import numpy as np
import numpy.typing as npt

from stream.colour import ColourTags, FromRgb, ToRgb
from stream.frame import Image
from stream.orientation import Orientation

#: GStreamer's formats that are taken, and what FFmpeg calls them. Alpha comes out opaque.
FORMATS: Final = {
    "RGB": "rgb24", "BGR": "bgr24", "RGBx": "rgb0", "BGRx": "bgr0", "RGBA": "rgba", "BGRA": "bgra", "GRAY8": "gray",
    "I420": "yuv420p", "NV12": "nv12", "Y42B": "yuv422p", "Y444": "yuv444p", "YUY2": "yuyv422", "UYVY": "uyvy422",
}  # fmt: skip
#: Bytes of a pixel where all components lie in one plane.
_PACKED: Final = {"rgb24": 3, "bgr24": 3, "rgb0": 4, "bgr0": 4, "rgba": 4, "bgra": 4, "yuyv422": 2, "uyvy422": 2}
#: GstVideoColorMatrix, GstVideoColorRange, GstVideoTransferFunction and GstVideoColorPrimaries, by number, in FFmpeg's.
_MATRICES: Final = {2: 4, 3: 1, 4: 6, 5: 7, 6: 9}
_RANGES: Final = {1: 2, 2: 1}
_TRANSFERS: Final = {1: 8, 4: 4, 5: 1, 6: 7, 7: 13, 8: 5, 9: 9, 10: 10, 11: 15, 13: 14, 14: 16, 15: 18, 16: 6}
_PRIMARIES: Final = {1: 1, 2: 4, 3: 5, 4: 6, 5: 7, 6: 8, 7: 9, 9: 10, 10: 11, 11: 12, 12: 22}
#: GstVideoColorRange 0 to 255 and GstVideoColorMatrix RGB.
_FULL_RGB: Final = "1:1"
_SRGB: Final = (7, 1)
#: What GStreamer's tag `image-orientation` says of a picture, and how it is made upright.
ORIENTATIONS: Final = {
    "rotate-0": Orientation(),
    "rotate-90": Orientation(transpose=True, mirror_x=True),
    "rotate-180": Orientation(mirror_x=True, mirror_y=True),
    "rotate-270": Orientation(transpose=True, mirror_y=True),
    "flip-rotate-0": Orientation(mirror_x=True),
    "flip-rotate-90": Orientation(transpose=True, mirror_x=True, mirror_y=True),
    "flip-rotate-180": Orientation(mirror_y=True),
    "flip-rotate-270": Orientation(transpose=True),
}


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


def tags_of(matrix: int, colour_range: int, transfer: int = 0, primaries: int = 0) -> ColourTags:
    """Colour tags from GStreamer's numbers for matrix, range, transfer function and primaries."""
    return ColourTags(
        colour_range=_RANGES.get(colour_range, 0),
        matrix=_MATRICES.get(matrix, 2),
        primaries=_PRIMARIES.get(primaries, 2),
        transfer=_TRANSFERS.get(transfer, 2),
    )


def rgb_colorimetry(tags: ColourTags) -> str:
    """GStreamer's colorimetry of full-range RGB pictures with these tags; sRGB where they say nothing."""
    transfer = next((number for number, ours in _TRANSFERS.items() if ours == tags.transfer), _SRGB[0])
    primaries = next((number for number, ours in _PRIMARIES.items() if ours == tags.primaries), _SRGB[1])
    return f"{_FULL_RGB}:{transfer}:{primaries}"


def video_frame(content: bytes, where: Layout, tags: ColourTags) -> av.VideoFrame:
    """A buffer's picture as FFmpeg has it, tagged.

    Args:
        content: of the buffer.
        where: its rows lie; its format is one of `FORMATS`.
        tags: how its values are meant.

    Raises:
        ValueError: the buffer is too short, or its rows do not lie one after the other.
    """
    name = FORMATS[where.format]
    frame = av.VideoFrame(where.width, where.height, name)
    tags.write_to(frame)
    for number, (offset, stride) in enumerate(zip(where.offsets, where.strides, strict=True)):
        plane = frame.planes[number]
        rows, length = plane.height, _row(name, where.width, plane, number)
        if stride < length:
            raise ValueError(f"rows of {length} bytes cannot begin every {stride} bytes")
        if offset + stride * (rows - 1) + length > len(content):
            raise ValueError(f"a buffer of {len(content)} bytes is too short for {where.width}x{where.height}")
        given = _rows(np.frombuffer(content, np.uint8, offset=offset), rows, length, stride)
        target = np.frombuffer(memoryview(plane), np.uint8)[: plane.line_size * rows].reshape(rows, plane.line_size)
        target[:, :length] = given
    return frame


class Pixels:
    """Reads and writes the buffers of one stream.

    Args:
        layout: of the buffers that are written.
        tags: how YUV values are meant.

    Attributes:
        layout: as given.
        tags: as given.

    Raises:
        ValueError: a format that is not in `FORMATS`.
    """

    def __init__(self, layout: Layout, tags: ColourTags) -> None:
        if layout.format not in FORMATS:
            raise ValueError(f"format {layout.format} is not known; expected one of {', '.join(FORMATS)}")
        self.layout = layout
        self.tags = tags
        self._name = FORMATS[layout.format]
        self._to_rgb = ToRgb(layout.width, layout.height)
        self._from_rgb = FromRgb(self._name, tags)

    def read(self, content: bytes, layout: Layout | None = None) -> Image:
        """A buffer's picture, uint8 RGB (height, width, 3).

        Args:
            content: of the buffer.
            layout: where it differs from the stream's.

        Raises:
            ValueError: the buffer is too short, or its rows do not lie one after the other.
        """
        return self._to_rgb(video_frame(content, layout or self.layout, self.tags))

    def write(self, image: Image) -> bytes:
        """A buffer with a picture, (height, width, 3) RGB, in the stream's layout.

        Raises:
            ValueError: the picture's size is another one; rows of it would be read from beyond its end.
        """
        if image.shape[:2] != (self.layout.height, self.layout.width):
            raise ValueError(f"a picture of {image.shape[1]}x{image.shape[0]} is none of this stream")
        frame, where = self._from_rgb(image), self.layout
        # What lies between rows is no pixel, and must say nothing.
        content = np.zeros(where.size, np.uint8)
        for number, (offset, stride) in enumerate(zip(where.offsets, where.strides, strict=True)):
            plane = frame.planes[number]
            rows, length = plane.height, _row(self._name, where.width, plane, number)
            made = _rows(np.frombuffer(memoryview(plane), np.uint8), rows, length, plane.line_size)
            target = content[offset : offset + stride * (rows - 1) + length]
            np.lib.stride_tricks.as_strided(target, (rows, length), (stride, 1))[:] = made
        return content.tobytes()


def _row(name: str, width: int, plane: av.video.plane.VideoPlane, number: int) -> int:
    """Bytes of a row's pixels."""
    if name in _PACKED:
        return width * _PACKED[name]
    return plane.width * (2 if name == "nv12" and number == 1 else 1)


def _rows(content: npt.NDArray[np.uint8], rows: int, length: int, stride: int) -> npt.NDArray[np.uint8]:
    return np.lib.stride_tricks.as_strided(content, (rows, length), (stride, 1), writeable=False)
