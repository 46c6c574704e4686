"""Contact sheet: anonymized frames of a run, evenly spread, on one picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engines.errors import SinkError
from stream.anonymizer import Anonymized
from stream.frame import Image
from stream.sinks.target import Target

_COLUMNS = 4
_THUMB_WIDTH = 320
_CAPTION = 22
_GAP = 6


@dataclass(frozen=True, slots=True)
class _Thumb:
    index: int
    picture: Image
    caption: str


class ContactSheet:
    """Collects thumbnails of a stream of unknown length.

    Keeps every n-th frame; when twice as many as wanted have come together, every second one goes and n doubles.

    Args:
        count: how many thumbnails the sheet shows at most.
    """

    def __init__(self, count: int = 12) -> None:
        self._count = count
        self._stride = 1
        self._seen = 0
        self._thumbs: list[_Thumb] = []

    def add(self, item: Anonymized) -> None:
        """Look at the next frame."""
        index, self._seen = self._seen, self._seen + 1
        if index % self._stride:
            return
        self._thumbs.append(_Thumb(index, _shrink(item), _caption(item)))
        if len(self._thumbs) >= 2 * self._count:
            self._stride *= 2
            self._thumbs = [thumb for thumb in self._thumbs if thumb.index % self._stride == 0]

    def render(self) -> Image:
        """The sheet, uint8 RGB.

        Raises:
            SinkError: no frame has come.
        """
        if not self._thumbs:
            raise SinkError("a contact sheet needs at least one frame")
        chosen = [
            self._thumbs[round(i)] for i in np.linspace(0, len(self._thumbs) - 1, min(self._count, len(self._thumbs)))
        ]
        cell = max(thumb.picture.shape[0] for thumb in chosen) + _CAPTION + _GAP
        columns = min(_COLUMNS, len(chosen))
        rows = math.ceil(len(chosen) / columns)
        width = columns * (_THUMB_WIDTH + _GAP) + _GAP
        sheet = np.full((rows * cell + _GAP, width, 3), 245, np.uint8)
        for place, thumb in enumerate(chosen):
            x = _GAP + (place % columns) * (_THUMB_WIDTH + _GAP)
            y = _GAP + (place // columns) * cell
            height, thumb_width = thumb.picture.shape[:2]
            sheet[y : y + height, x : x + thumb_width] = thumb.picture
            cv2.putText(
                sheet,
                thumb.caption,
                (x + 2, y + height + 16),
                cv2.FONT_HERSHEY_SIMPLEX,
                0.42,
                (60, 60, 60),
                1,
                cv2.LINE_AA,
            )
        return sheet

    def write(self, path: Path, *, overwrite: bool) -> None:
        """Write the sheet as PNG.

        Raises:
            SinkError: it cannot be written.
        """
        _, data = cv2.imencode(".png", cv2.cvtColor(self.render(), cv2.COLOR_RGB2BGR))
        target = Target(path, overwrite=overwrite)
        try:
            target.temporary.write_bytes(data.tobytes())
        except OSError as error:
            target.discard()
            raise SinkError(f"cannot write {path}: {error.strerror or error}") from error
        target.commit()


def _shrink(item: Anonymized) -> Image:
    """A thumbnail in square pixels that fits the column."""
    height, width = item.image.shape[:2]
    shown_height = height / float(item.frame.pixel_aspect)
    scale = min(_THUMB_WIDTH / width, 1.5 * _THUMB_WIDTH / shown_height)
    size = (max(1, round(width * scale)), max(1, round(shown_height * scale)))
    return np.asarray(cv2.resize(item.image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _caption(item: Anonymized) -> str:
    if item.withheld is not None:
        return f"{item.frame.time:.2f} s  withheld"
    return f"{item.frame.time:.2f} s  regions: {len(item.regions)}"
