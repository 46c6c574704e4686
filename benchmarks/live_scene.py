"""A scene in which every frame can be told from every other, with a face in each: what live faults are checked with.

Frames carry their number as black and white blocks, which survive compression. A frame that comes out of a run is
matched by it to the frame that went in, and the face's place is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from skimage.data import astronaut

Image = npt.NDArray[np.uint8]

WIDTH: Final = 448
HEIGHT: Final = 256
RATE: Final = 10
#: Frames until the scene begins again.
LENGTH: Final = 200
_PORTRAIT: Final = 200
_BLOCK: Final = 16
_NUMBER_BITS: Final = 16
_CHECK_BITS: Final = 8
#: Blocks in a row, and where the first of them is, far from the portrait.
_COLUMNS: Final = 4
_LEFT, _TOP = 12, 52
#: Of the photograph, x0, y0, x1, y1: from forehead to chin.
_FACE: Final = (178, 68, 274, 194)
#: Levels by which compression, twice, may change a pixel that is still the same.
_SAME: Final = 12
#: Share of a face's pixels that are unchanged from which on it counts as raw.
_RAW: Final = 0.2
#: Spread of levels up to which a picture is flat.
_FLAT: Final = 4.0

Verdict = Literal["covered", "raw", "flat", "unknown"]


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of one frame.

    Attributes:
        verdict: `unknown` if it cannot be matched.
        number: of the frame, None where it cannot be read.
        unchanged: share of the face's pixels that are as they went in.
    """

    verdict: Verdict
    number: int | None = None
    unchanged: float = 0.0


class Scene:
    """The frames, and what is known of them: NASA's public-domain portrait of Eileen Collins, moving about."""

    def __init__(self) -> None:
        portrait = np.asarray(astronaut(), np.uint8)  # type: ignore[no-untyped-call]
        self._portrait = cv2.resize(portrait, (_PORTRAIT, _PORTRAIT), interpolation=cv2.INTER_AREA)
        ramp = np.linspace(40, 200, WIDTH, dtype=np.float32)[None, :, None]
        waves = 20 * np.sin(np.arange(HEIGHT, dtype=np.float32) / 7)[:, None, None]
        self._background = np.broadcast_to(np.clip(ramp + waves, 0, 255), (HEIGHT, WIDTH, 3)).astype(np.uint8)

    def place(self, number: int) -> tuple[int, int]:
        """Where the portrait's upper left corner is."""
        swing = np.sin(2 * np.pi * number / 50)
        return WIDTH - _PORTRAIT - 30 + round(20 * swing), 40 + round(15 * np.cos(2 * np.pi * number / 40))

    def face(self, number: int) -> tuple[int, int, int, int]:
        """The face's box in pixels."""
        x, y = self.place(number)
        x0, y0, x1, y1 = (round(value * _PORTRAIT / 512) for value in _FACE)
        return x + x0, y + y0, x + x1, y + y1

    def picture(self, number: int) -> Image:
        """One frame, uint8 RGB (HEIGHT, WIDTH, 3)."""
        image = self._background.copy()
        x, y = self.place(number)
        image[y : y + _PORTRAIT, x : x + _PORTRAIT] = self._portrait
        for block, bit in zip(_blocks(image), _bits(number), strict=True):
            block[:] = 235 if bit else 20
        return image

    def check(self, image: Image, originals: dict[int, Image]) -> Checked:
        """Matches a frame that came out, and looks for the face.

        Args:
            image: of the scene's size.
            originals: what went in, as it came out of the source's decoder.
        """
        if image.shape != (HEIGHT, WIDTH, 3):
            return Checked("unknown")
        if float(image.std()) < _FLAT:
            return Checked("flat")
        number = read_number(image)
        if number is None or number not in originals:
            return Checked("unknown")
        x0, y0, x1, y1 = self.face(number)
        before, after = (each[y0:y1, x0:x1].astype(np.int16) for each in (originals[number], image))
        unchanged = float((np.abs(before - after).max(axis=2) <= _SAME).mean())
        return Checked("raw" if unchanged >= _RAW else "covered", number, unchanged)


def read_number(image: Image) -> int | None:
    """The number burned into a frame, None if it does not agree with its check sum."""
    bits = [float(block[4:-4, 4:-4].mean()) > 128 for block in _blocks(image)]
    number = sum(bit << index for index, bit in enumerate(bits[:_NUMBER_BITS]))
    return number if bits == _bits(number) else None


def encode(scene: Scene, *, keys_every: int = RATE, count: int = LENGTH) -> list[Packet[av.VideoStream]]:
    """The scene as H.264, a packet a frame, headers in the stream.

    Args:
        scene: what is shown.
        keys_every: frames from one key frame to the next.
        count: frames.
    """
    context = av.CodecContext.create("libx264", "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    context.time_base, context.framerate, context.gop_size = Fraction(1, RATE), Fraction(RATE), keys_every
    context.options = {"preset": "veryfast", "tune": "zerolatency", "crf": "18", "x264-params": "scenecut=0"}
    packets: list[Packet[av.VideoStream]] = []
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(scene.picture(number), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, RATE)
        packets += context.encode(frame)
    return packets + context.encode(None)


def decoded(packets: list[Packet[av.VideoStream]]) -> dict[int, Image]:
    """What anybody sees who decodes these packets, by the number that is burned in."""
    context = av.CodecContext.create("h264", "r")
    assert isinstance(context, VideoCodecContext)
    pictures = [
        np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for p in [*packets, None] for frame in context.decode(p)
    ]
    numbers = [read_number(picture) for picture in pictures]
    if numbers != list(range(len(packets))):
        raise RuntimeError("the numbers in the pictures cannot be read back")
    return dict(enumerate(pictures))


def _blocks(image: Image) -> list[Image]:
    """The places of the bits in a picture, as views."""
    places = (divmod(index, _COLUMNS) for index in range(_NUMBER_BITS + _CHECK_BITS))
    corners = ((_TOP + row * _BLOCK, _LEFT + column * _BLOCK) for row, column in places)
    return [image[y : y + _BLOCK, x : x + _BLOCK] for y, x in corners]


def _bits(number: int) -> list[bool]:
    check = (number * 151 + 73) % 251
    value = number | check << _NUMBER_BITS
    return [bool(value >> index & 1) for index in range(_NUMBER_BITS + _CHECK_BITS)]
