"""What every detector is, and the check that every detector's answer must pass."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from engines.errors import DetectionError
from stream.frame import Frame
from stream.regions import Regions

#: A region may reach outside the frame, but nothing real is larger than this many frames.
_LARGEST = 4.0


class Detector(Protocol):
    """Finds regions in single frames; keeps no identity over time (that is the tracker's)."""

    def detect(self, frame: Frame) -> Regions:
        """All regions of this frame, in its pixels. May be called from several threads at once.

        Raises:
            DetectionError: the answer cannot be trusted, so the frame counts as not looked at.
        """
        ...

    def reset(self) -> None:
        """Forget whatever is remembered of earlier frames: the next one belongs to another stream."""
        ...

    def prepare(self, width: int, height: int, parallel: int) -> None:
        """Get ready for frames of this size: what engines do at their first run has no deadline here.

        Args:
            width: of the frames, in pixels.
            height: of the frames, in pixels.
            parallel: how many calls of `detect` will be under way at a time.

        Raises:
            StandinError: the engine cannot run on such frames.
        """
        ...

    def close(self) -> None:
        """Release what the detector holds."""
        ...


def check_detections(boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], width: int, height: int) -> None:
    """Refuse numbers that no working detector gives, since an empty frame may hide behind them.

    Args:
        boxes: (N, 4) `xyxy` in pixels of the frame.
        scores: (N,).
        width: of the frame, in pixels.
        height: of the frame, in pixels.

    Raises:
        DetectionError: a number is not finite, a box is inside out, absurdly large or outside the frame, or a score is
            not in 0..1.
    """
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise DetectionError("the detector returned numbers that are not finite")
    sides = boxes[:, 2:] - boxes[:, :2]
    if (sides <= 0).any():
        raise DetectionError("the detector returned a box without area")
    if (sides > _LARGEST * max(width, height, 32)).any():
        raise DetectionError(f"the detector returned a box over {_LARGEST:g} times the frame's size")
    if ((boxes[:, 2:] <= 0) | (boxes[:, :2] >= np.array([width, height], np.float32))).any():
        raise DetectionError("the detector returned a box outside the frame")
    if ((scores < 0) | (scores > 1)).any():
        raise DetectionError("the detector returned a score outside 0 to 1")
