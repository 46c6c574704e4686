"""The detector's view of a frame: upright, square pixels, normal range, limited size.

Detectors are trained on such pictures; on others their recall falls silently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from stream import resample
from stream.frame import Frame, Image, Transfer


@dataclass(frozen=True, slots=True)
class Shown:
    """How large a frame is shown, and how to get back to it.

    Attributes:
        height: rows of the picture, without padding.
        width: columns of the picture, likewise.
        scale_x: its pixels per frame pixel, horizontally.
        scale_y: its pixels per frame pixel, vertically.
    """

    height: int
    width: int
    scale_x: float
    scale_y: float

    def to_frame(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Boxes (N, 4) in view pixels as boxes in frame pixels."""
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y], np.float32)
        return boxes / scale


@dataclass(frozen=True, slots=True)
class View(Shown):
    """A resized and padded picture.

    Attributes:
        image: uint8 RGB, (h, w, 3), h and w multiples of the detector's step; the padding is black.
    """

    image: Image

    def blob(self, mean: tuple[float, ...], std: tuple[float, ...]) -> npt.NDArray[np.float32]:
        """The network's input (1, 3, h, w) float32: (value - mean) / std per channel."""
        return normalised(self.image, mean, std)


def normalised(
    image: Image, mean: tuple[float, ...], std: tuple[float, ...], size: tuple[int, int] | None = None
) -> npt.NDArray[np.float32]:
    """A network's input (1, 3, h, w) float32 of uint8 (h, w, 3): (value - mean) / std per channel.

    Args:
        image: the picture.
        mean: per channel.
        std: per channel.
        size: height and width of the input, with 0 at the bottom and the right of the picture; None for the picture's.
    """
    height, width = image.shape[:2]
    blob = np.zeros((1, 3, *(size or (height, width))), np.float32)
    levels = np.arange(256, dtype=np.float32)
    for channel, plane in enumerate(cv2.split(image)):
        # Of 256 levels each is computed once: ten times as fast as computing every pixel, and the same numbers.
        table = (levels - np.float32(mean[channel])) / np.float32(std[channel])
        blob[0, channel, :height, :width] = cv2.LUT(plane, table)
    return blob


def shortest_edge(height: float, width: float, shorter: int, longer: int) -> float:
    """The scale at which the shorter side gets its length, unless the longer one would get more than its own.

    Args:
        height: of the picture.
        width: of the picture.
        shorter: wanted length of the shorter side, in pixels.
        longer: greatest length of the longer one.
    """
    return min(shorter / min(height, width), longer / max(height, width))


def show_full(frame: Frame, scale: Callable[[float, float], float]) -> Shown:
    """How large a detector in two stages sees a frame.

    Args:
        frame: upright, in stored pixels.
        scale: from height and width of the frame in square pixels to the scale.
    """
    shown = _shown(frame)
    factor = scale(*shown)
    height, width = max(1, int(shown[0] * factor + 0.5)), max(1, int(shown[1] * factor + 0.5))
    return Shown(height, width, width / frame.width, height / frame.height)


def full_picture(frame: Frame, shown: Shown) -> Image:
    """What a detector in two stages sees: resized with an antialiased bilinear filter, and not padded.

    As detectron2's are published: pixels are whole numbers again before anything else is done with them.

    Args:
        frame: upright, in stored pixels.
        shown: how large.

    Returns:
        uint8 RGB, (height, width, 3).
    """
    image = frame.image
    if (shown.height, shown.width) != image.shape[:2]:
        rows = resample.axis("bilinear", frame.height, shown.height)
        columns = resample.axis("bilinear", frame.width, shown.width)
        image = resample.to_levels(resample.resize(image, rows, columns))
    return _toned(image, frame.transfer)


def make_view(
    frame: Frame, *, longest: int, multiple: int, size: tuple[int, int] | None = None, stretch: bool = False
) -> View:
    """What a detector sees of a frame.

    Args:
        frame: upright, in stored pixels.
        longest: the longer side is reduced to this many pixels if it has more; never enlarged.
        multiple: sides are padded to multiples of this.
        size: height and width of the picture for a detector that takes no other; `longest` and `multiple` have no say.
        stretch: such a detector wants the whole picture filled, whatever becomes of the aspect ratio.
    """
    shown = _shown(frame)
    if size is None:
        height, width = _scaled(shown, min(1.0, longest / max(shown)))
        bottom, right = -height % multiple, -width % multiple
    else:
        height, width = size if stretch else _scaled(shown, min(size[0] / shown[0], size[1] / shown[1]))
        height, width = min(height, size[0]), min(width, size[1])
        bottom, right = size[0] - height, size[1] - width
    image = frame.image
    if (width, height) != (frame.width, frame.height):
        shrinks = width * height < frame.width * frame.height
        image = np.asarray(
            cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR),
            np.uint8,
        )
    image = _toned(image, frame.transfer)
    if bottom or right:
        image = np.asarray(cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT), np.uint8)
    return View(height, width, width / frame.width, height / frame.height, image)


def _shown(frame: Frame) -> tuple[float, float]:
    """Height and width in square pixels."""
    # Non-square pixels are stretched along the axis that has too few, so that nothing is thrown away.
    aspect = float(frame.pixel_aspect)
    return frame.height / min(aspect, 1.0), frame.width * max(aspect, 1.0)


def _toned(image: Image, transfer: Transfer) -> Image:
    return image if transfer is Transfer.NORMAL else np.asarray(cv2.LUT(image, tone_curve(transfer)), np.uint8)


def _scaled(shown: tuple[float, float], scale: float) -> tuple[int, int]:
    return max(1, round(shown[0] * scale)), max(1, round(shown[1] * scale))


@cache
def tone_curve(transfer: Transfer) -> npt.NDArray[np.uint8]:
    """A table (256,) from HDR code values to those that an ordinary picture would have.

    Each channel by itself: detectors do not mind the small shift of hue, and a table costs nothing.
    PQ is decoded with SMPTE ST 2084's EOTF, HLG with ARIB STD-B67's inverse OETF; light is then
    measured against reference white (ITU-R BT.2408: 203 cd/m2, HLG signal 75 %), compressed with
    Reinhard's extended curve (2002, equation 4) and given a gamma of 2.2.
    """
    code = np.arange(256) / 255.0
    if transfer is Transfer.PQ:
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        power = code ** (1 / m2)
        light = 10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1) / 203
        white = 1000 / 203
    elif transfer is Transfer.HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
        reference = (np.exp((0.75 - c) / a) + b) / 12
        light = scene / reference
        white = 1 / reference
    else:
        return np.arange(256, dtype=np.uint8)
    display = light * (1 + light / white**2) / (1 + light)
    return np.asarray(np.clip(np.rint(255 * display ** (1 / 2.2)), 0, 255), np.uint8)
