"""The starter set on real clips: how much of the people whom FastestDet is sure of leaves the anonymizer changed?

FastestDet's confident boxes are the reference, and no silhouettes: what a box shows of its person is unknown, so that
the ellipse in its middle (0.6 of its width, 0.8 of its height) stands for the person. That is a proxy: legs apart and
arms lie outside, and the background between them inside. A pixel counts as changed if any channel differs from what
was decoded. Frames are compared in memory, as an encoder would change every pixel.

A reference person is raw in a frame if less than half of that ellipse has changed. Boxes of consecutive frames that
share 0.3 (IoU) are one person; up to five frames in which the reference itself does not see the person are counted as
raw, if the person is raw before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.common import before_after
from stream import geometry
from stream.anonymizer import Anonymizer
from stream.detectors.base import Detector
from stream.frame import Frame, Image
from stream.regions import Kind
from stream.sources.video import VideoSource

Row = dict[str, Any]
Boxes = npt.NDArray[np.float32]

#: Of the reference boxes: least score, and height in pixels that they are over.
CONFIDENT: Final = 0.5
TALL: Final = 60.0
#: Of a box's width and height: the ellipse that stands for the person.
PROXY: Final = (0.6, 0.8)
#: Share of the reference's pixels of a frame that should have changed.
COVERED: Final = 0.9
#: Below this share a person is raw.
RAW: Final = 0.5
_SAME_PERSON: Final = 0.3
_GAP: Final = 5


def reference_boxes(detector: Detector, frames: Iterable[Frame]) -> list[Boxes]:
    """Whom the reference is sure of, (N, 4) `xyxy` inside the frame, in each frame."""
    found = []
    for frame in frames:
        if frame.damaged is not None:
            found.append(np.zeros((0, 4), np.float32))
            continue
        regions = detector.detect(frame)
        boxes = np.clip(regions.boxes, 0, np.array([frame.width, frame.height] * 2, np.float32))
        sure = (regions.kinds == Kind.PERSON) & (regions.scores >= CONFIDENT) & (boxes[:, 3] - boxes[:, 1] > TALL)
        found.append(np.asarray(boxes[sure], np.float32))
    return found


def proxy(box: npt.NDArray[np.float32], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """The pixels, (H, W), that stand for a box's person."""
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * np.array(PROXY)
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.asarray(((x + 0.5 - middle[0]) / half[0]) ** 2 + ((y + 0.5 - middle[1]) / half[1]) ** 2 <= 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Raw:
    """Where somebody was raw.

    Attributes:
        box: (4,).
        seen: number of the frame.
        begun: number of the frame in which that began.
    """

    box: npt.NDArray[np.float32]
    seen: int
    begun: int

    def shares(self, boxes: Boxes) -> npt.NDArray[np.float32]:
        """What boxes have in common with it, (N,)."""
        return np.asarray(geometry.iou(self.box[None], boxes)[0], np.float32)

    def ended(self, boxes: Boxes, raw: npt.NDArray[np.bool_]) -> bool:
        """Whether the one of these people who is most likely the same is covered."""
        if not len(boxes):
            return False
        shares = self.shares(boxes)
        best = int(shares.argmax())
        return bool(shares[best] >= _SAME_PERSON and not raw[best])


@dataclass(slots=True)
class Coverage:
    """What left, of all frames of a clip.

    Attributes:
        frames: that came out.
        withheld: of these, how many were replaced by flat ones.
        changed: frames in which any pixel differs, withheld ones apart.
        shares: of the reference's pixels that changed, for each frame that has any.
        people: reference persons in all frames, and
        raw: of these, how many were raw.
        longest_raw: frames in a row in which one person was raw.
    """

    frames: int = 0
    withheld: int = 0
    changed: int = 0
    shares: list[float] = field(default_factory=list)
    people: int = 0
    raw: int = 0
    longest_raw: int = 0
    _lately: list[_Raw] = field(default_factory=list)

    def add(self, before: Image, after: Image, boxes: Boxes, *, withheld: bool = False) -> None:
        """Takes in one frame.

        Args:
            before: uint8 RGB (H, W, 3), as decoded.
            after: as it left.
            boxes: of the reference.
            withheld: whether a flat frame left.
        """
        number = self.frames
        self.frames += 1
        self.withheld += withheld
        differs = np.ones(before.shape[:2], np.bool_) if withheld else (before != after).any(axis=2)
        self.changed += bool(differs.any()) and not withheld
        people = [proxy(box, differs.shape) for box in boxes]
        shares = [float(differs[person].mean()) if person.any() else 1.0 for person in people]
        if people:
            everybody = np.logical_or.reduce(people)
            self.shares.append(float(differs[everybody].mean()) if everybody.any() else 1.0)
        self.people += len(people)
        raw = np.array([share < RAW for share in shares], np.bool_)
        self.raw += int(raw.sum())
        self._follow(number, boxes, raw)

    def _follow(self, number: int, boxes: Boxes, raw: npt.NDArray[np.bool_]) -> None:
        """For each raw person, the frame in which they began to be raw; who is covered begins anew."""
        self._lately = [one for one in self._lately if number - one.seen <= _GAP + 1 and not one.ended(boxes, raw)]
        now = []
        for box in boxes[raw]:
            begun = min((one.begun for one in self._lately if one.shares(box[None])[0] >= _SAME_PERSON), default=number)
            now.append(_Raw(box, number, begun))
            self.longest_raw = max(self.longest_raw, number - begun + 1)
        self._lately += now

    def summary(self) -> Row:
        """The figures of the clip; None for what there was nothing to measure on."""
        covered = [share >= COVERED for share in self.shares]
        return {
            "frames": self.frames,
            "withheld": self.withheld,
            "frames_with_reference": len(self.shares),
            "frames_covered": round(float(np.mean(covered)), 4) if covered else None,
            "pixels_changed": round(float(np.mean(self.shares)), 4) if self.shares else None,
            "people": self.people,
            "people_raw": self.raw,
            "longest_raw": self.longest_raw,
            "frames_changed": self.changed,
        }


def measure(clip: Callable[[], Iterable[Frame]], reference: Sequence[Boxes], anonymizer: Anonymizer) -> Coverage:
    """Sends a clip through an anonymizer, and compares what leaves with what was decoded.

    Args:
        clip: the frames, from the beginning.
        reference: boxes of each frame.
        anonymizer: is closed in the end.

    Raises:
        RuntimeError: frames were lost, or came in another order.
    """
    made = Coverage()
    for boxes, (before, after) in zip(reference, before_after(clip(), len(reference), anonymizer), strict=True):
        made.add(before.image, after.image, boxes, withheld=after.withheld is not None)
    return made


def measure_file(path: Path, detector: Detector | None, anonymizer: Anonymizer, *, frames: int | None = None) -> Row:
    """One clip.

    Args:
        path: the file.
        detector: the reference; None for a clip that shows nobody.
        anonymizer: is closed in the end.
        frames: at most so many.
    """

    def clip() -> Iterator[Frame]:
        return islice(iter(VideoSource(path)), frames)

    if detector is None:
        reference = [np.zeros((0, 4), np.float32) for _ in clip()]
    else:
        reference = reference_boxes(detector, clip())
    made = measure(clip, reference, anonymizer)
    row = {"clip": path.name, "empty": detector is None, **made.summary()}
    if detector is None:
        # Nobody is there: whatever was covered was a false alarm.
        row["false_alarms"] = round(made.changed / max(1, made.frames), 4)
    return row


def lines(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """The cells of the table."""
    for row in rows:
        covered = "-" if row["frames_covered"] is None else f"{row['frames_covered']:.1%}"
        pixels = "-" if row["pixels_changed"] is None else f"{row['pixels_changed']:.1%}"
        alarms = f"{row['false_alarms']:.1%}" if row["empty"] else "-"
        raw = "-" if row["empty"] else f"{row['people_raw']} of {row['people']}"
        longest = "-" if row["empty"] else str(row["longest_raw"])
        yield row["clip"], str(row["frames"]), covered, pixels, raw, longest, alarms


HEAD: Final = ("clip", "frames", "frames covered", "pixels changed", "people raw", "longest raw", "false alarms")
