"""Thumbnails of the worst cases, blurred unless they are to be shown: a report must not spread what was left."""

from __future__ import annotations

import base64
from typing import Final

import cv2
import numpy as np

from stream.frame import Image
from stream.verify.record import Case

#: Longer side of thumbnails, in pixels.
_SIDE: Final = 300
#: What is left of a blurred picture's longer side: no face can be told from so few.
_BLURRED: Final = 8
_QUALITY: Final = 82
_RAW: Final = (239, 68, 68)
_BOX: Final = (255, 255, 255)


def blurred(image: Image) -> Image:
    """A picture of the same size in which nobody can be recognised: eight colours along its longer side."""
    height, width = image.shape[:2]
    scale = _BLURRED / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def thumbnails(case: Case, *, show: bool) -> list[tuple[str, str]]:
    """What is shown of a case, as captions and data URIs.

    Args:
        case: one of the worst.
        show: whether as they are: original and output; else the output alone, blurred.
    """
    if not show:
        return [("output, blurred", _uri(_marked(blurred(case.after), case)))]
    return [("original", _uri(_enlarged(case.before))), ("output", _uri(_marked(case.after, case)))]


def _marked(image: Image, case: Case) -> Image:
    """With the region's box and the border of what looks raw."""
    scale = _scale(image)
    out = _enlarged(image)
    raw = cv2.resize(case.raw.astype(np.uint8), (out.shape[1], out.shape[0]), interpolation=cv2.INTER_NEAREST)
    edges, _ = cv2.findContours(raw, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    x0, y0, x1, y1 = (round(value * scale) for value in case.box)
    cv2.rectangle(out, (x0, y0), (x1 - 1, y1 - 1), _BOX, 1, cv2.LINE_AA)
    tinted = out.copy()
    cv2.drawContours(tinted, edges, -1, _RAW, cv2.FILLED)
    out = np.asarray(cv2.addWeighted(out, 0.65, tinted, 0.35, 0), np.uint8)
    cv2.drawContours(out, edges, -1, _RAW, 2, cv2.LINE_AA)
    return out


def _scale(image: Image) -> float:
    return _SIDE / max(int(image.shape[0]), int(image.shape[1]))


def _enlarged(image: Image) -> Image:
    scale = _scale(image)
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.ascontiguousarray(cv2.resize(image, size, interpolation=method), np.uint8)


def _uri(image: Image) -> str:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
