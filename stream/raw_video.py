"""Frames without a container, and how somebody says what they are like."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from av.video.format import VideoFormat

_RAW: Final = re.compile(r"^(\d{1,5})x(\d{1,5})@(\d+(?:\.\d+)?(?:/\d+)?)(?::([a-z0-9]+))?$")


@dataclass(frozen=True, slots=True)
class RawVideo:
    """Frames without a container, one after the other.

    Attributes:
        width: in pixels.
        height: in pixels.
        rate: frames per second.
        pix_fmt: as FFmpeg calls it.
    """

    width: int
    height: int
    rate: Fraction
    pix_fmt: str = "rgb24"

    @classmethod
    def parse(cls, text: str) -> RawVideo:
        """From text like `640x360@25` or `1280x720@30000/1001:yuv420p`.

        Raises:
            ValueError: it is none such.
        """
        found = _RAW.match(text)
        if not found:
            raise ValueError(
                f"{text!r} does not say what raw frames are like; expected something like 640x360@25:rgb24"
            )
        width, height, rate, pix_fmt = found.groups()
        try:
            raw = cls(int(width), int(height), Fraction(rate), pix_fmt or "rgb24")
            VideoFormat(raw.pix_fmt)
        except ZeroDivisionError as error:
            raise ValueError(f"{text!r}: a frame rate cannot be divided by 0") from error
        except ValueError as error:
            raise ValueError(
                f"{text!r}: there is no pixel format {pix_fmt!r}; rgb24, yuv420p and nv12 are usual"
            ) from error
        if not (raw.width and raw.height and raw.rate):
            raise ValueError(f"{text!r}: width, height and frames per second are above 0")
        return raw

    @property
    def options(self) -> dict[str, str]:
        """For FFmpeg's demuxer of raw video."""
        return {
            "video_size": f"{self.width}x{self.height}",
            "pixel_format": self.pix_fmt,
            "framerate": str(self.rate),
        }
