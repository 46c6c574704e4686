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


def normalised(
    image: Image, mean: tuple[float, ...], std: tuple[float, ...], size: tuple[int, int], *, black: bool = False
) -> npt.NDArray[np.float32]:
    """A network's input (1, 3, h, w) float32 of uint8 (h, w, 3): (value - mean) / std per channel.

    Args:
        image: the picture.
        mean: per channel.
        std: per channel.
        size: height and width of the input, with padding at the bottom and the right of the picture.
        black: whether the padding is what black pixels are, instead of 0.
    """
    height, width = image.shape[:2]
    blob = np.zeros((1, 3, *size), np.float32)
    levels = np.arange(256, dtype=np.float32)
    for channel, plane in enumerate(cv2.split(image)):
        # Of 256 levels each is computed once: ten times as fast as computing every pixel, and the same numbers.
        table = (levels - np.float32(mean[channel])) / np.float32(std[channel])
        if black:
            blob[0, channel, height:] = blob[0, channel, :height, width:] = table[0]
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


def show_limited(frame: Frame, longest: int, size: tuple[int, int] | None = None, *, stretch: bool = False) -> Shown:
    """How large a detector in one stage sees a frame.

    Args:
        frame: upright, in stored pixels.
        longest: the longer side is reduced to this many pixels if it has more; never enlarged.
        size: height and width of the picture for a detector that takes no other; `longest` has no say.
        stretch: such a detector wants the whole picture filled, whatever becomes of the aspect ratio.
    """
    shown = _shown(frame)
    if size is None:
        height, width = _scaled(shown, min(1.0, longest / max(shown)))
    else:
        height, width = size if stretch else _scaled(shown, min(size[0] / shown[0], size[1] / shown[1]))
        height, width = min(height, size[0]), min(width, size[1])
    return Shown(height, width, width / frame.width, height / frame.height)


def limited_picture(frame: Frame, shown: Shown) -> Image:
    """What a detector in one stage sees, not padded: resized with OpenCV's filters, as those networks are trained.

    Args:
        frame: upright, in stored pixels.
        shown: how large.

    Returns:
        uint8 RGB, (height, width, 3).
    """
    image = frame.image
    if (shown.height, shown.width) != image.shape[:2]:
        how = cv2.INTER_AREA if shrinks(frame, shown) else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, (shown.width, shown.height), interpolation=how), np.uint8)
    return _toned(image, frame.transfer)


def shrinks(frame: Frame, shown: Shown) -> bool:
    """Whether no side is shown longer than it is: only then are there areas to take the mean of."""
    return shown.height <= frame.height and shown.width <= frame.width


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
