"""Several detectors that look at the same frames: what any of them finds counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engines.assignment import best_pairs
from stream import geometry
from stream.detectors.base import Detector
from stream.detectors.poses import posed_rows, with_poses
from stream.frame import Frame
from stream.regions import Regions
from stream.union import with_partners

#: Finds of two detectors that overlap at least so much are one region.
SAME_IOU = 0.5


class Ensemble:
    """Runs detectors one after the other and unites what they find; is a `Detector` itself.

    Args:
        detectors: at least one; a failure of any of them is a failure of all, since it may have seen what others miss.
        iou: from this overlap on, finds of the same kind by two detectors are one region.

    Raises:
        ValueError: there is no detector.
    """

    def __init__(self, detectors: Sequence[Detector], *, iou: float = SAME_IOU) -> None:
        if not detectors:
            raise ValueError("an ensemble needs at least one detector")
        self._detectors = tuple(detectors)
        self._iou = iou

    def detect(self, frame: Frame) -> Regions:
        """All regions that any of the detectors finds.

        Raises:
            DetectionError: the answer of one of them cannot be trusted.
        """
        return unite([detector.detect(frame) for detector in self._detectors], iou=self._iou)

    def reset(self) -> None:
        """Forget earlier frames."""
        for detector in self._detectors:
            detector.reset()

    def prepare(self, width: int, height: int, parallel: int) -> None:
        """Get every detector ready for frames of this size.

        Raises:
            StandinError: an engine cannot run on such frames.
        """
        for detector in self._detectors:
            detector.prepare(width, height, parallel)

    def close(self) -> None:
        """Release what the detectors hold."""
        for detector in self._detectors:
            detector.close()


def unite(parts: Sequence[Regions], *, iou: float = SAME_IOU) -> Regions:
    """The union of what several detectors found in one frame.

    Finds of two detectors are one region if they are of the same kind and overlap enough; each find has one partner at
    most, so that two people whom one detector tells apart stay two. The region's box holds both boxes, its mask both
    masks, and its score is the higher one: nothing that was found gets smaller. What has no partner stays as it is.

    Persons with a dense pose come last, and find theirs by mask (`stream.detectors.poses`). What one detector found
    stays as it is: it told its persons apart.

    Args:
        parts: one for each detector.
        iou: intersection over union from which two boxes are the same.
    """
    if len(parts) == 1:
        return parts[0]
    posed = [posed_rows(part) for part in parts]
    united = _united([part[~rows] for part, rows in zip(parts, posed, strict=True)], iou)
    for part, rows in zip(parts, posed, strict=True):
        if rows.any():
            united = with_poses(united, part[rows], iou)
    return united


def _united(parts: Sequence[Regions], iou: float) -> Regions:
    """The union of parts without poses."""
    united = Regions.empty()
    for part in parts:
        if not len(united) or not len(part):
            united = Regions.concatenate([united, part])
            continue
        mine, theirs = _partners(united, part, iou)
        united = with_partners(united, part, list(zip(mine.tolist(), theirs.tolist(), strict=True)))
    return united


def _partners(one: Regions, other: Regions, iou: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows that are the same region: the assignment with the largest sum of overlaps."""
    values = geometry.iou(one.boxes, other.boxes)
    values[one.kinds[:, None] != other.kinds[None]] = 0
    return best_pairs(values, iou)
