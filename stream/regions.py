"""Regions: what is covered in one frame, one array a field."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from stream.outline import Outline

Boxes = npt.NDArray[np.float32]

#: The track id of a region that belongs to no track.
NO_TRACK = -1


class Kind(IntEnum):
    """What a region shows."""

    PERSON = 0
    FACE = 1
    PLATE = 2

    @property
    def label(self) -> str:
        """The word used in files and on the command line."""
        return self.name.lower()

    @classmethod
    def of(cls, label: str) -> Kind:
        """The kind of that label.

        Raises:
            ValueError: no such kind; the message lists the known ones.
        """
        for kind in cls:
            if kind.label == label.lower():
                return kind
        raise ValueError(f"unknown kind {label!r}: choose from {', '.join(k.label for k in cls)}")


class Origin(IntEnum):
    """Why a region is there."""

    DETECTED = 0
    HELD = 1
    """Its track missed detections; covered at its predicted place."""
    LOOKED_AHEAD = 2
    """Its track was detected only later; carried back."""
    MANUAL = 3
    """Added by hand (`--regions`)."""

    @property
    def label(self) -> str:
        """The word used in reports."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Regions:
    """The regions of one frame, as parallel arrays.

    Attributes:
        boxes: float32 (N, 4), `xyxy` in pixels of the frame, x1 and y1 exclusive; may reach outside it.
        kinds: uint8 (N,), values of `Kind`.
        scores: float32 (N,), 0 to 1.
        track_ids: int64 (N,), `NO_TRACK` where there is no track.
        origins: uint8 (N,), values of `Origin`.
        outlines: object (N,), an `Outline` or None each; None where no region has one. A region without an outline is
            its box.
    """

    boxes: Boxes
    kinds: npt.NDArray[np.uint8]
    scores: npt.NDArray[np.float32]
    track_ids: npt.NDArray[np.int64]
    origins: npt.NDArray[np.uint8]
    outlines: npt.NDArray[np.object_] | None = None

    def __post_init__(self) -> None:
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 4:
            raise ValueError(f"Regions.boxes must be (N, 4), got {self.boxes.shape}")
        count = len(self.boxes)
        for name, dtype in _FIELDS.items():
            array = getattr(self, name)
            if array.dtype != dtype:
                raise ValueError(f"Regions.{name} must be {np.dtype(dtype)}, got {array.dtype}")
            if len(array) != count or (name != "boxes" and array.ndim != 1):
                raise ValueError(f"Regions.{name} has shape {array.shape}, boxes has {self.boxes.shape}")
        if self.outlines is not None and (self.outlines.dtype != np.object_ or self.outlines.shape != (count,)):
            raise ValueError(f"Regions.outlines must be object ({count},), got {self.outlines.shape}")
        if not np.isfinite(self.boxes).all():
            raise ValueError("Regions.boxes must be finite")
        if not np.isfinite(self.scores).all():
            raise ValueError("Regions.scores must be finite")
        if (self.boxes[:, 2:] < self.boxes[:, :2]).any():
            raise ValueError("Regions.boxes must have x1 >= x0 and y1 >= y0")

    @classmethod
    def empty(cls) -> Regions:
        """No region at all."""
        return cls.of(np.zeros((0, 4), np.float32), Kind.FACE)

    @classmethod
    def of(
        cls,
        boxes: npt.ArrayLike,
        kind: Kind,
        *,
        scores: npt.ArrayLike | None = None,
        track_ids: npt.ArrayLike | None = None,
        origin: Origin = Origin.DETECTED,
        outlines: Sequence[Outline | None] | None = None,
    ) -> Regions:
        """Regions of one kind and origin.

        Args:
            boxes: (N, 4) `xyxy` in pixels.
            kind: of all of them.
            scores: (N,), 1 where not given.
            track_ids: (N,), `NO_TRACK` where not given.
            origin: of all of them.
            outlines: (N,), none where not given.

        Raises:
            ValueError: shapes do not agree, or a box is not finite or turned inside out.
        """
        array = np.asarray(boxes, np.float32).reshape(-1, 4)
        count = len(array)
        return cls(
            boxes=array,
            kinds=np.full(count, kind, np.uint8),
            scores=np.ones(count, np.float32) if scores is None else np.asarray(scores, np.float32),
            track_ids=(np.full(count, NO_TRACK, np.int64) if track_ids is None else np.asarray(track_ids, np.int64)),
            origins=np.full(count, origin, np.uint8),
            outlines=None if outlines is None else _objects(outlines),
        )

    @classmethod
    def concatenate(cls, parts: Iterable[Regions]) -> Regions:
        """All regions of all parts, in order."""
        present: Sequence[Regions] = [part for part in parts if len(part)]
        if not present:
            return cls.empty()
        if len(present) == 1:
            return present[0]
        outlines = None
        if any(part.outlines is not None for part in present):
            outlines = np.concatenate([_objects([part.outline(i) for i in range(len(part))]) for part in present])
        fields = {name: np.concatenate([getattr(part, name) for part in present]) for name in _FIELDS}
        return cls(**fields, outlines=outlines)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: npt.ArrayLike | slice) -> Regions:
        """The regions at an index array, a boolean mask or a slice (never a single number)."""
        chosen = index if isinstance(index, slice) else np.asarray(index)
        outlines = None if self.outlines is None else self.outlines[chosen]
        fields = {name: getattr(self, name)[chosen] for name in _FIELDS}
        return Regions(**fields, outlines=outlines)

    def outline(self, index: int) -> Outline | None:
        """What is known of one region beyond its box."""
        found: Outline | None = None if self.outlines is None else self.outlines[index]
        return found

    def count(self, origin: Origin) -> int:
        """How many regions have that origin."""
        return int((self.origins == origin).sum())


def _objects(outlines: Sequence[Outline | None]) -> npt.NDArray[np.object_]:
    array = np.empty(len(outlines), np.object_)
    array[:] = outlines
    return array


_FIELDS = {
    "boxes": np.float32,
    "kinds": np.uint8,
    "scores": np.float32,
    "track_ids": np.int64,
    "origins": np.uint8,
}
