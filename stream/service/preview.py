"""A small picture of what a stream shows, for those who watch it from afar."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from stream.anonymizer import Anonymized

#: Longer side in pixels.
LONGEST: Final = 320
_QUALITY: Final = 70


def preview(item: Anonymized, longest: int = LONGEST) -> bytes:
    """A JPEG of an anonymized frame; a raw one does not fit.

    Args:
        item: as it was written.
        longest: of its sides, in pixels; smaller pictures stay as small as they are.
    """
    image = item.image
    scale = min(1.0, longest / max(image.shape[:2]))
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    _, content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return content.tobytes()
